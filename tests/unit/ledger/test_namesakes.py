"""Nodes that followed one another under one name in an hour."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.ledger.test_hour import assert_conserved, build, rows

from gpuwaste.model.units import NS_PER_MINUTE
from gpuwaste.pricing.facts import price_facts


def at(minute):
    return HOUR + timedelta(minutes=minute)


def node(uid, *, start=-60, end=None, gpus=1, **more):
    made = fact.node(gpus=gpus, start=at(start), end=None if end is None else at(end), cpu_milli=8000, **more)
    return replace(made, uid=uid, data=replace(made.data, provider_id=f"test:///{uid}", memory_bytes=1 << 34))


def gpu(uuid, uid):
    made = fact.gpu(uuid)
    return replace(made, data=replace(made.data, node_uid=uid))


def price(there, amount):
    made = fact.price(amount)
    data = replace(made.data, node_uid=there.uid)
    return replace(made, uid=f"{there.uid}/H100-80GB", valid_from=there.valid_from, data=data)


def journal(uid, minutes, gpu_uuid, *, named=True):
    made = Journal(journal_id=f"journal-{uid}-{gpu_uuid}", node_uid=uid if named else "")
    for minute in minutes:
        made.device(at(minute), gpu_uuid).usage(at(minute), gpu_uuid, "web", sm=0.5, pod_uid="uid-web")
    return made


def owned(table, uid, resource="gpu"):
    return sum(row["owned"] for row in rows(table, resource=resource, node_uid=uid)) // NS_PER_MINUTE


# The UIDs are in either order: which node is newer must not follow from them.
uids = pytest.mark.parametrize(("old", "new"), [("uid-a", "uid-b"), ("uid-b", "uid-a")])


@uids
@pytest.mark.parametrize("named", [True, False], ids=["by UID", "by time"])
def test_another_machine_under_the_same_name(old, new, named):
    both = [node(old, end=20), node(new, start=30)]
    facts = [*both, gpu("gpu-1", old), gpu("gpu-2", new), price(both[0], "2"), price(both[1], "3"), fact.pod("web")]
    table = build(
        [journal(old, range(20), "gpu-1", named=named), journal(new, range(30, 60), "gpu-2", named=named)], facts
    )
    assert_conserved(table, per_gpu=None)
    assert (owned(table, old), owned(table, new)) == (20, 30)
    prices = {row["node_uid"]: row["effective_unit_cost"] for row in rows(table)}
    assert prices == {old: Decimal(2), new: Decimal(3)}
    assert {row["provider_id"] for row in rows(table)} == {f"test:///{old}", f"test:///{new}"}
    assert {row["node"] for row in table.to_pylist()} == {"node-a"}


@uids
def test_a_machine_that_joins_again_keeps_its_gpus_and_its_pods(old, new):
    facts = [node(old, end=20), node(new, start=30), gpu("gpu-1", old), gpu("gpu-1", new), fact.pod("web")]
    facts[3] = replace(facts[3], valid_from=at(30))
    table = build([journal(old, range(10), "gpu-1"), journal(new, range(40, 60), "gpu-1")], facts)
    assert_conserved(table, per_gpu=None)
    assert (owned(table, old), owned(table, new)) == (20, 30)
    held = {row["node_uid"]: row["held"] // NS_PER_MINUTE for row in rows(table, row_kind="holder")}
    assert held == {old: 20, new: 30}, "also while no window says so"
    cpu = {row["node_uid"]: row["held"] for row in rows(table, resource="cpu", row_kind="holder")}
    assert cpu == {old: 1000 * 20 * 60_000, new: 1000 * 30 * 60_000}


@uids
def test_windows_of_a_store_that_knows_only_the_newest_node(old, new):
    facts = [node(old, end=20), node(new, start=20), replace(gpu("gpu-1", new), valid_from=at(20)), fact.pod("web")]
    table = build([journal(new, range(60), "gpu-1")], facts)
    assert_conserved(table)
    assert (owned(table, old), owned(table, new)) == (20, 40)


@uids
@pytest.mark.parametrize("whose", [0, 1])
def test_a_window_in_which_the_node_changed_belongs_to_the_one_that_it_names(old, new, whose):
    changed = HOUR + timedelta(minutes=20, seconds=30)
    both = [replace(node(old), valid_to=changed), replace(node(new), valid_from=changed)]
    table = build([journal((old, new)[whose], [20], "gpu-1")], both)
    (row,) = rows(table, row_kind="holder")
    assert row["node_uid"] == (old, new)[whose]


@uids
def test_nodes_without_agents_are_both_there(old, new):
    table = build([Journal()], [node(old, end=20), node(new, start=30, gpus=2)])
    assert (owned(table, old), owned(table, new)) == (20, 60)


@uids
def test_each_is_priced_by_the_gpus_that_it_has(old, new):
    label = {"node.kubernetes.io/instance-type": "p5.48xlarge"}
    both = [node(old, end=20, gpus=8, labels=label), node(new, start=30, gpus=8, labels=label)]
    gpus = [gpu(f"gpu-{uid}-{number}", uid) for uid in (old, new) for number in range(8)]
    found = price_facts([*both, *gpus], hour=HOUR)
    assert {one.uid: one.data.effective_unit_cost for one in found if one.data.resource == "gpu"} == {
        f"{uid}/H100-80GB": "6.88" for uid in (old, new)
    }


@given(
    cuts=st.lists(st.integers(1, 59), unique=True, min_size=1, max_size=4).map(sorted),
    order=st.permutations(["uid-a", "uid-b", "uid-c", "uid-d", "uid-e"]),
    seen=st.sets(st.integers(0, 59)),
)
def test_each_minute_belongs_to_the_node_of_its_time(cuts, order, seen):
    edges = [-60, *cuts, None]
    nodes = [node(uid, start=first, end=last) for uid, first, last in zip(order, edges, edges[1:], strict=False)]
    machines = [gpu("gpu-1", one.uid) for one in nodes]
    machines = [replace(one, valid_from=there.valid_from) for one, there in zip(machines, nodes, strict=True)]
    table = build([journal("", sorted(seen), "gpu-1", named=False)], [*nodes, *machines, fact.pod("web")])
    assert_conserved(table)
    spans = zip([0, *cuts], [*cuts, 60], strict=True)
    assert [owned(table, one.uid) for one in nodes] == [last - first for first, last in spans]
