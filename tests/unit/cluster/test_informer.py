"""Informers follow every change, and recover from everything a server does."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest
from tests.builders import make_pod

from gpuwaste.cluster.errors import ForbiddenError, GoneError
from gpuwaste.cluster.informer import Informer, backoff_seconds
from gpuwaste.cluster.kinds import PODS
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.cluster.records import RecordRules, pod_record
from gpuwaste.model.errors import UnreachableError
from gpuwaste.model.units import parse_time


class Clock:
    def __init__(self):
        self.time = datetime(2026, 11, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.time


class Unreliable(MemoryCluster):
    """An API server that fails the calls it is told to."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.list_errors, self.watch_errors, self.lists, self.watches = [], [], 0, []

    async def list_page(self, kind, **kwargs):
        self.lists += 1
        if self.list_errors:
            raise self.list_errors.pop(0)
        return await super().list_page(kind, **kwargs)

    async def watch(self, kind, **kwargs):
        self.watches.append(kwargs["resource_version"])
        if self.watch_errors:
            raise self.watch_errors.pop(0)
        async for event in super().watch(kind, **kwargs):
            yield event


class Follower:
    """A running informer, and a way to wait for it without sleeping."""

    def __init__(self, *, page_size=500):
        self.clock = Clock()
        self.cluster = Unreliable(now=self.clock)
        self.slept, self.changes = [], 0
        self._woken = asyncio.Event()
        self.informer = Informer(
            api=self.cluster,
            kind=PODS,
            transform=lambda raw: pod_record(raw, RecordRules()),
            on_change=self._change,
            now=self.clock,
            random=Random(1),
            sleep=self._sleep,
            page_size=page_size,
        )

    def _change(self):
        self.changes += 1

    async def _sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.sleep(0)

    @property
    def names(self):
        return sorted(record.data.name for record in self.informer.records.values())

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.informer.run())
        try:
            await self.until(self.informer.synced)
            yield self
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def until(self, done):
        for _ in range(1000):
            if done():
                return
            await asyncio.sleep(0)
        raise AssertionError("it did not come to that")


def test_it_lists_in_pages_then_follows():
    async def scenario():
        follower = Follower(page_size=3)
        follower.cluster.put(*(make_pod(f"p{i}").obj() for i in range(7)))
        async with follower.running():
            assert follower.names == [f"p{i}" for i in range(7)]
            assert follower.cluster.lists == 3
            follower.cluster.put(make_pod("new").obj())
            follower.cluster.remove(PODS, "p0", namespace="ml")
            await follower.until(lambda: "new" in follower.names and "p0" not in follower.names)
        assert follower.slept == []
        assert follower.cluster.lists == 3

    asyncio.run(scenario())


def test_changes_raise_the_generation_and_repetitions_do_not():
    async def scenario():
        follower = Follower()
        follower.cluster.put(make_pod("a").obj())
        async with follower.running():
            before = follower.informer.generation
            builder = make_pod("a")
            builder.body["spec"]["containers"][0]["env"] = [{"name": "X", "value": "1"}]
            follower.cluster.put(builder.obj())  # nothing that a record keeps
            follower.cluster.put(make_pod("b").obj())
            await follower.until(lambda: "b" in follower.names)
            assert follower.informer.generation == before + 1
            assert follower.changes == follower.informer.generation

    asyncio.run(scenario())


def test_a_cut_watch_goes_on_from_the_last_bookmark_without_a_list():
    async def scenario():
        follower = Follower()
        follower.cluster.put(make_pod("a").obj())
        async with follower.running():
            await follower.until(lambda: follower.cluster.watches == ["1"])
            await asyncio.sleep(0)
            follower.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
            follower.cluster.bookmark()
            await asyncio.sleep(0)
            follower.cluster.cut_watches()
            await follower.until(lambda: len(follower.cluster.watches) == 2)
            assert follower.cluster.watches == ["1", "2"]
            assert follower.cluster.lists == 1

    asyncio.run(scenario())


def test_gone_lists_again_and_buries_what_vanished_meanwhile():
    async def scenario():
        follower = Follower()
        follower.cluster.put(make_pod("a").obj(), make_pod("b").obj())
        async with follower.running():
            await follower.until(lambda: follower.cluster.watches)
            follower.cluster.remove(PODS, "a", namespace="ml")
            follower.cluster.expire()
            await follower.until(lambda: follower.names == ["b"])
            assert follower.cluster.lists == 2
            assert len(follower.slept) == 1
            (tombstone,) = follower.informer.tombstones.values()
            assert (tombstone.record.data.name, tombstone.end) == ("a", follower.clock.time)
            assert follower.informer.last_error is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error",
    [UnreachableError("connection refused"), ForbiddenError("pods is forbidden", status=403), GoneError("too old")],
    ids=["unreachable", "forbidden", "gone"],
)
def test_a_failing_list_is_tried_again_with_growing_waits(error):
    async def scenario():
        follower = Follower()
        follower.cluster.list_errors = [error] * 3
        follower.cluster.put(make_pod("a").obj())
        async with follower.running():
            assert follower.names == ["a"]
            assert len(follower.slept) == 3
            assert follower.informer.last_error is None

    asyncio.run(scenario())


def test_a_broken_watch_goes_on_where_it_was():
    async def scenario():
        follower = Follower()
        follower.cluster.put(make_pod("a").obj())
        follower.cluster.watch_errors = [UnreachableError("reset by peer")]
        async with follower.running():
            await follower.until(lambda: len(follower.cluster.watches) == 2)
            assert follower.cluster.watches == ["1", "1"]
            assert follower.cluster.lists == 1

    asyncio.run(scenario())


def test_a_deleted_pod_ends_at_its_own_deletion_time():
    async def scenario():
        follower = Follower()
        gone = make_pod("a").on("n").running().deleting("2026-11-01T11:59:30Z")
        follower.cluster.put(gone.obj())
        async with follower.running():
            follower.cluster.remove(PODS, "a", namespace="ml")
            await follower.until(lambda: follower.names == [])
            (tombstone,) = follower.informer.tombstones.values()
            assert tombstone.end == parse_time("2026-11-01T11:59:30Z")
            follower.clock.time += timedelta(days=1)
            generation = follower.informer.generation
            follower.informer.prune()
            assert not follower.informer.tombstones
            assert follower.informer.generation == generation + 1

    asyncio.run(scenario())


def test_what_cannot_be_read_is_named_and_the_rest_is_kept():
    async def scenario():
        follower = Follower()
        follower.cluster.put(make_pod("bad").requests(cpu="much").obj(), make_pod("good").obj())
        async with follower.running():
            assert follower.names == ["good"]
            assert "'much' is no Kubernetes quantity" in follower.informer.rejected["ml/bad"]
            follower.cluster.put(make_pod("bad").requests(cpu="1").obj())
            await follower.until(lambda: follower.names == ["bad", "good"])
            assert follower.informer.rejected == {}

    asyncio.run(scenario())


def test_backoff_grows_to_half_a_minute_and_is_jittered():
    longest = [max(backoff_seconds(n, Random(seed)) for seed in range(300)) for n in range(1, 20)]
    assert longest[0] <= 1.0
    assert all(a < b for a, b in pairwise(longest[:5]))
    assert 25 < longest[-1] <= 30
    assert len({backoff_seconds(5, Random(seed)) for seed in range(50)}) == 50
