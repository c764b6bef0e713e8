"""Bills in an object store: the same files as in a folder, also when the writer is killed at any moment."""

import multiprocessing
import os
import random
import signal
import time

import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from tests.unit.focus.archives import at, publisher, store_ledger, sums, tree
from tests.unit.focus.ledgers import free, holder

from gpuwaste.focus.audit import audit
from gpuwaste.focus.manifest import parse_manifest
from gpuwaste.focus.periods import parse_period
from gpuwaste.focus.publish import Outcome
from gpuwaste.focus.restate import Restater
from gpuwaste.ledger.store import open_store
from gpuwaste.model.errors import UnreachableError

DAY = parse_period("2026-11-01", "day")
NEXT = DAY.following
SPAWNED = multiprocessing.get_context("forkserver")
SPAWNED.set_forkserver_preload(["tests.integration.focus.test_publish_s3"])


def rows(a, hours=(0, 24)):
    return [row for hour in hours for row in (holder("a", a, hour=hour), free(1 - a, hour=hour))]


def stored(url):
    """Every object below a folder with its bytes."""
    store = open_store(url)
    return {name: store.read(name) for name in store.files("")}


def whole_story(ledger, out):
    """Publish two days, close one, let data come late, restate, and carry the difference."""
    store_ledger(ledger, *rows(0.5))
    publisher(ledger, out, formats=("parquet", "csv", "json")).publish([DAY, NEXT], now=at(hours=30))
    publisher(ledger, out, formats=("parquet", "csv", "json")).publish([DAY, NEXT], now=at(hours=97))
    store_ledger(ledger, *rows(0.25, hours=(0,)), version="late")
    made = publisher(ledger, out, formats=("parquet", "csv", "json"))
    Restater(publisher=made).restate(DAY, reason="late", now=at(hours=99))
    return made.publish([DAY, NEXT], now=at(hours=99))


def test_the_same_bytes_as_in_a_folder(tmp_path, object_store):
    url = object_store.url("same/bytes")
    results = whole_story(tmp_path / "ledger", url)
    whole_story(tmp_path / "ledger-2", tmp_path / "folder")
    assert [result.outcome for result in results] == [Outcome.FINAL, Outcome.WRITTEN]
    assert stored(url) == tree(tmp_path / "folder")
    assert audit(publisher(tmp_path / "ledger", url).archive) == []


def test_any_engine_reads_the_folder_as_partitions(tmp_path, object_store):
    url = object_store.url("read/back")
    whole_story(tmp_path / "ledger", url)
    filesystem, root = fs.FileSystem.from_uri(url)
    table = pq.read_table(f"{root}/cost-and-usage", filesystem=filesystem, partitioning="hive")
    assert sorted(set(table["period"].to_pylist())) == ["2026-11-01", "2026-11-02"]
    assert sums(table)["a"] == 1 + 1 - 0.5


def test_a_store_that_is_gone_is_said_and_nothing_is_lost(tmp_path, object_store):
    store_ledger(tmp_path / "ledger", *rows(0.5))
    url = object_store.url("gone").replace(f":{object_store.port}", ":1")
    with pytest.raises(UnreachableError, match=r"s3://bills/gone"):
        publisher(tmp_path / "ledger", url).publish([DAY], now=at(hours=30))


def run(ledger, url):
    publisher(ledger, url, formats=("parquet", "csv", "json")).publish([DAY, NEXT], now=at(hours=97))


def test_a_kill_at_any_moment_leaves_whole_objects_and_the_next_run_finishes(tmp_path, object_store):
    store_ledger(tmp_path / "ledger", *rows(0.5))
    store_ledger(tmp_path / "ledger", *rows(0.25, hours=(1, 25)))
    run(tmp_path / "ledger", str(tmp_path / "whole"))
    wanted = tree(tmp_path / "whole")
    choose = random.Random(20261125)
    killed = 0
    for number in range(8):
        url = object_store.url(f"killed/{number}")
        child = SPAWNED.Process(target=run, args=(tmp_path / "ledger", url))
        child.start()
        time.sleep(choose.uniform(0.0, 0.6))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join(60)
        killed += child.exitcode == -signal.SIGKILL
        for name, text in stored(url).items():
            if name.endswith("_manifest.json"):
                parse_manifest(text, where=name)
            else:
                assert text == wanted[name]
        run(tmp_path / "ledger", url)
        assert stored(url) == wanted
    assert killed
