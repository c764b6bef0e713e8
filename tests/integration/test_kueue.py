"""Quotas of Kueue on a real API server, in the versions that its releases serve, down to `gpuwaste reserved`."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.cluster.crds import wait_until_served
from tests.helpers import facts as fact
from tests.helpers.windows import Journal
from tests.unit.cli.stored import run

from gpuwaste.cluster.kube import open_api
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import update_hour
from gpuwaste.model.units import hour_start
from gpuwaste.runtime.quotas import quota_facts, read_quotas
from gpuwaste.settings.teams import TeamRule, TeamRules

GPU = "nvidia.com/gpu"
SCOPES = {"ClusterQueue": "Cluster", "Cohort": "Cluster", "LocalQueue": "Namespaced"}


def definition(kind, versions):
    """As Kueue's own, but for the schema: its names, scopes and versions, the newest stored."""
    plural = f"{kind.lower()}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.kueue.x-k8s.io",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": "kueue.x-k8s.io",
            "scope": SCOPES[kind],
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == versions[0],
                    "schema": {"openAPIV3Schema": anything},
                }
                for version in versions
            ],
        },
    }


def objects(version, cohort):
    """Two queues of one cohort, and the local queues of two namespaces that lead to one of them."""

    def body(kind, name, spec, **meta):
        api = f"kueue.x-k8s.io/{version}"
        return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}

    def queue(name, quota, **limits):
        flavors = [{"name": "h100", "resources": [{"name": GPU, "nominalQuota": quota, **limits}]}]
        groups = [{"coveredResources": [GPU], "flavors": flavors}]
        return body("ClusterQueue", name, {cohort: "gpus", "namespaceSelector": {}, "resourceGroups": groups})

    return [
        queue("research", "8", borrowingLimit="3"),
        queue("serving", 16, lendingLimit="5"),
        body("LocalQueue", "train", {"clusterQueue": "research"}, namespace="ml-a"),
        body("LocalQueue", "train", {"clusterQueue": "research"}, namespace="ml-b"),
    ]


@pytest.fixture
def kueue(control_plane):
    """Serves Kueue's kinds in the versions that a test asks for, and takes them away again."""
    names = [f"{kind.lower()}s.kueue.x-k8s.io" for kind in SCOPES]

    def serve(versions):
        control_plane.apply(*(definition(kind, versions) for kind in SCOPES))
        wait_until_served(control_plane, names)

    yield serve
    control_plane.kubectl("delete", "crd", *names)


@pytest.mark.parametrize(("versions", "cohort"), [(["v1beta1"], "cohort"), (["v1beta2", "v1beta1"], "cohortName")])
def test_queues_are_read_in_the_newest_version_and_shown_beside_quotas(
    control_plane, kueue, tmp_path, versions, cohort
):
    now = datetime.now(UTC)
    kueue(versions)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": "ml-a"},
        "spec": {"hard": {f"requests.{GPU}": "4"}},
    }
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("ml-a", "ml-b")]
    control_plane.apply(*namespaces, quota, *objects(versions[0], cohort))

    async def read():
        api = open_api(component="test", kubeconfig=control_plane.kubeconfig)
        try:
            return quota_facts(await read_quotas(api))
        finally:
            await api.close()

    quotas = asyncio.run(read())
    queue = next(one.data for one in quotas if one.data.name == "research")
    assert (queue.gpus, queue.borrowable) == ({GPU: 8}, {GPU: 3})
    rows = shown(tmp_path, quotas, hour_start(now), "namespace")
    assert (rows["ml-a"]["quota"], rows["ml-a"]["queue_quota"], rows["ml-a"]["queue_borrowable"]) == (4, 8, 3)
    assert (rows["ml-b"]["quota"], rows["ml-b"]["queue_quota"], rows["ml-b"]["queue_borrowable"]) == (None, 8, 3)
    team = shown(tmp_path, quotas, hour_start(now), "team")["ml"]
    assert (team["quota"], team["queue_quota"], team["queue_borrowable"]) == (4, 8, 3), "one queue counts once"


def shown(folder, quotas, hour, by):
    store = open_store(str(folder))
    inputs = InputStore(store, "test")
    inputs.append_windows(Journal("node-a").device(hour, "gpu-1").table())
    at = hour + timedelta(minutes=59)
    known = [fact.node("node-a"), fact.gpu("gpu-1", on="node-a"), *quotas]
    inputs.write_facts(hour, [one for one in known if one.valid_from <= at])
    rules = TeamRules(rules=(TeamRule(source="namespace", match="(.+)-."),))
    store.write("inputs/cluster=test/team-rules.json", rules.model_dump_json().encode())
    update_hour(inputs, store, hour, HourRules(teams=rules))
    result = run("reserved", "--inputs", folder, "--by", by, "-o", "json")
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.stdout)}
