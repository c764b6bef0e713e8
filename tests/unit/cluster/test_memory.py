"""The in-memory API server keeps what callers rely on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from tests.builders import make_deployment, make_node, make_pod

from gpuwaste.cluster.errors import ConflictError, DisruptionBudgetError, GoneError, InvalidError, NotFoundError
from gpuwaste.cluster.kinds import DEPLOYMENTS, GPU_POOLS, GPU_WASTES, NODES, PODS
from gpuwaste.cluster.memory import MemoryCluster

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def new_cluster() -> MemoryCluster:
    return MemoryCluster(now=lambda: NOW)


def waste(name="w", **parts):
    return {
        "apiVersion": "gpuwaste.dev/v1alpha1",
        "kind": "GPUWaste",
        "metadata": {"name": name, "namespace": "ml", **parts.pop("metadata", {})},
        **parts,
    }


def condition(kind, status):
    return {"type": kind, "status": status, "reason": "Because", "message": "so"}


async def take(events, count):
    return [await asyncio.wait_for(anext(events), 1) for _ in range(count)]


def run(coroutine):
    return asyncio.run(coroutine)


def test_put_gives_uid_version_and_creation_time():
    cluster = new_cluster()
    cluster.put(make_pod("a").created("").obj(uid=None), make_pod("b").obj(uid=None))
    a, b = cluster.objects(PODS)
    assert a["metadata"]["uid"] != b["metadata"]["uid"]
    assert int(a["metadata"]["resourceVersion"]) < int(b["metadata"]["resourceVersion"])
    assert a["metadata"]["creationTimestamp"] == "2026-11-01T00:00:00Z"


def test_equal_calls_give_equal_objects():
    def build():
        cluster = new_cluster()
        cluster.put(make_pod("a").obj(uid=None), make_node("n").obj(uid=None))
        return cluster.objects(PODS) + cluster.objects(NODES)

    assert build() == build()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "Pod"}, "`apiVersion` or `kind` is missing"),
        ({"apiVersion": "x/v1", "kind": "Odd", "metadata": {"name": "a"}}, 'no matches for kind "Odd"'),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "`metadata.name` is missing"),
    ],
    ids=["no kind", "unknown kind", "no name"],
)
def test_put_refuses_what_is_no_object(body, message):
    with pytest.raises(InvalidError, match=message):
        new_cluster().put(body)


def test_get_of_nothing_is_not_found():
    with pytest.raises(NotFoundError, match='pods "a" not found'):
        run(new_cluster().get(PODS, "a", namespace="ml"))


def test_what_is_returned_is_a_copy():
    cluster = new_cluster()
    cluster.put(make_node("n").taint("k", "v").obj())
    run(cluster.get(NODES, "n"))["spec"]["taints"].clear()
    assert len(run(cluster.get(NODES, "n"))["spec"]["taints"]) == 1


def test_lists_in_pages_cover_everything_once():
    cluster = new_cluster()
    cluster.put(*(make_pod(f"p{i:02}").obj() for i in range(25)))

    async def pages():
        names, token, sizes = [], "", []
        while True:
            page = await cluster.list_page(PODS, limit=10, continue_token=token)
            names += [item["metadata"]["name"] for item in page.items]
            sizes.append(len(page.items))
            token = page.continue_token
            if not token:
                return names, sizes, page.resource_version

    names, sizes, version = run(pages())
    assert names == [f"p{i:02}" for i in range(25)]
    assert sizes == [10, 10, 5]
    assert version == "25"


def test_an_old_continue_token_is_gone():
    cluster = new_cluster()
    cluster.put(make_pod("a").obj(), make_pod("b").obj())
    page = run(cluster.list_page(PODS, limit=1))
    cluster.expire()
    with pytest.raises(GoneError):
        run(cluster.list_page(PODS, limit=1, continue_token=page.continue_token))


@pytest.mark.parametrize(
    ("labels", "fields", "names"),
    [
        ("app=x", "", ["a"]),
        ("app!=x", "", ["b", "c"]),
        ("app", "", ["a", "b"]),
        ("!app", "", ["c"]),
        ("app in (x, y)", "", ["a", "b"]),
        ("app notin (x),tier", "", ["b"]),
        ("", "spec.nodeName!=", ["a"]),
        ("", "metadata.name=b", ["b"]),
        ("app=x", "spec.nodeName=n2", []),
    ],
)
def test_selectors(labels, fields, names):
    cluster = new_cluster()
    cluster.put(
        make_pod("a").labels(app="x").on("n1").obj(),
        make_pod("b").labels(app="y", tier="t").obj(),
        make_pod("c").obj(),
    )
    page = run(cluster.list_page(PODS, label_selector=labels, field_selector=fields))
    assert [item["metadata"]["name"] for item in page.items] == names


def test_a_selector_that_cannot_be_parsed_is_refused():
    cluster = new_cluster()
    cluster.put(make_pod("a").obj())
    with pytest.raises(InvalidError, match="label selector 'a b'"):
        run(cluster.list_page(PODS, label_selector="a b"))


def test_watch_replays_then_follows():
    async def scenario():
        cluster = new_cluster()
        cluster.put(make_pod("a").obj())
        start = (await cluster.list_page(PODS)).resource_version
        cluster.put(make_pod("b").obj())
        async with aclosing(cluster.watch(PODS, resource_version=start)) as events:
            (first,) = await take(events, 1)
            cluster.put(make_pod("b").labels(app="x").obj(), make_node("n").obj())
            cluster.remove(PODS, "a", namespace="ml")
            rest = await take(events, 2)
        return [(e.type, e.object["metadata"]["name"]) for e in (first, *rest)]

    assert run(scenario()) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]


def test_watch_shows_leaving_the_selection_as_deleted():
    async def scenario():
        cluster = new_cluster()
        cluster.put(make_pod("a").labels(app="x").obj())
        async with aclosing(cluster.watch(PODS, resource_version="1", label_selector="app=x")) as events:
            cluster.put(make_pod("a").labels(app="y").obj())
            cluster.put(make_pod("a").labels(app="x").obj())
            return [e.type for e in await take(events, 2)]

    assert run(scenario()) == ["DELETED", "ADDED"]


def test_watch_bookmarks_and_ends_when_cut():
    async def scenario():
        cluster = new_cluster()
        cluster.put(make_pod("a").obj(), make_node("n").obj())
        async with aclosing(cluster.watch(PODS, resource_version="2")) as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            cluster.bookmark()
            event = await waiting
            cluster.cut_watches()
            rest = [e async for e in events]
        return event.type, event.object["metadata"]["resourceVersion"], rest

    assert run(scenario()) == ("BOOKMARK", "2", [])


def test_watch_from_before_the_log_is_gone_also_while_it_runs():
    async def scenario():
        cluster = new_cluster()
        cluster.put(make_pod("a").obj())
        async with aclosing(cluster.watch(PODS, resource_version="1")) as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            cluster.expire()
            with pytest.raises(GoneError, match="too old resource version: 1"):
                await waiting
        with pytest.raises(GoneError):
            await anext(cluster.watch(PODS, resource_version="1"))

    run(scenario())


def test_apply_creates_updates_and_drops_what_is_no_longer_named():
    async def scenario():
        cluster = new_cluster()
        first = await cluster.apply(GPU_WASTES, waste(spec={"a": 1, "b": {"c": 2}}), field_manager="op")
        second = await cluster.apply(GPU_WASTES, waste(spec={"a": 3}), field_manager="op")
        return first, second

    first, second = run(scenario())
    assert first["spec"] == {"a": 1, "b": {"c": 2}}
    assert second["spec"] == {"a": 3}
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert (first["metadata"]["generation"], second["metadata"]["generation"]) == (1, 2)


def test_apply_of_the_same_changes_nothing():
    async def scenario():
        cluster = new_cluster()
        first = await cluster.apply(GPU_WASTES, waste(spec={"a": [1, 2]}), field_manager="op")
        again = await cluster.apply(GPU_WASTES, waste(spec={"a": [1, 2]}), field_manager="op")
        return first == again

    assert run(scenario())


def test_managers_keep_their_own_fields():
    async def scenario():
        cluster = new_cluster()
        await cluster.apply(GPU_WASTES, waste(spec={"a": 1}), field_manager="op")
        await cluster.apply(GPU_WASTES, waste(spec={"b": 2}), field_manager="person")
        await cluster.apply(GPU_WASTES, waste(), field_manager="op")
        return (await cluster.get(GPU_WASTES, "w", namespace="ml"))["spec"]

    assert run(scenario()) == {"b": 2}


def test_a_field_of_another_manager_is_a_conflict_unless_forced():
    async def scenario():
        cluster = new_cluster()
        cluster.put(make_deployment("d").replicas(3).obj())
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "ml"},
            "spec": {"replicas": 1},
        }
        with pytest.raises(ConflictError, match=r'conflict with "put": \.spec\.replicas'):
            await cluster.apply(DEPLOYMENTS, body, field_manager="op")
        forced = await cluster.apply(DEPLOYMENTS, body, field_manager="op", force=True, dry_run=True)
        assert (await cluster.get(DEPLOYMENTS, "d", namespace="ml"))["spec"]["replicas"] == 3
        applied = await cluster.apply(DEPLOYMENTS, body, field_manager="op", force=True)
        return forced["spec"]["replicas"], applied["spec"]["replicas"]

    assert run(scenario()) == (1, 1)


def test_status_and_the_rest_are_written_apart():
    async def scenario():
        cluster = new_cluster()
        with pytest.raises(NotFoundError):
            await cluster.apply_status(GPU_WASTES, waste(status={"x": 1}), field_manager="op")
        body = waste(spec={"a": 1}, status={"x": 1})
        created = await cluster.apply(GPU_WASTES, body, field_manager="op")
        assert "status" not in created
        changed = waste(spec={"a": 9}, status={"x": 1, "conditions": [condition("Ready", "True")]})
        return await cluster.apply_status(GPU_WASTES, changed, field_manager="op")

    after = run(scenario())
    assert after["spec"] == {"a": 1}
    assert after["status"]["x"] == 1
    assert after["metadata"]["generation"] == 1


def test_conditions_merge_by_type():
    async def scenario():
        cluster = new_cluster()
        await cluster.apply(GPU_WASTES, waste(), field_manager="op")
        for manager, kind in (("op", "Ready"), ("act", "Applied")):
            status = {"conditions": [condition(kind, "True")]}
            await cluster.apply_status(GPU_WASTES, waste(status=status), field_manager=manager)
        both = await cluster.get(GPU_WASTES, "w", namespace="ml")
        await cluster.apply_status(GPU_WASTES, waste(status={}), field_manager="act")
        return both, await cluster.get(GPU_WASTES, "w", namespace="ml")

    both, one = run(scenario())
    assert both["status"]["conditions"] == [condition("Ready", "True"), condition("Applied", "True")]
    assert one["status"]["conditions"] == [condition("Ready", "True")]


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        (PODS, waste(), "not v1 Pod"),
        (GPU_WASTES, waste(name=""), "`metadata.name` is missing"),
        (GPU_WASTES, waste(metadata={"namespace": ""}), "`metadata.namespace` is missing"),
        (
            GPU_POOLS,
            {"apiVersion": "gpuwaste.dev/v1alpha1", "kind": "GPUPool", "metadata": {"name": "a", "namespace": "b"}},
            "does not belong to a cluster-scoped kind",
        ),
    ],
    ids=["wrong kind", "no name", "no namespace", "namespace too much"],
)
def test_apply_refuses_a_wrong_identity(kind, body, message):
    with pytest.raises(InvalidError, match=message):
        run(new_cluster().apply(kind, body, field_manager="op"))


def test_preconditions_hold():
    async def scenario():
        cluster = new_cluster()
        cluster.put(make_pod("a").obj(uid="u1"), make_pod("b").obj(uid="u2"))
        with pytest.raises(ConflictError, match="u1"):
            await cluster.delete(PODS, "a", namespace="ml", uid="other")
        with pytest.raises(ConflictError):
            await cluster.evict("a", namespace="ml", uid="other")
        cluster.protect("a", namespace="ml", message="needs 1 healthy pod")
        with pytest.raises(DisruptionBudgetError, match="needs 1 healthy pod"):
            await cluster.evict("a", namespace="ml")
        await cluster.evict("b", namespace="ml", uid="u2", dry_run=True)
        await cluster.evict("b", namespace="ml", uid="u2")
        await cluster.delete(PODS, "a", namespace="ml", uid="u1")
        return cluster.objects(PODS)

    assert run(scenario()) == []


def test_resolve_knows_registered_kinds_only():
    cluster = new_cluster()
    assert run(cluster.resolve("apps/v1", "Deployment")) == DEPLOYMENTS
    with pytest.raises(NotFoundError, match=r"no RayCluster in ray\.io/v1"):
        run(cluster.resolve("ray.io/v1", "RayCluster"))
