"""Price lists and the prices of nodes."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tests.helpers import facts as fact

from gpuwaste.model.errors import InputError
from gpuwaste.pricing.bills import Exchange
from gpuwaste.pricing.facts import PriceSources, price_facts
from gpuwaste.pricing.pricelist import builtin_prices, load_price_list, parse_price_list

HEAD = "currency: EUR\ndate: 2026-11-01\n"


def prices_of(*facts, own=None):
    return [(f.data.list_unit_cost, f.data.currency, f.data.source) for f in price_facts(facts, own=own)]


def test_own_prices_come_before_the_built_in_list():
    own = parse_price_list(HEAD + 'gpus: {H100-80GB: "2.50"}', where="prices.yaml")
    assert prices_of(fact.node(), fact.gpu("gpu-1"), own=own) == [("2.5", "EUR", "PriceList")]
    assert prices_of(fact.node(), fact.gpu("gpu-1")) == [("6.88", "USD", "BuiltIn")]


def test_an_instance_price_is_divided_among_its_gpus():
    node = fact.node(product="NVIDIA-A100-SXM4-40GB", labels={"node.kubernetes.io/instance-type": "p4d.24xlarge"})
    gpus = [fact.gpu(f"gpu-{i}", product="A100-40GB") for i in range(8)]
    assert prices_of(node, *gpus) == [("2.74470525", "USD", "BuiltIn")]
    assert Decimal("2.74470525") * 8 == builtin_prices().instance_types["p4d.24xlarge"].list


def test_a_node_without_an_agent_is_priced_by_its_label():
    assert prices_of(fact.node(gpus=4)) == [("6.88", "USD", "BuiltIn")]


def test_an_unknown_price_is_no_price():
    assert prices_of(fact.node(product="NVIDIA-A30"), fact.gpu("gpu-1", product="A30-24GB")) == []


def test_the_four_unit_costs():
    text = HEAD + "gpus:\n  H100-80GB: {list: 4, contracted: 3, effective: 2.5}"
    (found,) = price_facts([fact.node(), fact.gpu("g")], own=parse_price_list(text, where="p"))
    data = found.data
    costs = (data.list_unit_cost, data.contracted_unit_cost, data.billed_unit_cost, data.effective_unit_cost)
    assert costs == ("4", "3", "4", "2.5")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "gpus: {H100-80GB: -1}", "prices.yaml: field `gpus.H100-80GB.list`: price must not be negative"),
        (HEAD + "gpus: {H1000: 1}", "prices.yaml: field `gpus`: `H1000` is no GPU product known here; did you mean"),
        (HEAD + "gpus: {H100-80GB: .nan}", "must be finite"),
        (HEAD + "gpus: {H100-80GB: cheap}", "must be a number like 2.50, not 'cheap'"),
        (HEAD + "gpus: {H100-80GB: true}", "must be a number such as 2.50"),
        (HEAD + 'gpus: {H100-80GB: "1.1234567890123"}', "more than 12 decimals"),
        ("date: 2026-11-01", "field `currency`"),
        ("currency: euro\ndate: 2026-11-01", "field `currency`"),
        (HEAD + "gpu: {}", "field `gpu`"),
        (HEAD + "gpus: {A100-80GB: 1, NVIDIA-A100-SXM4-80GB: 2}", "another entry are both of A100-80GB; keep one"),
        (HEAD + "gpus:\n  H100-80GB: 1\n  H100-80GB: 2", "`H100-80GB` stands twice"),
        (HEAD + "gpus: {H100-80GB: {list: 1, spot: -1}}", "field `gpus.H100-80GB.spot`: price must not be negative"),
        (HEAD + "earlier: [{currency: EUR, date: 2026-11-01}]", "field `earlier`: the list of 2026-11-01 is not"),
        (
            HEAD + "earlier: [{currency: EUR, date: 2026-01-01}, {currency: EUR, date: 2026-01-01}]",
            "two lists are of 2026-01-01",
        ),
        (
            HEAD + "earlier: [{currency: EUR, date: 2026-01-01, gpus: {H1: 1}}]",
            "field `earlier.0.gpus`: `H1` is no GPU",
        ),
        ("- 1", "must be a mapping"),
        ("a: [", "prices.yaml, line 1: is no YAML"),
    ],
)
def test_bad_price_lists_are_refused_by_field(text, message):
    with pytest.raises(InputError) as caught:
        parse_price_list(text, where="prices.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        load_price_list(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["NVIDIA-A40", "NVIDIA A40", "nvidia.com/gpu"])
def test_a_model_that_no_table_has_is_priced_by_the_name_it_goes_by(name):
    own = parse_price_list(HEAD + f'gpus: {{"{name}": 0.8}}', where="prices.yaml")
    by_label = fact.node("a", product="NVIDIA-A40-SHARED")
    by_driver = [fact.node("b", product="NVIDIA-A40"), fact.gpu("gpu-b", on="b", product="NVIDIA A40")]
    assert [cost for cost, _, _ in prices_of(by_label, *by_driver, own=own)] == ["0.8", "0.8"]


CHANGED = (
    HEAD + "gpus: {H100-80GB: 2}\n"
    "earlier:\n- {currency: EUR, date: 2026-03-01, gpus: {H100-80GB: 3}}\n"
    "- {currency: EUR, date: 2026-09-15, gpus: {H100-80GB: 4}}\n"
)


@pytest.mark.parametrize(
    ("day", "amount", "dated"),
    [
        ((2026, 11, 30, 23), "2", "2026-11-01"),
        ((2026, 11, 1, 0), "2", "2026-11-01"),
        ((2026, 10, 31, 23), "4", "2026-09-15"),
        ((2026, 9, 14, 23), "3", "2026-03-01"),
        ((2026, 1, 1, 0), "3", "2026-03-01"),
    ],
)
def test_each_hour_has_the_price_of_its_day(day, amount, dated):
    sources = PriceSources(own=parse_price_list(CHANGED, where="prices.yaml"))
    node = fact.node(start=datetime(2025, 1, 1, tzinfo=UTC))
    (found,) = price_facts([node], sources=sources, hour=datetime(*day, tzinfo=UTC))
    assert (found.data.effective_unit_cost, found.data.date) == (amount, dated)


def test_a_zero_price_is_a_price():
    own = parse_price_list(HEAD + "gpus: {H100-80GB: 0, A30-24GB: 0.000000000001}", where="prices.yaml")
    assert prices_of(fact.node(), own=own) == [("0", "EUR", "PriceList")]
    assert prices_of(fact.node(product="NVIDIA-A30"), own=own) == [("0.000000000001", "EUR", "PriceList")]


def test_a_type_has_a_price_on_demand_and_one_on_spot():
    own = parse_price_list(HEAD + "instanceTypes: {big: {list: 16, effective: 12, spot: 4}}", where="prices.yaml")
    label = {"node.kubernetes.io/instance-type": "big"}
    spot = fact.node("spot", gpus=8, labels={**label, "karpenter.sh/capacity-type": "spot"})
    found = {f.uid: f.data for f in price_facts([fact.node("kept", gpus=8, labels=label), spot], own=own)}
    assert found["uid-kept/H100-80GB"].effective_unit_cost == "1.5"
    assert found["uid-spot/H100-80GB"].effective_unit_cost == "0.5"
    assert found["uid-spot/H100-80GB"].list_unit_cost == "2"


@pytest.mark.parametrize(("rates", "want"), [({"USD": Decimal("0.5")}, ("3.44", "EUR")), ({}, ("6.88", "USD"))])
def test_prices_are_turned_into_the_wanted_currency_where_there_is_a_rate(rates, want):
    sources = PriceSources(exchange=Exchange(currency="EUR", rates=rates))
    (found,) = price_facts([fact.node()], sources=sources)
    assert (found.data.list_unit_cost, found.data.currency) == want
