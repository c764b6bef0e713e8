"""The official FOCUS validator, offline, on a file in which GPUs, tokens and prepaid credits stand together."""

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.unit.focus.ledgers import free, holder, ledger
from tests.unit.focus.test_tokens import call, prices, write_calls

from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.token_export import export_tokens
from gpuwaste.focus.verify import verify

VALIDATE = Path(__file__).parents[3].parent / "shared" / "focus" / "validate.sh"


VIRTUAL = {"CAU-PricingCurrency-C-003-M"}
"""FOCUS lets a PricingCurrency be virtual; the validator holds every one to ISO 4217."""
USD = [
    call(input=1_234_567, cached=9_999, output=321),
    call(team="", input=5),
    call(team="Bildverständnis", output=77),
]
CREDITS = [*USD, call(provider="prepaid", model="m", input=1_000, output=2_000)]


@pytest.mark.skipif(not VALIDATE.is_file(), reason=f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing")
@pytest.mark.parametrize(("calls", "but"), [(USD, set()), (CREDITS, VIRTUAL)], ids=["USD", "prepaid credits"])
def test_no_official_rule_fails(tmp_path, calls, but):
    gpus = split_ledger(ledger(holder("ads", 0.5), free(0.5)), ExportOptions(grouping="team")).rows
    pq.write_table(gpus, tmp_path / "gpus.parquet")
    usage = write_calls(tmp_path / "calls.jsonl", *calls)
    out = tmp_path / "both.parquet"
    export_tokens([usage], prices(), tmp_path / "gpus.parquet", out, grain="hour", version="1.3")
    assert list(verify(out)) == []
    done = subprocess.run(["bash", VALIDATE, out], capture_output=True, text=True, check=False, timeout=600)
    assert "Total: 764" in done.stdout, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if "FAIL" in line and "failed child rules" not in line]
    assert {line.split("FAIL")[0].strip(" :❌") for line in failed} == but, failed
