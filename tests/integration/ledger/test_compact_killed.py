"""SIGKILL before every step that changes a file while hours are put together: each hour counts once, as it was.

Each run happens in a process of its own that kills itself before the n-th change. What it leaves is read as every
command reads it, also by an operator that writes a late window first; then the step is run again.
"""

import multiprocessing
import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from tests.helpers.facts import HOUR
from tests.unit.ledger.test_days import MIDNIGHT, compact, computed, late, whole

from gpuwaste.ledger.catalog import ledger_hours
from gpuwaste.ledger.days import remove_days
from gpuwaste.ledger.store import Store, open_store

SPAWNED = multiprocessing.get_context("forkserver")
SPAWNED.set_forkserver_preload(["tests.integration.ledger.test_compact_killed"])
HOURS = [HOUR + timedelta(hours=n) for n in range(5)]


def spread(store):
    """The file of the day and files of two of its hours, as a kill leaves them."""
    other = store.root + "-other"
    computed(Path(other))
    for name in open_store(other).files("ledger")[1:3]:
        store.write(name, open_store(other).read(name))
    shutil.rmtree(other)


STEPS = {
    "hours of a day": ([], compact),
    "a late hour of a day": ([compact], late),
    "hours that a kill left": ([compact, spread], compact),
}


class Killer:
    """Counts what changes files, and ends this process with SIGKILL when the count is reached."""

    def __init__(self, at_step):
        self.left = at_step
        changes = ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Store, "delete"), (Store, "delete_folder"))
        for owner, name in (*changes, (Store, "write")):
            setattr(owner, name, self.before(getattr(owner, name)))

    def before(self, function):
        def counted(*args, **kwargs):
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return function(*args, **kwargs)

        return counted


def run_and_die(url, name, at_step):
    store = open_store(url)
    Killer(at_step)
    STEPS[name][1](store)


def killed(url, name, at_step):
    """Whether the step was killed; False where it came to its end before."""
    child = SPAWNED.Process(target=run_and_die, args=(url, name, at_step))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def prepared(folder, name):
    store = computed(folder)
    for step in STEPS[name][0]:
        step(store)
    return store


@pytest.mark.parametrize("name", STEPS)
def test_a_kill_in_a_folder_leaves_each_hour_once(tmp_path, name):
    start = prepared(tmp_path / "start", name)
    before = whole(start)
    shutil.copytree(tmp_path / "start", tmp_path / "done")
    done = open_store(str(tmp_path / "done"))
    STEPS[name][1](done)
    after = whole(done)
    assert (after.equals(before)) == (STEPS[name][1] is not late)
    kills = 0
    while True:
        folder = tmp_path / f"kill-{kills}"
        shutil.copytree(tmp_path / "start", folder)
        if not killed(str(folder), name, kills):
            break
        left = open_store(str(folder))
        assert ledger_hours(left) == {"test": HOURS}
        assert whole(left).equals(before) or whole(left).equals(after)
        shutil.copytree(folder, tmp_path / "late")
        written = open_store(str(tmp_path / "late"))
        late(written)
        compact(written)
        STEPS[name][1](left)
        compact(left)
        assert whole(left).equals(after)
        assert ledger(left) == ledger(done)
        late(left)
        assert ledger(written) == ledger(left), "a late window after the kill changes its hour, and nothing else"
        shutil.rmtree(tmp_path / "late")
        shutil.rmtree(folder)
        kills += 1
    assert kills >= 3


def ledger(store):
    return {name: store.read(name) for name in store.files("ledger")}


@pytest.mark.parametrize("name", ["hours of a day", "a late hour of a day"])
def test_a_kill_in_an_object_store_leaves_each_hour_once(tmp_path, object_store, name):
    start = prepared(tmp_path / "start", name)
    before = whole(start)
    done = prepared(tmp_path / "done", name)
    STEPS[name][1](done)
    after = whole(done)
    kills = 0
    while True:
        url = object_store.url(f"ledger/{name.replace(' ', '-')}/{kills}")
        store = open_store(url)
        for file in start.files(""):
            store.write(file, start.read(file))
        if not killed(url, name, kills):
            break
        assert ledger_hours(store) == {"test": HOURS}
        assert whole(store).equals(before) or whole(store).equals(after)
        STEPS[name][1](store)
        assert whole(store).equals(after)
        assert ledger(store) == ledger(done), "byte for byte what a folder holds"
        kills += 1
    assert kills >= 1


def test_a_kill_while_days_are_removed_is_made_good_by_the_next_run(tmp_path):
    store = computed(tmp_path)
    assert remove_days(store, cluster="test", before=MIDNIGHT, keep=[]) == [HOUR.date()]
    store = computed(tmp_path / "half")
    store.delete_folder("ledger/cluster=test/date=2026-11-02/hour=09")
    assert remove_days(store, cluster="test", before=MIDNIGHT, keep=[]) == [HOUR.date()]
    assert store.files("ledger") == []
