"""Hours put together by day: the same rows for every reader, whatever is written, removed or read in between."""

import json
from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.cli.stored import files, run, store_inputs
from tests.unit.report.ledgers import row, table

from gpuwaste.focus.periods import parse_period
from gpuwaste.focus.sources import LedgerSource
from gpuwaste.ledger import read
from gpuwaste.ledger.catalog import day_file, find_hours, hour_file, ledger_hours, place_of
from gpuwaste.ledger.days import compact_days, put_hours, remove_days
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.read import read_hours, read_ledger
from gpuwaste.ledger.schema import KEY_COLUMNS, LEDGER_SCHEMA
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import update_hour
from gpuwaste.model.errors import InputError
from gpuwaste.settings.teams import TeamRules

RULES = HourRules(teams=TeamRules())
HOURS = [HOUR + timedelta(hours=n) for n in range(5)]
MIDNIGHT = HOUR.replace(hour=0) + timedelta(days=1)


def computed(folder):
    """The store of five computed hours."""
    store_inputs(folder)
    store = open_store(str(folder))
    inputs = InputStore.open(store, "test")
    for hour in inputs.hours():
        update_hour(inputs, store, hour, RULES)
    return store


def compact(store, *, before=MIDNIGHT, cluster="test"):
    return list(compact_days(store, cluster=cluster, before=before))


def whole(store):
    return read_ledger(store, start=HOUR - timedelta(days=99), end=HOUR + timedelta(days=99))


def ledger_files(folder):
    return {name: data for name, data in files(folder).items() if name.startswith("ledger/")}


def test_a_day_becomes_one_smaller_file_with_the_same_rows(tmp_path):
    store = computed(tmp_path)
    before, files_before = whole(store), ledger_files(tmp_path)
    (done,) = compact(store)
    assert list(ledger_files(tmp_path)) == [day_file("test", HOUR)]
    assert (done.hours, done.files, done.bytes_before) == (5, 5, sum(map(len, files_before.values())))
    assert done.bytes_after == len(store.read(day_file("test", HOUR))) < done.bytes_before / 2
    assert whole(store).equals(before)
    assert ledger_hours(store) == {"test": HOURS}
    assert compact(store) == []


def test_only_days_that_ended_are_put_together(tmp_path):
    store = computed(tmp_path)
    before = ledger_files(tmp_path)
    assert compact(store, before=MIDNIGHT - timedelta(microseconds=1)) == []
    assert ledger_files(tmp_path) == before


def test_every_command_says_the_same_as_before(tmp_path):
    store = computed(tmp_path)
    commands = [
        ("ledger", "show", "--ledger", tmp_path, "--resource", "all", "-o", "json"),
        ("ledger", "verify", "--ledger", tmp_path, "--inputs", tmp_path),
        *(("report", "--ledger", tmp_path, "--by", by, "-o", "json") for by in ("team", "workload", "hour", "pool")),
        ("top", "--ledger", tmp_path, "-o", "json"),
        ("reserved", "--inputs", tmp_path, "-o", "json"),
    ]
    before = [run(*command) for command in commands]
    assert {result.exit_code for result in before} == {0}, [result.output for result in before]
    result = run("ledger", "compact", "--ledger", tmp_path, "-o", "json", "--to", f"{HOUR:%Y-%m-%d}")
    compact(store)  # where today is the day itself the command leaves it
    assert result.exit_code == 0, result.output
    assert [run(*command).output for command in commands] == [result.output for result in before]
    old, new = (json.loads(run("ledger", "ls", "--ledger", tmp_path, "-o", "json").stdout) for _ in range(2))
    assert old == new
    assert old[0]["bytes"] == len(store.read(day_file("test", HOUR)))


def test_the_command_leaves_the_day_that_still_runs(tmp_path, monkeypatch):
    computed(tmp_path)
    result = run("ledger", "compact", "--ledger", tmp_path, "--to", "2000-01-01")
    assert (result.exit_code, "nothing to do" in result.output) == (0, True)
    assert run("ledger", "compact", "--ledger", tmp_path, "--cluster", "other").exit_code == 1


def test_focus_files_and_hashes_of_periods_do_not_change(tmp_path):
    store = computed(tmp_path)
    day = f"{HOUR:%Y-%m-%d}"

    def exported(name):
        arguments = ("--ledger", tmp_path, "--from", day, "--to", day, "--out", tmp_path / f"{name}.parquet")
        assert run("focus", "export", *arguments).exit_code == 0
        return (tmp_path / f"{name}.parquet").read_bytes(), LedgerSource(store=store).inputs(parse_period(day, "day"))

    before = exported("before")
    compact(store)
    assert exported("after") == before


def late(store):
    """A window of the second hour that comes late."""
    inputs = InputStore.open(store, "test")
    (hour,) = inputs.append_windows(Journal("node-b").device(HOURS[1], "node-b-gpu-1").table())
    inputs.write_facts(hour, [fact.node("node-b"), fact.gpu("node-b-gpu-1", on="node-b")])
    return [hour for hour in inputs.hours() if update_hour(inputs, store, hour, RULES) is not None]


def test_late_data_replaces_its_hour_in_the_file_of_the_day(tmp_path):
    plain, store = computed(tmp_path / "plain"), computed(tmp_path / "days")
    compact(store)
    before = whole(store)
    assert late(plain) == late(store) == [HOURS[1]]
    assert late(store) == []
    assert list(ledger_files(tmp_path / "days")) == [day_file("test", HOUR)]
    assert whole(store).equals(whole(plain))
    assert not whole(store).equals(before)
    compact(plain)
    assert ledger_files(tmp_path / "plain") == ledger_files(tmp_path / "days"), "in whatever order, the same bytes"


def test_a_replay_into_days_gives_the_same_bytes_as_one_into_hours_put_together(tmp_path):
    store = computed(tmp_path)
    compact(store)
    before = ledger_files(tmp_path)
    assert run("replay", "--inputs", tmp_path, "--ledger", tmp_path).exit_code == 0
    assert ledger_files(tmp_path) == before
    assert run("replay", "--inputs", tmp_path, "--ledger", tmp_path / "other").exit_code == 0
    other = open_store(str(tmp_path / "other"))
    other.filesystem.move(f"{other.root}/cluster=test", f"{tmp_path}/moved")
    again = open_store(str(tmp_path / "again"))
    again.filesystem.create_dir(f"{again.root}/ledger")
    again.filesystem.move(f"{tmp_path}/moved", f"{again.root}/ledger/cluster=test")
    compact(again)
    assert ledger_files(tmp_path / "again") == before


def test_an_hour_of_a_day_that_is_put_together_gets_a_file_of_its_own_until_the_next_time(tmp_path):
    store = computed(tmp_path)
    compact(store)
    new = HOUR + timedelta(hours=7)
    rows = table(row(hour=new, cluster="test")).replace_schema_metadata({**LEDGER_SCHEMA.metadata, b"input_hash": b"x"})
    put_hours(store, "test", {new: rows})
    assert sorted(ledger_files(tmp_path)) == sorted([day_file("test", HOUR), hour_file("test", new)])
    both = whole(store)
    (done,) = compact(store)
    assert (done.hours, done.files) == (6, 2)
    assert whole(store).equals(both)
    assert place_of(store, "test", new)[1] == {"input_hash": "x"}


def test_an_hours_own_file_counts_before_its_days(tmp_path):
    """What a kill between the two leaves: nothing counts twice, and the newer counts."""
    store = computed(tmp_path)
    own = {hour: store.read(hour_file("test", hour)) for hour in HOURS}
    compact(store)
    before = whole(store)
    for hour in HOURS[1:3]:
        store.write(hour_file("test", hour), own[hour])
    assert whole(store).equals(before)
    newer = table(row(hour=HOURS[1], cluster="test", namespace="newer"))
    store.write_table(hour_file("test", HOURS[1]), newer)
    assert "newer" in whole(store)["namespace"].to_pylist()
    assert [place.of_day for place in find_hours(store)["test"].values()] == [True, False, False, True, True]
    now = whole(store)
    compact(store)
    assert whole(store).equals(now)
    assert list(ledger_files(tmp_path)) == [day_file("test", HOUR)]


def test_an_hour_that_is_written_while_its_day_is_put_together_keeps_its_file(tmp_path, monkeypatch):
    store = computed(tmp_path)
    newer = table(row(hour=HOURS[1], cluster="test")).replace_schema_metadata({b"input_hash": b"newer"})
    write = type(store).write

    def and_another(self, name, data):
        write(self, name, data)
        monkeypatch.undo()
        self.write_table(hour_file("test", HOURS[1]), newer)

    monkeypatch.setattr(type(store), "write", and_another)
    compact(store)
    assert sorted(ledger_files(tmp_path)) == sorted([day_file("test", HOUR), hour_file("test", HOURS[1])])
    assert place_of(store, "test", HOURS[1])[1] == {"input_hash": "newer"}


def test_hours_that_are_put_together_while_they_are_read_are_read_from_their_day(tmp_path):
    store = computed(tmp_path)
    expected, places = whole(store), list(find_hours(store)["test"].values())
    found = read_hours(store, places)
    first = next(found)[1]
    compact(store)
    assert pa.concat_tables([first, *(rows for _, rows in found)]).equals(expected)
    put = find_hours(store)["test"]
    assert [place.of_day for place in put.values()] == [True] * 5
    store.delete(day_file("test", HOUR))
    with pytest.raises(InputError, match="was removed while it was read"):
        list(read_hours(store, put.values()))


def test_a_day_without_its_footer_is_refused(tmp_path):
    store = computed(tmp_path)
    store.write_table(day_file("test", HOUR), store.read_table(hour_file("test", HOUR)))
    with pytest.raises(InputError, match=r"hour=all/part-0.parquet: does not say which hours it holds"):
        find_hours(store)


def test_days_are_removed_whole_and_never_while_their_inputs_are_there(tmp_path):
    store = computed(tmp_path)
    next_day = table(row(hour=MIDNIGHT, cluster="test"))
    put_hours(store, "test", {MIDNIGHT: next_day})
    compact(store)
    before = MIDNIGHT + timedelta(days=1)
    assert remove_days(store, cluster="test", before=before - timedelta(seconds=1), keep=HOURS[4:]) == []
    assert remove_days(store, cluster="test", before=before - timedelta(seconds=1), keep=[]) == [HOUR.date()]
    assert ledger_hours(store) == {"test": [MIDNIGHT]}
    assert remove_days(store, cluster="test", before=before, keep=[]) == [MIDNIGHT.date()]
    assert ledger_hours(store) == {}


ROWS = st.lists(st.integers(0, 40), min_size=2, max_size=6)


@settings(max_examples=8, deadline=None)
@given(counts=ROWS, group_rows=st.integers(1, 60), data=st.data())
def test_any_day_keeps_its_rows_whatever_the_size_of_its_groups(tmp_path_factory, counts, group_rows, data):
    """Empty hours, hours larger than a group, hours replaced by others of another size."""
    folder = tmp_path_factory.mktemp("days")
    store = open_store(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpuwaste.ledger.days._GROUP_ROWS", group_rows)

        def hour_of(number, count):
            at = HOUR.replace(hour=number)
            made = [row(hour=at, cluster="test", pod_uid=f"p{n:02d}", owned=n, team=f"t{n % 3}") for n in range(count)]
            rows = table(*made) if made else LEDGER_SCHEMA.empty_table()
            ordered = rows.sort_by([(key, "ascending") for key in KEY_COLUMNS])
            return at, ordered.replace_schema_metadata({b"input_hash": f"{number}/{count}".encode()})

        hours = dict(hour_of(number, count) for number, count in enumerate(counts))
        put_hours(store, "test", hours)
        compact(store)
        number = data.draw(st.integers(0, len(counts) - 1))
        at, rows = hour_of(number, data.draw(st.integers(0, 40)))
        put_hours(store, "test", {at: rows})
        hours[at] = rows
    plain = [rows.replace_schema_metadata(LEDGER_SCHEMA.metadata) for rows in hours.values()]
    assert whole(store).equals(pa.concat_tables(plain))
    found = {place.hour: rows for place, rows in read_hours(store, find_hours(store)["test"].values())}
    assert {hour: len(rows) for hour, rows in found.items()} == {hour: len(rows) for hour, rows in hours.items()}
    assert [place_of(store, "test", hour)[1]["input_hash"] for hour in hours] == [
        rows.schema.metadata[b"input_hash"].decode() for rows in hours.values()
    ]


def test_files_of_an_object_store_are_read_ahead_in_order(tmp_path, monkeypatch):
    store = computed(tmp_path)
    expected = whole(store)
    monkeypatch.setattr(type(store), "is_local", property(lambda _: False))
    monkeypatch.setattr(read, "_AHEAD", 2)
    assert whole(store).equals(expected)
