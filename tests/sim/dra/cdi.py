"""What a container with a claim's devices finds, in the words of the Container Device Interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.sim.deviceplugin.service import Mount

__all__ = ["CDI_KIND", "cdi_name", "cdi_spec"]

CDI_KIND = "k8s.gpu.nvidia.com/claim"
_VERSION = "0.5.0"


def cdi_name(claim_uid: str, device: str) -> str:
    """Name of a claim's device."""
    return f"{claim_uid}-{device}"


def cdi_spec(claim_uid: str, uuids: Mapping[str, str], mounts: Sequence[Mount]) -> dict[str, Any]:
    """The specification of one claim; NVIDIA's driver writes one a claim too.

    Args:
        claim_uid: the claim's UID.
        uuids: UUIDs of GPUs and MIG instances by the names of their devices.
        mounts: what all of them need of the host.
    """
    bound = [
        {"hostPath": mount.outside, "containerPath": mount.inside, "options": ["bind", mount.mode]} for mount in mounts
    ]
    # The simulated driver has no device files: its programs go by this variable.
    visible = f"NVIDIA_VISIBLE_DEVICES={','.join(uuids.values())}"
    edits = {"env": [visible], "mounts": bound}
    # Of each device too, as one without any edit is refused.
    devices = [
        {"name": cdi_name(claim_uid, device), "containerEdits": {"env": [f"GPUWASTE_SIM_DEVICE_{number}={uuid}"]}}
        for number, (device, uuid) in enumerate(uuids.items())
    ]
    return {"cdiVersion": _VERSION, "kind": CDI_KIND, "devices": devices, "containerEdits": edits}
