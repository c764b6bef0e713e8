"""ResourceSlices as NVIDIA's driver writes them, and what claims' devices become by them."""

from __future__ import annotations

import threading

import pytest
from tests.unit.agent.test_device_ids import GPU, INDEX, MEDIA, MIG, MIG_GPU, gpu

from gpuwaste_agent.device_ids import ParentIndex
from gpuwaste_agent.resource_slices import ClaimedDevice, DeviceKey, SlicesError, SliceSource, SliceWatcher, read_slices
from gpuwaste_agent.telemetry import ParentInfo

DRIVER = "gpu.nvidia.com"


def device(name, *, capacity=(), counters=(), taints=(), prefix="", **attributes):
    """A device; attributes are texts, counters the memory slices that it takes."""
    taken = {f"memory-slice-{n}": {"value": "1"} for n in counters}
    return {
        "name": name,
        "attributes": {f"{prefix}{key}": {"string": value} for key, value in attributes.items()},
        "capacity": {"memory": {"value": "40Gi"}, **{f"memorySlice{n}": {"value": "1"} for n in capacity}},
        "consumesCounters": [{"counterSet": "gpu-5-counter-set", "counters": {"memory": {}, **taken}}] if taken else [],
        "taints": [{"key": "gpu.nvidia.com/xid", "effect": effect} for effect in taints],
    }


def resource_slice(*devices, pool="n", generation=1, driver=DRIVER):
    return {"spec": {"driver": driver, "pool": {"name": pool, "generation": generation}, "devices": list(devices)}}


def resolved(one, name=None):
    found = read_slices([resource_slice(one)])
    ((key, claimed),) = found.items()
    return INDEX.resolve_claimed(claimed, name or key.device)


@pytest.mark.parametrize(
    ("one", "parent"),
    [
        pytest.param(device("accel-7", type="gpu", uuid=GPU), GPU, id="GPU by UUID, whatever its name"),
        pytest.param(device("gpu-5", type="gpu", uuid=GPU), GPU, id="UUID against the name"),
        pytest.param(device("a", prefix=f"{DRIVER}/", type="gpu", uuid=GPU), GPU, id="attribute with its domain"),
        pytest.param(device("gpu-4", type="gpu", uuid="GPU-of-another-node"), None, id="not here"),
        pytest.param(device("gpu-5", type="gpu", uuid=MIG_GPU), None, id="GPU in MIG mode"),
        pytest.param(device("m", type="mig", uuid=MIG, parentUUID=MIG_GPU, profile="3g.40gb"), MIG, id="MIG by UUID"),
        pytest.param(
            device("m", type="mig", parentUUID=MIG_GPU, profile="3g.40gb", counters=range(4, 8)),
            MIG,
            id="MIG made when claimed",
        ),
        pytest.param(
            device("m", type="mig", parentUUID=MIG_GPU, profile="3g.40gb", counters=range(4)), None, id="other place"
        ),
        pytest.param(
            device("m", type="mig", parentUUID=MIG_GPU, profile="1g.10gb+me", capacity=[0]), MEDIA, id="by capacity"
        ),
        pytest.param(
            device("gpu-5-mig-3g40gb-9-4", type="mig", parentUUID=MIG_GPU, profile="3g.40gb"), MIG, id="place by name"
        ),
        pytest.param(
            device("m", type="mig", parentUUID=MIG_GPU, profile="3g.40gb"), MIG, id="no place, and no twin to mix up"
        ),
        pytest.param(device("m", type="mig", parentUUID=GPU, profile="3g.40gb", counters=[4]), None, id="other GPU"),
        pytest.param(device("m", type="vfio", uuid="GPU-passed-through"), None, id="passed through"),
        pytest.param(device("m"), None, id="nothing said"),
    ],
)
def test_devices_become_parents(one, parent):
    assert resolved(one) == parent


def test_twins_are_told_apart_by_place_only():
    twins = [ParentInfo(parent_id=f"MIG-{n}", profile="1g.10gb", start=n, gi_id=n, ci_id=0) for n in (0, 1)]
    index = ParentIndex([gpu(MIG_GPU, 1, 5, *twins)])
    claimed = ClaimedDevice(kind="mig", parent_uuid=MIG_GPU, profile="1g.10gb")
    assert index.resolve_claimed(claimed, "m") is None
    assert index.resolve_claimed(ClaimedDevice(kind="mig", parent_uuid=MIG_GPU, profile="1g.10gb", start=1), "m") == (
        "MIG-1"
    )


def test_the_newest_generation_of_a_pool_counts_and_pools_stay_apart():
    found = read_slices(
        [
            resource_slice(device("old", uuid=GPU), generation=1),
            resource_slice(device("a", uuid=GPU), generation=2),
            resource_slice(device("b", uuid=MIG), generation=2),
            resource_slice(device("late", uuid=GPU), generation=1),
            resource_slice(device("a", uuid=MEDIA), driver="other.example"),
        ]
    )
    assert {(key, one.uuid) for key, one in found.items()} == {
        (DeviceKey(DRIVER, "n", "a"), GPU),
        (DeviceKey(DRIVER, "n", "b"), MIG),
        (DeviceKey("other.example", "n", "a"), MEDIA),
    }


def test_slices_without_devices_and_taints():
    (found,) = read_slices([resource_slice(device("a", uuid=GPU, taints=["NoSchedule"])), resource_slice()]).values()
    assert found.tainted
    assert not next(iter(read_slices([resource_slice(device("a", taints=["None"]))]).values())).tainted


@pytest.mark.parametrize("wrong", [{}, {"spec": {}}, {"spec": {"driver": "d", "pool": "n"}}, {"spec": None}, 3])
def test_what_is_no_slice_is_refused(wrong):
    with pytest.raises(SlicesError, match=r"no ResourceSlice of resource\.k8s\.io/v1"):
        read_slices([wrong])


def test_an_unknown_device_is_asked_for_soon_and_once():
    asked = threading.Semaphore(0)
    answers = iter([{}, {DeviceKey(DRIVER, "n", "a"): ClaimedDevice(kind="gpu", uuid=GPU)}])

    def ask():
        found = next(answers)
        asked.release()
        return found

    watcher = SliceWatcher(ask, every_seconds=60, soon_seconds=0)
    watcher.start()
    assert asked.acquire(timeout=1)
    assert watcher.find(DeviceKey(DRIVER, "n", "a")) is None
    assert asked.acquire(timeout=1)
    while watcher.find(DeviceKey(DRIVER, "n", "a")) is None:
        threading.Event().wait(0.001)
    assert len(watcher.devices()) == 1
    watcher.close()


def test_what_is_known_stays_while_nobody_answers():
    answers = [{DeviceKey(DRIVER, "n", "a"): ClaimedDevice(kind="gpu", uuid=GPU)}]

    def ask():
        if not answers:
            raise SlicesError("the API server is away")
        return answers.pop()

    watcher = SliceWatcher(ask)
    watcher.look()
    watcher.look()
    assert watcher.find(DeviceKey(DRIVER, "n", "a")).uuid == GPU
    assert watcher.problem == "the API server is away"


def test_the_api_server_is_where_every_pod_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert SliceSource.in_cluster("n", tmp_path) == SliceSource(node="n", host="fd00::1", port=6443, account=tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(SlicesError, match="do not say where the API server is"):
        SliceSource.in_cluster("n", tmp_path)
