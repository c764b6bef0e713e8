"""Snapshots hold what matters, name owners, and give the same facts to everyone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from tests.builders import make_deployment, make_namespace, make_node, make_owner, make_pod

from gpuwaste.cluster.errors import ForbiddenError
from gpuwaste.cluster.kinds import DEPLOYMENTS, PODS, REPLICA_SETS, ResourceKind
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.cluster.owners import workload_of
from gpuwaste.cluster.state import ClusterState
from gpuwaste.model.errors import UnreachableError

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
RAY_CLUSTERS = ResourceKind(group="ray.io", version="v1", plural="rayclusters", kind="RayCluster", namespaced=True)


class Cluster(MemoryCluster):
    """An API server that refuses some reads and counts them."""

    def __init__(self):
        super().__init__(now=lambda: NOW)
        self.refused, self.unreachable, self.gets = set(), 0, []

    async def get(self, kind, name, *, namespace=None):
        self.gets.append((kind.kind, name))
        if self.unreachable:
            self.unreachable -= 1
            raise UnreachableError("connection refused")
        if kind.kind in self.refused:
            raise ForbiddenError(f"{kind.plural} is forbidden", status=403)
        return await super().get(kind, name, namespace=namespace)


class Watched:
    def __init__(self, cluster):
        self.cluster, self.time, self.changes = cluster, NOW, 0
        self.state = ClusterState(
            api=cluster, now=lambda: self.time, random=Random(1), on_change=self._change, sleep=self._sleep
        )

    def _change(self):
        self.changes += 1

    async def _sleep(self, _seconds):
        await asyncio.sleep(0)

    async def until(self, done):
        for _ in range(2000):
            if done():
                return
            await asyncio.sleep(0)
        raise AssertionError("it did not come to that")

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.state.run())
        try:
            await self.until(self.state.synced)
            yield self.state
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def names(self):
        return sorted(record.data.name for record in self.state.snapshot().pods.values())


def filled():
    cluster = Cluster()
    deployment = make_deployment("d")
    replica_set = make_owner("apps/v1", "ReplicaSet", "d-1").owned_by(deployment)
    cluster.put(
        make_namespace("ml").labels(team="x").obj(),
        make_namespace("empty").obj(),
        make_node("gpu").gpu(4).obj(),
        make_node("cpu").obj(),
        deployment.obj(),
        replica_set.obj(),
        make_pod("holder").gpu(1).on("gpu").running().owned_by(replica_set).obj(),
        make_pod("second").gpu(1).on("gpu").running().owned_by(replica_set).obj(),
        make_pod("beside").on("gpu").running().obj(),
        make_pod("elsewhere").on("cpu").running().obj(),
        make_pod("waiting").gpu(1).obj(),
    )
    return cluster


def test_a_snapshot_holds_gpu_pods_their_neighbours_and_their_owners():
    async def scenario():
        watched = Watched(filled())
        async with watched.running() as state:
            snapshot = state.snapshot()
            assert watched.names() == ["beside", "holder", "second", "waiting"]
            assert snapshot.gpu_nodes == {"gpu"}
            assert [r.data.name for r in snapshot.pending] == ["waiting"]
            assert sorted(r.data.kind for r in snapshot.owners.values()) == ["Deployment", "ReplicaSet"]
            holder = next(r for r in snapshot.pods.values() if r.data.name == "holder")
            assert workload_of(holder.uid, holder.data, snapshot.owner_data).kind == "Deployment"
            # two pods of one ReplicaSet cost one read of each owner
            assert sorted(watched.cluster.gets) == [("Deployment", "d"), ("ReplicaSet", "d-1")]
            assert state.problems == ()

    asyncio.run(scenario())


def test_facts_are_sorted_and_leave_out_what_no_gpu_touches():
    async def scenario():
        watched = Watched(filled())
        async with watched.running() as state:
            facts = state.snapshot().facts()
        assert [f.key for f in facts] == sorted(f.key for f in facts)
        assert sorted((f.kind, f.data.name) for f in facts) == [
            ("namespace", "ml"),
            ("node", "gpu"),
            ("owner", "d"),
            ("owner", "d-1"),
            ("pod", "beside"),
            ("pod", "holder"),
            ("pod", "second"),
        ]

    asyncio.run(scenario())


def test_two_observers_store_the_same_facts():
    async def observe(cluster):
        async with Watched(cluster).running() as state:
            return [fact.to_json() for fact in state.snapshot().facts()]

    first = asyncio.run(observe(filled()))
    assert first == asyncio.run(observe(filled()))
    assert len(first) == 7


def test_snapshots_do_not_change_and_are_shared_while_nothing_happens():
    async def scenario():
        watched = Watched(filled())
        async with watched.running() as state:
            before = state.snapshot()
            assert state.snapshot() is before
            changes = watched.changes
            watched.cluster.put(make_pod("late").gpu(1).on("gpu").running().obj())
            await watched.until(lambda: "late" in watched.names())
            assert "late" not in {r.data.name for r in before.pods.values()}
            assert state.snapshot().generation > before.generation
            assert watched.changes > changes

    asyncio.run(scenario())


def test_deleted_pods_stay_for_a_day_with_their_end():
    async def scenario():
        watched = Watched(filled())
        async with watched.running() as state:
            watched.cluster.remove(PODS, "holder", namespace="ml")
            await watched.until(lambda: "holder" not in watched.names())
            (gone,) = state.snapshot().gone_pods.values()
            assert gone.end == NOW
            fact = next(f for f in state.snapshot().facts() if f.uid == gone.record.uid)
            assert fact.valid_to == NOW
            watched.time += timedelta(days=1, seconds=1)
            assert not state.snapshot().gone_pods

    asyncio.run(scenario())


def test_a_missing_owner_ends_the_chain_with_its_reference():
    async def scenario():
        cluster = filled()
        cluster.remove(DEPLOYMENTS, "d", namespace="ml")
        async with Watched(cluster).running() as state:
            snapshot = state.snapshot()
            pod = next(r for r in snapshot.pods.values() if r.data.name == "holder")
            top = workload_of(pod.uid, pod.data, snapshot.owner_data)
            assert (top.kind, top.name) == ("Deployment", "d")
            assert state.problems == ()

    asyncio.run(scenario())


def test_an_owner_that_may_not_be_read_is_a_problem_and_no_failure():
    async def scenario():
        cluster = filled()
        cluster.refused = {"ReplicaSet"}
        watched = Watched(cluster)
        async with watched.running() as state:
            assert state.problems == ("owners of kind ReplicaSet cannot be read: replicasets is forbidden",)
            cluster.refused = set()
            watched.time += timedelta(minutes=16)
            cluster.put(make_pod("touch").gpu(1).obj())
            await watched.until(lambda: len(state.snapshot().owners) == 2)
            assert state.problems == ()

    asyncio.run(scenario())


def test_owners_of_any_kind_are_followed():
    async def scenario():
        cluster = filled()
        cluster.register(RAY_CLUSTERS)
        ray = make_owner("ray.io/v1", "RayCluster", "r")
        unserved = make_owner("odd.io/v1", "Odd", "o")
        cluster.put(
            ray.obj(),
            make_pod("worker").gpu(1).on("gpu").running().owned_by(ray).obj(),
            make_pod("odd").gpu(1).on("gpu").running().owned_by(unserved).obj(),
        )
        async with Watched(cluster).running() as state:
            snapshot = state.snapshot()
            tops = {r.data.name: workload_of(r.uid, r.data, snapshot.owner_data) for r in snapshot.pods.values()}
            assert (tops["worker"].kind, tops["odd"].kind) == ("RayCluster", "Odd")
            assert "RayCluster" in {r.data.kind for r in snapshot.owners.values()}

    asyncio.run(scenario())


def test_a_new_object_of_the_same_name_is_not_taken_for_the_owner():
    async def scenario():
        cluster = filled()
        cluster.remove(REPLICA_SETS, "d-1", namespace="ml")
        cluster.put(make_owner("apps/v1", "ReplicaSet", "d-1").obj(uid="another"))
        async with Watched(cluster).running() as state:
            assert not state.snapshot().owners

    asyncio.run(scenario())


def test_an_owner_stays_known_when_it_is_deleted():
    async def scenario():
        watched = Watched(filled())
        async with watched.running() as state:
            watched.cluster.remove(DEPLOYMENTS, "d", namespace="ml")
            watched.time += timedelta(minutes=16)
            asked = len(watched.cluster.gets)
            watched.cluster.put(make_pod("touch").gpu(1).obj())
            await watched.until(lambda: ("Deployment", "d") in watched.cluster.gets[asked:])
            assert "Deployment" in {r.data.kind for r in state.snapshot().owners.values()}

    asyncio.run(scenario())


def test_owners_are_asked_for_again_when_the_server_does_not_answer():
    async def scenario():
        cluster = filled()
        cluster.unreachable = 3
        async with Watched(cluster).running() as state:
            assert len(state.snapshot().owners) == 2

    asyncio.run(scenario())
