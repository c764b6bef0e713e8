"""Inputs and ledger in an object store: commands read and write there what they do in a folder, byte for byte."""

import json
import multiprocessing
import os
import random
import signal
import time
from datetime import timedelta

import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.cli.stored import files, run, store_inputs

from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file, update_hour
from gpuwaste.runtime.books import Books
from gpuwaste.settings.teams import TeamRules

RULES = HourRules(teams=TeamRules())
SPAWNED = multiprocessing.get_context("forkserver")
SPAWNED.set_forkserver_preload(["tests.integration.ledger.test_object_store"])


def stored(url):
    """Every object below a folder with its bytes."""
    store = open_store(url)
    return {name: store.read(name) for name in store.files("")}


def operate(url):
    """What an operator does in five hours: store what agents send, compute each hour, and once more when data is late.

    Returns:
        For each hour whether it was written: in the first round, in one without news, and after a late window.
    """
    store_inputs(url)
    store = open_store(url)
    inputs = InputStore.open(store, "test")
    assert inputs.ranges.cursor("journal-node-a") == len(inputs.load(HOUR).windows) * 3
    rounds = [[update_hour(inputs, store, hour, RULES) is not None for hour in inputs.hours()] for _ in range(2)]
    late = Journal("node-b").device(HOUR + timedelta(hours=1, minutes=7), "node-b-gpu-1").table()
    changed = inputs.append_windows(late)
    inputs.write_facts(*changed, [fact.node("node-b"), fact.gpu("node-b-gpu-1", on="node-b")])
    return [*rounds, [update_hour(inputs, store, hour, RULES) is not None for hour in inputs.hours()]]


@pytest.fixture
def both(tmp_path, object_store, request):
    """The same five hours in a folder and in an object store: the addresses of both."""
    url = object_store.url(f"ledger/{request.node.name}")
    folder = str(tmp_path / "folder")
    assert operate(folder) == operate(url) == [[True] * 5, [False] * 5, [False, True, False, False, False]]
    return folder, url


def test_the_operator_stores_the_same_bytes_as_in_a_folder(both, tmp_path):
    _, url = both
    assert stored(url) == files(tmp_path / "folder")
    assert hour_file("test", HOUR) in stored(url)


def test_what_many_small_files_hold_is_merged_and_read_once(tmp_path, object_store):
    """As in a folder: an hour's files are merged before they are many, and the cursor comes from their footers."""
    found = []
    for url in (str(tmp_path / "folder"), object_store.url("ledger/merged")):
        inputs = InputStore(open_store(url), "test")
        journal = Journal()
        for minute in range(30):
            journal.device(HOUR + timedelta(minutes=minute), "gpu-1")
            inputs.append_windows(journal.table())  # each batch holds all that came before, as after a lost answer
        again = InputStore.open(open_store(url), "test")
        assert again.ranges.cursor("journal-node-a") == 30
        assert again.load(HOUR).windows.num_rows == 30
        found.append({name: data for name, data in stored(url).items() if name.startswith("inputs/")})
    assert found[0] == found[1]
    assert len(found[0]) <= 13


def same(folder, url, *arguments):
    """Run a command on both; `{}` in an argument is the address. Returns the output, which is equal."""
    results = [run(*(argument.format(place) for argument in arguments)) for place in (folder, url)]
    assert [result.exit_code for result in results] == [0, 0], [result.output for result in results]
    local, remote = (
        result.output.replace(place, "PLACE") for result, place in zip(results, (folder, url), strict=True)
    )
    assert local == remote
    return local


def test_every_command_reads_an_object_store_as_it_reads_a_folder(both):
    folder, url = both
    listed = json.loads(same(folder, url, "ledger", "ls", "--ledger", "{}", "-o", "json"))
    assert [(row["cluster"], row["hours"]) for row in listed] == [("test", 5)]
    assert listed[0]["bytes"] > 0
    rows = json.loads(same(folder, url, "ledger", "show", "--ledger", "{}", "-o", "json"))
    assert {row["hour"][11:13] for row in rows} == {f"{HOUR.hour + n:02d}" for n in range(5)}
    assert "5 hours: every law" in same(folder, url, "ledger", "verify", "--ledger", "{}", "--inputs", "{}")
    for by in ("team", "hour"):
        teams = json.loads(same(folder, url, "report", "--ledger", "{}", "--by", by, "-o", "json"))
        assert teams
    assert json.loads(same(folder, url, "top", "--ledger", "{}", "-o", "json"))


def test_a_ledger_that_is_not_from_these_inputs_is_found_there_too(both):
    _, url = both
    store = open_store(url)
    InputStore.open(store, "test").append_windows(Journal("node-c").device(HOUR, "late").table())
    found = run("ledger", "verify", "--ledger", url, "--inputs", url, "-o", "json")
    assert found.exit_code == 1
    assert [row["hour"] for row in json.loads(found.stdout)] == [f"{HOUR:%Y-%m-%dT%H:%M:%SZ}"]


def test_replay_from_and_to_an_object_store_gives_the_same_bytes(both, tmp_path, object_store):
    folder, url = both
    computed = {name.removeprefix("ledger/"): data for name, data in stored(url).items() if name.startswith("ledger/")}
    again = object_store.url("ledger/replayed")
    for inputs, ledger in ((folder, again), (f"{folder}/inputs", str(tmp_path / "a")), (url, str(tmp_path / "b"))):
        result = run("replay", "--inputs", inputs, "--ledger", ledger)
        assert result.exit_code == 0, result.output
        assert stored(ledger) == computed
    assert run("replay", "--inputs", url, "--ledger", url).exit_code == 0
    assert {n.removeprefix("ledger/"): d for n, d in stored(url).items() if n.startswith("ledger/")} == computed


def test_inputs_exported_from_an_object_store_compute_the_same_ledger(both, tmp_path, object_store):
    folder, url = both
    for place, out in ((folder, tmp_path / "a"), (url, tmp_path / "b")):
        result = run("ledger", "export-inputs", "--inputs", place, "--out", out)
        assert result.exit_code == 0, result.output
    assert files(tmp_path / "a") == files(tmp_path / "b")
    target = object_store.url("ledger/from-text")
    given = ("--windows", tmp_path / "b/windows.jsonl", "--facts", tmp_path / "b/facts.jsonl")
    result = run("replay", *given, "--ledger", target)
    assert result.exit_code == 0, result.output
    computed = {name.removeprefix("ledger/"): data for name, data in stored(url).items() if name.startswith("ledger/")}
    assert stored(target) == computed


def test_old_inputs_are_removed_as_in_a_folder(both, tmp_path):
    _, url = both
    before = ledger_of(stored(url))
    for place in both:
        store = open_store(place)
        books = Books(inputs=InputStore.open(store, "test"), store=store, rules=RULES)
        now = HOUR + timedelta(days=35, hours=2)
        assert books.expire(now=now, open_since=None) == [HOUR, HOUR + timedelta(hours=1)]
        assert books.expire(now=now, open_since=None) == []
        store.delete_folder("inputs/cluster=test/date=2000-01-01/hour=00")  # not there
    assert stored(url) == files(tmp_path / "folder")
    assert ledger_of(stored(url)) == before
    assert run("ledger", "verify", "--ledger", url, "--inputs", url).exit_code == 0


def test_a_store_that_is_gone_is_one_line_and_exit_code_3(both, object_store):
    _, url = both
    gone = url.replace(f":{object_store.port}", ":1")
    for command in (
        ("ledger", "verify", "--ledger", url, "--inputs", gone),
        ("replay", "--inputs", url, "--ledger", gone),
    ):
        result = run(*command)
        assert result.exit_code == 3, (command, result.output)
        assert "s3://" in result.output
        assert "Traceback" not in result.output
    assert run("ledger", "verify", "--ledger", url, "--inputs", url).exit_code == 0


def test_kills_at_any_moment_leave_whole_objects_and_the_next_run_finishes(tmp_path, object_store):
    expected = tmp_path / "folder"
    operate(str(expected))
    chance = random.Random(6)
    for number in range(3):
        url = object_store.url(f"ledger/killed/{number}")
        for _ in range(4):
            process = SPAWNED.Process(target=operate_again, args=(url,))
            process.start()
            time.sleep(chance.uniform(0.02, 0.5))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            for name in open_store(url).files(""):
                if name.endswith(".parquet"):
                    open_store(url).read_table(name)
        operate_again(url)
        assert ledger_of(stored(url)) == ledger_of(files(expected))


def operate_again(url):
    """What an operator does after a start: agents send again what is not stored, and every hour is looked at."""
    store_inputs(url)
    store = open_store(url)
    inputs = InputStore.open(store, "test")
    late = Journal("node-b").device(HOUR + timedelta(hours=1, minutes=7), "node-b-gpu-1").table()
    (hour,) = inputs.append_windows(late)
    inputs.write_facts(hour, [fact.node("node-b"), fact.gpu("node-b-gpu-1", on="node-b")])
    for hour in inputs.hours():
        update_hour(inputs, store, hour, RULES)


def ledger_of(found):
    return {name: data for name, data in found.items() if name.startswith("ledger/")}
