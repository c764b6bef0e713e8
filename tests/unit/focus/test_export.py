import csv
import json
from datetime import UTC, date, datetime

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tests.unit.focus.ledgers import START, free, holder, ledger

from gpuwaste.cli.focus import focus
from gpuwaste.focus.export import export
from gpuwaste.focus.ledger_days import ledger_days
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.verify import verify
from gpuwaste.ledger.store import hour_folder, open_store
from gpuwaste.model.errors import InputError

NOW = datetime(2026, 11, 5, tzinfo=UTC)
DAY = date(2026, 11, 1)


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "data"))
    for hour in range(30):
        rows = ledger(holder("a", 0.5, hour=hour), free(0.5, hour=hour))
        when = rows["hour"][0].as_py()
        store.write_table(f"{hour_folder('ledger', 'c1', when)}/part-0.parquet", rows)
    return store


def test_days_are_read_one_by_one(store):
    days = list(ledger_days(store, DAY, date(2026, 11, 30)))
    assert [(day.day.day, len(day.read()), day.complete) for day in days] == [(1, 48, True), (2, 12, False)]


def test_one_file_with_its_metadata(store, tmp_path):
    out = tmp_path / "out" / "f.parquet"
    summary = export(ledger_days(store, DAY, DAY), ExportOptions(), out, now=NOW, generator_version="0.1.0")
    assert (summary.files, summary.rows, summary.charges) == ((out,), 48, 24)
    assert sorted(path.name for path in out.parent.iterdir()) == ["f.metadata.json", "f.parquet"]
    metadata = json.loads((tmp_path / "out" / "f.metadata.json").read_text())
    (schema,) = metadata["Schema"]
    columns = {column["ColumnName"]: column for column in schema["ColumnDefinition"]}
    assert list(columns) == pq.read_schema(out).names
    assert columns["ListCost"]["NumberScale"] == 28
    assert columns["ProviderName"]["Deprecated"]
    assert columns["Tags"]["ProviderTagPrefixes"] == ["gpuwaste.dev/"]
    assert metadata["Recency"][0]["TimeSectors"][0]["TimeSectorComplete"]
    assert metadata["x_Artifacts"] == [{"File": "f.parquet", "SchemaId": schema["SchemaId"]}]


def test_a_folder_gets_one_file_a_month(store, tmp_path):
    summary = export(
        ledger_days(store, DAY, DAY), ExportOptions(), tmp_path / "out", now=NOW, generator_version="0.1.0"
    )
    assert [path.name for path in summary.files] == ["cost-and-usage-1.3-2026-11.parquet"]


def test_csv_has_plain_times_and_bare_nulls(store, tmp_path):
    out = tmp_path / "f.csv"
    export(ledger_days(store, DAY, DAY), ExportOptions(), out, now=NOW, generator_version="0.1.0")
    with out.open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert row["ChargePeriodStart"] == "2026-11-01T00:00:00Z"
    assert row["InvoiceId"] == ""
    assert ",," in out.read_text()
    assert ',"",' not in out.read_text()


def test_nothing_is_written_without_a_ledger(store, tmp_path):
    with pytest.raises(InputError, match="no ledger hour"):
        export(
            ledger_days(store, date(2027, 1, 1), date(2027, 1, 2)),
            ExportOptions(),
            tmp_path / "f.parquet",
            now=NOW,
            generator_version="0.1.0",
        )
    assert not list(tmp_path.glob("*f.*"))


def test_a_failing_export_leaves_the_old_file(store, tmp_path):
    out = tmp_path / "f.parquet"
    out.write_text("old")
    mixed = ledger(holder("a", 1, hour=40), holder("b", 1, hour=40, currency="EUR", node="n2"))
    store.write_table(f"{hour_folder('ledger', 'c1', mixed['hour'][0].as_py())}/part-0.parquet", mixed)
    with pytest.raises(InputError, match="EUR, USD"):
        export(ledger_days(store, DAY, date(2026, 11, 2)), ExportOptions(), out, now=NOW, generator_version="0.1.0")
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "f.parquet"]


@pytest.mark.parametrize("grain", ["hour", "day"])
def test_a_currency_that_nothing_is_priced_in_gives_an_empty_file_and_a_word(store, tmp_path, grain):
    out = tmp_path / "f.parquet"
    options = ExportOptions(currency="XXX", grain=grain)
    summary = export(ledger_days(store, DAY, DAY), options, out, now=NOW, generator_version="0.1.0")
    assert (summary.rows, summary.charges) == (0, 0)
    assert [str(finding) for finding in summary.findings] == ["currency XXX: nothing in these days has a price in it"]
    assert list(verify(out)) == []


def test_the_commands(store, tmp_path):
    out = str(tmp_path / "f.parquet")
    runner = CliRunner()
    days = ["--from", f"{START:%Y-%m-%d}", "--to", f"{START:%Y-%m-%d}"]
    result = runner.invoke(focus, ["export", "--ledger", store.root, *days, "--out", out])
    assert result.exit_code == 0, result.output
    assert "48 rows from 24 charges" in result.output
    result = runner.invoke(focus, ["verify", out])
    assert (result.exit_code, result.output) == (0, f"{out}: every rule holds\n")
    table = pq.read_table(out).slice(1)
    pq.write_table(table, out)
    result = runner.invoke(focus, ["verify", out])
    assert result.exit_code == 1
    assert "O-014-M row 1: the ratios of charge" in result.output


def test_a_change_of_structure_adds_a_schema_and_keeps_the_others(store, tmp_path):
    out, metadata = tmp_path / "f.parquet", tmp_path / "f.metadata.json"

    def written(version="1.3", generator="0.1.0", day=5):
        made = {"now": NOW.replace(day=day), "generator_version": generator}
        export(ledger_days(store, DAY, DAY), ExportOptions(version=version), out, **made)
        document = json.loads(metadata.read_text())
        assert document["x_Artifacts"][0]["SchemaId"] == document["Schema"][-1]["SchemaId"]
        return [(schema["FocusVersion"], schema["CreationDate"][:10]) for schema in document["Schema"]]

    assert written() == [("1.3", "2026-11-05")]
    assert written(day=6) == [("1.3", "2026-11-05")]
    assert written("1.4", day=7) == [("1.3", "2026-11-05"), ("1.4", "2026-11-07")]
    assert len(written("1.4", generator="0.2.0", day=8)) == 3
    assert written(day=9)[-1] == ("1.3", "2026-11-05")
    metadata.write_text("no JSON")
    assert written() == [("1.3", "2026-11-05")]


def test_the_schemas_of_a_folder_are_told_beside_each_file(store, tmp_path):
    for version in ("1.3", "1.4"):
        made = {"now": NOW, "generator_version": "0.1.0"}
        export(ledger_days(store, DAY, DAY), ExportOptions(version=version), tmp_path / "out", **made)
    document = json.loads((tmp_path / "out" / "cost-and-usage-1.4-2026-11.metadata.json").read_text())
    assert [schema["FocusVersion"] for schema in document["Schema"]] == ["1.3", "1.4"]
