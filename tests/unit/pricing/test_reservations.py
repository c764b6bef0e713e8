"""Purchased capacity, spot and hardware of one's own as sources of prices."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import BEFORE, HOUR

from gpuwaste.model.errors import InputError
from gpuwaste.model.facts import Fact, NodeData, ReservationData
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE, to_unix_ns
from gpuwaste.pricing.capacity import capacity_of
from gpuwaste.pricing.facts import PriceSources, price_facts
from gpuwaste.pricing.pricelist import parse_price_list
from gpuwaste.pricing.reservations import cover_nodes, cover_time

HEAD = "currency: USD\ndate: 2026-11-01\n"


def reservation(count=8, *, name="bought", price="2", uid=None, start=BEFORE, **more):
    data = ReservationData(
        name=name, product=more.pop("product", "H100-80GB"), count=count, price=price, currency="USD", **more
    )
    return Fact(kind="reservation", uid=uid or f"uid-{name}", valid_from=start, valid_to=None, data=data)


def node(name="node-a", *, gpus=8, **more):
    return fact.node(name, gpus=gpus, **more)


def prices_of(*facts, own=""):
    sources = PriceSources(own=parse_price_list(HEAD + own, where="prices.yaml") if own else None)
    return {f.uid: f.data for f in price_facts(facts, sources=sources, hour=HOUR)}


def covered(*facts):
    return [(c.reservation.data.name, c.node.node.name, c.gpus) for c in cover_nodes(facts)]


def test_a_reservation_comes_before_the_lists():
    found = prices_of(node(), reservation())["uid-node-a/H100-80GB"]
    assert (found.source, found.date, found.effective_unit_cost, found.billed_unit_cost) == (
        "Reservation",
        "2026-11-01",
        "2",
        "2",
    )
    assert found.list_unit_cost == "6.88", "what it would cost without"


def test_what_was_paid_in_advance_is_on_no_invoice_of_an_hour():
    found = prices_of(node(), reservation(prepaid=True))["uid-node-a/H100-80GB"]
    assert (found.billed_unit_cost, found.effective_unit_cost) == ("0", "2")


def test_a_node_that_is_half_reserved_has_the_mean_price():
    found = prices_of(node(), reservation(4), own='gpus: {H100-80GB: "4"}')["uid-node-a/H100-80GB"]
    assert (found.source, found.effective_unit_cost) == ("Reservation", "3")


def test_the_mean_with_an_unknown_price_is_unknown():
    one = reservation(4, product="A30-24GB")
    found = prices_of(node(product="NVIDIA-A30"), one)["uid-node-a/A30-24GB"]
    assert (found.effective_unit_cost, found.source) == (None, "Reservation")


def test_two_reservations_on_one_node_each_count_for_what_they_cover():
    two = [reservation(4, name="one", price="2"), reservation(2, name="two", price="1")]
    found = prices_of(node(), *two, own='gpus: {H100-80GB: "5"}')["uid-node-a/H100-80GB"]
    assert found.effective_unit_cost == "2.5", "(4 x 2 + 2 x 1 + 2 x 5) / 8"


def test_a_term_that_begins_or_ends_inside_an_hour_counts_for_its_time():
    quarter = HOUR + timedelta(minutes=15)
    own = 'gpus: {H100-80GB: "6"}'
    found = prices_of(node(), reservation(start=quarter), own=own)["uid-node-a/H100-80GB"]
    assert (found.source, found.effective_unit_cost) == ("Reservation", "3"), "(15 x 6 + 45 x 2) / 60"
    ended = replace(reservation(), valid_to=quarter)
    assert prices_of(node(), ended, own=own)["uid-node-a/H100-80GB"].effective_unit_cost == "5"
    came = node(start=HOUR + timedelta(minutes=30))
    assert prices_of(came, reservation(), own=own)["uid-node-a/H100-80GB"].effective_unit_cost == "2"
    over = replace(reservation(), valid_to=HOUR)
    assert prices_of(node(), over, own=own)["uid-node-a/H100-80GB"].source == "PriceList"


def test_a_renewal_inside_an_hour_covers_what_the_first_term_covered():
    half = HOUR + timedelta(minutes=30)
    old, new = replace(reservation(name="old"), valid_to=half), reservation(name="new", price="1", start=half)
    assert prices_of(node(), old, new)["uid-node-a/H100-80GB"].effective_unit_cost == "1.5"
    start = to_unix_ns(HOUR)
    covered = cover_time([node(), old, new], start=start, end=start + NS_PER_HOUR)
    assert [(one.reservation.data.name, one.gpu_ns) for one in covered] == [
        ("old", 4 * NS_PER_HOUR),
        ("new", 4 * NS_PER_HOUR),
    ]


def test_a_node_that_goes_makes_room_for_its_successor():
    half = HOUR + timedelta(minutes=30)
    went, came = node("a", end=half), node("b", start=half)
    found = prices_of(went, came, reservation(), own='gpus: {H100-80GB: "6"}')
    assert [found[f"uid-{name}/H100-80GB"].effective_unit_cost for name in "ab"] == ["2", "2"]


@given(
    terms=st.lists(st.tuples(st.integers(1, 20), st.integers(-70, 70), st.integers(1, 140)), max_size=4),
    nodes=st.lists(st.tuples(st.integers(1, 8), st.integers(-70, 59), st.integers(1, 140)), max_size=5),
)
def test_at_every_minute_as_much_is_covered_as_is_bought_and_there(terms, nodes):
    def at(minute):
        return HOUR + timedelta(minutes=minute)

    bought = [
        replace(reservation(count, name=f"r{i}", start=at(first)), valid_to=at(first + length))
        for i, (count, first, length) in enumerate(terms)
    ]
    there = [
        node(f"n{i}", gpus=count, start=at(first), end=at(first + length))
        for i, (count, first, length) in enumerate(nodes)
    ]
    want = 0
    for minute in range(60):
        sums = [sum(n for n, first, length in kind if first <= minute < first + length) for kind in (terms, nodes)]
        want += min(sums) * NS_PER_MINUTE
    start = to_unix_ns(HOUR)
    covered = cover_time([*bought, *there], start=start, end=start + NS_PER_HOUR)
    assert sum(one.gpu_ns for one in covered) == want


def test_each_reservation_covers_its_count_once():
    nodes = [node("a", start=HOUR), node("b"), node("c", labels={"karpenter.sh/capacity-type": "reserved"})]
    assert covered(*nodes, reservation(20)) == [("bought", "c", 8), ("bought", "b", 8), ("bought", "a", 4)]
    two = [reservation(8, name="one", start=BEFORE - timedelta(days=1)), reservation(8, name="two")]
    assert covered(*nodes, *two) == [("one", "c", 8), ("two", "b", 8)]


def test_devices_of_other_vendors_are_bought_by_their_resource():
    labels = {"amd.com/gpu.product-name": "AMD_Instinct_MI300X"}
    data = NodeData(name="amd", labels=labels, gpus={"amd.com/gpu": 8}, cpu_milli=1000, memory_bytes=1 << 30)
    there = Fact(kind="node", uid="uid-amd", valid_from=BEFORE, valid_to=None, data=data)
    assert covered(there, node(), reservation(10, product="amd.com/gpu")) == [("bought", "amd", 8)]
    found = prices_of(there, reservation(8, product="amd.com/gpu", price="1.5"))
    assert found["uid-amd/AMD-Instinct-MI300X"].effective_unit_cost == "1.5"


def test_models_that_no_table_has_are_bought_by_the_name_of_their_label():
    there = [node("a", product="NVIDIA-A40"), node("b", product="NVIDIA-A40-SHARED")]
    assert covered(*there, reservation(16, product="NVIDIA-A40")) == [("bought", "a", 8), ("bought", "b", 8)]


def test_pool_model_and_spot_decide_what_is_covered():
    labels = {"karpenter.sh/nodepool": "train"}
    nodes = [node("a", labels=labels), node("b"), node("c", labels={"cloud.google.com/gke-spot": "true"})]
    assert covered(*nodes, reservation(24, node_pool="train")) == [("bought", "a", 8)]
    assert covered(*nodes, reservation(24)) == [("bought", "a", 8), ("bought", "b", 8)]
    assert covered(*nodes, reservation(8, product="A100-80GB")) == []


@pytest.mark.parametrize(
    ("labels", "capacity"),
    [
        ({"karpenter.sh/capacity-type": "spot"}, "Spot"),
        ({"karpenter.sh/capacity-type": "on-demand"}, "OnDemand"),
        ({"karpenter.sh/capacity-type": "reserved"}, "Reserved"),
        ({"eks.amazonaws.com/capacityType": "SPOT"}, "Spot"),
        ({"eks.amazonaws.com/capacityType": "ON_DEMAND"}, "OnDemand"),
        ({"eks.amazonaws.com/capacityType": "CAPACITY_BLOCK"}, "Reserved"),
        ({"cloud.google.com/gke-spot": "true"}, "Spot"),
        ({"cloud.google.com/gke-preemptible": "true"}, "Spot"),
        ({"cloud.google.com/gke-provisioning": "standard"}, "OnDemand"),
        ({"cloud.google.com/reservation-name": "r1"}, "Reserved"),
        ({"kubernetes.azure.com/scalesetpriority": "spot"}, "Spot"),
        ({"kubernetes.azure.com/scalesetpriority": "regular"}, "OnDemand"),
        ({}, "Unknown"),
    ],
)
def test_how_a_node_is_bought(labels, capacity):
    assert capacity_of(labels) == capacity


def test_a_list_price_is_not_what_a_spot_node_costs():
    spot = node(labels={"karpenter.sh/capacity-type": "spot"})
    found = prices_of(spot, own='gpus: {H100-80GB: "4"}')["uid-node-a/H100-80GB"]
    assert (found.list_unit_cost, found.effective_unit_cost, found.source) == ("4", None, "PriceList")
    found = prices_of(spot, own='gpus: {H100-80GB: {list: "4", spot: "1.5"}}')["uid-node-a/H100-80GB"]
    assert (found.list_unit_cost, found.effective_unit_cost, found.billed_unit_cost) == ("4", "1.5", "1.5")
    assert found.source == "SpotPriceList"


def test_hardware_of_ones_own():
    own = (
        "gpus: {H100-80GB: {purchasePrice: 35040, lifeYears: 4, watts: 1000, pue: 1.5, pricePerKWh: 0.2,"
        " upkeepPerYear: 876}}"
    )
    found = prices_of(node(), own=own)["uid-node-a/H100-80GB"]
    assert Decimal(found.effective_unit_cost) == Decimal("1.4"), "1 spread over four years, 0.3 power, 0.1 upkeep"
    assert Decimal(found.billed_unit_cost) == Decimal("0.4")
    assert found.list_unit_cost is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpus: {H100-80GB: {purchasePrice: 1000}}", "lifeYears"),
        ("gpus: {H100-80GB: {purchasePrice: 1000, lifeYears: 0}}", "lifeYears"),
        ("gpus: {H100-80GB: {purchasePrice: 1000, lifeYears: 3, pue: 0.5}}", "pue"),
        ("gpus: {H100-80GB: {list: 3, spotty: 1}}", "spotty"),
    ],
)
def test_wrong_entries_name_the_field(text, says):
    with pytest.raises(InputError, match=rf"prices\.yaml: field .*{says}"):
        parse_price_list(HEAD + text, where="prices.yaml")
