"""The official FOCUS validator, offline, on what this project writes."""

import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.unit.focus.bills import bill, correction, other, purchase, traffic, usage
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.ledgers import free, holder, ledger, unprovisioned
from tests.unit.focus.test_commitments import reservation

from gpuwaste.api.reservation import GPUReservation
from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.bill_files import read_bill
from gpuwaste.focus.commitments import commitment_rows
from gpuwaste.focus.methods import METHODS
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.verify import verify

VALIDATE = Path(__file__).parents[2].parent / "shared" / "focus" / "validate.sh"

pytestmark = pytest.mark.skipif(
    not VALIDATE.is_file(), reason=f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing"
)

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


MODEL_BUGS = {
    # Its condition names no column, so that it asks every row for a ResourceType, also those without a resource.
    "CAU-ResourceType-C-005-C",
    # Its condition is turned round: it asks for the price on rows without a SkuPriceId, where C-011 forbids it.
    "CAU-PricingCurrencyContractedUnitPrice-C-012-C",
}
"""Rules of the requirements model that refuse correct rows without a resource or SKU, such as taxes."""


def official(path, dataset="CostAndUsage", *, but=frozenset()):
    """Run the official validator; a failed rule fails the test with its name, unless it is among `but`."""
    answer = subprocess.run(["bash", VALIDATE, path, dataset], capture_output=True, text=True, check=False, timeout=600)
    assert "Total: " in answer.stdout, answer.stdout + answer.stderr
    failed = [line for line in answer.stdout.splitlines() if "FAIL" in line and "failed child rules" not in line]
    rules = {line.split("FAIL")[0].strip(" :❌") for line in failed}
    assert rules <= but, failed
    if not but:
        assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("rows", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_no_official_rule_fails(tmp_path, rows):
    path = tmp_path / "f.parquet"
    options = ExportOptions(grain="day", grouping="team")
    pq.write_table(split_ledger(ledger(*rows), options).rows, path)
    official(path)
    assert list(verify(path)) == []


@pytest.mark.parametrize("method", METHODS)
def test_no_official_rule_fails_by_any_method(tmp_path, method):
    path = tmp_path / "f.parquet"
    day = random_ledger(np.random.default_rng(7), nodes=2, gpus=2, hours=3, holders=3, namespaces=4)
    pq.write_table(split_ledger(day, ExportOptions(method=METHODS[method])).rows, path)
    official(path)
    assert list(verify(path)) == []


NODE = {"provider_id": "aws:///use1-az1/i-0"}
BILLS = {
    "usage, purchase, tax, credit and corrections": (
        [purchase(), usage(), traffic(), usage(7), other("Tax", "8"), other("Credit", "-3"), correction()],
        (),
    ),
    "spot": ([usage(PricingCategory="Dynamic", price="31.27")], ()),
    "a commitment, used and unused": (
        [
            covered("Used", EffectiveCost=Decimal("60.5"), PricingCurrencyEffectiveCost=Decimal("60.5")),
            covered("Unused", node=9, ConsumedQuantity=None, ConsumedUnit=None),
        ],
        (),
    ),
    "a capacity reservation": ([usage(CapacityReservationId="cr-1", CapacityReservationStatus="Used")], ()),
    "version 1.2": ([usage(), other("Tax", "8")], IN_1_3),
    "version 1.0": ([usage(), other("Tax", "8")], (*IN_1_3, *IN_1_2, *IN_1_1)),
}


@pytest.mark.parametrize(("rows", "without"), BILLS.values(), ids=BILLS.keys())
def test_no_official_rule_fails_on_a_bill_that_was_split(tmp_path, rows, without):
    pq.write_table(bill(*rows, without=without), tmp_path / "bill.parquet")
    day = ledger(holder("a", 0.5, **NODE), free(0.5, **NODE))
    split = split_bill(read_bill(tmp_path / "bill.parquet"), collect_hours([day], ExportOptions()), ExportOptions())
    assert split.charges
    path = tmp_path / "f.parquet"
    pq.write_table(split.rows, path)
    has_others = any(row["ChargeCategory"] != "Usage" for row in rows)
    # A meter of the SKU came with version 1.1, and nothing in an older bill says what it was: SHOULD, and left null.
    no_meter = {"CAU-SkuMeter-C-005-C"} if "SkuMeter" in without else set()
    official(path, but=(MODEL_BUGS if has_others else set()) | no_meter)
    found = list(verify(path, origin=tmp_path / "bill.parquet"))
    assert {violation.rule for violation in found} <= no_meter


def test_no_official_rule_fails_on_commitments(tmp_path):
    rows, _ = commitment_rows([GPUReservation.parse(reservation())])
    pq.write_table(rows, tmp_path / "c.parquet")
    official(tmp_path / "c.parquet", "ContractCommitment")
