"""Addresses, images and slices of test nodes."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from tests.cluster.nodes.example import example_scenario
from tests.cluster.nodes.images import archive
from tests.cluster.nodes.network import HOST_ADDRESS, MOST_NODES, node_network
from tests.sim.deviceplugin.service import Mount
from tests.sim.dra.cdi import cdi_spec
from tests.sim.dra.slices import devices

if TYPE_CHECKING:
    from pathlib import Path


def test_nodes_have_addresses_and_pod_ranges_of_their_own() -> None:
    networks = [node_network(number) for number in range(MOST_NODES)]
    addresses = {network.address for network in networks} | {HOST_ADDRESS}
    assert len(addresses) == MOST_NODES + 1
    pods = [ipaddress.IPv4Network(network.pods) for network in networks]
    assert not any(a.overlaps(b) for index, a in enumerate(pods) for b in pods[:index])
    # The lower half may be a package mirror's.
    assert all(found.subnet_of(ipaddress.IPv4Network("203.0.113.128/25")) for found in pods)


def test_an_image_archive_holds_the_program_and_says_so(tmp_path: Path) -> None:
    program = tmp_path / "hello"
    program.write_bytes(b"\x7fELF")
    for name in ("one.tar", "two.tar"):
        archive(tmp_path / name, image="images.invalid/hello:1", program=program)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        files = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["images.invalid/hello:1"]
    config = json.loads(files[manifest["Config"]])
    assert config["config"]["Entrypoint"] == ["/hello"]
    (layer,) = manifest["Layers"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(files[layer]).hexdigest()}"]


@pytest.mark.parametrize(
    ("node", "names"),
    [
        ("gpu-node-0", ["gpu-0", "gpu-1-mig-3g40gb-9-0", "gpu-1-mig-2g20gb-14-4", "gpu-1-mig-1g10gb-19-6"]),
        ("gpu-node-1", ["gpu-0", "gpu-1", "gpu-2", "gpu-3"]),
    ],
)
def test_devices_of_a_resource_slice(node: str, names: list[str]) -> None:
    gpus = example_scenario().node(node).gpus
    found = devices(gpus)
    assert [device["name"] for device in found] == names
    instances = [device for device in found if device["attributes"]["type"] == {"string": "mig"}]
    assert all(device["attributes"]["parentUUID"] == {"string": gpus[1].uuid} for device in instances)
    assert devices(gpus, {gpus[0].uuid}) == found[1:]


def test_the_specification_of_a_claim_names_each_device_and_what_all_of_them_need() -> None:
    spec = cdi_spec("u1", {"gpu-0": "GPU-a", "gpu-1": "GPU-b"}, [Mount("/host/x", "/x"), Mount("/host/y", "/y", "rw")])
    assert spec["kind"] == "k8s.gpu.nvidia.com/claim"
    assert [device["name"] for device in spec["devices"]] == ["u1-gpu-0", "u1-gpu-1"]
    # containerd refuses a device that changes nothing.
    assert all(device["containerEdits"] for device in spec["devices"])
    assert spec["containerEdits"]["env"] == ["NVIDIA_VISIBLE_DEVICES=GPU-a,GPU-b"]
    assert [(m["hostPath"], m["options"]) for m in spec["containerEdits"]["mounts"]] == [
        ("/host/x", ["bind", "ro"]),
        ("/host/y", ["bind", "rw"]),
    ]
