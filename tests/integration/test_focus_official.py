"""The official FOCUS validator, offline, on what this project writes: one run over all files, a test for each.

What the validator finds is told by the files' names; `focus_validator_runner` runs it in its own environment, which
`validate.sh` makes. Where `shared/focus` is absent this project's own verifier judges the same files alone.
"""

import json
import os
import subprocess
import warnings
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.unit.focus.bills import bill, correction, other, purchase, traffic, usage
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.ledgers import free, holder, ledger, unprovisioned
from tests.unit.focus.mutants import UNSEEN, exported
from tests.unit.focus.test_commitments import reservation
from tests.unit.focus.test_purchases import HALF_USED
from tests.unit.focus.test_rest import NODE_HOUR

from gpuwaste.api.reservation import GPUReservation
from gpuwaste.focus.export import export, export_bill, export_commitments
from gpuwaste.focus.ledger_days import ledger_days
from gpuwaste.focus.methods import METHODS, parse_method
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.verify import verify
from gpuwaste.ledger.store import hour_folder, open_store

SHARED = Path(__file__).parents[2].parent / "shared" / "focus"
VALIDATE = SHARED / "validate.sh"
RUNNER = Path(__file__).with_name("focus_validator_runner.py")
NOW = datetime(2026, 11, 5, tzinfo=UTC)
MADE = {"now": NOW, "generator_version": "1.0.0"}

IN_1_3 = (
    "AllocatedMethodDetails",
    "AllocatedMethodId",
    "AllocatedResourceId",
    "AllocatedResourceName",
    "AllocatedTags",
    "ContractApplied",
    "HostProviderName",
    "ServiceProviderName",
)
IN_1_2 = (
    "BillingAccountType",
    "InvoiceId",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "SubAccountType",
)
IN_1_1 = (
    "CapacityReservationId",
    "CapacityReservationStatus",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountUnit",
    "ServiceSubcategory",
    "SkuMeter",
    "SkuPriceDetails",
)


def covered(status, **values):
    """An hour that a commitment paid for."""
    commitment = {
        "BilledCost": Decimal(0),
        "CommitmentDiscountCategory": "Usage",
        "CommitmentDiscountId": "ri-1",
        "CommitmentDiscountName": "one year",
        "CommitmentDiscountQuantity": Decimal(1),
        "CommitmentDiscountStatus": status,
        "CommitmentDiscountType": "Reserved Instance",
        "CommitmentDiscountUnit": "Hours",
        "PricingCategory": "Committed",
    }
    return usage(**(commitment | values))


NODE = {"provider_id": "aws:///use1-az1/i-0"}
ON_PREMISES = {"provider": "Platform Team", "account_id": "gpu-platform", "account_name": "GPU Platform"}

# Name -> (rows of the ledger, options of the export).
LEDGERS = {
    "on demand": ([holder("a", 0.5, duty=0.4, effective=0.2), holder("b", 0.25), free(0.25)], {"provider": "AWS"}),
    "spot, with a price that changed": (
        [
            holder("a", 1, hour=hour, price="0.91" if hour < 2 else "1.123456789012", price_source="SpotPriceList")
            for hour in range(4)
        ],
        {"grain": "day"},
    ),
    "on premises": (
        [
            holder("a", 0.5, duty=0.4, effective=0.2),
            free(0.5, lent=0.25),
            free(1, gpu="GPU-1", kind="stranded"),
            free(1, gpu="GPU-2", kind="unhealthy"),
        ],
        ON_PREMISES | {"grouping": "team", "grain": "day"},
    ),
    "MIG and time-slicing": (
        [
            *(holder(f"ns-{i}", 0.1, slice_id=f"GPU-0::{i}") for i in range(7)),
            free(0.3),
            holder("mig", 3 / 7, gpu="GPU-1", parent_id="MIG-1", price="1.234567890123"),
            holder("mig", 1 / 7, gpu="GPU-1", parent_id="MIG-2", slice_id="MIG-2::0", price="1.234567890123"),
            free(3 / 7, gpu="GPU-1", price="1.234567890123"),
        ],
        {"grouping": "workload"},
    ),
    "reserved, used and unused": (
        HALF_USED,
        {
            "grouping": "team",
            "method": parse_method("gpuwaste-held-v1+reservation-owner.unallocated"),
        },
    ),
    "a node whose CPU and memory have a price": (NODE_HOUR, {}),
    "bought and absent": ([holder("a", 1), unprovisioned(1)], {}),
    "names beyond ASCII": ([holder("a", 1, team="Bildverständnis", pool="größe")], {"grouping": "team"}),
}

# Name -> (rows of a 1.3 bill, columns that its version lacks).
BILLS = {
    "a bill with usage, purchase, tax, credit and corrections": (
        [purchase(), usage(), traffic(), usage(7), other("Tax", "8"), other("Credit", "-3"), correction()],
        (),
    ),
    "a bill of spot": ([usage(PricingCategory="Dynamic", price="31.27")], ()),
    "a bill of a commitment, used and unused": (
        [
            covered("Used", EffectiveCost=Decimal("60.5"), PricingCurrencyEffectiveCost=Decimal("60.5")),
            covered("Unused", node=9, ConsumedQuantity=None, ConsumedUnit=None),
        ],
        (),
    ),
    "a bill of a capacity reservation": (
        [usage(CapacityReservationId="cr-1", CapacityReservationStatus="Used")],
        (),
    ),
    "a bill of version 1.2": ([usage(), other("Tax", "8")], IN_1_3),
    "a bill of version 1.1": ([usage(), other("Tax", "8")], (*IN_1_3, *IN_1_2)),
    "a bill of version 1.0": ([usage(), other("Tax", "8")], (*IN_1_3, *IN_1_2, *IN_1_1)),
}

MODEL_BUGS = {
    # Its condition names no column, so that it asks every row for a ResourceType, also those without a resource.
    "CAU-ResourceType-C-005-C",
    # Its condition is turned round: it asks for the price on rows without a SkuPriceId, where C-011 forbids it.
    "CAU-PricingCurrencyContractedUnitPrice-C-012-C",
}
"""Rules of the requirements model that refuse correct rows without a resource or SKU, such as taxes."""

NO_METER = {"CAU-SkuMeter-C-005-C"}
"""A meter of the SKU came with version 1.1, and nothing in an older bill says what it was: SHOULD, and left null."""

COST_AND_USAGE = [*LEDGERS, *METHODS, *BILLS]


def store_of(folder, rows):
    """The rows as a stored ledger."""
    store = open_store(str(folder))
    for hour in pc.unique(rows["hour"]):
        name = f"{hour_folder('ledger', 'c1', hour.as_py())}/part-0.parquet"
        store.write_table(name, rows.filter(pc.equal(rows["hour"], hour)))
    return store


def days_of(folder, rows):
    return ledger_days(store_of(folder, rows), date(2026, 11, 1), date(2026, 11, 2))


def all_mutants():
    """Every mutant that the official validator lets through, each with an hour of its own around it."""
    tables = []
    for number, (change, _) in enumerate(UNSEEN.values()):
        table = change(exported())
        ids = [None if text is None else f"{number}/{text}" for text in table["x_OriginChargeId"].to_pylist()]
        at = table.column_names.index("x_OriginChargeId")
        tables.append(table.set_column(at, "x_OriginChargeId", pa.array(ids)))
    plain = [table.cast(pa.schema([field.with_type(_plain(field.type)) for field in table.schema])) for table in tables]
    return pa.concat_tables(plain, promote_options="default")


def _plain(kind):
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name -> file, for every scenario."""
    folder = tmp_path_factory.mktemp("focus")
    made = {}

    def new(name):
        made[name] = folder / f"{len(made)}.parquet"
        return made[name]

    for name, (rows, options) in LEDGERS.items():
        export(days_of(folder / name, ledger(*rows)), ExportOptions(**options), new(name), **MADE)
    day = random_ledger(np.random.default_rng(7), nodes=2, gpus=2, hours=3, holders=3, namespaces=4)
    for name, method in METHODS.items():
        export(days_of(folder / "random", day), ExportOptions(method=method), new(name), **MADE)
    half = ledger(holder("a", 0.5, **NODE), free(0.5, **NODE))
    for name, (rows, without) in BILLS.items():
        path = new(name)
        bill_path = path.with_suffix(".bill.parquet")
        pq.write_table(bill(*rows, without=without), bill_path)
        summary = export_bill(days_of(folder / "half", half), bill_path, ExportOptions(), path, **MADE)
        assert summary.charges
    export_commitments([GPUReservation.parse(reservation())], new("contract commitments"), **MADE)
    pq.write_table(all_mutants(), new("mutants"))
    return made


def environment():
    """The Python of the validator's environment, which `validate.sh` makes with the first file it is given."""
    place = os.environ.get("FOCUS_VALIDATOR_VENV")
    python = Path(place or Path.home() / ".cache" / "gpuwaste" / "focus-validator") / "bin" / "python"
    if not python.is_file():
        subprocess.run(["bash", VALIDATE, SHARED / "sample_pass_focus13.parquet"], check=True, timeout=600)
    return python


@pytest.fixture(scope="module")
def verdicts(files, tmp_path_factory):
    """Name -> (rules that failed, number that passed), from two validators side by side; None without the validator."""
    if not VALIDATE.is_file():
        warnings.warn(f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing", stacklevel=1)
        return None
    python = environment()
    asked = {
        name: (str(path), "ContractCommitment" if name == "contract commitments" else "CostAndUsage")
        for name, path in files.items()
    }
    running = []
    for number in range(2):
        part = tmp_path_factory.mktemp("asked") / f"{number}.json"
        part.write_text(json.dumps(dict(list(asked.items())[number::2])))
        running.append(subprocess.Popen([python, RUNNER, SHARED, part], stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    answers = {}
    for child in running:
        out, err = child.communicate(timeout=600)
        assert child.returncode == 0, err.decode()
        answers |= json.loads(out.decode().splitlines()[-1])
    return answers


def judged(verdicts, name, *, but=frozenset()):
    """Hold a file against the official validator, where that is there."""
    if verdicts is None:
        return
    failed, passed = verdicts[name]
    assert set(failed) <= but, f"{name}: the official validator refuses {failed}"
    # What the model has to say at all: a validator that checks nothing must not pass for one that finds nothing.
    assert passed >= (70 if name == "contract commitments" else 440)


@pytest.mark.parametrize("name", COST_AND_USAGE)
def test_no_rule_fails(files, verdicts, name):
    rows, without = BILLS.get(name, ([], ()))
    no_meter = NO_METER if "SkuMeter" in without else set()
    origin = files[name].with_suffix(".bill.parquet") if rows else None
    assert {violation.rule for violation in verify(files[name], origin=origin)} <= no_meter
    has_others = any(row["ChargeCategory"] != "Usage" for row in rows)
    judged(verdicts, name, but=(MODEL_BUGS if has_others else set()) | no_meter)


def test_no_rule_fails_on_contract_commitments(verdicts):
    judged(verdicts, "contract commitments")


def test_every_version_of_the_specification_is_written(tmp_path):
    rows, options = LEDGERS["on demand"]
    out = tmp_path / "f.parquet"
    export(days_of(tmp_path / "data", ledger(*rows)), ExportOptions(version="1.4", **options), out, **MADE)
    assert list(verify(out, version="1.4")) == []


def test_the_official_validator_lets_forty_mutants_through(files, verdicts):
    """Each is caught by name in the unit tests; all in one file they break no rule that the official one checks."""
    assert len(UNSEEN) >= 40
    found = {violation.rule for violation in verify(files["mutants"])}
    assert found >= {rule for _, rule in UNSEEN.values()}
    judged(verdicts, "mutants")


@pytest.mark.skipif(not VALIDATE.is_file(), reason=f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing")
def test_the_script_says_the_same(files):
    answer = subprocess.run(
        ["bash", VALIDATE, files["on demand"]], capture_output=True, text=True, check=False, timeout=600
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Fail: 0" in answer.stdout
