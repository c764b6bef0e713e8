"""Objects become records and facts by themselves alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import CREATED, STARTED, make_deployment, make_namespace, make_node, make_owner, make_pod

from gpuwaste.cluster.quantity import cpu_milli, memory_bytes, parse_quantity
from gpuwaste.cluster.records import RecordRules, namespace_record, node_record, owner_record, pod_record
from gpuwaste.model.facts import OwnerRef, parse_fact
from gpuwaste.model.units import parse_time

RULES = RecordRules()


def pod(builder):
    return pod_record(builder.obj(), RULES)


def time(text):
    return parse_time(text)


@pytest.mark.parametrize(
    ("text", "milli", "size"),
    [
        ("100m", 100, 1),
        ("1", 1000, 1),
        ("1.5", 1500, 2),
        (".5", 500, 1),
        ("0", 0, 0),
        ("1n", 1, 1),
        ("2k", 2_000_000, 2000),
        ("1Ki", 1_024_000, 1024),
        ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
        ("1E", 10**21, 10**18),
        ("1e3", 1_000_000, 1000),
        ("1E3", 1_000_000, 1000),
        ("12e-1", 1200, 2),
        (2, 2000, 2),
        (0.1, 100, 1),
    ],
)
def test_quantities_are_exact_and_rounded_up(text, milli, size):
    assert cpu_milli(text) == milli
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "1.2.3", "ten", "1ki", "1mi", "1 Gi", "1e999999999", "nan", "--1"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match=r"quantity|range"):
        parse_quantity(text)


@given(st.integers(0, 10**9), st.sampled_from(["", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_quantities_scale_whole_numbers(number, suffix):
    scale = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[suffix]
    assert parse_quantity(f"{number}{suffix}") == number * scale


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("nvidia.com/gpu", True),
        ("nvidia.com/gpu.shared", True),
        ("nvidia.com/mig-1g.10gb", True),
        ("nvidia.com/mig-3g.20gb.shared", True),
        ("amd.com/gpu", True),
        ("amd.com/cpx_nps4", True),
        ("gpu.intel.com/xe", True),
        ("nvidia.com/gpumem", False),
        ("nvidia.com/gpucores", False),
        ("gpu.intel.com/i915_monitoring", False),
        ("amd.com/nic", False),
        ("cpu", False),
        ("example.com/npu", False),
    ],
)
def test_what_counts_as_a_gpu(resource, expected):
    assert RULES.is_gpu(resource) is expected


def test_other_gpus_by_setting():
    assert RecordRules(gpu_resources=("example.com/npu*",)).is_gpu("example.com/npu-2")


def test_requests_of_all_kinds_of_containers():
    record = pod(
        make_pod("a")
        .gpu(2)
        .requests(cpu="500m", memory="1Gi")
        .limits(cpu="2", memory="4Gi")
        .container("setup", init=True)
        .gpu(1, container="setup")
        .container("side", sidecar=True)
        .gpu(1, resource="nvidia.com/mig-1g.10gb", container="side")
        .limits("side", cpu="100m")
        .claim("shared")
    )
    by_name = {c.name: c for c in record.data.containers}
    main = by_name["main"]
    assert (main.cpu_milli, main.memory_bytes, main.gpus) == (500, 2**30, {"nvidia.com/gpu": 2})
    assert main.claims == ("shared",)
    assert {name: c.init for name, c in by_name.items()} == {"setup": True, "side": False, "main": False}
    assert by_name["side"].cpu_milli == 100
    assert record.gpus == {"nvidia.com/gpu": 2, "nvidia.com/mig-1g.10gb": 1}
    assert record.holds_gpu


def test_environment_volumes_and_foreign_annotations_are_dropped():
    builder = make_pod("a").annotations(
        {"gpuwaste.dev/team": "x", "karpenter.sh/do-not-disrupt": "true", "example.com/token": "hidden"}
    )
    builder.body["spec"]["containers"][0]["env"] = [{"name": "TOKEN", "value": "hidden"}]
    builder.body["spec"]["volumes"] = [{"name": "v", "secret": {"secretName": "hidden"}}]
    record = pod(builder)
    assert record.data.annotations == {"gpuwaste.dev/team": "x", "karpenter.sh/do-not-disrupt": "true"}
    assert "hidden" not in repr(record)


def test_the_controller_is_the_owner_else_the_first():
    first, controller = make_owner("v1", "Thing", "t"), make_deployment("d")
    both = make_pod("a").owned_by(first, controller=False).owned_by(controller)
    uid = controller.obj()["metadata"]["uid"]
    assert pod(both).data.owner == OwnerRef(api_version="apps/v1", kind="Deployment", name="d", uid=uid)
    assert pod(make_pod("a").owned_by(first, controller=False)).data.owner.kind == "Thing"
    assert pod(make_pod("a")).data.owner is None


@pytest.mark.parametrize(
    ("builder", "start", "end"),
    [
        (make_pod("a").on("n").running("2026-11-01T01:00:00Z"), "2026-11-01T01:00:00Z", None),
        (
            make_pod("a").on("n").scheduled("2026-11-01T00:59:00Z").running("2026-11-01T01:00:00Z"),
            "2026-11-01T01:00:00Z",
            None,
        ),
        (
            make_pod("a")
            .on("n")
            .running()
            .container("b")
            .ended("2026-11-01T02:00:00Z")
            # the pod ends with its last container
            .ended("2026-11-01T03:00:00Z", container="b"),
            STARTED,
            "2026-11-01T03:00:00Z",
        ),
        (make_pod("a").on("n").running().deleting("2026-11-01T05:00:00Z"), STARTED, None),
        (
            make_pod("a").on("n").running().ended("2026-10-01T00:00:00Z", phase="Failed"),
            STARTED,
            STARTED,
        ),
    ],
    ids=["startTime", "startTime before PodScheduled", "last container", "terminating", "a clock that went back"],
)
def test_a_pods_fact_takes_its_times_from_its_status(builder, start, end):
    fact = pod(builder).fact()
    assert fact.valid_from == time(start)
    assert fact.valid_to == (None if end is None else time(end))
    assert parse_fact(fact.to_json(), where="x") == fact


def test_a_pod_its_node_has_not_taken_is_no_fact():
    assert pod(make_pod("a").gpu()).fact() is None
    assert pod(make_pod("a").gpu().on("n").scheduled(STARTED)).fact() is None
    assert pod(make_pod("a").gpu()).pending


def test_without_a_start_time_a_running_pod_counts_from_its_scheduling():
    builder = make_pod("a").on("n").scheduled("2026-11-01T00:30:00Z").running()
    del builder.body["status"]["startTime"]
    assert pod(builder).fact().valid_from == time("2026-11-01T00:30:00Z")


def test_an_evicted_pod_ends_with_its_conditions():
    builder = make_pod("a").on("n").running().scheduled("2026-11-01T04:00:00Z")
    builder.body["status"]["phase"] = "Failed"
    assert pod(builder).fact().valid_to == time("2026-11-01T04:00:00Z")


def test_a_tombstone_ends_a_fact_only_where_its_containers_do_not_say():
    gone = datetime(2026, 11, 2, tzinfo=UTC)
    assert pod(make_pod("a").on("n").running()).fact(gone=gone).valid_to == gone
    ended = pod(make_pod("a").on("n").running().ended("2026-11-01T02:00:00Z"))
    assert ended.fact(gone=gone).valid_to == time("2026-11-01T02:00:00Z")


def test_a_node_keeps_what_prices_and_packing_need():
    builder = (
        make_node("n")
        .gpu(8, allocatable=7)
        .gpu(4, resource="nvidia.com/mig-1g.10gb")
        .gpu(0, resource="nvidia.com/gpu.shared")
        .taint("dedicated", "ml")
        .taint("node.kubernetes.io/not-ready", effect="NoExecute")
        .labels(zone="a")
        .cordoned()
    )
    builder.body["status"]["allocatable"]["cpu"] = "31500m"
    record = node_record(builder.obj(), RULES)
    assert record.data.gpus == {"nvidia.com/gpu": 8, "nvidia.com/mig-1g.10gb": 4}
    assert (record.data.cpu_milli, record.data.memory_bytes) == (31_500, 256 * 2**30)
    assert record.data.taints == ("dedicated=ml:NoSchedule",)
    assert record.data.provider_id == "test:///n"
    assert (record.ready, record.unschedulable) == (True, True)


def test_a_node_is_as_old_as_its_oldest_sign():
    early = make_node("n").condition("Ready", "True", "2026-10-30T00:00:00Z")
    assert node_record(early.obj(), RULES).fact().valid_from == time("2026-10-30T00:00:00Z")
    late = make_node("n").condition("Ready", "False", "2026-11-05T00:00:00Z")
    record = node_record(late.obj(), RULES)
    assert record.fact().valid_from == time(CREATED)
    assert record.ready is False


def test_namespaces_and_owners():
    space = namespace_record(make_namespace("ml").labels(team="x").obj(), RULES).fact()
    assert (space.data.name, space.data.labels, space.valid_from) == ("ml", {"team": "x"}, time(CREATED))
    replica_set = make_owner("apps/v1", "ReplicaSet", "d-1").owned_by(make_deployment("d"))
    owner = owner_record(replica_set.obj(), RULES).fact()
    assert (owner.data.kind, owner.data.name, owner.data.owner.name) == ("ReplicaSet", "d-1", "d")
    assert owner.valid_to is None


def test_readiness_is_a_fact_from_when_it_changed():
    at = "2026-11-02T09:10:00Z"
    down = node_record(make_node("a").condition("Ready", "Unknown", at).obj(), RULES).ready_fact()
    assert (down.uid, down.data.node, down.data.ready) == (make_node("a").obj()["metadata"]["uid"], "a", False)
    assert down.valid_from == datetime(2026, 11, 2, 9, 10, tzinfo=UTC)
    back = node_record(make_node("a").condition("Ready", "True", at).obj(), RULES).ready_fact()
    assert (back.data.ready, back.valid_from) == (True, down.valid_from)
    assert node_record(make_node("a").obj(), RULES).ready_fact() is None, "ready since it joined"


@pytest.mark.parametrize(
    ("resource", "counts"),
    [
        ("nvidia.com/GRID_T4-1Q", True),
        ("nvidia.com/GA102GL_A10", True),
        ("nvidia.com/pgpu", True),
        ("habana.ai/gaudi", True),
        ("amd.com/cpx_nps4", True),
        ("gpu.intel.com/xe", True),
        ("nvidia.com/gpumem", False),
        ("nvidia.com/hostdev", False),
        ("gpu.intel.com/millicores", False),
    ],
)
def test_which_resources_count_gpus(resource, counts):
    assert RULES.is_gpu(resource) is counts


def test_a_static_pod_belongs_to_itself():
    mirror = make_pod("proxy-node-a").owned_by(make_node("node-a"))
    assert pod(mirror).data.owner is None
