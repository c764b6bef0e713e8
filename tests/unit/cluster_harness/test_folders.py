"""Temporary folders and their owners."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cluster.folders import owned_folder, sweep

if TYPE_CHECKING:
    from pathlib import Path


def left_behind(parent: Path) -> Path:
    """A folder as a killed process leaves it."""
    folder = parent / "gpuwaste-cluster-dead"
    (folder / "etcd").mkdir(parents=True)
    (folder / "lock").touch()
    return folder


def test_a_folder_is_gone_after_its_block_also_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with owned_folder(tmp_path) as folder:
            (folder / "data").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_only_folders_without_an_owner_are_swept(tmp_path: Path) -> None:
    unrelated = tmp_path / "something"
    unrelated.mkdir()
    with owned_folder(tmp_path) as folder:
        dead = left_behind(tmp_path)
        assert sweep(tmp_path) == [dead]
        assert folder.exists()
    assert list(tmp_path.iterdir()) == [unrelated]


def test_a_new_folder_sweeps_the_old(tmp_path: Path) -> None:
    dead = left_behind(tmp_path)
    with owned_folder(tmp_path):
        assert not dead.exists()


def test_a_folder_being_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gpuwaste-cluster-new").mkdir()
    assert sweep(tmp_path) == []
