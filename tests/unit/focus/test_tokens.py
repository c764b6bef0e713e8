"""Tokens as FOCUS rows: exact, in one file with the GPUs, charged once, and nothing personal."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.bills import bill, usage
from tests.unit.focus.ledgers import START, free, holder, ledger

from gpuwaste.cli.main import cli
from gpuwaste.focus.columns import CUSTOM_COLUMNS, SUMMABLE
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.token_bill import BilledTokens
from gpuwaste.focus.token_export import export_tokens
from gpuwaste.focus.token_prices import TokenPrices, load_token_prices
from gpuwaste.focus.token_rows import count_tokens
from gpuwaste.focus.token_table import TOKEN_SCHEMA, read_tokens
from gpuwaste.focus.verify import verify
from gpuwaste.model.errors import InputError
from gpuwaste.model.money import exact

PRICES = {
    "billingCurrency": "USD",
    "cluster": "c1",
    "teams": {"team-7f": "ads"},
    "providers": {
        "openai": {
            "name": "OpenAI",
            "currency": "USD",
            "date": "2026-11-01",
            "models": {
                "gpt": {
                    "input": 2.5,
                    "cached": "1.25",
                    "output": 10,
                    "skus": {"input": ["gpt-in"], "output": ["gpt-out"]},
                }
            },
        },
        "prepaid": {
            "name": "Credit Models",
            "prepaid": {"unit": "Credits", "price": "0.01"},
            "models": {"m": {"input": 40, "output": 200}},
        },
        "own": {"inCluster": True},
    },
}


def call(team="ads", provider="openai", model="gpt", time="2026-11-01T00:10:00Z", **counts):
    tokens = {f"{kind}_tokens": counts.get(kind, 0) for kind in ("input", "cached", "cache_write", "output")}
    return {"time": time, "team": team, "provider": provider, "model": model, "endpoint": ""} | tokens


def write_calls(path, *calls):
    path.write_text("".join(json.dumps(one) + "\n" for one in calls))
    return path


def prices(**changed):
    return TokenPrices.model_validate(PRICES | changed)


def exported(tmp_path, *calls, beside=None, grain="hour", **changed):
    out = tmp_path / "out.parquet"
    summary = export_tokens(
        [write_calls(tmp_path / "calls.jsonl", *calls)], prices(**changed), beside, out, grain=grain, version="1.3"
    )
    return summary, pq.read_table(out).to_pylist()


def test_one_row_a_model_kind_team_and_hour(tmp_path):
    summary, rows = exported(
        tmp_path,
        call(input=1_000, cached=500, output=250),
        call(input=1_001, time="2026-11-01T00:59:59Z"),
        call(team="search", input=7),
        call(input=1, time="2026-11-01T01:00:00Z"),
    )
    assert summary.findings == ()
    assert [(row["x_Team"], row["SkuId"], row["ChargePeriodStart"].hour, row["ConsumedQuantity"]) for row in rows] == [
        ("ads", "OpenAI/gpt/cached", 0, 500),
        ("ads", "OpenAI/gpt/input", 0, 2001),
        ("ads", "OpenAI/gpt/output", 0, 250),
        ("search", "OpenAI/gpt/input", 0, 7),
        ("ads", "OpenAI/gpt/input", 1, 1),
    ]
    row = rows[1]
    assert (row["PricingQuantity"], row["PricingUnit"]) == (Decimal("0.002001"), "1000000 Tokens")
    assert (row["ConsumedUnit"], row["PricingCurrency"], row["ListUnitPrice"]) == ("Tokens", "USD", Decimal("2.5"))
    assert {row["EffectiveCost"], row["BilledCost"], row["ListCost"]} == {Decimal("0.0050025")}
    assert row["AllocatedResourceId"] == "k8s://c1/teams/ads"
    assert list(verify(tmp_path / "out.parquet")) == []


def test_api_and_gpu_spend_of_a_team_stand_in_one_file(tmp_path):
    gpus = split_ledger(ledger(holder("ads", 0.5), free(0.5)), ExportOptions(grouping="team")).rows
    pq.write_table(gpus, tmp_path / "gpus.parquet")
    _, rows = exported(tmp_path, call(input=1_000_000), beside=tmp_path / "gpus.parquet")
    assert len(rows) == len(gpus) + 1
    found = [
        (row["ServiceName"], row["EffectiveCost"]) for row in rows if row["AllocatedResourceId"] == "k8s://c1/teams/ads"
    ]
    assert found == [("GPU Nodes", Decimal(1)), ("OpenAI API", Decimal("2.5"))]
    assert list(verify(tmp_path / "out.parquet")) == []


def test_prepaid_credits_are_a_virtual_currency_and_are_billed_once(tmp_path):
    _, (row,) = exported(tmp_path, call(provider="prepaid", model="m", input=500_000))
    assert (row["PricingCurrency"], row["BillingCurrency"]) == ("Credits", "USD")
    assert (row["PricingCurrencyListUnitPrice"], row["ListUnitPrice"]) == (40, Decimal("0.4"))
    assert (row["PricingCurrencyEffectiveCost"], row["EffectiveCost"], row["BilledCost"]) == (20, Decimal("0.2"), 0)
    assert list(verify(tmp_path / "out.parquet")) == []


def test_each_provider_bills_in_the_currency_of_its_prices(tmp_path):
    euro = {"name": "Euro Models", "currency": "EUR", "models": {"e": {"input": 3}}}
    _, rows = exported(
        tmp_path,
        call(input=1),
        call(provider="euro", model="e", input=1),
        providers=PRICES["providers"] | {"euro": euro},
    )
    assert {(row["ServiceProviderName"], row["BillingCurrency"], row["PricingCurrency"]) for row in rows} == {
        ("OpenAI", "USD", "USD"),
        ("Euro Models", "EUR", "EUR"),
    }


@pytest.mark.parametrize(
    "route",
    [
        {"provider": "own", "model": "llama"},
        {"provider": "hosted_vllm", "model": "llama", "endpoint": "http://vllm.ml.svc:8000/v1"},
        {"provider": "openai", "model": "llama", "endpoint": "http://vllm.ml.svc.cluster.local/v1"},
    ],
)
def test_a_route_into_the_cluster_makes_no_row(tmp_path, route):
    summary, rows = exported(tmp_path, call(input=9) | route, call(input=1))
    assert [row["ConsumedQuantity"] for row in rows] == [1]
    (finding,) = summary.findings
    assert "is in the cluster, and its cost is the GPU's; 9 tokens make no row" in str(finding)


def test_what_has_no_price_is_named_and_never_free(tmp_path):
    summary, rows = exported(
        tmp_path, call(cache_write=5), call(model="new", input=6), call(provider="other", input=7), call(input=1)
    )
    assert [row["ConsumedQuantity"] for row in rows] == [1]
    assert [str(finding) for finding in summary.findings] == [
        "openai gpt: has no price of cache_write tokens; 5 tokens make no row",
        "openai new: has no price of input tokens; 6 tokens make no row",
        "provider other: is not in the price file; 7 tokens make no row",
    ]


def api_rows(*rows):
    """A provider's rows of tokens, as an export of its bill passes them through."""
    names = ("HostProviderName", "InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceProviderName")
    sold = {
        **dict.fromkeys(names, "OpenAI"),
        "PricingUnit": "1000000 Tokens",
        "ConsumedUnit": "Tokens",
        "ServiceName": "OpenAI API",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ResourceId": "gpt",
        "ResourceName": "gpt",
    }
    table = bill(*(row | sold for row in rows), metric=pa.decimal128(38, 28))
    for name in CUSTOM_COLUMNS:
        table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table


def api_bill(tmp_path, *rows):
    path = tmp_path / "bill.parquet"
    pq.write_table(api_rows(*rows), path)
    return path


def sold(sku, tokens, *, price="2.5", hours=24):
    named = {"SkuId": sku, "SkuPriceId": sku, "ConsumedQuantity": Decimal(tokens)}
    return usage(hours=hours, price=price, quantity=str(Decimal(tokens) / 1_000_000), **named)


def test_a_provider_in_an_imported_bill_only_has_its_rows_divided(tmp_path):
    path = api_bill(tmp_path, sold("gpt-in", 4_000_000), sold("gpt-out", 300_000, price="10"))
    summary, rows = exported(
        tmp_path,
        call(input=1_000_000),
        call(team="search", input=2_000_000, time="2026-11-01T23:00:00Z"),
        call(output=300_000),
        beside=path,
    )
    assert summary.rows == 0
    assert [(row["SkuId"], row["x_Team"], row["x_RemainderReason"], row["BilledCost"]) for row in rows] == [
        ("gpt-in", "ads", None, Decimal("2.5")),
        ("gpt-in", "search", None, Decimal(5)),
        ("gpt-in", None, "Unattributed", Decimal("2.5")),
        ("gpt-out", "ads", None, Decimal(3)),
    ]
    assert {row["AllocatedMethodId"] for row in rows} == {"gpuwaste-tokens-v1"}
    assert list(verify(tmp_path / "out.parquet", origin=path)) == []


def test_what_the_bill_does_not_charge_is_named(tmp_path):
    path = api_bill(tmp_path, sold("gpt-in", 10), sold("gpt-mystery", 10))
    summary, _ = exported(
        tmp_path,
        call(input=10),
        call(input=5, time="2026-11-03T00:00:00Z"),
        call(cached=3),
        beside=path,
    )
    said = " | ".join(map(str, summary.findings))
    assert "1 rows of OpenAI have SkuId gpt-mystery, which no model names; kept as they came" in said
    assert "3 tokens of gpt divide no row of the bill" in said
    assert "5 tokens of gpt-in lie in time that no row of the bill charges" in said


@settings(max_examples=60)
@given(
    billed=st.integers(1, 10**9),
    price=st.decimals("0.000001", "99", places=6),
    shares=st.lists(st.integers(1, 10**9), min_size=1, max_size=6),
)
def test_the_parts_of_a_billed_row_add_up_to_the_last_digit(billed, price, shares):
    origin = api_rows(sold("gpt-in", billed, price=str(price)))
    calls = [call(team=f"team {number}", input=count) for number, count in enumerate(shares)]
    table = pa.Table.from_pylist([one | {"time": START, "cache_hit": False} for one in calls], schema=TOKEN_SCHEMA)
    known = PRICES["providers"]["openai"] | {"billed": True}
    every = prices(providers={"openai": known})
    counted = count_tokens(table, every, grain="hour")
    rows = BilledTokens.of(counted.billed, every).divide(origin)
    assert len(rows) == len(shares) + (sum(shares) < billed)
    for name in SUMMABLE:
        (whole,) = origin[name].to_pylist()
        if whole is not None:
            with exact():
                assert sum(rows[name].to_pylist()) == whole
    details = [
        json.loads(text, parse_float=Decimal, parse_int=Decimal) for text in rows["AllocatedMethodDetails"].to_pylist()
    ]
    assert sum(one["Elements"][0]["AllocatedRatio"] for one in details) == 1


LITELLM = {
    "request_id": "r-1",
    "startTime": "2026-11-01 00:10:00.123",
    "team_id": "team-7f",
    "custom_llm_provider": "openai",
    "model": "gpt",
    "api_base": "https://api.example.com/v1",
    "prompt_tokens": 1_000,
    "completion_tokens": 20,
    "cache_read_input_tokens": 400,
    "user": "SECRET person",
    "end_user": "SECRET person",
    "api_key": "SECRET key",
    "messages": [{"role": "user", "content": "SECRET\nprompt"}],
    "response": {"text": "SECRET answer"},
    "metadata": {"user_api_key_user_email": "SECRET@example.com"},
    "spend": 0.1,
}


def write_as(path, row):
    if path.suffix == ".jsonl":
        path.write_text(2 * (json.dumps(row) + "\n"))
        return
    flat = {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row.items()}
    table = pa.Table.from_pylist([flat, flat])
    pq.write_table(table, path) if path.suffix == ".parquet" else pa_csv.write_csv(table, path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("time", ["startTime", "date"])
def test_a_gateways_own_log_is_read_and_nothing_personal_is_kept(tmp_path, suffix, time):
    row = {name: value for name, value in LITELLM.items() if name != "startTime"}
    row[time] = "2026-11-01" if time == "date" else LITELLM["startTime"]
    path = tmp_path / f"log{suffix}"
    write_as(path, row)
    calls = read_tokens([path], grain="day")
    found = calls.select(["team", "input_tokens", "cached_tokens", "output_tokens"]).to_pylist()
    assert [tuple(one.values()) for one in found] == [("team-7f", 600, 400, 20)] * 2
    assert "SECRET" not in str(calls.to_pydict())
    summary = export_tokens([path], prices(), None, tmp_path / "out.csv", grain="day", version="1.3")
    assert summary.findings == ()
    text = (tmp_path / "out.csv").read_text()
    assert "SECRET" not in text
    assert ',"ads",' in text


BAD_CALLS = {
    "a negative count": ({"input_tokens": -1}, "column input_tokens, row 2: is below zero"),
    "half a token": ({"input_tokens": 1.5}, "row 2"),
    "no time": ({"time": "yesterday"}, "column time, row 2: is no time like 2026-11-01T13:05:00Z"),
    "an empty time": ({"time": None}, "column time, row 2: is empty"),
    "no model": ({"model": ""}, "column model, row 2: is empty"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_wrong_call_is_refused_with_its_row(tmp_path, suffix, wrong, message):
    path = tmp_path / f"calls{suffix}"
    rows = [call(input=1), call(input=1) | wrong]
    if suffix == ".jsonl":
        write_calls(path, *rows)
    else:
        texts = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
        pa_csv.write_csv(pa.Table.from_pylist(texts), path)
    with pytest.raises(InputError) as caught:
        read_tokens([path], grain="day")
    assert str(path) in str(caught.value)
    if not (suffix == ".jsonl" and wrong == {"input_tokens": 1.5}):  # Arrow's reader says what it cannot read
        assert message in str(caught.value)


def test_what_the_gateways_own_cache_answered_costs_nothing(tmp_path):
    path = tmp_path / "log.jsonl"
    hit = LITELLM | {"cache_hit": "True"}
    path.write_text("".join(json.dumps(one) + "\n" for one in (hit, LITELLM | {"cache_hit": "None"})))
    summary = export_tokens([path], prices(), None, tmp_path / "out.parquet", grain="hour", version="1.3")
    assert summary.rows == 3
    said = "calls that the gateway's own cache answered: cost nothing; 1020 tokens make no row"
    assert list(map(str, summary.findings)) == [said]


def test_sums_over_days_are_not_charged_by_the_hour(tmp_path):
    path = tmp_path / "daily.jsonl"
    row = {name: value for name, value in LITELLM.items() if name != "startTime"}
    path.write_text(json.dumps(row | {"date": "2026-11-01"}) + "\n")
    with pytest.raises(InputError, match="holds sums over days; use --grain day"):
        export_tokens([path], prices(), None, tmp_path / "out.parquet", grain="hour", version="1.3")


def test_more_cached_than_read_is_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(LITELLM | {"prompt_tokens": 3}) + "\n")
    with pytest.raises(InputError, match=r"column prompt_tokens, row 1: is below zero"):
        read_tokens([path], grain="day")


BAD_PRICES = {
    "no name": ({"providers": {"x": {"currency": "USD"}}}, "name is missing: who sells these tokens?"),
    "no currency": ({"providers": {"x": {"name": "X"}}}, "give either currency, or prepaid"),
    "credits paid in what": (
        {"billingCurrency": None, "providers": {"x": {"name": "X", "prepaid": {"unit": "C", "price": 1}}}},
        "billingCurrency is missing: what were the credits of x paid in?",
    ),
    "a float's digits": (
        {"providers": {"x": {"name": "X", "currency": "USD", "models": {"m": {"input": "1.2345678901234"}}}}},
        "must not have more than 12 decimals",
    ),
    "credits too fine": (
        {
            "providers": {
                "x": {
                    "name": "X",
                    "prepaid": {"unit": "C", "price": "0.0000001"},
                    "models": {"m": {"input": "0.000001"}},
                }
            }
        },
        "price times credit has more than 12 decimals",
    ),
    "a typing error": ({"provider": {}}, "provider"),
    "an unknown kind": (
        {"providers": {"x": {"name": "X", "currency": "USD", "models": {"m": {"skus": {"in": ["a"]}}}}}},
        "'in' is no kind of tokens",
    ),
}


@pytest.mark.parametrize(("changed", "message"), BAD_PRICES.values(), ids=BAD_PRICES.keys())
def test_a_wrong_price_file_is_refused_in_one_line(tmp_path, changed, message):
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(PRICES | changed))
    with pytest.raises(InputError) as caught:
        load_token_prices(tmp_path / "prices.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_example_of_the_documentation_is_valid(tmp_path):
    page = (Path(__file__).parents[3] / "docs/tokens.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "prices.yaml").write_text(example)
    known = load_token_prices(tmp_path / "prices.yaml")
    assert known.providers["openai"].date == "2026-11-01"
    assert known.runs_in_cluster("hosted_vllm", "")


def test_the_command(tmp_path):
    write_calls(tmp_path / "calls.jsonl", call(input=3), call(model="new", input=4))
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    args = ["focus", "tokens", "--usage", str(tmp_path / "calls.jsonl"), "--prices", str(tmp_path / "prices.yaml")]
    result = CliRunner().invoke(cli, [*args, "--out", str(tmp_path / "out.parquet")])
    assert result.exit_code == 0, result.output
    assert "1 rows of tokens, 0 rows of a bill divided, 0 kept" in result.stdout
    assert result.stderr == "openai new: has no price of input tokens; 4 tokens make no row\n"
    refused = CliRunner().invoke(
        cli, [*args, "--with", str(tmp_path / "x.parquet"), "--out", str(tmp_path / "y.parquet")]
    )
    assert (refused.exit_code, (tmp_path / "y.parquet").exists()) == (1, False)
