"""Requests, quotas and purchases against what is held and used."""

import asyncio
import json
from datetime import timedelta

import pytest
from tests.builders import make_namespace
from tests.helpers import facts as fact
from tests.helpers.facts import BEFORE, HOUR
from tests.helpers.windows import Journal
from tests.unit.cli.stored import run
from tests.unit.ledger.test_hour import build, minutes
from tests.unit.pricing.test_reservations import reservation

from gpuwaste.cluster.kinds import NAMESPACES, ResourceKind
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import update_hour
from gpuwaste.model.facts import ContainerRequest, Fact, PodData, QuotaData
from gpuwaste.runtime.quotas import quota_facts, read_quotas
from gpuwaste.settings.teams import TeamRule, TeamRules
from gpuwaste.waste.reserved import reserved_against_used

AT = HOUR + timedelta(minutes=59)
GPU = "nvidia.com/gpu"
QUOTAS = ResourceKind(group="", version="v1", plural="resourcequotas", kind="ResourceQuota", namespaced=True)


def quota(source, name, namespace="", *, gpus=None, queue=""):
    data = QuotaData(source=source, name=name, namespace=namespace, gpus=gpus or {}, queue=queue)
    return Fact(kind="quota", uid=f"uid-{source}-{namespace}-{name}", valid_from=BEFORE, valid_to=None, data=data)


def waiting(name, *, since, gpus=1, namespace="team-b"):
    container = ContainerRequest(name="main", gpus={GPU: gpus})
    data = PodData(namespace=namespace, name=name, node="", containers=(container,))
    return Fact(kind="pending", uid=f"uid-{name}", valid_from=since, valid_to=None, data=data)


def world():
    journal = Journal()
    for at in minutes():
        for number in range(4):
            journal.device(at, f"gpu-{number}")
        journal.usage(at, "gpu-0", "web", duty=1.0, sm=0.5)
        journal.usage(at, "gpu-1", "train", namespace="team-b")
    facts = [
        fact.node(gpus=4),
        *(fact.gpu(f"gpu-{number}") for number in range(4)),
        fact.pod("web"),
        fact.pod("train", namespace="team-b"),
        waiting("late", since=HOUR + timedelta(minutes=29)),
        quota("ResourceQuota", "all", "team-a", gpus={GPU: 8}),
        quota("ResourceQuota", "tight", "team-a", gpus={GPU: 2}),
        quota("LocalQueue", "q", "team-b", queue="shared"),
        quota("ClusterQueue", "shared", gpus={GPU: 16}),
        reservation(6, owner_namespace="team-a"),
    ]
    return [journal], facts


def rows(by, teams=None):
    journals, facts = world()
    table = build(journals, facts)
    found = reserved_against_used(facts, table, by=by, at=AT, teams=teams or TeamRules())
    return {row.name: row for row in found}


def test_by_namespace():
    found = rows("namespace")
    assert (found["team-a"].requested, found["team-a"].quota, found["team-a"].queue_quota) == (1, 2, None)
    assert (found["team-a"].bought, found["team-a"].held, float(found["team-a"].effective)) == (6, 1, 0.5)
    late = found["team-b"]
    assert (late.quota, late.queue_quota, late.effective, late.waiting_pods) == (None, 16, None, 1)
    assert late.longest_wait_seconds == 30 * 60


def test_by_team_and_by_pool():
    teams = TeamRules(rules=(TeamRule(source="namespace", match="team-(.+)"),))
    found = rows("team", teams)
    assert (found["a"].quota, found["a"].bought, found["b"].queue_quota) == (2, 6, 16)
    (pool,) = rows("pool").values()
    assert (pool.name, pool.requested, pool.bought, pool.held, pool.waiting_pods) == ("H100-80GB/default", 2, 6, 2, 1)


def test_the_command_reads_what_is_stored(tmp_path):
    journals, facts = world()
    store = open_store(str(tmp_path))
    inputs = InputStore(store, "test")
    inputs.append_windows(journals[0].table())
    inputs.write_facts(HOUR, facts)
    update_hour(inputs, store, HOUR, HourRules(teams=TeamRules()))
    shown = {row["name"]: row for row in json.loads(run("reserved", "--inputs", tmp_path, "-o", "json").stdout)}
    assert (shown["team-a"]["quota"], shown["team-a"]["held"]) == (2, "1")
    text = run("reserved", "--inputs", tmp_path, "--by", "pool").stdout.splitlines()
    assert text[0].split()[:3] == ["POOL", "REQUESTED", "QUOTA"]


def test_several_clusters_and_a_purchase_that_they_share(tmp_path):
    store = open_store(str(tmp_path))
    for cluster in ("east", "west"):
        journals, facts = world()
        inputs = InputStore(store, cluster)
        inputs.append_windows(journals[0].table())
        inputs.write_facts(HOUR, facts)
        update_hour(inputs, store, HOUR, HourRules(teams=TeamRules()))

    def shown(*arguments):
        result = run("reserved", "--ledger", tmp_path, *arguments, "-o", "json")
        assert result.exit_code == 0, result.output
        return {(row["cluster"], row["name"]): row for row in json.loads(result.stdout)}

    teams = shown("--by", "team")
    assert set(teams) == {("", "team-a"), ("", "team-b")}
    assert (teams["", "team-a"]["bought"], teams["", "team-a"]["held"], teams["", "team-a"]["requested"]) == (6, "2", 2)
    assert (teams["", "team-b"]["waiting_pods"], teams["", "team-b"]["effective"]) == (2, None)
    spaces = shown()
    assert {key: row["bought"] for key, row in spaces.items() if key[1] == "team-a"} == {
        ("east", "team-a"): 6,
        ("west", "team-a"): 0,
    }
    assert {key[0] for key in shown("--cluster", "west")} == {""}
    assert run("reserved", "--ledger", tmp_path).stdout.split()[0] == "CLUSTER"


def test_quotas_of_a_cluster_without_kueue():
    api = MemoryCluster(now=lambda: HOUR)
    asyncio.run(api.apply(NAMESPACES, make_namespace("ml").obj(None), field_manager="t"))
    body = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": "ml"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "4", "requests.cpu": "10", "pods": "5"}},
    }
    asyncio.run(api.apply(QUOTAS, body, field_manager="t"))
    (found,) = quota_facts(asyncio.run(read_quotas(api)))
    assert (found.data.namespace, found.data.gpus) == ("ml", {GPU: 4})


def test_queues_of_kueue():
    meta = {"name": "shared", "uid": "u1", "creationTimestamp": "2026-11-01T00:00:00Z"}
    flavors = [{"resources": [{"name": GPU, "nominalQuota": n}, {"name": "cpu", "nominalQuota": 9}]} for n in (8, "4")]
    cluster = {"kind": "ClusterQueue", "metadata": meta, "spec": {"resourceGroups": [{"flavors": flavors}]}}
    local = {
        "kind": "LocalQueue",
        "metadata": {**meta, "name": "q", "uid": "u2", "namespace": "ml"},
        "spec": {"clusterQueue": "shared"},
    }
    found = {one.data.source: one.data for one in quota_facts([cluster, local])}
    assert found["ClusterQueue"].gpus == {GPU: 12}
    assert (found["LocalQueue"].namespace, found["LocalQueue"].queue) == ("ml", "shared")


def cluster_queue(name, quota, *, flavor="h100", **more):
    resource = {"name": GPU, "nominalQuota": quota}
    resource |= {key: more.pop(key) for key in ("borrowingLimit", "lendingLimit") if key in more}
    groups = [{"coveredResources": [GPU], "flavors": [{"name": flavor, "resources": [resource]}]}]
    meta = {"name": name, "uid": name, "creationTimestamp": "2026-11-01T00:00:00Z"}
    return {"kind": more.pop("kind", "ClusterQueue"), "metadata": meta, "spec": {"resourceGroups": groups, **more}}


COHORTS = {
    "all that others of the cohort do not use": ([cluster_queue("b", 6, cohortName="c")], {GPU: 6}),
    "an older version's word": ([cluster_queue("b", 6, cohort="c")], {GPU: 6}),
    "up to what they lend": ([cluster_queue("b", 6, cohortName="c", lendingLimit=2)], {GPU: 2}),
    "a limit of zero": ([cluster_queue("b", 6, cohortName="c", lendingLimit=0)], None),
    "another cohort": ([cluster_queue("b", 6, cohortName="d")], None),
    "another flavor": ([cluster_queue("b", 6, cohortName="c", flavor="l4")], None),
    "what the cohort has of its own": ([cluster_queue("c", 5, kind="Cohort")], {GPU: 5}),
    "the tree of cohorts": (
        [cluster_queue("c", 1, kind="Cohort", parentName="top"), cluster_queue("b", 6, cohortName="top")],
        {GPU: 7},
    ),
    "cohorts in a circle": (
        [cluster_queue("c", 1, kind="Cohort", parentName="d"), cluster_queue("d", 2, kind="Cohort", parentName="c")],
        {GPU: 1},
    ),
}


@pytest.mark.parametrize("name", COHORTS)
def test_what_a_queue_may_borrow_of_its_cohort(name):
    others, expected = COHORTS[name]
    found = {one.data.name: one.data for one in quota_facts([cluster_queue("a", 4, cohortName="c"), *others])}
    assert found["a"].gpus == {GPU: 4}
    assert found["a"].borrowable == expected
    assert all(one.source == "ClusterQueue" for one in found.values())


def test_a_queue_borrows_up_to_its_own_limit_and_nothing_without_a_cohort():
    other = cluster_queue("b", 6, cohortName="c")
    limited = [cluster_queue("a", 4, cohortName="c", borrowingLimit=1), other]
    assert {one.data.name: one.data.borrowable for one in quota_facts(limited)} == {"a": {GPU: 1}, "b": {GPU: 4}}
    assert quota_facts([cluster_queue("a", 4, borrowingLimit=1), other])[0].data.borrowable is None
