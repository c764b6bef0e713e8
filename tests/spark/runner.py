"""Run by the Python of Spark's own environment: LEDGER QUERIES.json ROWS.json. Imports nothing of the project."""

import json
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path


def plain(value: object) -> object:
    """A value as JSON holds it, exactly."""
    if isinstance(value, datetime):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else value


def main(ledger: str, queries: str, rows: str) -> None:
    """Run all queries over the table `ledger`."""
    from pyspark.sql import SparkSession  # only its own environment has it

    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
    }
    builder = SparkSession.builder.master("local[2]").appName("ledger")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    # The statement that docs/ledger.md shows.
    spark.sql(f"CREATE TEMPORARY VIEW ledger USING parquet OPTIONS (path '{ledger}', recursiveFileLookup 'true')")
    found = {}
    for name, query in json.loads(Path(queries).read_text()).items():
        table = spark.sql(query)
        found[name] = [{key: plain(value) for key, value in row.asDict().items()} for row in table.collect()]
    Path(rows).write_text(json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
