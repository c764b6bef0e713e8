"""The official FOCUS validator, offline, on a published period that carries the difference of a restatement."""

import subprocess
from pathlib import Path

import pytest
from tests.unit.focus.archives import at, publisher, store_ledger
from tests.unit.focus.test_publish import DAY, NEXT, halves

from gpuwaste.focus.restate import Restater
from gpuwaste.focus.verify import verify

VALIDATE = Path(__file__).parents[3].parent / "shared" / "focus" / "validate.sh"
MODEL_BUG = {"CAU-PricingCurrencyContractedUnitPrice-C-012-C"}
"""Its condition is turned round: it asks for the price on rows without a SkuPriceId, where C-011 forbids it."""


@pytest.mark.skipif(not VALIDATE.is_file(), reason=f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing")
def test_no_official_rule_fails_on_adjustments(tmp_path):
    store_ledger(tmp_path / "ledger", *halves(0), *halves(24))
    publisher(tmp_path / "ledger", tmp_path / "out").publish([DAY, NEXT], now=at(hours=97))
    store_ledger(tmp_path / "ledger", *halves(0, a=0.25), version="late")
    made = publisher(tmp_path / "ledger", tmp_path / "out")
    Restater(publisher=made).restate(DAY, reason="late", now=at(hours=98))
    made.publish([NEXT], now=at(hours=98))
    path = tmp_path / f"out/cost-and-usage/period={NEXT.name}/cost-and-usage.parquet"
    assert list(verify(path)) == []
    done = subprocess.run(["bash", VALIDATE, path], capture_output=True, text=True, check=False, timeout=600)
    assert "Total: 764" in done.stdout, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if "FAIL" in line and "failed child rules" not in line]
    assert {line.split("FAIL")[0].strip(" :❌") for line in failed} == MODEL_BUG, failed
