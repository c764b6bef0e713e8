"""Things made once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from tests.cluster.cache import cache_folder, digest_of, made_once

if TYPE_CHECKING:
    from pathlib import Path


def test_digest_changes_with_content_name_and_strings(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    (tmp_path / "c").write_text("2")
    variants = [digest_of([tmp_path / name]) for name in "abc"]
    variants += [
        digest_of([tmp_path / "a"], "x"),
        digest_of([tmp_path / "a"], "y"),
        digest_of([tmp_path / "a"], "x", "y"),
    ]
    assert len(set(variants)) == len(variants)
    assert digest_of([tmp_path / "a"], "x") == variants[3]


def test_digest_knows_where_one_file_ends(tmp_path: Path) -> None:
    for folder, first, second in (("one", "ab", "c"), ("two", "a", "bc")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p").write_text(first)
        (tmp_path / folder / "q").write_text(second)
    one, two = ([tmp_path / folder / name for name in "pq"] for folder in ("one", "two"))
    assert digest_of(one) != digest_of(two)


def test_made_once_makes_once_for_many_at_a_time(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(draft: Path) -> None:
        made.append(draft)
        (draft / "content").write_text("done")

    threads = [threading.Thread(target=made_once, args=(tmp_path / "thing", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "thing" / "content").read_text() == "done"


def test_a_failed_make_leaves_no_target_and_no_draft(tmp_path: Path) -> None:
    def fail(draft: Path) -> None:
        (draft / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "thing", fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing.lock"]
    made_once(tmp_path / "thing", lambda draft: (draft / "whole").touch())
    assert (tmp_path / "thing" / "whole").exists()


@pytest.mark.parametrize(
    ("value", "inside"), [("/var/cache/me", True), ("", False), ("relative/is/ignored", False)], ids=str
)
def test_cache_folder(value: str, inside: bool) -> None:  # noqa: FBT001
    folder = cache_folder({"XDG_CACHE_HOME": value})
    assert folder.is_absolute()
    assert str(folder).startswith("/var/cache/me/") == inside
