"""The operator's passes from agents to objects, in memory, and over a kill."""

import asyncio
from datetime import timedelta
from random import Random

from tests.builders import make_namespace, make_node, make_pod
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.runtime.test_puller import FakeAgent

from gpuwaste.cluster.kinds import GPU_POOLS, GPU_WASTES, RIGHTSIZING_PLANS
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.runtime.assemble import assemble
from gpuwaste.settings.operator import AgentSettings, OperatorSettings, PlanSettings

STARTED = "2026-11-02T00:00:00Z"


def cluster(now):
    api = MemoryCluster(now=lambda: now)
    node = make_node("node-a").labels({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}).gpu(1)
    pod = make_pod("web").namespace("team-a").gpu(1).on("node-a").running(STARTED)
    api.put(
        make_namespace("kube-system").obj(),
        make_namespace("team-a").obj(),
        node.condition("Ready", "True", STARTED).obj("uid-node-a"),
        pod.obj("uid-web"),
    )
    return api


def journal(minutes):
    made = Journal()
    for minute in range(minutes):
        at = HOUR + timedelta(minutes=minute)
        made.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.5, sm=0.25, first_activity=HOUR)
    return made


def passes(store, api, agent, now, *, count=20, then=None):
    settings = OperatorSettings(
        cluster_name="test",
        store=str(store),
        agents=AgentSettings(endpoints=("http://127.0.0.1:1",), pull_period_seconds=0.001),
        writes_per_second=1000,
        plan=PlanSettings(time_limit_seconds=1),
    )

    async def run():
        clock = [now]
        async with assemble(settings, api, now=lambda: clock[0], random=Random(0)) as operator:
            operator.puller.source = agent
            operator.planner.solver = no_solver
            following = asyncio.create_task(operator.state.run())
            while not operator.state.synced():  # noqa: ASYNC110 (many things make it so)
                await asyncio.sleep(0)
            operator.books.recover()
            for _ in range(count):
                if not await operator.step():
                    break
            if then is not None:
                clock[0] = then
                await operator.step()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    asyncio.run(run())


def no_solver(instance, *, time_limit_seconds):
    raise AssertionError("a single node needs no solver")


def ledger(store):
    opened = open_store(str(store))
    return {name: opened.read(name) for name in opened.files("ledger")}


def test_objects_show_what_the_ledger_says(tmp_path):
    now = HOUR + timedelta(hours=2, seconds=5)
    api = cluster(now)
    passes(tmp_path, api, FakeAgent(journal(120)), now)
    (waste,) = api.objects(GPU_WASTES)
    summary = waste["status"]["summary"]
    assert (summary["workload"], summary["heldGPUHours"], summary["effectiveGPUHours"]) == ("Pod/web", "2.00", "0.50")
    assert summary["wastePercent"] == "75"
    (pool,) = api.objects(GPU_POOLS)
    assert pool["spec"] == {"gpuModel": "H100-80GB", "nodePool": "default"}
    assert pool["status"]["windows"][-1]["ownedGPUHours"] == "2"
    assert len(api.objects(RIGHTSIZING_PLANS)) == 1


def test_a_late_window_rewrites_its_hour_and_nothing_else(tmp_path):
    now = HOUR + timedelta(hours=2, seconds=5)
    api = cluster(now)
    whole = journal(120)
    late = Journal()
    late.batch.CopyFrom(whole.batch)
    passes(tmp_path, api, FakeAgent(journal(119)), now)
    before = ledger(tmp_path)
    passes(tmp_path, api, FakeAgent(late), now)
    after = ledger(tmp_path)
    assert before.keys() == after.keys()
    changed = [name for name in before if before[name] != after[name]]
    assert [name.split("/")[-2] for name in changed] == ["hour=10"]


def test_a_kill_between_inputs_and_ledger_is_made_good_at_the_next_start(tmp_path):
    now = HOUR + timedelta(hours=2, seconds=5)
    undisturbed, killed = tmp_path / "a", tmp_path / "b"
    passes(undisturbed, cluster(now), FakeAgent(journal(120)), now)
    inputs = InputStore.open(open_store(str(killed)), "test")
    inputs.append_windows(journal(120).table())  # durable, and then the process was gone
    passes(killed, cluster(now), FakeAgent(journal(120)), now)
    assert ledger(killed) == ledger(undisturbed)


def test_the_running_hour_is_shown_and_not_stored(tmp_path):
    now = HOUR + timedelta(minutes=31)
    api = cluster(now)
    passes(tmp_path, api, FakeAgent(journal(30)), now)
    (waste,) = api.objects(GPU_WASTES)
    assert waste["status"]["summary"]["heldGPUHours"] == "0.50"
    assert ledger(tmp_path) == {}


def test_an_hour_that_ends_in_silence_is_closed_all_the_same(tmp_path):
    now = HOUR + timedelta(minutes=31)
    passes(tmp_path, cluster(now), FakeAgent(journal(30)), now, then=HOUR + timedelta(minutes=61))
    assert [name.split("/")[-2] for name in ledger(tmp_path)] == ["hour=09"]
