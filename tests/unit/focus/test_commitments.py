import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow.parquet as pq
import yaml
from click.testing import CliRunner

from gpuwaste.api.reservation import GPUReservation
from gpuwaste.cli.focus import focus
from gpuwaste.focus.commitments import commitment_rows


def reservation(name="h100", *, price=None, end="2027-01-01T00:00:00Z", **spec):
    term = {"startTime": "2026-01-01T00:00:00Z"} | ({"endTime": end} if end else {})
    price = price or {"total": "350400.50", "currency": "USD"}
    own = {"count": 8, "gpuModel": "H100-80GB", "term": term, "price": price} | spec
    return {"apiVersion": "gpuwaste.dev/v1alpha1", "kind": "GPUReservation", "metadata": {"name": name}, "spec": own}


def rows_of(*objects):
    table, findings = commitment_rows(GPUReservation.parse(item) for item in objects)
    return table.to_pylist(), [str(finding) for finding in findings]


def test_a_reservation_commits_to_the_gpu_hours_of_its_term():
    ((row,), findings) = rows_of(reservation(commitmentID="cr-1"))
    assert row == {
        "BillingCurrency": "USD",
        "ContractCommitmentCategory": "Usage",
        "ContractCommitmentCost": Decimal("350400.5"),
        "ContractCommitmentDescription": "8 x H100-80GB, committed",
        "ContractCommitmentId": "cr-1",
        "ContractCommitmentPeriodEnd": datetime(2027, 1, 1, tzinfo=UTC),
        "ContractCommitmentPeriodStart": datetime(2026, 1, 1, tzinfo=UTC),
        "ContractCommitmentQuantity": Decimal(8 * 8760),
        "ContractCommitmentType": "GPU Reservation (Committed)",
        "ContractCommitmentUnit": "GPU-Hours",
        "ContractId": "h100",
        "ContractPeriodEnd": datetime(2027, 1, 1, tzinfo=UTC),
        "ContractPeriodStart": datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert findings == []


def test_a_price_an_hour_is_the_cost_of_the_term():
    ((row,), _) = rows_of(reservation(price={"perGPUHour": "1.25", "currency": "EUR"}, end="2026-01-01T12:00:00Z"))
    assert (row["ContractCommitmentQuantity"], row["ContractCommitmentCost"]) == (Decimal(96), Decimal(120))


def test_a_reservation_without_an_end_is_named_and_left_out():
    rows, findings = rows_of(reservation(end=None, price={"perGPUHour": "1", "currency": "USD"}))
    assert rows == []
    assert findings[0].startswith("GPUReservation h100: has no end")


def test_the_command_writes_the_dataset_and_its_metadata(tmp_path):
    objects = {"apiVersion": "v1", "kind": "List", "items": [reservation("b"), reservation("a")]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(objects))
    out = tmp_path / "c.parquet"
    result = CliRunner().invoke(focus, ["commitments", "--reservations", str(tmp_path / "r.yaml"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert pq.read_table(out)["ContractCommitmentId"].to_pylist() == ["a", "b"]
    metadata = json.loads((tmp_path / "c.metadata.json").read_text())
    assert metadata["DatasetInstance"][0]["FocusDatasetId"] == "ContractCommitment"
    assert metadata["Recency"][0]["DatasetInstanceComplete"]


def test_a_file_of_something_else_is_one_clear_line(tmp_path):
    (tmp_path / "r.yaml").write_text("- 1")
    arguments = ["commitments", "--reservations", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "c.parquet")]
    result = CliRunner().invoke(focus, arguments)
    assert "r.yaml: holds something that is no object" in str(result.exception)
    assert not (tmp_path / "c.parquet").exists()
