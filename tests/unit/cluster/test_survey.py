"""One look at a cluster with all rights, with some, and at many owners."""

import asyncio
from datetime import UTC, datetime

from tests.builders import DeploymentBuilder, make_namespace, make_node, make_pod

from gpuwaste.cluster.errors import ForbiddenError
from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.cluster.survey import survey

NOW = datetime(2026, 11, 2, 9, tzinfo=UTC)


class Guest:
    """A cluster of which some may not be read."""

    def __init__(self, api, *, lists=(), gets=()):
        self.api, self.lists, self.gets = api, set(lists), set(gets)
        self.asked = []

    def __getattr__(self, name):
        return getattr(self.api, name)

    async def list_page(self, kind, *, namespace=None, **more):
        self.asked.append((kind.plural, namespace))
        if kind.plural in self.lists and (namespace is None or namespace == "closed"):
            raise ForbiddenError(f'cannot list resource "{kind.plural}"', status=403)
        return await self.api.list_page(kind, namespace=namespace, **more)

    async def get(self, kind, name, *, namespace=None):
        self.asked.append((kind.plural, name))
        if kind.plural in self.gets:
            raise ForbiddenError(f'cannot get resource "{kind.plural}"', status=403)
        return await self.api.get(kind, name, namespace=namespace)


def cluster(*, workloads=1):
    api = MemoryCluster(now=lambda: NOW)
    api.put(make_namespace("open").obj(), make_namespace("closed").obj())
    api.put(make_node("gpu-a").gpu(8).obj(), make_node("cpu-a").obj())
    for number in range(workloads):
        owner = DeploymentBuilder(f"web-{number}").namespace("open").obj()
        api.put(owner)
        pod = make_pod(f"web-{number}-x").namespace("open").gpu(1).on("gpu-a").running().owned_by(owner)
        api.put(pod.obj())
    api.put(make_pod("helper").namespace("open").on("gpu-a").running().obj())
    api.put(make_pod("far").namespace("closed").on("cpu-a").running().obj())
    api.put(make_pod("hidden").namespace("closed").gpu(1).on("gpu-a").running().obj())
    return api


def look(api, **more):
    return asyncio.run(survey(api, **more))


def names(found):
    return {record.data.name for record in found.snapshot.pods.values()}


def test_gpu_pods_and_their_neighbours_are_kept_with_their_owners():
    found = look(cluster())
    assert names(found) == {"web-0-x", "helper", "hidden"}
    assert found.pods == 4
    assert {record.data.name for record in found.snapshot.owners.values()} == {"web-0"}
    assert found.snapshot.gpu_nodes == {"gpu-a"}
    assert (found.refused, found.rejected) == ((), ())
    assert {fact.kind for fact in found.snapshot.facts()} == {"pod", "node", "namespace", "owner"}


def test_what_is_refused_is_said_and_the_rest_is_read():
    found = look(Guest(cluster(), lists=["nodes"], gets=["deployments"]))
    assert [refusal.what for refusal in found.refused] == ["nodes", "deployments"]
    assert names(found) == {"web-0-x", "helper", "hidden"}
    assert found.snapshot.gpu_nodes == {"gpu-a"}  # where pods hold GPUs there are some


def test_pods_are_read_namespace_by_namespace_where_not_all_may_be():
    guest = Guest(cluster(), lists=["pods"])
    found = look(guest)
    assert names(found) == {"web-0-x", "helper"}
    assert [refusal.what for refusal in found.refused] == ["pods", "pods in closed"]


def test_only_the_namespaces_that_were_named_are_read():
    guest = Guest(cluster())
    assert names(look(guest, namespaces=["open"])) == {"web-0-x", "helper"}
    assert ("pods", None) not in guest.asked


def test_many_owners_of_a_kind_are_listed_and_not_fetched_one_by_one():
    guest = Guest(cluster(workloads=50))
    found = look(guest)
    assert len(found.snapshot.owners) == 50
    assert ("deployments", None) in guest.asked
    assert not any(plural == "deployments" and name for plural, name in guest.asked)


def test_progress_tells_what_was_read():
    said = []
    look(cluster(), progress=lambda what, count: said.append((what, count)))
    assert ("pods", 4) in said
    assert ("nodes", 2) in said
