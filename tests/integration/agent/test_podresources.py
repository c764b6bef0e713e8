"""The PodResources client against a grpc server on a unix socket, as the kubelet listens."""

from __future__ import annotations

import os
import time
from concurrent import futures

import grpc
import pytest

from gpuwaste_agent.clock import SteppedClock
from gpuwaste_agent.holdings import Join, Sharing
from gpuwaste_agent.kubelet import podresources_pb2 as kubelet
from gpuwaste_agent.podresources import KubeletHoldings, PodUids
from gpuwaste_agent.resource_slices import ClaimedDevice, DeviceKey, SliceWatcher
from gpuwaste_agent.simulate.nvml import SimulatedNvml
from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioInstance, ScenarioNode

SECOND = 1_000_000_000
NODE = ScenarioNode(
    name="n",
    uid="u",
    gpus=(
        ScenarioGpu(uuid="GPU-a", product="T4-16GB"),
        ScenarioGpu(
            uuid="GPU-b", product="H100-80GB", mig=(ScenarioInstance(uuid="MIG-b", profile="3g.40gb", start=4),)
        ),
    ),
)


class Kubelet:
    """Answers List and GetAllocatableResources; counts questions."""

    def __init__(self, socket):
        self.socket = socket
        self.pods: list[kubelet.Pod] = []
        self.allocatable = {"nvidia.com/gpu": ["GPU-a::0", "GPU-a::1"], "nvidia.com/mig-3g.40gb": ["MIG-b"]}
        self.asked = 0
        self.silent = False
        handlers = {
            "List": grpc.unary_unary_rpc_method_handler(self._list, kubelet.ListRequest.FromString, _encode),
            "GetAllocatableResources": grpc.unary_unary_rpc_method_handler(
                self._allocatable, kubelet.AllocatableRequest.FromString, _encode
            ),
        }
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("v1.PodResourcesLister", handlers),))
        self.server.add_insecure_port(f"unix://{socket}")
        self.server.start()

    def _list(self, request, context):
        self.asked += 1
        while self.silent and context.is_active():
            time.sleep(0.05)
        return kubelet.ListResponse(pods=self.pods)

    def _allocatable(self, request, context):
        devices = [kubelet.Devices(resource_name=n, device_ids=ids) for n, ids in self.allocatable.items()]
        return kubelet.AllocatableResponse(devices=devices)

    def give(self, pod: str, resource: str, *ids: str, container="main"):
        devices = [kubelet.Devices(resource_name=resource, device_ids=[device]) for device in ids]
        self.pods.append(
            kubelet.Pod(name=pod, namespace="ns", containers=[kubelet.Container(name=container, devices=devices)])
        )


def _encode(message) -> bytes:
    return message.SerializeToString()


@pytest.fixture
def served(tmp_path):
    server = Kubelet(tmp_path / "kubelet.sock")
    yield server
    server.server.stop(None).wait()


@pytest.fixture
def rig(served, tmp_path):
    clock = SteppedClock(0)
    logs = tmp_path / "pods"
    logs.mkdir()
    nvml = SimulatedNvml(NODE, clock, 0)
    holdings = KubeletHoldings(socket=served.socket, pod_logs=logs, gpus=nvml.gpus, clock=clock, every_seconds=5)
    yield served, holdings, clock, logs
    holdings.close()


def test_holders_are_found_with_names_and_uids(rig):
    served, holdings, _, logs = rig
    (logs / "ns_web_1234-uid").mkdir()
    served.give("web", "nvidia.com/gpu", "GPU-a::1")
    served.give("train", "nvidia.com/mig-3g.40gb", "MIG-b")
    served.give("net", "rdma/hca", "mlx5_0")
    snapshot = holdings.poll()
    found = [(h.container.pod, h.container.pod_uid, h.parent_id, h.slice_id, h.join) for h in snapshot.holdings]
    assert found == [
        ("web", "1234-uid", "GPU-a", "GPU-a::1", Join.LOG_DIR),
        ("train", "", "MIG-b", "MIG-b", Join.NAME),
    ]
    assert snapshot.replicas == {"GPU-a": 2, "MIG-b": 1}
    assert snapshot.sharing == {"GPU-a": Sharing.TIME_SLICING}


def test_dra_claims_are_resolved_without_the_api_server(rig):
    served, holdings, _, _ = rig
    claims = [
        kubelet.ClaimResource(driver_name="gpu.nvidia.com", pool_name="n", device_name="gpu-1-mig-3g40gb-9-4"),
        kubelet.ClaimResource(driver_name="other.example", pool_name="n", device_name="gpu-0"),
    ]
    dynamic = [kubelet.DynamicResource(claim_name="c", claim_namespace="ns", claim_resources=claims)]
    served.pods.append(
        kubelet.Pod(name="p", namespace="ns", containers=[kubelet.Container(name="m", dynamic_resources=dynamic)])
    )
    (holding,) = holdings.poll().holdings
    assert (holding.parent_id, holding.claim, holding.resource_name) == ("MIG-b", "ns/c", "")


def claim(device: str, share: str | None = None) -> kubelet.Pod:
    claimed = kubelet.ClaimResource(driver_name="gpu.nvidia.com", pool_name="n", device_name=device, share_id=share)
    dynamic = [kubelet.DynamicResource(claim_name="c", claim_namespace="ns", claim_resources=[claimed])]
    return kubelet.Pod(name="p", namespace="ns", containers=[kubelet.Container(name="m", dynamic_resources=dynamic)])


def test_gpus_of_a_node_with_claims_are_allocatable_though_the_kubelet_does_not_list_them(rig):
    served, holdings, clock, _ = rig
    served.allocatable = {}
    assert holdings.poll().replicas == {}
    clock.now_ns += 6 * SECOND
    served.pods.append(claim("gpu-0"))
    assert holdings.poll().replicas == {"GPU-a": 1}
    served.pods.clear()
    # Once seen it is known, also when nobody claims anything any more.
    assert holdings.poll().replicas == {"GPU-a": 1, "MIG-b": 1}


def test_shares_of_one_device_are_slices_of_their_own(rig):
    served, holdings, _, _ = rig
    served.pods += [claim("gpu-0", "one"), claim("gpu-0", "two")]
    found = [(h.slice_id, h.parent_id) for h in holdings.poll().holdings]
    assert found == [("gpu-0/one", "GPU-a"), ("gpu-0/two", "GPU-a")]


def test_slices_say_what_is_behind_names_that_say_nothing(rig):
    served, holdings, _, _ = rig
    slices = {
        DeviceKey("gpu.nvidia.com", "n", "gpu-0"): ClaimedDevice(kind="mig", uuid="MIG-b"),
        DeviceKey("vgpu.example", "n", "accel-7"): ClaimedDevice(kind="gpu", uuid="GPU-a"),
    }
    holdings._slices = SliceWatcher(lambda: slices)
    holdings._slices.look()
    resources = [
        kubelet.ClaimResource(driver_name="gpu.nvidia.com", pool_name="n", device_name="gpu-0"),
        kubelet.ClaimResource(driver_name="nic.example", pool_name="n", device_name="gpu-0"),
    ]
    others = [kubelet.ClaimResource(driver_name="vgpu.example", pool_name="n", device_name="accel-7", share_id="s")]
    dynamic = [
        kubelet.DynamicResource(claim_name="one", claim_namespace="ns", claim_resources=resources),
        kubelet.DynamicResource(claim_name="two", claim_namespace="ns", claim_resources=others),
    ]
    # The same claim in both containers of a pod, and in another pod.
    containers = [kubelet.Container(name=name, dynamic_resources=dynamic) for name in ("a", "b")]
    served.pods += [kubelet.Pod(name="p", namespace="ns", containers=containers)]
    served.pods += [kubelet.Pod(name="q", namespace="ns", containers=containers[:1])]
    found = {
        (h.container.pod, h.container.container, h.parent_id, h.slice_id, h.claim) for h in holdings.poll().holdings
    }
    assert found == {
        (pod, container, *held)
        for pod, container in (("p", "a"), ("p", "b"), ("q", "a"))
        for held in (("MIG-b", "gpu-0", "ns/one"), ("GPU-a", "accel-7/s", "ns/two"))
    }


def test_what_slices_do_not_offer_cannot_be_claimed(rig):
    served, holdings, _, _ = rig
    served.allocatable = {}
    slices = {
        DeviceKey("gpu.nvidia.com", "n", "gpu-0"): ClaimedDevice(kind="gpu", uuid="GPU-a"),
        DeviceKey("gpu.nvidia.com", "n", "m"): ClaimedDevice(kind="mig", uuid="MIG-b", tainted=True),
    }
    holdings._dra = True
    holdings._slices = SliceWatcher(lambda: slices)
    assert holdings.poll().replicas == {"GPU-a": 1, "MIG-b": 1}
    holdings._slices.look()
    holdings.hint()
    assert holdings.poll().replicas == {"GPU-a": 1}


def test_a_device_that_two_claims_lead_to_is_held_once(rig):
    served, holdings, _, _ = rig
    pod = claim("gpu-0")
    (container,) = pod.containers
    devices = container.dynamic_resources[0].claim_resources
    container.dynamic_resources.append(
        kubelet.DynamicResource(claim_name="monitor", claim_namespace="ns", claim_resources=devices)
    )
    served.pods.append(pod)
    (held,) = holdings.poll().holdings
    assert (held.slice_id, held.claim) == ("gpu-0", "ns/c")


def test_the_kubelet_is_asked_no_more_often_than_told_and_sameness_is_kept(rig):
    served, holdings, clock, _ = rig
    served.give("web", "nvidia.com/gpu", "GPU-a::0")
    first = holdings.poll()
    for _ in range(4):
        clock.now_ns += SECOND
        assert holdings.poll() is first
    assert served.asked == 1
    clock.now_ns += SECOND
    assert holdings.poll() is first
    assert served.asked == 2
    served.pods.clear()
    clock.now_ns += 5 * SECOND
    assert holdings.poll().holdings == ()


def test_an_unhealthy_device_is_not_allocatable(rig):
    served, holdings, _clock, _ = rig
    served.allocatable["nvidia.com/mig-3g.40gb"] = []
    assert holdings.poll().replicas == {"GPU-a": 2}


def test_a_silent_kubelet_keeps_what_was_known_and_says_so(rig):
    served, holdings, clock, _ = rig
    served.give("web", "nvidia.com/gpu", "GPU-a::0")
    known = holdings.poll()
    served.server.stop(None).wait()
    clock.now_ns += 6 * SECOND
    assert holdings.poll() is known
    assert "PodResources do not answer: " in holdings.problem


def test_nothing_is_known_where_there_is_no_kubelet(tmp_path):
    clock = SteppedClock(0)
    nvml = SimulatedNvml(NODE, clock, 0)
    holdings = KubeletHoldings(
        socket=tmp_path / "none.sock", pod_logs=tmp_path, gpus=nvml.gpus, clock=clock, every_seconds=5
    )
    assert holdings.poll() is None
    assert "UNAVAILABLE" in holdings.problem
    holdings.close()


def test_a_recreated_pod_has_the_newer_uid(tmp_path):
    uids = PodUids(tmp_path)
    (tmp_path / "ns_web_old").mkdir()
    uids.refresh()
    assert uids.uid("ns", "web") == "old"
    new = tmp_path / "ns_web_new"
    new.mkdir()
    deadline = time.monotonic() + 5
    while new.stat().st_ctime_ns == (tmp_path / "ns_web_old").stat().st_ctime_ns and time.monotonic() < deadline:
        new.touch()
    uids.refresh()
    assert uids.uid("ns", "web") == "new"
    assert uids.uid("ns", "other") == ""
    assert PodUids(tmp_path / "none").uid("ns", "web") == ""


def test_a_pod_that_comes_within_the_same_tick_of_the_filesystems_clock_is_found(tmp_path):
    """A directory's time moves on with the kernel's ticks: what comes right after a look may not change it."""
    uids = PodUids(tmp_path)
    (tmp_path / "ns_web_1").mkdir()
    before = tmp_path.stat()
    uids.refresh()
    (tmp_path / "ns_db_2").mkdir()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    uids.refresh()
    assert uids.uid("ns", "db") == "2"
