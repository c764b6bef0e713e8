"""ResourceSlices from the real API server, by a service account that may list them and by one that may not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.sim.dra.slices import DRIVER, devices, resource_slice

from gpuwaste_agent.resource_slices import DeviceKey, SlicesError, SliceSource, ask_slices
from gpuwaste_agent.simulate.scenario import ScenarioGpu, ScenarioInstance

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.access import ControlPlane

GPUS = (
    ScenarioGpu(uuid="GPU-a", product="H100-80GB"),
    ScenarioGpu(uuid="GPU-b", product="H100-80GB", mig=(ScenarioInstance(uuid="MIG-b", profile="3g.40gb", start=4),)),
)


def account(control_plane: ControlPlane, namespace: str, folder: Path, *, allowed: bool) -> SliceSource:
    """Where a service account asks: with the rule of the chart, or with none."""
    kubectl = control_plane.kubectl
    name = f"{namespace}-{'agent' if allowed else 'other'}"
    kubectl("create", "serviceaccount", name, "-n", namespace)
    if allowed:
        kubectl("create", "clusterrole", name, "--verb=list", "--resource=resourceslices.resource.k8s.io")
        kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount={namespace}:{name}")
    (folder / "token").write_text(kubectl("create", "token", name, "-n", namespace))
    (folder / "ca.crt").write_bytes(control_plane.certificate_authority.read_bytes())
    server = urlsplit(control_plane.server)
    assert server.hostname is not None
    assert server.port is not None
    return SliceSource(node="n0", host=server.hostname, port=server.port, account=folder)


def published(control_plane: ControlPlane, node: str, gpus: tuple[ScenarioGpu, ...]) -> None:
    control_plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    control_plane.apply(resource_slice(control_plane.get("node", node), devices(gpus), 1))


def test_only_the_slices_of_this_node_are_read(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    published(control_plane, "n0", GPUS)
    published(control_plane, "n1", (ScenarioGpu(uuid="GPU-elsewhere", product="H100-80GB"),))
    source = account(control_plane, namespace, tmp_path, allowed=True)
    found = ask_slices(source)
    assert {key.device: (one.kind, one.uuid, one.parent_uuid, one.profile) for key, one in found.items()} == {
        "gpu-0": ("gpu", "GPU-a", "", ""),
        "gpu-1-mig-3g40gb-9-4": ("mig", "MIG-b", "GPU-b", "3g.40gb"),
    }
    assert set(found) == {DeviceKey(DRIVER, "n0", "gpu-0"), DeviceKey(DRIVER, "n0", "gpu-1-mig-3g40gb-9-4")}
    assert ask_slices(replace(source, node="another")) == {}


def test_an_account_without_the_right_is_told_what_it_needs(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    source = account(control_plane, namespace, tmp_path, allowed=False)
    with pytest.raises(SlicesError, match=r"refuses ResourceSlices \(403\).*agent\.resourceSlices"):
        ask_slices(source)
    (tmp_path / "token").write_text("worthless")
    with pytest.raises(SlicesError, match=r"refuses ResourceSlices \(401\)"):
        ask_slices(source)
    with pytest.raises(SlicesError, match="does not answer"):
        ask_slices(replace(source, port=1))
    (tmp_path / "token").unlink()
    with pytest.raises(SlicesError, match="token"):
        ask_slices(source)
