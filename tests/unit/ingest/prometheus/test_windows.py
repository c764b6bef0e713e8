"""Readings and the API's record as usage windows: what is known, and what stays null."""

from datetime import timedelta

import pyarrow.compute as pc
import pytest
from tests.helpers import facts as make
from tests.unit.ingest.prometheus.fakes import START, FakeStore, KubeState

from gpuwaste.ingest.prometheus.source import PrometheusSource, step_for
from gpuwaste.model.units import HOUR, NS_PER_MINUTE, to_unix_ns

MINUTE = timedelta(minutes=1)
UTIL, SM, ENGINE = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
MEMORY = "DCGM_FI_DEV_FB_USED"
H100 = "NVIDIA H100 80GB HBM3"


def device(uuid, pod="", **more):
    labels = {"UUID": uuid, "gpu": "0", "Hostname": "node-a", "modelName": H100, **more}
    return labels | ({"namespace": "team-a", "pod": pod, "container": "main"} if pod else {})


def read(store, facts, *, minutes=10, step_seconds=60):
    source = PrometheusSource(store=store, cluster="test", step_seconds=step_seconds)
    end = START + minutes * MINUTE
    (hour,) = source.read(START, end, facts=facts, looked=source.look(end))
    return hour.windows, source


def rows(windows, kind, **equal):
    found = [row for row in windows.to_pylist() if row["kind"] == kind]
    return [row for row in found if all(row[name] == value for name, value in equal.items())]


def test_a_whole_gpu_is_measured_minute_by_minute():
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [50, 50] * 10).gauge(SM, device("GPU-1", "web"), [0.2] * 20)
    store.gauge(MEMORY, device("GPU-1", "web"), [2048] * 20)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")])
    usage = rows(windows, "usage")
    assert [row["window_start_ns"] for row in usage] == [to_unix_ns(START + i * MINUTE) for i in range(10)]
    assert {(r["duty_ns"], r["sm_ns"], r["held_ns"]) for r in usage} == {
        (NS_PER_MINUTE // 2, NS_PER_MINUTE // 5, NS_PER_MINUTE)
    }
    assert {(r["duty_origin"], r["sm_origin"], r["pod_uid"]) for r in usage} == {("device", "dcgm_prof", "uid-web")}
    assert {(r["duty_coverage_ppm"], r["duty_resolution_ms"]) for r in usage} == {(1_000_000, 30_000)}
    assert {r["memory_peak_bytes"] for r in usage} == {2048 * 2**20}
    assert len(rows(windows, "device")) == 10
    assert len(rows(windows, "node_facts")) == 1


def test_what_is_not_exported_is_null_and_not_zero():
    store = FakeStore().gauge(MEMORY, device("GPU-1", "web"), [2048] * 20)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")])
    assert {(r["duty_ns"], r["sm_ns"]) for r in rows(windows, "usage")} == {(None, None)}
    assert {r["unattributed_sm_ns"] for r in rows(windows, "device")} == {None}


def test_a_measured_zero_is_zero():
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [0] * 20)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")])
    assert {r["duty_ns"] for r in rows(windows, "usage")} == {0}


def test_an_exporter_that_was_down_leaves_no_windows():
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [50] * 6 + [None] * 8 + [50] * 46)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")], minutes=30)
    minutes = [(row["window_start_ns"] - to_unix_ns(START)) // NS_PER_MINUTE for row in rows(windows, "device")]
    assert minutes == [0, 1, 2, *range(7, 30)]


def test_slow_scrapes_reach_back_and_say_their_resolution():
    """A reading each two minutes stands for both; a lost one is a gap."""
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [50] * 30, every=120)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")], minutes=60)
    assert len(rows(windows, "usage")) == 60
    assert {r["duty_resolution_ms"] for r in rows(windows, "usage")} == {120_000}


def test_downsampled_blocks_reach_back_over_five_minutes():
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [50] * 12, every=300)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")], minutes=60)
    assert len(rows(windows, "usage", duty_ns=NS_PER_MINUTE // 2)) == 60
    assert {r["duty_resolution_ms"] for r in rows(windows, "usage")} == {300_000}


def test_long_windows_say_that_they_are():
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [40, 60] * 60)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")], minutes=60, step_seconds=900)
    usage = rows(windows, "usage")
    assert [row["window_ns"] for row in usage] == [15 * NS_PER_MINUTE] * 4
    assert {(r["duty_ns"], r["duty_resolution_ms"]) for r in usage} == {(15 * NS_PER_MINUTE // 2, 900_000)}


def test_a_pod_holds_from_its_start_to_its_end_and_a_gpu_between_two_is_free():
    first = make.pod("one", end=START + 2 * MINUTE + timedelta(seconds=30))
    second = make.pod("two", start=START + 6 * MINUTE)
    store = FakeStore().gauge(UTIL, device("GPU-1", "one"), [50] * 5).gauge(UTIL, device("GPU-1"), [None] * 5 + [0] * 7)
    store.gauge(UTIL, device("GPU-1", "two"), [None] * 12 + [80] * 8)
    windows, _ = read(store, [make.node(gpus=1), first, second])
    held = {}
    for row in rows(windows, "usage"):
        held[row["pod"]] = held.get(row["pod"], 0) + row["held_ns"]
    assert held == {"one": NS_PER_MINUTE * 5 // 2, "two": 4 * NS_PER_MINUTE}
    assert {r["held_since_ns"] for r in rows(windows, "usage", pod="two")} == {to_unix_ns(START + 6 * MINUTE)}


def test_pods_without_labels_are_held_and_unmeasured_where_it_could_be_either():
    store = FakeStore().gauge(UTIL, device("GPU-1"), [90] * 20).gauge(UTIL, device("GPU-2"), [0] * 20)
    windows, source = read(store, [make.node(gpus=2), make.pod("one"), make.pod("two")])
    usage = rows(windows, "usage")
    assert {(r["pod"], r["held_ns"]) for r in usage} == {("one", NS_PER_MINUTE), ("two", NS_PER_MINUTE)}
    assert {r["duty_ns"] for r in usage} == {None}
    assert "DCGM_EXPORTER_KUBERNETES=true" in " ".join(source.notes)


def test_a_pod_with_all_gpus_of_its_node_is_known_without_labels():
    store = FakeStore().gauge(UTIL, device("GPU-1"), [90] * 20).gauge(UTIL, device("GPU-2"), [10] * 20)
    windows, source = read(store, [make.node(gpus=2), make.pod("one", gpus=2)])
    duty = {r["gpu_uuid"]: r["duty_ns"] for r in rows(windows, "usage")}
    assert duty == {"GPU-1": NS_PER_MINUTE * 9 // 10, "GPU-2": NS_PER_MINUTE // 10}
    assert not source.notes


def shared_facts(*pods, gpus=1, replicas=4):
    node = make.node(gpus=gpus * replicas, labels={"nvidia.com/gpu.sharing-strategy": "time-slicing"})
    return [node, *(make.pod(name) for name in pods)]


def test_pods_on_one_time_sliced_gpu_are_an_interval_where_only_the_device_is_known():
    """The last pod's name stands on the device; nobody knows which of the two ran."""
    store = FakeStore().gauge(ENGINE, device("GPU-1", "two"), [0.6] * 20).gauge(SM, device("GPU-1", "two"), [0.4] * 20)
    windows, _ = read(store, shared_facts("one", "two"))
    usage = rows(windows, "usage")
    assert {r["pod"] for r in usage} == {"one", "two"}
    assert {r["sm_ns"] for r in usage} == {NS_PER_MINUTE // 5}
    assert {(r["sm_low"], round(r["sm_high"])) for r in usage} == {(0.0, NS_PER_MINUTE * 2 // 5)}
    assert {r["sm_origin"] for r in usage} == {"apportioned"}
    assert {r["duty_ns"] for r in usage} == {NS_PER_MINUTE * 6 // 10}
    assert sorted({r["slice_id"] for r in usage}) == ["GPU-1::0", "GPU-1::1"]


def test_a_pod_alone_on_a_time_sliced_gpu_is_exact():
    store = FakeStore().gauge(ENGINE, device("GPU-1", "one"), [0.6] * 20).gauge(SM, device("GPU-1", "one"), [0.4] * 20)
    windows, _ = read(store, shared_facts("one"))
    assert {(r["sm_low"], r["sm_ns"], r["sm_high"]) for r in rows(windows, "usage")} == {
        (0.4 * NS_PER_MINUTE, NS_PER_MINUTE * 4 // 10, 0.4 * NS_PER_MINUTE)
    }


def test_pods_with_series_of_their_own_are_apportioned_by_them():
    """KUBERNETES_VIRTUAL_GPUS: per-pod utilization; the profiling fields of a pod are copies of the device's."""
    store = FakeStore().gauge(UTIL, device("GPU-1"), [80] * 20).gauge(SM, device("GPU-1"), [0.4] * 20)
    for pod, vgpu, percent in (("one", "0", 60), ("two", "1", 20)):
        store.gauge(UTIL, device("GPU-1", pod, vgpu=vgpu), [percent] * 20)
        store.gauge(SM, device("GPU-1", pod, vgpu=vgpu), [0.4] * 20)
    windows, _ = read(store, shared_facts("one", "two"))
    one, two = rows(windows, "usage", pod="one")[0], rows(windows, "usage", pod="two")[0]
    assert (one["sm_ns"], two["sm_ns"]) == (NS_PER_MINUTE * 3 // 10, NS_PER_MINUTE // 10)
    assert (one["sm_low"], one["sm_high"]) == (pytest.approx(0.2 * NS_PER_MINUTE), pytest.approx(0.4 * NS_PER_MINUTE))
    assert (one["duty_origin"], one["sm_origin"]) == ("process", "apportioned")
    assert {r["unattributed_sm_ns"] for r in rows(windows, "device")} == {0}


def test_mig_instances_are_parents_and_their_gpu_is_none():
    store = FakeStore()
    for number, pod in (("9", "web"), ("2", "")):
        labels = device("GPU-1", pod, GPU_I_ID=number, GPU_I_PROFILE={"9": "1g.10gb", "2": "3g.40gb"}[number])
        store.gauge(ENGINE, labels, [1.07] * 20)  # DCGM shows more than all on MIG now and then
        store.gauge(SM, labels, [0.5] * 20)
    store.gauge("DCGM_FI_DEV_POWER_USAGE", device("GPU-1"), [300] * 20)
    node = make.node(gpus=0)
    node.data.gpus.update({"nvidia.com/mig-1g.10gb": 1, "nvidia.com/mig-3g.40gb": 1})
    pod = make.pod("web")
    pod.data.containers[0].gpus.clear()
    pod.data.containers[0].gpus["nvidia.com/mig-1g.10gb"] = 1
    windows, _ = read(store, [node, pod])
    parents = {(r["parent_id"], r["weight_num"], r["weight_den"]) for r in rows(windows, "device")}
    assert parents == {("MIG-GPU-1/9/0", 1, 8), ("MIG-GPU-1/2/0", 1, 2)}
    assert {(r["parent_id"], r["duty_ns"]) for r in rows(windows, "usage")} == {("MIG-GPU-1/9/0", NS_PER_MINUTE)}
    (facts,) = rows(windows, "node_facts")
    assert '"start": 2' in facts["body_json"]
    assert '"start": 4' in facts["body_json"]


def test_mig_instances_of_claims_are_told_apart_by_their_uuids():
    store = FakeStore()
    for uuid, pod, sm in (("MIG-a", "web", 0.5), ("MIG-b", "batch", 0.25)):
        of_claim = {"dra_claim_name": f"{pod}-gpu", "dra_mig_device_uuid": uuid, "dra_mig_profile": "3g.40gb"}
        labels = device("GPU-1", pod, **of_claim)
        store.gauge(SM, labels, [sm] * 20)
    windows, _ = read(store, [make.node(gpus=0), make.pod("web", gpus=0), make.pod("batch", gpus=0)])
    assert {(r["parent_id"], r["weight_num"], r["weight_den"]) for r in rows(windows, "device")} == {
        ("MIG-a", 1, 2),
        ("MIG-b", 1, 2),
    }
    assert {(r["parent_id"], r["pod"], r["sm_ns"]) for r in rows(windows, "usage")} == {
        ("MIG-a", "web", NS_PER_MINUTE // 2),
        ("MIG-b", "batch", NS_PER_MINUTE // 4),
    }
    assert {r["claim"] for r in rows(windows, "usage")} == {"team-a/web-gpu", "team-a/batch-gpu"}


def test_a_label_counts_although_kube_state_metrics_knows_no_gpus_of_its_pod():
    """It tells of requests and not of claims, and an exporter need not say that a pod has its GPU by one."""
    kube = KubeState().node("node-a", gpus=1, cores=8, memory=2**30).pod("web", "node-a", cpu=1, memory=1)
    store = FakeStore(kube).gauge(UTIL, {**device("GPU-1", "web"), "namespace": "ml"}, [50] * 20)
    windows, source = read(store, [])
    assert {(r["namespace"], r["pod"], r["join"]) for r in rows(windows, "usage")} == {("ml", "web", "NAME")}
    assert not [note for note in source.notes if "CPU" in note]


@pytest.mark.parametrize("asked", [{}, {"cpu": 1}])
def test_a_store_without_requests_of_cpu_or_memory_says_so(asked):
    kube = KubeState().node("node-a", gpus=1, cores=8, memory=2**30)
    kube.pod("web", "node-a", nvidia_com_gpu=1, **asked)
    store = FakeStore(kube).gauge(UTIL, {**device("GPU-1", "web"), "namespace": "ml"}, [50] * 20)
    _, source = read(store, [])
    (note,) = source.notes
    assert "CPU or memory on node-a" in note
    assert note.partition(": ")[2].startswith("let kube-state-metrics export")


def test_a_blank_is_unmeasured_and_said():
    store = FakeStore().gauge(SM, device("GPU-1", "web"), [0.5, 9.223372036854776e18, *[0.5] * 18])
    windows, source = read(store, [make.node(gpus=1), make.pod("web")])
    usage = rows(windows, "usage")
    assert 9 <= len(usage) <= 10
    assert {r["sm_ns"] for r in usage} == {NS_PER_MINUTE // 2}
    assert any("blank" in note for note in source.notes)


def test_copies_of_a_series_count_once():
    """Two Prometheus replicas that scrape the same exporter."""
    store = FakeStore()
    for replica in ("a", "b"):
        store.gauge(UTIL, device("GPU-1", "web", instance=replica), [50] * 20)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")])
    assert {r["duty_ns"] for r in rows(windows, "usage")} == {NS_PER_MINUTE // 2}
    assert len(rows(windows, "device")) == 10


def test_what_runs_on_a_free_gpu_is_unattributed():
    store = FakeStore().gauge(UTIL, device("GPU-1"), [30] * 20)
    windows, _ = read(store, [make.node(gpus=1)])
    assert {r["unattributed_duty_ns"] for r in rows(windows, "device")} == {NS_PER_MINUTE * 3 // 10}
    assert rows(windows, "usage") == []


def test_hardware_errors_make_a_gpu_bad_and_application_errors_do_not():
    store = FakeStore()
    for uuid, xid in (("GPU-1", 79), ("GPU-2", 31)):
        store.gauge(UTIL, device(uuid), [0] * 20).gauge("DCGM_FI_DEV_XID_ERRORS", device(uuid), [xid] * 20)
    windows, _ = read(store, [make.node(gpus=2)])
    bad = {r["gpu_uuid"]: (r["unhealthy_ns"], r["xids"]) for r in rows(windows, "device")}
    assert bad == {"GPU-1": (NS_PER_MINUTE, [79]), "GPU-2": (0, [31])}


def test_a_pod_seen_only_by_its_label_is_held_by_name():
    store = FakeStore().gauge(UTIL, device("GPU-1", "gone"), [50] * 20)
    windows, _ = read(store, [make.node(gpus=1)])
    assert {(r["pod"], r["pod_uid"], r["join"], r["held_since_ns"]) for r in rows(windows, "usage")} == {
        ("gone", "", "NAME", 0)
    }


def test_a_store_without_our_metrics_gives_no_windows():
    source = PrometheusSource(store=FakeStore(), cluster="test")
    looked = source.look(START)
    assert not looked.has_devices
    (hour,) = source.read(START, START + HOUR, facts=[], looked=looked)
    assert hour.windows.num_rows == 0
    assert "DCGM_FI_DEV_GPU_UTIL" in looked.missing
    assert "kube_pod_container_resource_requests" in looked.missing


def test_windows_are_a_minute_until_there_are_too_many():
    assert step_for(8, 24) == 60
    assert step_for(200, 24) == 60
    assert step_for(8000, 24) == 1800
    assert step_for(100_000, 720) == 3600


def test_windows_come_in_the_order_of_their_numbers():
    store = FakeStore().gauge(UTIL, device("GPU-1", "web"), [50] * 20)
    windows, _ = read(store, [make.node(gpus=1), make.pod("web")])
    assert windows["seq"].to_pylist() == list(range(1, windows.num_rows + 1))
    assert len(pc.unique(windows["journal_id"])) == 1
