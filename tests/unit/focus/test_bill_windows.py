"""A bill divided a week at a time is the bill divided at once."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tests.unit.focus.bills import bill, correction, other, usage
from tests.unit.focus.ledgers import START, free, holder, ledger

from gpuwaste.cli.focus import focus
from gpuwaste.focus import bill_windows, table_files
from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.bill_files import open_bill, read_bill
from gpuwaste.focus.bill_windows import BillSplitter
from gpuwaste.focus.ledger_days import ledger_days
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.ledger.store import hour_folder, open_store

NODE = {"provider_id": "aws:///use1-az1/i-0"}
HOURS = (0, 1, 30, 200, 201, 400)


def rows_of_the_ledger(hour):
    held = (hour % 7 + 1) / 10
    return [holder(f"ns-{hour % 3}", held, hour=hour, **NODE), free(1 - held, hour=hour, **NODE)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = open_store(str(tmp_path_factory.mktemp("ledger")))
    for hour in HOURS:
        name = f"{hour_folder('ledger', 'c1', START + timedelta(hours=hour))}/part-0.parquet"
        store.write_table(name, ledger(*rows_of_the_ledger(hour)))
    return store


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bill_windows, "_CHUNK_ROWS", 2)
    monkeypatch.setattr(table_files, "_BATCH_ROWS", 3)


def whole_bill():
    rows = [usage(hour=hour) for hour in HOURS]
    rows += [
        usage(hour=0, hours=500, price="1.123456789012", quantity="500"),
        usage(hour=190, hours=24, quantity="24"),
        usage(hour=600),
        usage(7, hour=30),
        usage(1, hour=250, PricingCategory="Spot"),
        other("Tax", "8"),
        correction(),
    ]
    order = np.random.default_rng(3).permutation(len(rows))
    return bill(*(rows[at] for at in order))


def by_charge(rows):
    found = defaultdict(list)
    for row in rows:
        found[row["x_OriginChargeId"] or row["ChargeDescription"]].append(row)
    key = lambda row: str(sorted(map(str, row.items())))  # noqa: E731
    return {charge: sorted(parts, key=key) for charge, parts in found.items()}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_weeks_add_up_to_the_whole(store, tmp_path, suffix):
    path = tmp_path / f"bill.{suffix}"
    table = whole_bill()
    pa_csv.write_csv(table, path) if suffix == "csv" else pq.write_table(table, path, row_group_size=4)
    options = ExportOptions()
    days = list(ledger_days(store, date(2026, 11, 1), date(2026, 11, 30)))
    splitter = BillSplitter(bill=open_bill(path), days=days, options=options)
    pieces = list(splitter.splits())
    assert len(pieces) > 3
    assert {piece.schema for piece in pieces} == {pieces[0].schema}
    once = split_bill(read_bill(path), collect_hours([day.read() for day in days], options), options)
    rows = pa.concat_tables(pieces)
    assert by_charge(rows.to_pylist()) == by_charge(once.rows.to_pylist())
    assert splitter.charges == once.charges
    assert sorted(map(str, splitter.findings())) == sorted(map(str, once.findings))
    assert sum(rows["BilledCost"].to_pylist()) == sum(table["BilledCost"].to_pylist())


@pytest.mark.usefixtures("small")
def test_amounts_of_all_pieces_have_one_scale(store, tmp_path):
    rows = [usage(hour=0), usage(hour=200, price="0.123456789012345678", quantity="1"), usage(hour=400)]
    large = usage(hour=1) | {"ConsumedQuantity": Decimal(10) ** 11}
    path = tmp_path / "bill.parquet"
    pq.write_table(bill(*rows, large), path, row_group_size=1)
    days = list(ledger_days(store, date(2026, 11, 1), date(2026, 11, 30)))
    pieces = list(BillSplitter(bill=open_bill(path), days=days, options=ExportOptions()).splits())
    kinds = {piece.schema.field("ConsumedQuantity").type for piece in pieces}
    assert kinds == {pa.decimal128(38, 26)}
    total = sum(sum(piece["ListCost"].to_pylist()) for piece in pieces)
    assert total == 3 * Decimal("98.32") + Decimal("0.123456789012345678")


def export_of(store, folder, table, *days):
    pq.write_table(table, folder / "bill.parquet")
    asked = ["--from", days[0], "--to", days[1], "--bill", folder / "bill.parquet", "--out", folder / "out.parquet"]
    result = CliRunner().invoke(focus, [str(word) for word in ("export", "--ledger", store.root, *asked)])
    assert result.exit_code == 0, result.output
    return result.output, pq.read_table(folder / "out.parquet").to_pylist()


def test_a_correction_of_an_earlier_time_than_asked_for_is_divided_by_it(store, tmp_path):
    rows = [usage(hour=400), correction(), usage(hour=1)]
    said, found = export_of(store, tmp_path, bill(*rows), "2026-11-10", "2026-11-30")
    named = [(row["ChargeClass"], row["x_Namespace"], row["BilledCost"]) for row in found if row["AllocatedMethodId"]]
    assert named == [
        ("Correction", "ns-0", Decimal("-0.5")),
        ("Correction", None, Decimal("-4.5")),
        (None, "ns-1", Decimal("19.664")),
        (None, None, Decimal("78.656")),
    ]
    assert "node node-1: 1 rows of the bill lie in hours without a ledger, or not asked for" in said


def test_a_period_without_end_costs_no_time(store, tmp_path):
    endless = usage(hour=0) | {"ChargePeriodEnd": datetime(9999, 12, 31, tzinfo=UTC)}
    _, found = export_of(
        store, tmp_path, bill(*[endless | {"InvoiceId": str(n)} for n in range(20)]), *["2026-11-01"] * 2
    )
    assert sum(row["BilledCost"] for row in found) == 20 * Decimal("98.32")
    assert all(row["AllocatedMethodId"] for row in found)
