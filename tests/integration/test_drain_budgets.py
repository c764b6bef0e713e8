"""A drain planned from what a real API server says of pods and budgets, carried out against its eviction API.

The disruption controller is the real one. What a kubelet would do is done here: a pod that is started is Ready.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.builders import make_node, make_pod
from tests.integration.test_cluster import apply_all, connected, fresh, until

from gpuwaste.cluster.errors import DisruptionBudgetError
from gpuwaste.cluster.kinds import NODES, POD_DISRUPTION_BUDGETS
from gpuwaste.cluster.state import ClusterState
from gpuwaste.model.facts import Fact, PriceData
from gpuwaste.packing.drain import drain
from gpuwaste.packing.drain_verifier import drain_violations
from gpuwaste.recommend.instance import build_drain
from gpuwaste.recommend.scope import facts_at, scope_of
from gpuwaste.runtime.disruption import budget_facts, cordon_facts, read_budgets

if TYPE_CHECKING:
    from tests.cluster.access import ControlPlane

_PRODUCT = "NVIDIA-H100-80GB-HBM3"
_SPACE = "budgets"
_BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


def now():
    return datetime.now(UTC)


def node(name):
    labels = {"nvidia.com/gpu.product": _PRODUCT, "nvidia.com/gpu.count": "4", "kubernetes.io/hostname": name}
    return fresh(make_node(name).gpu(4).amount(cpu="64", memory="256Gi", pods="110").labels(labels))


def running(name, *, on, app, **spec):
    """A Ready pod that something owns which does not make new ones, gone the moment it is evicted."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": spec.pop("owner"), "controller": True}
    built = make_pod(name).labels(app=app).gpu(1).requests(cpu="1", memory="1Gi").on(on).running()
    body = fresh(built, _SPACE)
    body["metadata"]["ownerReferences"] = [owner]
    body["spec"] |= {"terminationGracePeriodSeconds": 0, **spec}
    body["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return body


def budget(name, app, available):
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": _SPACE},
        "spec": {"minAvailable": available, "selector": {"matchLabels": {"app": app}}},
    }


async def allowed(api, name):
    found = await api.get(POD_DISRUPTION_BUDGETS, name, namespace=_SPACE)
    return found.get("status", {}).get("disruptionsAllowed", 0), found.get("status", {}).get("currentHealthy", 0)


async def until_budget(api, name, *, healthy):
    deadline = time.monotonic() + 30
    while (await allowed(api, name))[1] != healthy:
        assert time.monotonic() < deadline, f"{name} did not see {healthy} healthy pods"
        await asyncio.sleep(0.05)


async def seen(api):
    """All that a plan is made of."""
    state = ClusterState(api=api, now=now, random=Random(1))
    task = asyncio.create_task(state.run())
    try:
        await until(state.synced)
        snapshot = state.snapshot()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    prices = [
        Fact(
            kind="price",
            uid=f"{uid}/H100-80GB",
            valid_from=_BEGUN,
            valid_to=None,
            data=PriceData(
                node_uid=uid,
                product="H100-80GB",
                currency="USD",
                source="test",
                date="",
                list_unit_cost="9" if record.data.name == "budget-a" else "2",
            ),
        )
        for uid, record in snapshot.nodes.items()
    ]
    facts = [*snapshot.facts(), *prices, *budget_facts(await read_budgets(api)), *cordon_facts(snapshot)]
    return scope_of(facts_at(facts, now()))


def test_every_wave_of_a_drain_is_let_through_by_the_eviction_api(managed_control_plane: ControlPlane) -> None:
    access = managed_control_plane
    access.kubectl("create", "namespace", _SPACE)
    access.kubectl("create", "configmap", "owner", "-n", _SPACE)

    async def scenario():
        async with connected(access) as api:
            config_map = await api.resolve("v1", "ConfigMap")
            owner = (await api.get(config_map, "owner", namespace=_SPACE))["metadata"]["uid"]
            names = ("budget-a", "budget-b", "budget-c", "budget-d")
            await apply_all(api, *(node(name) for name in names))
            spread_out = {
                "affinity": {
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
                        ]
                    }
                }
            }
            pods = [running(f"web-{i}", on="budget-a", app="web", owner=owner) for i in range(3)]
            pods += [running(f"db-{i}", on=f"budget-{'bc'[i]}", app="db", owner=owner, **spread_out) for i in range(2)]
            pods.append(running("stuck", on="budget-d", app="stuck", owner=owner))
            started = await apply_all(api, *pods)
            uids = {body["metadata"]["name"]: body["metadata"]["uid"] for body in started}
            await apply_all(api, budget("web", "web", 2), budget("stuck", "stuck", 1))
            await until_budget(api, "web", healthy=3)
            await until_budget(api, "stuck", healthy=1)

            cut = await seen(api)
            assert {one.target.name: one.reason for one in cut.refused if one.target.kind == "Pod"} == {
                "stuck": "DisruptionBudget"
            }
            question = build_drain(cut, max_moves=10)
            answer = drain(question, time_limit_seconds=0, clock=time.monotonic)
            assert drain_violations(question, answer) == []
            released = [cut.nodes[index].name for index in answer.released]
            assert "budget-a" in released
            assert "budget-d" not in released

            moved = 0
            for wave in answer.waves:
                moves = [(cut.pods[move.pod].name, cut.nodes[move.target].name) for move in wave]
                for name, _ in moves:
                    await api.evict(name, namespace=_SPACE, uid=uids[name])
                if any(name.startswith("web") for name, _ in moves):
                    # A second pod of the same budget would be refused now: the waves are no more cautious than needed.
                    other = next(n for n in uids if n.startswith("web") and n not in {name for name, _ in moves})
                    with pytest.raises(DisruptionBudgetError):
                        await api.evict(other, namespace=_SPACE, uid=uids[other])
                for name, target in moves:
                    extra = spread_out if name.startswith("db") else {}
                    # A new name, as a controller gives it: a budget remembers the names of evicted pods.
                    again = running(f"{name}-again", on=target, app=name.partition("-")[0], owner=owner, **extra)
                    del uids[name]
                    uids[f"{name}-again"] = (await apply_all(api, again))[0]["metadata"]["uid"]
                    moved += 1
                await until_budget(api, "web", healthy=3)
            assert moved == answer.moves >= 3
            after = await seen(api)
            empty = {one.name for one in after.nodes} - {after.nodes[pod.node].name for pod in after.pods}
            assert set(released) <= empty
            hosts = [after.nodes[pod.node].name for pod in after.pods if pod.name.startswith("db")]
            assert len(set(hosts)) == 2
            for name in names:
                await api.delete(NODES, name)

    asyncio.run(scenario())
