"""`gpuwaste focus publish`, `restate` and `periods`, as a person runs them."""

import json

import pytest
from tests.unit.focus.archives import store_ledger, tree
from tests.unit.focus.ledgers import free, holder

from .stored import run


def rows(a=0.5, hours=(0, 24)):
    return [row for hour in hours for row in (holder("a", a, hour=hour), free(1 - a, hour=hour))]


@pytest.fixture
def place(tmp_path):
    store_ledger(tmp_path / "ledger", *rows())
    return tmp_path


def command(place, name, *args):
    ledger = () if name == "periods" else ("--ledger", str(place / "ledger"))
    return run("focus", name, *ledger, "--archive", str(place / "bills"), *args)


def publish(place, as_of, *args):
    return command(
        place, "publish", "--from", "2026-11-01", "--to", "2026-11-30", "--as-of", as_of, "-o", "json", *args
    )


def found(result):
    assert result.exit_code == 0, result.output
    return [
        (row["period"], row["revision"], row["outcome"], row["effective_cost"]) for row in json.loads(result.stdout)
    ]


def test_from_open_to_closed_to_restated(place):
    opened = publish(place, "2026-11-02T06:00:00Z", "--by", "team")
    assert found(opened) == [("2026-11-01", 0, "Written", "2 USD"), ("2026-11-02", 0, "Written", "2 USD")]
    closed = publish(place, "2026-11-05T00:00:00Z")
    assert found(closed) == [("2026-11-01", 0, "Closed", "2 USD"), ("2026-11-02", 0, "Unchanged", "2 USD")]
    store_ledger(place / "ledger", *rows(a=0.25, hours=(0,)), version="late")
    late = publish(place, "2026-11-05T01:00:00Z")
    assert [row[2] for row in found(late)] == ["Differs", "Unchanged"]
    assert "2026-11-01: is closed, and its ledger was written to since; `gpuwaste focus restate" in late.stderr
    restated = command(place, "restate", "--period", "2026-11-01", "--reason", "late", "-o", "json")
    assert found(restated) == [("2026-11-01", 1, "Restated", "2 USD")]
    (row,) = json.loads(restated.stdout)
    assert row["carried_in"] == "2026-11-02"
    assert [row[2] for row in found(publish(place, "2026-11-05T02:00:00Z"))] == ["Final", "Written"]
    listed = command(place, "periods", "--check", "-o", "json")
    assert [(row["period"], row["revision"], row["state"]) for row in json.loads(listed.stdout)] == [
        ("2026-11-01", 0, "Closed"),
        ("2026-11-01", 1, "Closed"),
        ("2026-11-02", 0, "Open"),
    ]


def test_a_period_that_the_days_only_touch_is_published_whole(place):
    args = ["--from", "2026-11-02", "--to", "2026-11-02", "--period", "month", "-o", "json"]
    assert [row[0] for row in found(command(place, "publish", *args))] == ["2026-11"]
    (row,) = json.loads(command(place, "periods", "-o", "json").stdout)
    assert (row["rows"], row["effective_cost"]) == (4, "4 USD")


def test_a_changed_file_is_found(place):
    publish(place, "2026-11-09T00:00:00Z")
    path = place / "bills/cost-and-usage/period=2026-11-01/cost-and-usage.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = command(place, "periods", "--check")
    assert result.exit_code == 1
    assert f"{path}: is not the file that was published" in result.stderr


def test_a_manifest_in_the_chain_cannot_be_swapped(place):
    publish(place, "2026-11-09T00:00:00Z")
    path = place / "bills/cost-and-usage/period=2026-11-01/_manifest.json"
    path.write_text(path.read_text().replace('"closedTime": "2026-11-09T00', '"closedTime": "2026-11-08T00'))
    result = command(place, "periods", "--check")
    assert result.exit_code == 1
    assert "2026-11-02: the manifest of 2026-11-01 is not the one it was closed on" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--by", "workload"), "holds another series of periods: grouping 'namespace', not 'workload'"),
        (("--period", "month"), "holds another series of periods: length 'day', not 'month'"),
        (("--method", "mine"), "'mine' is no known method"),
        (("--bill", "missing.parquet"), "a bill is published by its billing periods, and not by the day"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(place, args, message):
    publish(place, "2026-11-02T06:00:00Z")
    before = tree(place)
    result = publish(place, "2026-11-09T00:00:00Z", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith("gpuwaste: ")
    assert message in result.stderr
    assert tree(place) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--period", "2026-11-31"), "'2026-11-31' is no day; write it like 2026-11-01"),
        (("--period", "2026-11-02"), "period 2026-11-02 is not closed"),
        (("--period", "2026-11-01", "--bill", "x.csv"), "was published from a ledger"),
    ],
)
def test_a_restatement_needs_a_closed_period(place, args, message):
    publish(place, "2026-11-04T06:00:00Z")
    before = tree(place)
    result = command(place, "restate", *args)
    assert (result.exit_code, message in result.stderr) == (1, True), result.output
    assert tree(place) == before


def test_days_without_a_ledger_are_named(place):
    result = command(place, "publish", "--from", "2025-01-01", "--to", "2025-01-02")
    assert (result.exit_code, result.stderr) == (1, "gpuwaste: --from, --to: no ledger hour lies in these days\n")
