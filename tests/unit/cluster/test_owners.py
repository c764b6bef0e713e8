"""Chains of owners end where they must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.cluster.owners import missing_owner, owner_chain, workload_of
from gpuwaste.model.facts import OwnerData, OwnerRef, PodData


def ref(uid, kind="Thing"):
    return OwnerRef(api_version="x/v1", kind=kind, name=f"name-{uid}", uid=uid)


def data(uid, owner=None):
    return OwnerData(api_version="x/v1", kind="Thing", namespace="ml", name=f"name-{uid}", owner=owner)


def pod(owner=None):
    return PodData(namespace="ml", name="p", node="n", owner=owner)


def test_the_top_of_the_chain_is_the_workload():
    owners = {"rs": data("rs", ref("d", "Deployment")), "d": data("d")}
    assert workload_of("u", pod(ref("rs")), owners) == ref("d", "Deployment")
    assert [r.uid for r in owner_chain(ref("rs"), owners)] == ["rs", "d"]
    assert missing_owner(ref("rs"), owners) is None


def test_a_pod_without_owner_is_its_own_workload():
    assert workload_of("u", pod(), {}) == OwnerRef(api_version="v1", kind="Pod", name="p", uid="u")
    assert missing_owner(None, {}) is None


def test_an_unknown_parent_ends_the_chain_with_its_reference():
    owners = {"job": data("job", ref("cron", "CronJob"))}
    assert workload_of("u", pod(ref("job")), owners) == ref("cron", "CronJob")
    assert missing_owner(ref("job"), owners) == ref("cron", "CronJob")


@given(st.dictionaries(st.sampled_from("abcdef"), st.none() | st.sampled_from("abcdef"), max_size=6))
def test_any_graph_has_a_finite_chain_without_repeats(parents):
    owners = {uid: data(uid, None if parent is None else ref(parent)) for uid, parent in parents.items()}
    chain = [r.uid for r in owner_chain(ref("a"), owners)]
    assert chain[0] == "a"
    assert len(chain) == len(set(chain))
