"""Every spelling of dcgm-exporter's labels finds the same device, node and holder."""

import pytest

from gpuwaste.ingest.prometheus.kube_requests import resource_of
from gpuwaste.ingest.prometheus.labels import HolderLabels, HostNames, device_of, holder_of, honors_labels

DEVICE = {"UUID": "GPU-1", "gpu": "3", "modelName": "NVIDIA H100 80GB HBM3"}
EXPORTER = {"namespace": "gpu-operator", "pod": "nvidia-dcgm-exporter-x2", "container": "nvidia-dcgm-exporter"}
HOLDER = HolderLabels("ml", "train-0", "main", "")


@pytest.mark.parametrize(
    ("labels", "holder"),
    [
        ({**EXPORTER, "exported_namespace": "ml", "exported_pod": "train-0", "exported_container": "main"}, HOLDER),
        ({"namespace": "ml", "pod": "train-0", "container": "main"}, HOLDER),
        ({"pod_namespace": "ml", "pod_name": "train-0", "container_name": "main"}, HOLDER),
        ({**EXPORTER, "pod_namespace": "ml", "pod_name": "train-0", "container_name": "main"}, HOLDER),
        ({"namespace": "ml", "pod": "train-0", "container": "main", "vgpu": "2"}, HOLDER._replace(vgpu="2")),
        (EXPORTER, None),
        ({"namespace": "", "pod": "", "container": ""}, None),
        ({}, None),
    ],
)
def test_the_holder_is_found_in_every_spelling(labels, holder):
    series = {**DEVICE, **labels}
    assert holder_of(series, honors=honors_labels([series])) == holder


def test_the_exporters_own_pod_holds_nothing_whatever_it_is_called():
    """Without honor_labels `pod` is what is scraped; on a free GPU nothing else is named."""
    scraped = {"namespace": "monitoring", "pod": "gpu-metrics-x7", "container": "exporter"}
    held = {**DEVICE, **scraped, "exported_namespace": "ml", "exported_pod": "train-0", "exported_container": "main"}
    free = {**DEVICE, **scraped, "UUID": "GPU-2"}
    honors = honors_labels([held, free])
    assert not honors
    assert holder_of(free, honors=honors) is None
    assert holder_of(held, honors=honors) == HOLDER


def test_a_mig_instance_is_a_device_of_its_own():
    mig = {**DEVICE, "GPU_I_ID": "9", "GPU_I_PROFILE": "1g.10gb"}
    found = device_of(mig)
    assert (found.gpu_uuid, found.instance, found.profile, found.number) == ("GPU-1", "9", "1g.10gb", 3)
    dra = {**DEVICE, "GPU_I_ID": "9", "dra_mig_profile": "1g.10gb", "dra_mig_device_uuid": "MIG-7"}
    assert (device_of(dra).profile, device_of(dra).mig_uuid) == ("1g.10gb", "MIG-7")
    assert device_of({"gpu": "0"}) is None
    assert device_of({"uuid": "GPU-1"}).gpu_uuid == "GPU-1"


@pytest.mark.parametrize(
    ("labels", "node"),
    [
        ({"Hostname": "node-a"}, "node-a"),
        ({"hostname": "node-a"}, "node-a"),
        ({"Hostname": "node-a.example.internal"}, "node-a"),
        ({"Hostname": "nvidia-dcgm-exporter-x2", "node": "node-a"}, "node-a"),
        ({"Hostname": "nvidia-dcgm-exporter-x2", "kubernetes_node": "node-a"}, "node-a"),
        ({"Hostname": "nvidia-dcgm-exporter-x2", "instance": "node-a:9400"}, "node-a"),
        ({"Hostname": "nvidia-dcgm-exporter-x2", **EXPORTER}, "node-a"),
        ({"Hostname": "elsewhere"}, "elsewhere"),
        ({"instance": "10.0.0.7:9400"}, "10.0.0.7:9400"),
        ({}, ""),
    ],
)
def test_the_node_is_found_by_whatever_label_names_it(labels, node):
    pods = {("gpu-operator", "nvidia-dcgm-exporter-x2"): "node-a"}
    assert HostNames(["node-a", "node-b"], pods).node_of(labels) == node


def test_long_names_of_nodes_are_found_by_short_labels():
    assert HostNames(["node-a.example.internal"], {}).node_of({"Hostname": "node-a"}) == "node-a.example.internal"


@pytest.mark.parametrize(
    ("label", "resource"),
    [
        ("nvidia_com_gpu", "nvidia.com/gpu"),
        ("nvidia_com_gpu_shared", "nvidia.com/gpu.shared"),
        ("nvidia_com_mig_1g_10gb", "nvidia.com/mig-1g.10gb"),
        ("nvidia_com_mig_1g_10gb_me", "nvidia.com/mig-1g.10gb.me"),
        ("nvidia_com_mig_3g_40gb_shared", "nvidia.com/mig-3g.40gb.shared"),
        ("amd_com_gpu", "amd.com/gpu"),
        ("gpu_intel_com_i915", "gpu.intel.com/i915"),
    ],
)
def test_resources_are_read_from_their_sanitized_names(label, resource):
    assert resource_of(label) == resource
