"""The official FOCUS validator, offline, on files with token rows and on a period that carries a restatement."""

import json
import subprocess

import pyarrow.parquet as pq
import pytest
from tests.integration.test_focus_official import RUNNER, SHARED, VALIDATE, environment
from tests.unit.focus.archives import at, publisher, store_ledger
from tests.unit.focus.ledgers import free, holder, ledger
from tests.unit.focus.test_publish import DAY, NEXT, halves
from tests.unit.focus.test_tokens import call, prices, write_calls

from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.restate import Restater
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.token_export import export_tokens
from gpuwaste.focus.verify import verify

VIRTUAL = {"CAU-PricingCurrency-C-003-M"}
"""FOCUS lets a PricingCurrency be virtual; the validator holds every one to ISO 4217."""
MODEL_BUG = {"CAU-PricingCurrencyContractedUnitPrice-C-012-C"}
"""Its condition is turned round: it asks for the price on rows without a SkuPriceId, where C-011 forbids it."""
USD = [
    call(input=1_234_567, cached=9_999, output=321),
    call(team="", input=5),
    call(team="Bildverständnis", output=77),
]
CREDITS = [*USD, call(provider="prepaid", model="m", input=1_000, output=2_000)]
ALLOWED = {"GPUs and tokens": set(), "prepaid credits": VIRTUAL, "a closed day": set(), "adjustments": MODEL_BUG}


def with_tokens(folder, calls):
    folder.mkdir()
    gpus = split_ledger(ledger(holder("ads", 0.5), free(0.5)), ExportOptions(grouping="team")).rows
    pq.write_table(gpus, folder / "gpus.parquet")
    usage = write_calls(folder / "calls.jsonl", *calls)
    out = folder / "both.parquet"
    export_tokens([usage], prices(), folder / "gpus.parquet", out, grain="hour", version="1.3")
    return out


def published(folder):
    """A closed day that was restated, and the day that carries the difference."""
    store_ledger(folder / "ledger", *halves(0), *halves(24))
    publisher(folder / "ledger", folder / "out").publish([DAY, NEXT], now=at(hours=97))
    store_ledger(folder / "ledger", *halves(0, a=0.25), version="late")
    made = publisher(folder / "ledger", folder / "out")
    Restater(publisher=made).restate(DAY, reason="late", now=at(hours=98))
    made.publish([NEXT], now=at(hours=98))
    return [folder / f"out/cost-and-usage/period={day.name}/cost-and-usage.parquet" for day in (DAY, NEXT)]


@pytest.mark.skipif(not VALIDATE.is_file(), reason=f"THE OFFICIAL FOCUS VALIDATOR IS NOT TESTED: {VALIDATE} is missing")
def test_no_official_rule_fails_but_those_that_are_wrong(tmp_path):
    closed, carrying = published(tmp_path)
    files = {
        "GPUs and tokens": with_tokens(tmp_path / "usd", USD),
        "prepaid credits": with_tokens(tmp_path / "credits", CREDITS),
        "a closed day": closed,
        "adjustments": carrying,
    }
    for path in files.values():
        assert list(verify(path)) == []
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps({name: (str(path), "CostAndUsage") for name, path in files.items()}))
    done = subprocess.run(
        [environment(), RUNNER, SHARED, asked], capture_output=True, text=True, check=True, timeout=600
    )
    answers = json.loads(done.stdout.splitlines()[-1])
    assert {name: set(failed) for name, (failed, _) in answers.items()} == ALLOWED
    assert all(passed > 400 for _, passed in answers.values())
