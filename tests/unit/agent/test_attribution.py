"""Attribution of one epoch's sums: exact conservation, and the rules of the accounting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste_agent.accumulate import BUCKETS, Epoch, OwnerSums, bucket, share_of
from gpuwaste_agent.attribution import attribute
from gpuwaste_agent.energy import divide_energy, idle_energy_mj
from gpuwaste_agent.holdings import ContainerKey
from gpuwaste_agent.telemetry import Origin

LENGTH = 60_000_000_000
DUTY, SM = 0, 1


def key(name: str) -> ContainerKey:
    return ContainerKey("ns", name, name, "c")


def shared_epoch(sm: int | None, duty: int | None, owners: dict[str | None, int]) -> Epoch:
    """An epoch of a parent held by everyone named; None is the host's processes."""
    names = {name: None if name is None else key(name) for name in owners}
    holders = tuple(value for value in names.values() if value is not None)
    epoch = Epoch(holders, tuple(names.values()))
    epoch.ns = epoch.listed_ns = epoch.process_ns = LENGTH
    epoch.origin = Origin.DEVICE if sm is None else Origin.GPM
    for index, value in ((DUTY, duty), (SM, sm)):
        if value is not None:
            epoch.values[index], epoch.known_ns[index] = value, LENGTH
    for name, busy in owners.items():
        sums = epoch.owners[names[name]] = OwnerSums()
        sums.duty_ns = busy
    return epoch


@settings(deadline=None)
@given(
    sm=st.integers(0, LENGTH),
    duty=st.integers(0, LENGTH),
    owners=st.dictionaries(st.sampled_from(["a", "b", "c", "d", None]), st.integers(0, LENGTH), min_size=2),
    mps=st.booleans(),
)
def test_apportioned_points_lie_in_their_intervals_and_never_pass_the_device(sm, duty, owners, mps):
    found = attribute([shared_epoch(sm, duty, owners)], overlapping=mps)
    holders = {owner: figures for owner, figures in found.owners.items() if owner is not None}
    points = [figures.figures["sm"] for figures in holders.values()]
    assert sum(point.value for point in points) + found.owners[None].figures["sm"].value == sm
    for point in points:
        assert point.low <= point.value <= point.high <= sm
    duties = [figures.figures["duty"].value for figures in holders.values()]
    assert all(value <= duty for value in duties)
    if not mps:
        assert sum(duties) + found.owners[None].figures["duty"].value == duty


@settings(deadline=None)
@given(total=st.integers(0, LENGTH), shares=st.lists(st.integers(0, 1000), min_size=2, max_size=4))
def test_the_interval_holds_every_division_that_duty_allows(total, shares):
    """Whatever widths the kernels had: if the readings are consistent, the truth lies in the interval."""
    duties = {name: share * (LENGTH // 1000) // len(shares) for name, share in zip("abcd", shares, strict=False)}
    # Any true division has sm_i <= duty_i; take the one that fills containers in order.
    left, truth = min(total, sum(duties.values())), {}
    for name, duty in duties.items():
        truth[name] = min(duty, left)
        left -= truth[name]
    sm = sum(truth.values())
    found = attribute([shared_epoch(sm, LENGTH, duties)], overlapping=False).owners
    for name, value in truth.items():
        figure = found[key(name)].figures["sm"]
        assert figure.low <= value <= figure.high


@pytest.mark.parametrize(
    ("sm", "duties", "points", "rest", "uncertain"),
    [
        (30, {"a": 40, "b": 20}, {"a": (20, 10, 30), "b": (10, 0, 20)}, 0, False),
        (60, {"a": 40, "b": 20}, {"a": (40, 40, 40), "b": (20, 20, 20)}, 0, False),
        (30, {"a": 40, None: 20}, {"a": (20, 10, 30)}, 10, False),
        (0, {"a": 40, "b": 0}, {"a": (0, 0, 0), "b": (0, 0, 0)}, 0, False),
        (50, {"a": 20, "b": 10}, {"a": (20, 20, 20), "b": (10, 10, 10)}, 20, True),
        (0, {"a": 0, "b": 0}, {"a": (0, 0, 0), "b": (0, 0, 0)}, 0, False),
    ],
    ids=["by duty", "all busy", "host process", "no SM time", "readings contradict", "nobody ran"],
)
def test_sm_time_is_apportioned_by_duty(sm, duties, points, rest, uncertain):
    second = 1_000_000_000
    epoch = shared_epoch(sm * second, LENGTH, {name: duty * second for name, duty in duties.items()})
    found = attribute([epoch], overlapping=False).owners
    for name, wanted in points.items():
        figure = found[key(name)].figures["sm"]
        assert tuple(value / second for value in (figure.value, figure.low, figure.high)) == wanted
        assert figure.origin is Origin.APPORTIONED
        assert found[key(name)].uncertain is uncertain
    assert found[None].figures["sm"].value == rest * second


def test_epochs_add_up():
    first = shared_epoch(10, 100, {"a": 50, "b": 50})
    second = shared_epoch(40, 200, {"a": 150, "c": 50})
    both = attribute([first, second], overlapping=False)
    one = [attribute([epoch], overlapping=False) for epoch in (first, second)]
    for name in ("a", "b", "c"):
        wanted = sum(part.owners[key(name)].figures["sm"].value for part in one if key(name) in part.owners)
        assert both.owners[key(name)].figures["sm"].value == wanted
    assert both.whole.figures["sm"].value == 50
    assert both.owners[key("a")].ns == 2 * LENGTH
    assert both.owners[key("b")].ns == LENGTH


def test_a_holder_of_an_unlisted_parent_alone_gets_what_the_device_did():
    epoch = Epoch((key("a"),), ())
    epoch.ns = LENGTH
    epoch.values[DUTY], epoch.known_ns[DUTY] = 7, LENGTH
    found = attribute([epoch], overlapping=False)
    assert found.owners[key("a")].figures["duty"][:2] == (7, Origin.DEVICE)
    assert found.owners[None].figures["duty"].value == 0


@settings(deadline=None)
@given(average=st.floats(0, 1), cuts=st.lists(st.integers(0, LENGTH), max_size=5))
def test_parts_of_a_split_span_add_up_to_the_whole(average, cuts):
    edges = [0, *sorted(cuts), LENGTH]
    parts = [share_of(average, a, b) for a, b in itertools.pairwise(edges)]
    assert sum(parts) == share_of(average, 0, LENGTH)
    assert all(0 <= part <= b - a + 1 for part, a, b in zip(parts, edges, edges[1:], strict=False))


@pytest.mark.parametrize(
    ("activity", "entry"), [(0, 0), (0.0001, 1), (0.05, 1), (0.0501, 2), (0.5, 10), (0.951, 20), (1, 20), (1.3, 20)]
)
def test_histogram_entries(activity, entry):
    assert bucket(activity) == entry
    assert entry < BUCKETS


@settings(deadline=None)
@given(
    total=st.integers(0, 10**9),
    idle=st.integers(0, 10**9),
    parts=st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 10**12)), min_size=1, max_size=6),
)
def test_divided_energy_never_passes_the_whole(total, idle, parts):
    whole = max(1, sum(weight for weight, _ in parts))
    weights = [(weight, whole) for weight, _ in parts]
    divided = divide_energy(total, min(idle, total), weights, [activity for _, activity in parts])
    assert sum(part or 0 for part in divided) <= total
    unknown = any(activity is None for _, activity in parts)
    for part, (_, activity) in zip(divided, parts, strict=True):
        assert (part is None) == (unknown and activity != 0)


def test_power_at_rest_never_passes_what_was_taken():
    assert idle_energy_mj(70, 60 * 10**9, 10**9) == 70 * 60 * 1000
    assert idle_energy_mj(70, 60 * 10**9, 5) == 5
