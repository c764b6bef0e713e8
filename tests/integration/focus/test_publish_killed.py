"""SIGKILL at every durable step of publishing, closing and restating: the old state or the new one, never a third.

Each step runs in a process of its own that kills itself before the n-th call that makes something durable: when a file
was written aside, and when it was renamed. What it leaves is looked at as a reader would, then the step is run again.
"""

import hashlib
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.unit.focus.archives import at, publisher, store_ledger, tree
from tests.unit.focus.ledgers import free, holder

from gpuwaste.focus.manifest import parse_manifest
from gpuwaste.focus.periods import parse_period
from gpuwaste.focus.restate import Restater

DAY = parse_period("2026-11-01", "day")
NEXT = DAY.following
SPAWNED = multiprocessing.get_context("forkserver")
SPAWNED.set_forkserver_preload(["tests.integration.focus.test_publish_killed"])


def rows(a, hours=(0, 24)):
    return [row for hour in hours for row in (holder("a", a, hour=hour), free(1 - a, hour=hour))]


def publish(root, *, days, hours):
    made = publisher(root / "ledger", root / "out", formats=("parquet", "json"))
    made.publish(days, now=at(hours=hours))


def restate(root):
    made = publisher(root / "ledger", root / "out", formats=("parquet", "json"))
    Restater(publisher=made).restate(DAY, reason="late", now=at(hours=99))


def late(root):
    store_ledger(root / "ledger", *rows(0.25, hours=(0,)), version="late")


STEPS = {
    "first": ([], lambda root: publish(root, days=[DAY, NEXT], hours=30)),
    "replaced": (
        [lambda root: publish(root, days=[DAY, NEXT], hours=30), late],
        lambda root: publish(root, days=[DAY, NEXT], hours=31),
    ),
    "closed": (
        [lambda root: publish(root, days=[DAY, NEXT], hours=30)],
        lambda root: publish(root, days=[DAY], hours=97),
    ),
    "restated": ([lambda root: publish(root, days=[DAY, NEXT], hours=97), late], restate),
    "carried": (
        [lambda root: publish(root, days=[DAY, NEXT], hours=97), late, restate],
        lambda root: publish(root, days=[DAY, NEXT], hours=99),
    ),
}


class Killer:
    """Counts what makes something durable, and ends this process with SIGKILL when the count is reached."""

    def __init__(self, at_step):
        self.left = at_step
        for owner, name in ((os, "fsync"), (Path, "unlink")):
            setattr(owner, name, self.before(getattr(owner, name)))

    def tick(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def before(self, function):
        def counted(*args, **kwargs):
            self.tick()
            return function(*args, **kwargs)

        return counted


def run_and_die(root, name, at_step):
    os.environ["TMPDIR"] = str(root / "tmp")
    Killer(at_step)
    STEPS[name][1](root)


def manifests(out):
    return {
        path.parent: parse_manifest(path.read_bytes(), where=str(path)) for path in sorted(out.rglob("_manifest.json"))
    }


def look(out, before, after):
    """What a reader meets: whole files, old or new, each known to its manifest; closed ones as they were."""
    now = {name: text for name, text in tree(out).items() if not name.rpartition("/")[2].startswith(".")}
    for name, text in now.items():
        assert name.endswith("_manifest.json") or text in {before.get(name), after.get(name)}, name
    for folder, manifest in manifests(out).items():
        known = {(entry.name, entry.sha256) for entry in (*manifest.files, *(manifest.pending or ()))}
        for name in {name for name, _ in known}:
            if (out / name).exists():
                assert (name, hashlib.sha256((out / name).read_bytes()).hexdigest()) in known
        listed = {f"{folder.relative_to(out)}/{path.name}" for path in folder.iterdir() if path.name[0] not in "._"}
        assert listed <= {name for name, _ in known}
        if manifest.pending is None:
            for entry in manifest.files:
                assert hashlib.sha256((out / entry.name).read_bytes()).hexdigest() == entry.sha256
    for name, text in before.items():
        if name.endswith("_manifest.json") and b'"state": "Closed"' in text:
            folder = name.rpartition("/")[0]
            assert {n: t for n, t in now.items() if n.startswith(folder)} == {
                n: t for n, t in before.items() if n.startswith(folder)
            }


@pytest.mark.parametrize("name", STEPS)
def test_a_kill_leaves_the_old_or_the_new(tmp_path, name):
    prepare, step = STEPS[name]
    store_ledger(tmp_path / "start/ledger", *rows(0.5))
    for one in prepare:
        one(tmp_path / "start")
    shutil.copytree(tmp_path / "start", tmp_path / "whole")
    before = tree(tmp_path / "start/out")
    step(tmp_path / "whole")
    after = tree(tmp_path / "whole/out")
    assert after != before
    kills = 0
    while True:
        root = tmp_path / f"kill-{kills}"
        shutil.copytree(tmp_path / "start", root)
        (root / "tmp").mkdir()
        child = SPAWNED.Process(target=run_and_die, args=(root, name, kills))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        look(root / "out", before, after)
        step(root)
        assert tree(root / "out") == after
        kills += 1
        shutil.rmtree(root)
    assert kills >= 2
