"""Objects are written when they changed by more than they are worth, and removed when nobody needs them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.perf.ledger.writes import measure_writes

from gpuwaste.api import (
    ConditionStatus,
    ConditionType,
    GPUPool,
    GPUPoolSpec,
    GPUPoolStatus,
    GPUReservation,
    GPUWaste,
    ObjectMeta,
    PoolSummary,
    Reason,
    make_condition,
)
from gpuwaste.cluster.kinds import EVENTS, GPU_POOLS, GPU_RESERVATIONS
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.runtime.writer import ObjectWriter, worth_writing
from gpuwaste.waste.reservations import ReservationUse, reservation_object

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


def pool(name, *, owned="10.00", at=NOW):
    summary = PoolSummary(
        window="1h",
        owned_gpu_hours=owned,
        held_gpu_hours="5.00",
        effective_gpu_hours="1.00",
        waste_percent="90",
        price="<unknown>",
        cost_per_month="<unknown>",
    )
    return GPUPool(
        metadata=ObjectMeta(name=name),
        spec=GPUPoolSpec(gpu_model="H100-80GB", node_pool="default"),
        status=GPUPoolStatus(observed_time=at, summary=summary),
    )


async def no_wait(_):
    return


def writer():
    api = MemoryCluster(now=lambda: NOW)
    return api, ObjectWriter(api=api, writes_per_second=1000, sleep=no_wait)


def test_an_unchanged_object_is_not_written_again():
    api, to = writer()
    assert asyncio.run(to.write([pool("a")])).written == 1
    version = api.objects(GPU_POOLS)[0]["metadata"]["resourceVersion"]
    result = asyncio.run(to.write([pool("a", owned="10.01")]))
    assert (result.written, result.unchanged) == (0, 1)
    assert api.objects(GPU_POOLS)[0]["metadata"]["resourceVersion"] == version
    assert asyncio.run(to.write([pool("a", owned="12.00")])).written == 1


def test_objects_that_nobody_needs_are_removed_only_where_they_are_owned():
    api, to = writer()
    asyncio.run(to.write([pool("a"), pool("b")]))
    assert asyncio.run(to.write([pool("a")])).removed == 0
    assert asyncio.run(to.write([pool("a")], owns=("GPUPool",))).removed == 1
    assert [body["metadata"]["name"] for body in api.objects(GPU_POOLS)] == ["a"]


def test_a_new_writer_knows_what_an_old_one_wrote():
    api, to = writer()
    asyncio.run(to.write([pool("a"), pool("old")]))
    fresh = ObjectWriter(api=api, writes_per_second=1000, sleep=no_wait)
    result = asyncio.run(fresh.write([pool("a")], owns=("GPUPool",)))
    assert (result.written, result.unchanged, result.removed) == (0, 1, 1)
    assert fresh.previous(GPUPool, "a").status.summary.owned_gpu_hours == "10.00"
    assert fresh.previous(GPUPool, "none") is None


@pytest.mark.parametrize(
    ("old", "new", "worth"),
    [
        ({}, {"a": 1}, True),
        ({"a": "x"}, {"a": "y"}, True),
        ({"a": "100.0"}, {"a": "101.0"}, False),
        ({"a": "100.0"}, {"a": "103.0"}, True),
        ({"a": 100}, {"a": 101}, False),
        ({"a": "0"}, {"a": "0.1"}, True),
        ({"a": "1,000.00 USD"}, {"a": "1,010.00 USD"}, False),
        ({"a": "1.00 USD"}, {"a": "<unknown>"}, True),
        ({"a": [1]}, {"a": [1, 2]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"toTime": "a"}, {"toTime": "b"}, False),
        ({"observedTime": "2026-11-02T09:00:00Z"}, {"observedTime": "2026-11-02T10:00:00Z"}, True),
        ({"observedTime": "2026-11-02T09:00:00Z"}, {"observedTime": "2026-11-02T09:30:00Z"}, False),
    ],
)
def test_what_a_write_is_worth(old, new, worth):
    assert worth_writing(old, new) is worth


def test_the_previous_object_is_of_the_kind_that_was_asked_for():
    _, to = writer()
    asyncio.run(to.write([pool("a")]))
    found = to.previous(GPUPool, "a")
    assert isinstance(found, GPUPool)
    assert (found.metadata.name, found.spec, found.status) == ("a", pool("a").spec, pool("a").status)
    assert to.previous(GPUPool, "b") is None
    assert to.previous(GPUWaste, "a", "team") is None


def test_many_workloads_at_rest_cost_few_writes():
    writes = measure_writes(100, passes=6)
    assert writes.most_in_a_second <= 20
    assert writes.mean_a_second < 0.5
    assert writes.a_pass < 60


def test_what_is_left_over_comes_first_next_time():
    api = MemoryCluster(now=lambda: NOW)
    to = ObjectWriter(api=api, writes_per_second=4, limit_seconds=1, sleep=no_wait)
    pools = [pool(f"p{number}") for number in range(5)]
    first = asyncio.run(to.write(pools))
    assert (first.written, first.left) == (2, 3)
    results = [asyncio.run(to.write(pools)) for _ in range(3)]
    assert [result.written for result in results] == [2, 1, 0]
    assert len(api.objects(GPU_POOLS)) == 5


def test_the_spec_of_what_people_write_is_left_alone():
    api, to = writer()
    spec = {
        "count": 4,
        "gpuModel": "H100-80GB",
        "term": {"startTime": "2026-01-01T00:00:00Z"},
        "price": {"perGPUHour": "2", "currency": "USD"},
    }
    body = {"apiVersion": "gpuwaste.dev/v1alpha1", "kind": "GPUReservation", "metadata": {"name": "r"}, "spec": spec}
    raw = asyncio.run(api.apply(GPU_RESERVATIONS, body, field_manager="me"))
    to.remember([raw])
    shown = reservation_object(GPUReservation.parse(raw), ReservationUse(present=4), price=None, through=NOW, now=NOW)
    assert asyncio.run(to.write([shown], owns=("GPUPool",))).written == 1
    (stored,) = api.objects(GPU_RESERVATIONS)
    assert stored["spec"]["count"] == 4
    assert stored["status"]["unprovisionedGPUs"] == 0
    assert asyncio.run(to.write([shown])).written == 0


def test_removing_many_is_left_for_the_next_time_too():
    api = MemoryCluster(now=lambda: NOW)
    to = ObjectWriter(api=api, writes_per_second=4, limit_seconds=1, sleep=no_wait)
    while asyncio.run(to.write([pool(f"p{number}") for number in range(5)])).left:
        pass
    results = [asyncio.run(to.write([], owns=("GPUPool",))) for _ in range(2)]
    assert [(result.removed, result.left) for result in results] == [(4, 1), (1, 0)]
    assert api.objects(GPU_POOLS) == []


def test_what_somebody_removed_is_written_again():
    api, to = writer()
    asyncio.run(to.write([pool("a")]))
    asyncio.run(api.delete(GPU_POOLS, "a"))
    result = asyncio.run(to.write([pool("a", owned="20.00")]))
    assert (result.written, result.failed) == (1, {})
    assert api.objects(GPU_POOLS)[0]["status"]["summary"]["ownedGPUHours"] == "20.00"


def priced(*, at, known):
    status = ConditionStatus.TRUE if known else ConditionStatus.FALSE
    reason, message = (Reason.PRICE_KNOWN, "Every GPU-hour has a price.") if known else (Reason.BILL_REFUSED, "In EUR.")
    made = make_condition(ConditionType.PRICED, status, reason, message, observed_generation=1, now=at)
    item = pool("a", at=at)
    return item.model_copy(update={"status": item.status.model_copy(update={"conditions": (made,)})})


def test_a_condition_that_changes_is_told_once():
    api, to = writer()
    for minute, known in enumerate([True, True, False, False, True]):
        asyncio.run(to.write([priced(at=NOW + timedelta(minutes=minute), known=known)]))
    told = [(event["type"], event["reason"], event["message"]) for event in api.objects(EVENTS)]
    assert sorted(told) == [
        ("Normal", "PriceKnown", "Every GPU-hour has a price."),
        ("Warning", "BillRefused", "In EUR."),
    ]
    (refused,) = [event for event in api.objects(EVENTS) if event["type"] == "Warning"]
    assert (refused["involvedObject"]["kind"], refused["involvedObject"]["name"]) == ("GPUPool", "a")
    assert refused["lastTimestamp"] == "2026-11-02T09:02:00Z"


def test_what_is_wrong_from_the_start_is_told_too():
    api, to = writer()
    asyncio.run(to.write([priced(at=NOW, known=False)]))
    assert [event["reason"] for event in api.objects(EVENTS)] == ["BillRefused"]
