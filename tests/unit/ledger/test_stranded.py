"""Free GPUs that no typical or pending pod could use."""

from dataclasses import replace
from datetime import timedelta
from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.unit.ledger.test_hour import Journal, assert_conserved, build, rows

from gpuwaste.ledger.join import FactIndex
from gpuwaste.ledger.stranded import Stranding
from gpuwaste.model.facts import ContainerRequest, Fact, PodData, ReadyData
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.units import HOUR as ONE_HOUR
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE, to_unix_ns

SPAN = (to_unix_ns(HOUR), to_unix_ns(HOUR) + NS_PER_HOUR)


def pod(name, *, gpus=1, cpu=1000, on="node-a", kind="pod", resource="nvidia.com/gpu", start=fact.BEFORE, end=None):
    container = ContainerRequest(name="main", cpu_milli=cpu, memory_bytes=1 << 30, gpus={resource: gpus})
    data = PodData(namespace="team-a", name=name, node=on if kind == "pod" else "", containers=(container,))
    return Fact(kind=kind, uid=f"uid-{name}", valid_from=start, valid_to=end, data=data)


def node(name="node-a", *, gpus=8, cpu=32_000):
    return fact.node(name, gpus=gpus, cpu_milli=cpu, memory_bytes=256 << 30)


def stranded(*facts):
    times = stranded_times(*facts)
    assert all(found == [SPAN] for found in times.values())
    return set(times)


def stranded_times(*facts):
    return Stranding(FactIndex.build(facts, start=HOUR, end=HOUR + ONE_HOUR)).times(SPAN)


def at(minute):
    return HOUR + timedelta(minutes=minute)


def minutes_of(times):
    """The minutes of the hour that lie in intervals."""
    return {m for first, last in times for m in range(60) if first <= to_unix_ns(at(m)) < last}


def test_a_gpu_beside_pods_that_took_all_cpu():
    assert stranded(node(cpu=4000), pod("a", cpu=3500)) == {"node-a"}
    assert stranded(node(cpu=8000), pod("a", cpu=3500)) == set()


def test_fewer_gpus_than_any_pod_asks_for():
    assert stranded(node(), pod("a", gpus=6)) == {"node-a"}
    assert stranded(node(), pod("a", gpus=6), pod("b", gpus=2, on="node-b"), node("node-b")) == set()


def test_a_pending_pod_is_work_that_could_use_them():
    crowded = (node(), pod("a", gpus=6))
    assert stranded(*crowded, pod("b", gpus=1, kind="pending")) == set()
    assert stranded(*crowded, pod("b", gpus=4, kind="pending")) == {"node-a"}
    assert stranded(*crowded, pod("b", gpus=1, cpu=40_000, kind="pending")) == {"node-a"}


def test_work_for_other_gpus_says_nothing():
    assert stranded(node(), pod("a", gpus=1, resource="amd.com/gpu", on="node-b")) == set()


def test_pods_that_follow_one_another_do_not_add_up():
    """A rollout: the node has room for either of them and one GPU more, and was never full."""
    old, new = pod("old", cpu=3000, end=at(30)), pod("new", cpu=3000, start=at(31))
    assert stranded_times(node(cpu=6000), old, new) == {}
    table = build([Journal()], [node(gpus=2, cpu=6000), old, new])
    assert sum(row["stranded"] for row in rows(table)) == 0


def test_free_gpus_are_stranded_for_as_long_as_they_are():
    large = pod("large", gpus=1, cpu=31_500, start=at(10), end=at(25))
    small = pod("small", gpus=1, cpu=1000, on="node-b")
    facts = [node(gpus=2), node("node-b", gpus=1), large, small]
    assert minutes_of(stranded_times(*facts)["node-a"]) == set(range(10, 25))
    journal = Journal()
    for minute in range(60):
        journal.device(at(minute), "gpu-1").device(at(minute), "gpu-2")
        if 10 <= minute < 25:
            journal.usage(at(minute), "gpu-1", "large", sm=0.5)
    seen = build([journal], [*facts, fact.gpu("gpu-1"), fact.gpu("gpu-2")])
    unseen = build([Journal()], facts)
    for table in (seen, unseen):
        mine = rows(table, node="node-a")
        assert sum(row["stranded"] for row in mine) == 15 * NS_PER_MINUTE
        assert sum(row["unallocated"] for row in mine) == 90 * NS_PER_MINUTE


lives = st.tuples(st.integers(-5, 59), st.integers(1, 70))
shapes = st.tuples(st.integers(1, 3), st.sampled_from([1000, 6000, 12_000]))


@given(
    pods=st.lists(st.tuples(st.sampled_from("ab"), shapes, lives), max_size=6),
    waiting=st.lists(shapes, max_size=2),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_stranded_is_what_a_search_of_every_minute_finds(pods, waiting, sizes):
    """By brute force: in no minute does any pod of the hour, or one that waits, fit onto what the node has left."""
    facts = [node(f"node-{name}", gpus=count, cpu=16_000) for name, count in zip("ab", sizes, strict=True)]
    facts += [
        pod(f"p{i}", gpus=gpus, cpu=cpu, on=f"node-{name}", start=at(first), end=at(first + length))
        for i, (name, (gpus, cpu), (first, length)) in enumerate(pods)
    ]
    facts += [pod(f"w{i}", gpus=gpus, cpu=cpu, kind="pending") for i, (gpus, cpu) in enumerate(waiting)]
    typical = {shape for _, shape, (first, length) in pods if first + length > 0} | set(waiting)
    found = stranded_times(*facts)
    for name, count in zip("ab", sizes, strict=True):
        want = set()
        for minute in range(60):
            there = [s for on, s, (first, length) in pods if on == name and first <= minute < first + length]
            free_gpus, free_cpu = count - sum(g for g, _ in there), 16_000 - sum(c for _, c in there)
            if typical and not any(gpus <= free_gpus and cpu <= free_cpu for gpus, cpu in typical):
                want.add(minute)
        assert minutes_of(found.get(f"node-{name}", [])) == want


def ready(minute, *, is_ready, on="node-a"):
    data = ReadyData(node=on, ready=is_ready)
    return Fact(kind="ready", uid=f"uid-{on}", valid_from=at(minute), valid_to=None, data=data)


@pytest.mark.parametrize("seen", [True, False], ids=["with windows", "without an agent"])
def test_free_gpus_of_a_node_that_is_not_ready_are_unhealthy(seen):
    facts = [node(gpus=2), pod("web"), ready(20, is_ready=False), ready(50, is_ready=True)]
    journal = Journal()
    if seen:
        facts += [fact.gpu("gpu-1"), fact.gpu("gpu-2")]
        for minute in range(60):
            journal.device(at(minute), "gpu-1").usage(at(minute), "gpu-1", "web", sm=1.0).device(at(minute), "gpu-2")
    table = build([journal], facts)
    assert_conserved(table)
    (free,) = rows(table, row_kind="free")
    assert (free["unhealthy"], free["unallocated"]) == (30 * NS_PER_MINUTE, 30 * NS_PER_MINUTE)
    (held,) = rows(table, row_kind="holder")
    assert held["unhealthy"] == 0, "what runs on it may go on"


def test_a_node_is_not_ready_until_it_says_so():
    facts = [node(gpus=1), ready(-300, is_ready=False)]
    (free,) = rows(build([Journal()], facts), row_kind="free")
    assert free["unhealthy"] == NS_PER_HOUR
    (free,) = rows(build([Journal()], [node(gpus=1), ready(-300, is_ready=True)]), row_kind="free")
    assert free["unhealthy"] == 0
    gone = replace(node(gpus=1), valid_to=at(30))
    (free,) = rows(build([Journal()], [gone, ready(15, is_ready=False)]), row_kind="free")
    assert (free["owned"], free["unhealthy"]) == (30 * NS_PER_MINUTE, 15 * NS_PER_MINUTE)


def test_a_pending_pod_holds_nothing():
    table = build([Journal()], [node(gpus=1), pod("wait", kind="pending")])
    assert rows(table, row_kind="holder") == []
    assert sum(row["unallocated"] for row in rows(table)) == 3_600 * 10**9


def legal_multisets():
    """All sets of instances without media engines that fit on an H100 at the starts that are legal."""
    product = PRODUCTS["H100-80GB"]
    profiles = [profile for profile in product.profiles if not profile.media]

    def fits(chosen, taken=frozenset()):
        if not chosen:
            return True
        first, *rest = chosen
        spans = [frozenset(range(start, start + first.memory_units)) for start in first.starts]
        return any(fits(rest, taken | span) for span in spans if taken.isdisjoint(span))

    sizes = range(1, 8)
    return product, [
        chosen for size in sizes for chosen in combinations_with_replacement(profiles, size) if fits(list(chosen))
    ]


def test_the_slice_weights_of_all_77_mig_multisets_add_up_to_at_most_one():
    product, multisets = legal_multisets()
    assert len(multisets) == 77
    weights = [sum(profile.memory_units for profile in chosen) for chosen in multisets]
    assert max(weights) == product.axis_units
    assert all(weight <= product.axis_units for weight in weights)


@pytest.mark.parametrize("name", sorted(name for name, one in PRODUCTS.items() if one.mig_capable))
def test_no_product_weighs_more_than_itself(name):
    product = PRODUCTS[name]
    for profile in product.profiles:
        assert 0 < profile.memory_units <= product.axis_units
        assert all(start + profile.memory_units <= product.axis_units for start in profile.starts)
