"""The official FOCUS validator, offline, on what this project writes."""

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.unit.focus.ledgers import free, holder, ledger, unprovisioned

from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger

VALIDATE = Path(__file__).parents[2].parent / "shared" / "focus" / "validate.sh"

pytestmark = pytest.mark.skipif(
    not VALIDATE.is_file(), reason=f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing"
)

SCENARIOS = {
    "on-premises": [
        holder("a", 0.5, duty=0.4, effective=0.2),
        free(0.5, lent=0.25),
        free(1, gpu="GPU-1", kind="stranded"),
    ],
    "shared slices": [
        *(holder(f"ns-{i}", 0.1, slice_id=f"GPU-0::{i}") for i in range(7)),
        free(0.3),
        holder("mig", 3 / 7, gpu="GPU-1", price="1.234567890123"),
        free(4 / 7, gpu="GPU-1", price="1.234567890123"),
    ],
    "bought and absent": [holder("a", 1), unprovisioned(1)],
    "names beyond ASCII": [holder("a", 1, team="Bildverständnis", pool="größe")],
}


@pytest.mark.parametrize("grain", ["hour", "day"])
@pytest.mark.parametrize("rows", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_no_official_rule_fails(tmp_path, rows, grain):
    path = tmp_path / "f.parquet"
    pq.write_table(split_ledger(ledger(*rows), ExportOptions(grain=grain, grouping="team")).rows, path)
    answer = subprocess.run(["bash", VALIDATE, path], capture_output=True, text=True, check=False, timeout=600)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Fail: 0 " in answer.stdout
