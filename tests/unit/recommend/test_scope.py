"""What a plan may touch, and what it leaves as it is with a reason."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.helpers import facts
from tests.unit.recommend.clusters import HOUR, cluster, node, pod

from gpuwaste.model.facts import ContainerRequest, MigInstanceData, OwnerRef, Requests, requested
from gpuwaste.recommend.movable import pin_reason
from gpuwaste.recommend.scope import facts_at, scope_of

DAEMON_SET = OwnerRef(api_version="apps/v1", kind="DaemonSet", name="exporter", uid="uid-ds")
MIG = MigInstanceData(uuid="MIG-1", profile="3g.40gb", start=0, weight_num=4, weight_den=8)


def scope(*parts):
    return scope_of(facts_at(cluster(*parts), HOUR))


def changed(parts, **more):
    """The node's facts with other fields in its node fact."""
    first, *rest = parts
    return [replace(first, data=replace(first.data, **more)), *rest]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        pytest.param([node("a", mig=(MIG,))], "MIGMode", id="in MIG mode"),
        pytest.param(
            [facts.node("a", product="NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", gpus=7, cpu_milli=1000, memory_bytes=2**30)],
            "MIGMode",
            id="in MIG mode by its label, strategy single",
        ),
        pytest.param([node("a", price=None)], "UnknownPrice", id="no price"),
        pytest.param([node("a", cpu=0)], "UnknownCapacity", id="allocatable CPU not known"),
        pytest.param([changed(node("a"), gpus={})], "NoGPUsOffered", id="offers no GPU"),
        pytest.param(
            [changed(node("a"), gpus={"nvidia.com/gpu": 4, "nvidia.com/gpu.shared": 16})],
            "SeveralGPUResources",
            id="two resources",
        ),
        pytest.param([node("a"), node("b"), node("c", currency="EUR")], "OtherCurrency", id="another currency"),
        pytest.param([node("a", gpus=1), pod("p", on="a", gpus=2)], "Overfull", id="pods ask for more than there is"),
    ],
)
def test_a_node_that_cannot_be_planned_is_refused_by_name(parts, reason):
    found = scope(*parts)
    assert [refusal.reason for refusal in found.refused] == [reason]
    refused = found.refused[0].target
    assert refused.kind == "Node"
    assert refused.name == ("c" if reason == "OtherCurrency" else "a")
    assert found.refused[0].message
    assert refused.name not in [one.name for one in found.nodes]


def test_gpus_of_two_products_on_one_node_are_refused():
    mixed = node("a", gpus=2)
    other = replace(facts.gpu("GPU-x", on="a"), data=replace(facts.gpu("GPU-x", on="a").data, product="A100-80GB"))
    assert [one.reason for one in scope(mixed, other).refused] == ["MixedGPUs"]


def test_resource_claims_are_refused_because_their_amounts_are_unknown():
    claiming = pod("p", on="a", gpus=0)
    container = replace(claiming.data.containers[0], claims=("gpu",))
    claiming = replace(claiming, data=replace(claiming.data, containers=(container,)))
    assert [one.reason for one in scope(node("a"), claiming).refused] == ["ResourceClaims"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        pytest.param({"owner": None}, "NoOwner", id="bare pod"),
        pytest.param({"annotations": {"karpenter.sh/do-not-disrupt": "true"}}, "DoNotDisrupt", id="karpenter"),
        pytest.param(
            {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
            "NotSafeToEvict",
            id="cluster-autoscaler",
        ),
        pytest.param(
            {"owner": OwnerRef(api_version="kubeflow.org/v1", kind="PyTorchJob", name="t", uid="u")},
            "GangWorkload",
            id="gang by kind",
        ),
        pytest.param({"labels": {"kueue.x-k8s.io/pod-group-name": "g"}}, "GangWorkload", id="gang by label"),
        pytest.param({"annotations": {"hami.io/vgpu-devices-allocated": "x"}}, "SharedByScheduler", id="HAMi"),
    ],
)
def test_a_pod_that_must_not_move_pins_its_node(more, reason):
    made = pod("p", on="a", **{key: value for key, value in more.items() if key != "labels"})
    made = replace(made, data=replace(made.data, labels=more.get("labels", {})))
    found = scope(node("a"), made)
    assert found.nodes[0].pinned
    assert found.pods[0].pinned
    (refusal,) = found.refused
    assert (refusal.reason, refusal.target.kind, refusal.target.name) == (reason, "Pod", "p")


def test_annotations_that_say_yes_pin_nothing():
    annotations = {
        "karpenter.sh/do-not-disrupt": "false",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
    }
    assert pin_reason(pod("p", on="a", annotations=annotations).data, "Deployment") == ""


def test_what_daemon_sets_need_goes_with_the_node():
    found = scope(node("a", cpu=10_000, memory_gib=10), pod("ds", on="a", gpus=0, owner=DAEMON_SET))
    assert found.pods == ()
    assert (found.nodes[0].cpu_milli, found.nodes[0].memory_mib) == (9_000, 6 * 1024)


def test_a_pod_counts_as_the_scheduler_counts_it():
    containers = (
        ContainerRequest(name="init", cpu_milli=500, memory_bytes=900, gpus={"g": 4}, init=True),
        ContainerRequest(name="one", cpu_milli=300, memory_bytes=500, gpus={"g": 1}),
        ContainerRequest(name="two", cpu_milli=300, memory_bytes=300, gpus={"g": 1}),
    )
    data = replace(pod("p", on="a").data, containers=containers)
    assert requested(data) == Requests(cpu_milli=600, memory_bytes=900, gpus={"g": 4})


def test_nodes_in_other_zones_pools_or_modes_are_other_groups():
    found = scope(
        node("a"),
        node("b", labels={"topology.kubernetes.io/zone": "z2"}),
        node("c", labels={"karpenter.sh/nodepool": "batch"}),
        node("d", replicas=4),
        node("e", taints=("team=x:NoSchedule",)),
        node("f"),
    )
    groups = {one.name: one.group for one in found.nodes}
    assert groups["a"] == groups["f"]
    assert len(set(groups.values())) == 5


def test_only_what_holds_at_the_time_counts():
    later = pod("later", on="a", start=HOUR.replace(hour=10))
    ended = pod("ended", on="a", end=HOUR)
    holding = facts_at(cluster(node("a"), later, ended, pod("now", on="a")), HOUR)
    assert [fact.uid for fact in holding if fact.kind == "pod"] == ["uid-now"]


def test_gpus_of_an_earlier_node_of_the_same_name_do_not_count():
    old = facts.gpu("GPU-old", on="a")
    old = replace(old, data=replace(old.data, node_uid="uid-of-the-old-one"))
    assert scope(node("a", gpus=2), old).nodes[0].gpus == 2


def test_a_gpu_described_after_the_moment_was_there_already():
    parts = node("a", gpus=2, mig=(MIG,))
    later = [replace(one, valid_from=HOUR + timedelta(minutes=5)) if one.kind == "gpu" else one for one in parts]
    assert [one.reason for one in scope(later).refused] == ["MIGMode"]
