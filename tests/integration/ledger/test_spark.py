"""The report's SQL files on real Spark: equal results, row by row and digit by digit, to those of DuckDB."""

import random
from datetime import timedelta
from importlib import resources

import duckdb
import pytest
from tests.helpers.facts import HOUR
from tests.spark.local import spark_rows
from tests.spark.runner import plain
from tests.unit.report.ledgers import real_hour, row, table

from gpuwaste.ledger.days import compact_days
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, KEY_COLUMNS
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file
from gpuwaste.report.summary import GROUPINGS

LARGEST = 2**63 - 1
"""Of an amount column; sums of it need more than 64 bits."""


def random_rows(chance, cluster, hour, count):
    """Rows with everything that engines may take differently: nulls, zeros, long sums, prices, odd names."""
    rows = []
    for number in range(count):
        kind = chance.choice(["holder", "holder", "free", "unattributed", "unprovisioned"])
        currency = chance.choice([None, "USD", "EUR"])
        amounts = {
            name: chance.choice([0, 1, chance.randrange(3_600_000_000_000), LARGEST, None]) for name in AMOUNT_COLUMNS
        }
        rows.append(
            row(
                hour=hour,
                cluster=cluster,
                row_kind=kind,
                resource=chance.choice(["gpu", "gpu", "gpu", "cpu", "memory"]),
                node_uid=chance.choice(["", "n1", "n2"]),
                gpu_uuid="" if kind == "unprovisioned" else f"g{number % 7}",
                pod_uid=f"uid-{number}" if kind == "holder" else "",
                team=chance.choice(["", "red", "Red", "rot-weiß", "日本", "it's"]),
                namespace=chance.choice(["", "a", "b"]),
                pool=chance.choice(["H100-80GB/p", "q"]),
                gpu_model=chance.choice(["H100-80GB", "L4"]),
                workload_kind=chance.choice(["", "Job"]),
                workload_name=chance.choice(["", "x", "y"]),
                origin=chance.choice([None, "gpm", "process"]),
                coverage_ppm=chance.choice([None, 0, 999_999, 1_000_000]),
                currency=currency,
                price=None if currency is None else f"{chance.randrange(99)}.{chance.randrange(10**12):012d}",
                price_source=chance.choice([None, "list"]),
                price_date=chance.choice([None, "2026-11-01"]),
                **{name: 0 if name == "owned" and value is None else value for name, value in amounts.items()},
            )
        )
    return table(*rows).sort_by([(key, "ascending") for key in KEY_COLUMNS])


@pytest.fixture
def ledger(tmp_path):
    """The folder of a ledger of two clusters, as the operator lays it out: hours, and a day that is one file."""
    chance = random.Random(6)
    store = open_store(str(tmp_path / "data"))
    for cluster in ("one", "two"):
        store.write_table(hour_file(cluster, HOUR), real_hour(cluster=cluster))
        for hours in (1, 2, 30):
            at = HOUR + timedelta(hours=hours)
            store.write_table(hour_file(cluster, at), random_rows(chance, cluster, at, 150))
    before = duckdb_rows(tmp_path / "data" / "ledger")
    (done,) = compact_days(store, cluster="two", before=HOUR.replace(hour=0) + timedelta(days=1))
    assert done.hours == 3
    assert duckdb_rows(tmp_path / "data" / "ledger") == before, "hours that are put together read the same"
    return tmp_path / "data" / "ledger"


def queries():
    """Every SQL file of the report, that of sums by every grouping."""
    folder = resources.files("gpuwaste.report").joinpath("sql")
    texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".sql")}
    found = {}
    for name, text in texts.items():
        if "{keys}" in text:
            found |= {f"{name} by {by}": text.format(keys=", ".join(keys)) for by, keys in GROUPINGS.items()}
        else:
            found[name] = text
    assert len(found) == len(texts) - 1 + len(GROUPINGS)
    return found


def duckdb_rows(ledger):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        files = f"{ledger}/*/*/*/part-0.parquet"
        connection.execute(
            f"CREATE VIEW ledger AS SELECT * FROM read_parquet('{files}', hive_partitioning = false)"  # noqa: S608
        )
        return {
            name: [
                {column: plain(value) for column, value in found.items()}
                for found in connection.sql(query).to_arrow_table().to_pylist()
            ]
            for name, query in queries().items()
        }


def without_zone(rows):
    """Times as Spark gives them: in UTC, and not saying so."""
    return [{name: _without_zone(value) for name, value in found.items()} for found in rows]


def _without_zone(value):
    return value.removesuffix("+00:00") if isinstance(value, str) else value


def test_the_sql_files_give_equal_results_on_spark_and_duckdb(ledger, tmp_path):
    (tmp_path / "spark").mkdir()
    expected = duckdb_rows(ledger)
    assert sum(int(found["ledger_rows"]) for found in expected["sums.sql by team"]) > 300
    found = spark_rows(ledger, queries(), tmp_path / "spark")
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert list(found[name][0]) == list(rows[0]), name
        assert without_zone(found[name]) == without_zone(rows), name
