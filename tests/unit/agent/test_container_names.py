"""Container names from the kubelet's links."""

from __future__ import annotations

import os

import pytest

from gpuwaste_agent.cgroups import CgroupOwners
from gpuwaste_agent.container_names import ContainerNames

ID, OTHER = "ab" * 32, "cd" * 32
UID = "8e1f7c2a-3b5d-4e6f-9a0b-1c2d3e4f5a6b"


@pytest.mark.parametrize("container", ["main", "side-car", "a-0"])
def test_a_link_tells_the_name_of_its_container(tmp_path, container):
    (tmp_path / f"web-0_team-a_{container}-{ID}.log").symlink_to("/nowhere")
    (tmp_path / "something else").write_text("")
    names = ContainerNames(tmp_path)
    assert names.name(ID) == container
    assert names.name(OTHER) == ""


def test_a_link_that_comes_later_is_found_and_a_missing_directory_is_no_error(tmp_path):
    names = ContainerNames(tmp_path / "logs")
    assert names.name(ID) == ""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f"web_ns_main-{ID}.log").write_text("")
    assert names.name(ID) == "main"


def test_an_owner_gets_its_name_without_another_read_of_proc(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(f"0::/kubepods/pod{UID}/{ID}\n")
    links = tmp_path / "links"
    links.mkdir()
    owners = CgroupOwners(tmp_path, ContainerNames(links))
    assert owners.owner(7).container == ""
    (links / f"web_ns_main-{ID}.log").write_text("")
    assert owners.owner(7).container == "main"
    assert owners.reads == 1


def test_a_link_that_comes_within_the_same_tick_of_the_filesystems_clock_is_found(tmp_path):
    names = ContainerNames(tmp_path)
    (tmp_path / f"web_ns_main-{'a' * 64}.log").touch()
    before = tmp_path.stat()
    assert names.name("a" * 64) == "main"
    (tmp_path / f"web_ns_side-{'b' * 64}.log").touch()
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names.name("b" * 64) == "side"
