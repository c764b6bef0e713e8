"""The operator's passes from agents to objects, in memory, and over a kill."""

import asyncio
from datetime import timedelta
from random import Random

import pyarrow.compute as pc
from tests.builders import make_namespace, make_node, make_pod
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.cli.stored import run
from tests.unit.runtime.test_puller import FakeAgent

from gpuwaste.cluster.kinds import GPU_POOLS, GPU_WASTES, RIGHTSIZING_PLANS
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.read import read_ledger
from gpuwaste.ledger.store import open_store
from gpuwaste.runtime.assemble import assemble
from gpuwaste.settings.operator import AgentSettings, OperatorSettings, PlanSettings
from gpuwaste.settings.teams import TeamRule, TeamRules

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


def passes(store, api, agent, now, *, count=20, then=None, teams=None):
    settings = OperatorSettings(
        cluster_name="test",
        store=str(store),
        agents=AgentSettings(endpoints=("http://127.0.0.1:1",), pull_period_seconds=0.001),
        writes_per_second=1000,
        plan=PlanSettings(time_limit_seconds=1),
        team_rules=teams or TeamRules(),
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


RED, BLUE = (TeamRules(rules=(TeamRule(source="namespace", match=".+", team=team),)) for team in ("red", "blue"))


def teams_of(store):
    rows = read_ledger(open_store(str(store)), start=HOUR, end=HOUR + timedelta(hours=2))
    return set(rows.filter(pc.equal(rows["row_kind"], "holder"))["team"].to_pylist())


def written_by_red(store, now):
    passes(store, cluster(now), FakeAgent(journal(120)), now, teams=RED)
    assert teams_of(store) == {"red"}


def test_changed_team_rules_name_open_periods_anew_and_leave_closed_ones(tmp_path):
    written_by_red(tmp_path, HOUR + timedelta(hours=2, seconds=5))
    same_month = HOUR + timedelta(days=12)
    passes(tmp_path, cluster(same_month), FakeAgent(journal(120)), same_month, teams=BLUE)
    assert teams_of(tmp_path) == {"blue"}
    december = HOUR.replace(month=12, day=5)
    before = ledger(tmp_path)
    passes(tmp_path, cluster(december), FakeAgent(journal(120)), december, teams=RED)
    assert teams_of(tmp_path) == {"blue"}, "November is closed"
    assert ledger(tmp_path) == before
    late = Journal("node-a", journal_id="late").device(HOUR + timedelta(minutes=7), "gpu-9").table()
    InputStore.open(open_store(str(tmp_path)), "test").append_windows(late)
    passes(tmp_path, cluster(december), FakeAgent(journal(120)), december, teams=RED)
    assert ledger(tmp_path) != before
    assert teams_of(tmp_path) == {"blue"}, "late data changes figures, and not whose they are"
    assert run("ledger", "verify", "--ledger", tmp_path, "--inputs", tmp_path).exit_code == 0
    assert run("replay", "--inputs", tmp_path, "--ledger", tmp_path / "again").exit_code == 0
    again = open_store(str(tmp_path / "again"))
    assert {f"ledger/{name}": again.read(name) for name in again.files("")} == ledger(tmp_path), "a replay knows both"


def test_team_rules_name_what_a_report_holds_open(tmp_path):
    written_by_red(tmp_path, HOUR + timedelta(hours=2, seconds=5))
    december = HOUR.replace(month=12, day=5)
    api = cluster(december)
    november = {"fromTime": "2026-11-01T00:00:00Z", "toTime": "2026-12-01T00:00:00Z"}
    spec = {"destinationURL": "/bills", "groupBy": "Team", "range": november, "gracePeriodSeconds": 30 * 86_400}
    kind = {"apiVersion": "gpuwaste.dev/v1alpha1", "kind": "ChargebackReport"}
    api.put({**kind, "metadata": {"name": "november"}, "spec": spec})
    passes(tmp_path, api, FakeAgent(journal(120)), december, teams=BLUE)
    assert teams_of(tmp_path) == {"blue"}
