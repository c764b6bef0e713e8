"""Process owners from cgroup files as container runtimes write them."""

from __future__ import annotations

import pytest

from gpuwaste_agent.cgroups import CgroupOwners, NoOwners, parse_cgroup

UID = "8e1f7c2a-3b5d-4e6f-9a0b-1c2d3e4f5a6b"
ID = "ab" * 32
SLICE = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"

CASES = {
    "v2 systemd containerd": f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/cri-containerd-{ID}.scope",
    "v2 systemd CRI-O": f"0::/kubepods.slice/kubepods-burstable.slice/{SLICE}/crio-{ID}.scope",
    "v2 systemd CRI-O with a child": f"0::/kubepods.slice/{SLICE}/crio-{ID}.scope/container",
    "v2 systemd docker": f"0::/kubepods.slice/{SLICE}/docker-{ID}.scope",
    "v2 cgroupfs": f"0::/kubepods/burstable/pod{UID}/{ID}",
    "v2 cgroupfs guaranteed": f"0::/kubepods/pod{UID}/{ID}",
    "v1 cgroupfs": f"12:memory:/kubepods/burstable/pod{UID}/{ID}\n11:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}",
    "v1 systemd": f"5:devices:/kubepods.slice/{SLICE}/cri-containerd-{ID}.scope\n1:name=systemd:/x",
    "v1 containerd with a colon": f"9:pids:/system.slice/containerd.service/{SLICE}:cri-containerd:{ID}",
    "nested runtime": f"0::/kubepods/burstable/pod{UID}/{ID}/docker/{'cd' * 32}",
    "kind node": f"0::/docker/{'ef' * 32}/kubelet/kubepods/burstable/pod{UID}/{ID}",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_pod_and_container_are_found(text):
    owner = parse_cgroup(text + "\n")
    assert owner is not None
    assert (owner.pod_uid, owner.container_id) == (UID, ID)


@pytest.mark.parametrize(
    "text",
    [
        "0::/system.slice/nvidia-persistenced.service\n",
        "0::/\n",
        "",
        f"0::/docker/{ID}\n",
        "0::/user.slice/user-0.slice\n",
    ],
)
def test_processes_in_no_pod_have_no_owner(text):
    assert parse_cgroup(text) is None


def test_a_static_pod_has_a_hash_for_a_uid():
    owner = parse_cgroup(f"0::/kubepods/besteffort/pod{'0a' * 16}/{ID}\n")
    assert owner == ("0a" * 16, ID, "")


def test_a_pod_without_a_container_keeps_its_uid():
    assert parse_cgroup(f"0::/kubepods/burstable/pod{UID}/sandbox\n") == (UID, "", "")


def test_a_pid_is_read_once_and_again_only_after_it_ended(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(CASES["v2 cgroupfs"])
    owners = CgroupOwners(tmp_path)
    assert [owners.owner(7).pod_uid for _ in range(5)] == [UID] * 5
    assert owners.reads == 1
    owners.forget(7)
    (tmp_path / "7" / "cgroup").write_text("0::/\n")
    assert owners.owner(7) is None
    assert owners.owner(8) is None
    assert NoOwners().owner(7) is None
