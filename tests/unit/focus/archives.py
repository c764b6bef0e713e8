"""A stored ledger of test rows, and a publisher over it."""

from collections import defaultdict
from datetime import timedelta

import pyarrow as pa
from tests.unit.focus.ledgers import START, ledger

from gpuwaste.focus.archive import Archive
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.publish import Publisher, series_of
from gpuwaste.focus.sources import BillSource, LedgerSource
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file

GRACE = timedelta(hours=72)


def at(**later):
    """A time so long after the start of the test ledgers."""
    return START + timedelta(**later)


def store_ledger(root, *rows, version="1"):
    """Write rows as the ledger files of their hours; `version` stands for what they were computed from."""
    by_hour = defaultdict(list)
    for row in rows:
        by_hour[row["cluster"], row["hour"]].append(row)
    store = open_store(str(root))
    for (cluster, hour), found in by_hour.items():
        footer = {b"input_hash": f"{hour:%d%H}-{version}".encode(), b"team_rules_hash": b"rules"}
        table = ledger(*found).replace_schema_metadata({**(LEDGER_SCHEMA.metadata or {}), **footer})
        store.write_table(hour_file(cluster, hour), table)
    return root


def publisher(ledger_root, archive_root, *, length="day", formats=("parquet",), bill=None, grace=GRACE, **options):
    chosen = ExportOptions(**{"grouping": "team", **options})
    source = LedgerSource(store=open_store(str(ledger_root)))
    return Publisher(
        archive=Archive(store=open_store(str(archive_root))),
        source=source if bill is None else BillSource(ledger=source, bill=bill),
        options=chosen,
        series=series_of(chosen, length=length, formats=formats, source="ledger" if bill is None else "bill"),
        grace=grace,
        generator_version="test",
    )


def tree(root):
    """Every file below a folder with its bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def sums(table, key="x_Team", cost="EffectiveCost"):
    found = defaultdict(int)
    for row in table.select([key, cost]).to_pylist():
        found[row[key]] += row[cost]
    return dict(found)


def concat(*tables):
    return pa.concat_tables(tables)
