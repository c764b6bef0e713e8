"""The Kubernetes layer against a real API server."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING

import pytest
from kubernetes.utils import quantity as client_quantity
from tests.builders import make_deployment, make_node, make_owner, make_pod
from tests.cluster.crds import wait_until_served

from gpuwaste.cluster.errors import (
    ConflictError,
    DisruptionBudgetError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
)
from gpuwaste.cluster.informer import Informer
from gpuwaste.cluster.kinds import DEPLOYMENTS, NAMESPACES, NODES, PODS, ResourceKind
from gpuwaste.cluster.kube import open_api
from gpuwaste.cluster.login import login
from gpuwaste.cluster.owners import workload_of
from gpuwaste.cluster.quantity import parse_quantity
from gpuwaste.cluster.records import RecordRules, namespace_record, pod_record
from gpuwaste.cluster.state import ClusterState
from gpuwaste.model.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from tests.cluster.access import ControlPlane

BUDGETS = ResourceKind(
    group="policy", version="v1", plural="poddisruptionbudgets", kind="PodDisruptionBudget", namespaced=True
)
TRAINERS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "trainers.test.gpuwaste.dev"},
    "spec": {
        "group": "test.gpuwaste.dev",
        "scope": "Namespaced",
        "names": {"plural": "trainers", "singular": "trainer", "kind": "Trainer"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"steps": {"type": "integer", "minimum": 1}}},
                            "status": {
                                "type": "object",
                                "properties": {
                                    "conditions": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["type"],
                                        "items": {
                                            "type": "object",
                                            "required": ["type"],
                                            "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                                        },
                                    }
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}
TRAINER_KIND = ResourceKind(group="test.gpuwaste.dev", version="v1", plural="trainers", kind="Trainer", namespaced=True)


def now():
    return datetime.now(UTC)


@asynccontextmanager
async def connected(control_plane: ControlPlane):
    api = open_api(component="test", kubeconfig=control_plane.kubeconfig)
    try:
        yield api
    finally:
        await api.close()


async def until(done, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.02)


async def apply_all(api, *bodies, manager="test"):
    gate = asyncio.Semaphore(20)

    async def one(body):
        kind = await api.resolve(body["apiVersion"], body["kind"])
        async with gate:
            applied = await api.apply(kind, body, field_manager=manager, force=True)
            if body.get("status"):
                applied = await api.apply_status(kind, body, field_manager=manager, force=True)
            return applied

    return await asyncio.gather(*(one(body) for body in bodies))


def fresh(builder, namespace=None):
    """The object without what only a server gives."""
    body = builder.obj(uid=None)
    del body["metadata"]["creationTimestamp"]
    if namespace:
        body["metadata"]["namespace"] = namespace
    return body


@pytest.fixture(scope="module")
def trainers(control_plane: ControlPlane) -> ResourceKind:
    control_plane.apply(TRAINERS)
    wait_until_served(control_plane, ["trainers.test.gpuwaste.dev"])
    return TRAINER_KIND


def trainer(namespace, **parts):
    return {
        "apiVersion": "test.gpuwaste.dev/v1",
        "kind": "Trainer",
        "metadata": {"name": "t", "namespace": namespace},
        **parts,
    }


def test_get_list_and_delete(control_plane, namespace):
    async def scenario():
        async with connected(control_plane) as api:
            pods = [make_pod(f"p{i}").labels(app="x" if i < 3 else "y") for i in range(5)]
            await apply_all(api, *(fresh(pod, namespace) for pod in pods))
            assert (await api.get(PODS, "p1", namespace=namespace))["kind"] == "Pod"
            first = await api.list_page(PODS, namespace=namespace, limit=2)
            second = await api.list_page(PODS, namespace=namespace, limit=2, continue_token=first.continue_token)
            assert [len(first.items), len(second.items)] == [2, 2]
            assert first.resource_version == second.resource_version
            selected = await api.list_page(PODS, namespace=namespace, label_selector="app in (x),app!=y")
            assert sorted(i["metadata"]["name"] for i in selected.items) == ["p0", "p1", "p2"]
            fields = await api.list_page(PODS, namespace=namespace, field_selector="metadata.name=p4")
            assert [i["metadata"]["name"] for i in fields.items] == ["p4"]
            with pytest.raises(ConflictError, match="UID in the precondition"):
                await api.delete(PODS, "p4", namespace=namespace, uid="another")
            await api.delete(PODS, "p4", namespace=namespace, uid=fields.items[0]["metadata"]["uid"])
            with pytest.raises(NotFoundError, match='pods "p4" not found'):
                await api.get(PODS, "p4", namespace=namespace)

    asyncio.run(scenario())


def test_server_side_apply_owns_and_drops_fields(control_plane, namespace, trainers):
    async def scenario():
        async with connected(control_plane) as api:
            assert await api.resolve("test.gpuwaste.dev/v1", "Trainer") == trainers
            await api.apply(trainers, trainer(namespace, spec={"steps": 3}), field_manager="gpuwaste-a")
            with pytest.raises(ConflictError, match='conflict with "gpuwaste-a"'):
                await api.apply(trainers, trainer(namespace, spec={"steps": 4}), field_manager="gpuwaste-b")
            tried = await api.apply(
                trainers, trainer(namespace, spec={"steps": 4}), field_manager="gpuwaste-b", force=True, dry_run=True
            )
            assert tried["spec"] == {"steps": 4}
            assert (await api.get(trainers, "t", namespace=namespace))["spec"] == {"steps": 3}
            with pytest.raises(InvalidError, match="greater than or equal to 1"):
                await api.apply(trainers, trainer(namespace, spec={"steps": 0}), field_manager="gpuwaste-a")
            dropped = await api.apply(trainers, trainer(namespace), field_manager="gpuwaste-a")
            assert "steps" not in dropped.get("spec", {})

    asyncio.run(scenario())


def test_status_is_applied_apart(control_plane, namespace, trainers):
    async def scenario():
        async with connected(control_plane) as api:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            with pytest.raises(NotFoundError):
                await api.apply_status(trainers, trainer(namespace, status=ready), field_manager="gpuwaste-a")
            created = await api.apply(
                trainers, trainer(namespace, spec={"steps": 1}, status=ready), field_manager="gpuwaste-a"
            )
            assert "status" not in created
            await api.apply_status(trainers, trainer(namespace, status=ready), field_manager="gpuwaste-a")
            other = {"conditions": [{"type": "Applied", "status": "False"}]}
            both = await api.apply_status(trainers, trainer(namespace, status=other), field_manager="gpuwaste-b")
            assert {c["type"] for c in both["status"]["conditions"]} == {"Ready", "Applied"}
            assert both["spec"] == {"steps": 1}

    asyncio.run(scenario())


def test_watch_streams_changes_from_where_the_list_was(control_plane, namespace):
    async def scenario():
        async with connected(control_plane) as api:
            start = (await api.list_page(PODS, namespace=namespace)).resource_version
            watch = api.watch(PODS, resource_version=start, namespace=namespace, timeout_seconds=20)
            async with aclosing(watch) as events:
                await apply_all(api, fresh(make_pod("a"), namespace))
                added = await anext(events)
                await apply_all(api, fresh(make_pod("a").labels(app="x"), namespace))
                seen = [added]
                while seen[-1].object["metadata"].get("labels") != {"app": "x"}:
                    seen.append(await anext(events))
                await api.delete(PODS, "a", namespace=namespace)
                while seen[-1].type != "DELETED":
                    seen.append(await anext(events))
            assert [seen[0].type, seen[1].type, seen[-1].type] == ["ADDED", "MODIFIED", "DELETED"]
            assert {e.object["metadata"]["name"] for e in seen} == {"a"}

    asyncio.run(scenario())


def test_a_quiet_watch_ends_at_its_timeout_without_an_error(control_plane, namespace):
    async def scenario():
        async with connected(control_plane) as api:
            start = (await api.list_page(PODS, namespace=namespace)).resource_version
            began = time.monotonic()
            watch = api.watch(PODS, resource_version=start, namespace=namespace, timeout_seconds=2)
            types = {event.type async for event in watch}
            assert 1 < time.monotonic() - began < 10
            assert types <= {"BOOKMARK"}

    asyncio.run(scenario())


def test_a_version_of_long_ago_is_gone(control_plane, namespace, trainers):
    async def scenario():
        async with connected(control_plane) as api:
            # the server keeps changes of this kind from when the kind was made, long after version 1
            with pytest.raises(GoneError, match="too old resource version"):
                await anext(api.watch(trainers, resource_version="1", namespace=namespace, timeout_seconds=5))
            with pytest.raises(InvalidError, match="continue"):
                await api.list_page(PODS, namespace=namespace, continue_token="no token")

    asyncio.run(scenario())


class Stale:
    """The real API server, asked once for changes since a version that it no longer has."""

    def __init__(self, api):
        self.api, self.stale, self.lists = api, True, 0

    async def list_page(self, kind, **kwargs):
        self.lists += 1
        return await self.api.list_page(kind, **kwargs)

    def watch(self, kind, *, resource_version, **kwargs):
        version, self.stale = ("1" if self.stale else resource_version), False
        return self.api.watch(kind, resource_version=version, **kwargs)


def test_an_informer_lists_again_after_410(control_plane, namespace, trainers):
    async def scenario():
        async with connected(control_plane) as api:
            await apply_all(api, trainer(namespace, spec={"steps": 1}))
            stale = Stale(api)
            informer = Informer(
                api=stale,
                kind=trainers,
                transform=lambda raw: namespace_record(raw, RecordRules()),
                on_change=lambda: None,
                now=now,
                random=Random(1),
            )
            task = asyncio.create_task(informer.run())
            try:
                await until(lambda: stale.lists == 2)
                second = {**trainer(namespace), "metadata": {"name": "second", "namespace": namespace}}
                await apply_all(api, second)
                await until(lambda: "second" in {r.data.name for r in informer.records.values()})
                assert stale.lists == 2
                assert informer.last_error is None
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_an_informer_follows_a_thousand_pods(control_plane, namespace):
    async def scenario():
        async with connected(control_plane) as api:
            await apply_all(api, *(fresh(make_pod(f"p{i:04}").gpu(1), namespace) for i in range(1000)))
            informer = Informer(
                api=api,
                kind=PODS,
                transform=lambda raw: pod_record(raw, RecordRules()),
                on_change=lambda: None,
                now=now,
                random=Random(1),
                page_size=100,
            )
            task = asyncio.create_task(informer.run())

            def names():
                return {r.data.name for r in informer.records.values() if r.data.namespace == namespace}

            try:
                began = time.monotonic()
                await until(informer.synced)
                assert time.monotonic() - began < 10
                assert names() == {f"p{i:04}" for i in range(1000)}
                await apply_all(api, fresh(make_pod("late"), namespace))
                await api.delete(PODS, "p0000", namespace=namespace)
                await until(lambda: "late" in names() and "p0000" not in names())
                assert "p0000" in {t.record.data.name for t in informer.tombstones.values()}
                assert informer.last_error is None
                assert informer.rejected == {}
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_the_state_sees_gpu_pods_and_their_owners(control_plane, namespace, trainers):
    node = f"gpu-{namespace}"

    async def scenario():
        async with connected(control_plane) as api:
            owner_body = trainer(namespace, spec={"steps": 1})
            (top,) = await apply_all(api, owner_body)
            top = {**owner_body, "metadata": top["metadata"]}
            deployment = fresh(make_deployment("d").owned_by(top), namespace)
            deployment["spec"] = {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "main", "image": "app:1"}]},
                },
            }
            (middle,) = await apply_all(api, deployment)
            gone = make_owner("batch/v1", "Job", "gone")
            await apply_all(api, fresh(make_node(node).gpu(8)))
            await apply_all(
                api,
                fresh(make_pod("mine").gpu(1).on(node).running().owned_by(middle), namespace),
                fresh(make_pod("orphan").gpu(1).on(node).running().owned_by(gone), namespace),
                fresh(make_pod("beside").on(node).running("2026-11-01T01:00:00Z"), namespace),
                fresh(make_pod("waiting").gpu(2), namespace),
            )
            state = ClusterState(api=api, now=now, random=Random(1))
            task = asyncio.create_task(state.run())
            try:
                await until(state.synced)
                snapshot = state.snapshot()
                mine = {r.data.name: r for r in snapshot.pods.values() if r.data.namespace == namespace}
                assert sorted(mine) == ["beside", "mine", "orphan", "waiting"]
                tops = {n: workload_of(r.uid, r.data, snapshot.owner_data) for n, r in mine.items()}
                assert (tops["mine"].kind, tops["mine"].name) == ("Trainer", "t")
                assert (tops["orphan"].kind, tops["orphan"].name) == ("Job", "gone")
                assert "waiting" in {r.data.name for r in snapshot.pending}
                facts = [f for f in snapshot.facts() if f.kind == "pod" and f.data.namespace == namespace]
                assert {f.data.name: f.valid_from.isoformat() for f in facts} == {
                    "beside": "2026-11-01T01:00:00+00:00",
                    "mine": "2026-11-01T00:00:00+00:00",
                    "orphan": "2026-11-01T00:00:00+00:00",
                }
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_evictions_keep_disruption_budgets(control_plane, namespace):
    async def scenario():
        async with connected(control_plane) as api:
            budget = {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": "b", "namespace": namespace},
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
            }
            node = f"evict-{namespace}"
            await apply_all(api, budget, fresh(make_node(node)))
            ready = make_pod("kept").labels(app="kept").on(node).running()
            ready.body["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
            kept, free = await apply_all(api, fresh(ready, namespace), fresh(make_pod("free"), namespace))
            assert await api.resolve("policy/v1", "PodDisruptionBudget") == BUDGETS
            status = {**budget, "status": {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1}}
            status["status"] |= {"desiredHealthy": 1, "expectedPods": 1}
            await api.apply_status(BUDGETS, status, field_manager="test", force=True)
            with pytest.raises(DisruptionBudgetError, match="needs 1 healthy pods"):
                await api.evict("kept", namespace=namespace, uid=kept["metadata"]["uid"])
            await api.evict("free", namespace=namespace, uid=free["metadata"]["uid"], dry_run=True)
            await api.evict("free", namespace=namespace, uid=free["metadata"]["uid"])
            with pytest.raises(NotFoundError):
                await api.evict("free", namespace=namespace)

    asyncio.run(scenario())


def test_what_is_not_allowed_or_not_there_says_so(control_plane, tmp_path):
    kubeconfig = tmp_path / "config"
    text = control_plane.kubeconfig.read_text()
    assert control_plane.token in text
    kubeconfig.write_text(text.replace(control_plane.token, "wrong-token"))
    unreachable = tmp_path / "unreachable"
    unreachable.write_text(text.replace(control_plane.server, "https://127.0.0.1:1"))

    async def scenario():
        api = open_api(component="test", kubeconfig=kubeconfig)
        with pytest.raises(ForbiddenError, match="Unauthorized"):
            await api.list_page(NODES)
        await api.close()
        api = open_api(component="test", kubeconfig=unreachable)
        with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:1 did not answer GET /api/v1/namespaces"):
            await api.list_page(NAMESPACES)
        await api.close()
        api = open_api(component="test", kubeconfig=tmp_path / "absent")
        with pytest.raises(InputError, match="absent: there is no such kubeconfig; give --kubeconfig"):
            await api.list_page(NODES)
        api = open_api(component="test", kubeconfig=control_plane.kubeconfig, context="other")
        with pytest.raises(InputError, match="other"):
            await api.list_page(NODES)
        async with connected(control_plane) as api:
            with pytest.raises(NotFoundError, match=r"no Odd in apps/v1"):
                await api.resolve("apps/v1", "Odd")
            with pytest.raises(NotFoundError):
                await api.resolve("nowhere.example/v1", "Odd")
            assert await api.resolve("apps/v1", "Deployment") == DEPLOYMENTS

    asyncio.run(scenario())


def test_login_gives_another_client_the_same_user(control_plane):
    credentials = asyncio.run(login(kubeconfig=control_plane.kubeconfig))
    assert credentials.server == control_plane.server
    assert (credentials.scheme, credentials.token) == ("Bearer", control_plane.token)
    assert not credentials.insecure


def test_quantities_agree_with_the_kubernetes_client():
    for text in ("100m", "250u", "1.5Gi", "3Ti", "7", "0.125", "9P", "1Ei", "500n", "12E"):
        assert parse_quantity(text) == client_quantity.parse_quantity(text)
