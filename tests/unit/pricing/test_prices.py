"""Price lists and the prices of nodes."""

from decimal import Decimal

import pytest
from tests.helpers import facts as fact

from gpuwaste.model.errors import InputError
from gpuwaste.pricing.facts import price_facts
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
        ("- 1", "must be a mapping"),
        ("a: [", "not YAML"),
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
