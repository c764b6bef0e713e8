"""`ledger ls`, `show` and `verify`, `report` and `top`, on a ledger that was really computed."""

import csv
import io
import json
import math
import shutil
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal

from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.store import open_store

from .stored import run, store_inputs


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    data = store_inputs(tmp_path_factory.mktemp("data"))
    assert run("replay", "--inputs", data, "--ledger", data).exit_code == 0
    return data


@pytest.fixture
def data(tmp_path, computed):
    """A copy that a test may spoil."""
    return shutil.copytree(computed, tmp_path / "data")


def spoil(data, change):
    """Rewrite the first hour's file with one row changed."""
    path = min((data / "ledger").rglob("part-0.parquet"))
    table = pq.ParquetFile(path).read()
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_ls_counts_hours_and_bytes(computed):
    (row,) = json.loads(run("ledger", "ls", "--ledger", computed, "-o", "json").stdout)
    size = sum(path.stat().st_size for path in (computed / "ledger").rglob("part-0.parquet"))
    assert row == {
        "cluster": "test",
        "first_hour": "2026-11-02T09:00:00Z",
        "last_hour": "2026-11-02T13:00:00Z",
        "hours": 5,
        "missing_hours": 0,
        "bytes": size,
        "bytes_per_gpu_day": math.ceil(size * 24 / (5 * 2)),  # five hours of two GPUs
    }


def test_ls_says_where_no_gpu_is_stored(data):
    for path in (data / "ledger").rglob("part-0.parquet"):
        table = pq.ParquetFile(path).read()
        pq.write_table(table.slice(0, 0), path)
    (row,) = json.loads(run("ledger", "ls", "--ledger", data, "-o", "json").stdout)
    assert row["bytes_per_gpu_day"] is None
    assert "<no GPU>" in run("ledger", "ls", "--ledger", data).stdout


def test_show_prints_the_rows_of_the_ledger(computed):
    rows = list(csv.DictReader(io.StringIO(run("ledger", "show", "--ledger", computed, "-o", "csv").stdout)))
    assert list(rows[0]) == LEDGER_SCHEMA.names
    assert sum(int(row["owned"]) for row in rows) == 5 * 2 * 3_600 * 10**9
    pods = json.loads(run("ledger", "show", "--ledger", computed, "--pod", "web", "--limit", 2, "-o", "json").stdout)
    assert [row["pod"] for row in pods] == ["web", "web"]


def test_show_for_people_speaks_of_hours(computed):
    text = run("ledger", "show", "--ledger", computed / "ledger", "--namespace", "team-a").stdout
    assert text.splitlines()[0].split()[:3] == ["HOUR", "KIND", "GPU"]


def test_verify_accepts_what_was_computed(computed):
    result = run("ledger", "verify", "--ledger", computed, "--inputs", computed)
    assert (result.exit_code, result.stdout) == (0, "5 hours: every law of the accounting holds\n")


def add(column, value, kind="holder"):
    def change(rows):
        row = next(row for row in rows if row["row_kind"] == kind)
        row[column] += value

    return change


@pytest.mark.parametrize(
    ("change", "law"),
    [
        (add("held", 1), "held + borrowed = effective + net waste + lent"),
        (add("unallocated", 1, "free"), "owned = effective + net waste"),
        (add("owned", 1, "free"), "owned = net waste + lent"),
        (add("lent", 1), "lent = borrowed"),
        (add("owned", 3_600 * 10**9, "free"), "owned is at most the hour"),
        (lambda rows: rows.reverse(), "rows are sorted by key"),
        (lambda rows: rows.append(rows[-1]), "each key stands once"),
        (add("borrowed", -(10**13)), "borrowed is 0 or more"),
    ],
)
def test_verify_finds_each_broken_law(data, change, law):
    spoil(data, change)
    result = run("ledger", "verify", "--ledger", data, "-o", "json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)
    assert any(law in finding["law"] for finding in findings)
    assert {finding["hour"] for finding in findings} == {"2026-11-02T09:00:00Z"}


def test_verify_finds_the_ledger_of_another_cluster_under_its_name(data):
    (own,) = (data / "ledger").glob("cluster=*")
    shutil.copytree(own, own.with_name("cluster=other"))
    result = run("ledger", "verify", "--ledger", data, "-o", "json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)
    assert {finding["cluster"] for finding in findings} == {"other"}
    assert all("of the cluster and hour that their place names" in finding["law"] for finding in findings)


def test_verify_finds_hours_that_are_not_of_these_inputs(data):
    facts = sorted((data / "inputs").rglob("facts.jsonl"))
    facts[0].write_text("".join(facts[0].read_text().splitlines(keepends=True)[1:]))
    shutil.rmtree(facts[1].parent)
    next((data / "ledger").rglob("hour=12/part-0.parquet")).unlink()
    result = run("ledger", "verify", "--ledger", data, "--inputs", data, "-o", "json")
    assert result.exit_code == 1
    assert {(f["hour"][11:13], f["law"]) for f in json.loads(result.stdout)} == {
        ("09", "the ledger was not computed from the stored inputs; run `gpuwaste replay`"),
        ("10", "no inputs of the hour are stored"),
        ("12", "the hour is not in the ledger"),
    }


def test_hours_before_the_oldest_stored_inputs_are_not_missed(data):
    shutil.rmtree(next((data / "inputs").rglob("hour=09")))
    assert run("ledger", "verify", "--ledger", data, "--inputs", data).exit_code == 0


def test_a_file_with_other_columns_is_refused(data):
    path = min((data / "ledger").rglob("part-0.parquet"))
    pq.write_table(pa.table({"a": [1]}), path)
    for command in (("ledger", "verify"), ("report",)):
        result = run(*command, "--ledger", data)
        assert result.exit_code == 1
        assert f"{path}: its columns are not those of the ledger" in result.stderr


@pytest.mark.parametrize("by", ["team", "namespace", "workload", "pool", "hour", "cluster"])
def test_report_adds_up_by_everything(computed, by):
    rows = json.loads(run("report", "--ledger", computed, "--by", by, "-o", "json").stdout)
    assert sum(Decimal(row["owned_gpu_hours"]) for row in rows) == 10
    assert sum(Decimal(row["unpriced_gpu_hours"]) for row in rows) == 2  # the first hour had no price yet
    assert sum(Decimal(row["cost"] or 0) for row in rows) == Decimal("25.6")


def test_costs_of_several_currencies_are_never_shown_as_one(tmp_path):
    inputs = InputStore(open_store(str(tmp_path)), "test")
    said = []
    for node, currency in (("a", "USD"), ("b", "EUR")):
        journal = Journal(node)
        for minute in range(60):
            journal.device(HOUR + timedelta(minutes=minute), f"gpu-{node}")
        inputs.append_windows(journal.table())
        said += [fact.node(node), fact.gpu(f"gpu-{node}", on=node), fact.price("2", on=node, currency=currency)]
    inputs.write_facts(HOUR, said)
    run("replay", "--inputs", tmp_path, "--ledger", tmp_path)
    text = run("report", "--ledger", tmp_path, "--by", "pool").stdout
    assert "<unknown>" in text
    assert "2.00 EUR + 2.00 USD" in text


def test_report_writes_a_page_and_prints_the_table(tmp_path, computed):
    page = tmp_path / "report.html"
    result = run("report", "--ledger", computed, "--html", page, "--title", "A day")
    assert result.exit_code == 0
    assert page.read_text().startswith("<!DOCTYPE html>") or "<!DOCTYPE html>" in page.read_text()
    assert "<h1>A day</h1>" in page.read_text()
    assert result.stdout.splitlines()[0].startswith("TEAM")


def test_report_takes_a_plan(tmp_path, computed):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"objective": {"current": "5", "planned": "4", "bound": "3.9", "gap": "0.0256"}}))
    assert run("report", "--ledger", computed, "--html", tmp_path / "p.html", "--plan", plan).exit_code == 0
    assert "2.56" in (tmp_path / "p.html").read_text()
    plan.write_text("[")
    result = run("report", "--ledger", computed, "--html", tmp_path / "q.html", "--plan", plan)
    assert (result.exit_code, "plan.json: is no JSON" in result.stderr) == (1, True)
    assert not (tmp_path / "q.html").exists()
    assert run("report", "--ledger", computed, "--plan", plan).exit_code == 2


def test_top_leaves_out_what_nobody_holds_and_is_bounded(computed):
    rows = json.loads(run("top", "--ledger", computed, "-o", "json").stdout)
    assert {row["workload_name"] for row in rows} == {"web", "train"}
    waste = [Decimal(row["waste_cost"]) for row in rows]
    assert waste == sorted(waste, reverse=True)
    assert len(json.loads(run("top", "--ledger", computed, "--limit", 1, "-o", "json").stdout)) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--from", "2026-13-01"), 2, "is no day"),
        (("--from", "2026-11-03", "--to", "2026-11-01"), 2, "lies before"),
        (("--from", "2027-01-01"), 1, "no hour of the ledger lies in the period"),
        (("--cluster", "other"), 1, "holds no cluster 'other'; it holds test"),
        (("--html", "/nowhere/at/all.html"), 1, "its folder does not exist"),
    ],
)
def test_what_report_refuses(computed, arguments, code, message):
    result = run("report", "--ledger", computed, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output


def test_days_are_whole_and_the_last_is_included(computed):
    rows = run(
        "report", "--ledger", computed, "--from", "2026-11-02", "--to", "2026-11-02", "--by", "hour", "-o", "json"
    )
    assert len(json.loads(rows.stdout)) == 5


def test_no_ledger_there(tmp_path):
    for command in (("ledger", "ls"), ("ledger", "show"), ("ledger", "verify"), ("report",), ("top",)):
        result = run(*command, "--ledger", tmp_path)
        assert (result.exit_code, "holds no ledger" in result.stderr) == (1, True)
