"""Bills in an object store: read like those of a folder, asked for now and then, and kept while the store is away."""

from datetime import timedelta
from decimal import Decimal

from tests.helpers.facts import HOUR
from tests.unit.pricing.test_bills import bill, charge

from gpuwaste.ledger.store import open_store
from gpuwaste.runtime.bills import Bills

LATER = HOUR + timedelta(days=1)


def upload(url, folder, *charges):
    store = open_store(url)
    store.write("2026/11/export.csv", bill(folder, *charges).read_bytes())
    return url


def test_a_bill_comes_and_changes_in_an_object_store(tmp_path, object_store):
    url = object_store.url("bills/export")
    bills = Bills(paths=(url,))
    assert bills.refresh(LATER) == set()
    assert "holds no file that ends in .parquet, .csv" in bills.problem
    upload(url, tmp_path, charge("16"))
    assert bills.refresh(LATER + timedelta(minutes=9)) == set(), "it is asked every ten minutes"
    hours = bills.refresh(LATER + timedelta(minutes=10))
    assert (bool(hours), bills.problem) == (True, "")
    (kept,) = bills.prices.charges.values()
    assert kept[0].costs[3] == Decimal(16)
    assert bills.refresh(LATER + timedelta(minutes=20)) == set(), "nothing changed"
    upload(url, tmp_path, charge("dear"))
    assert bills.refresh(LATER + timedelta(minutes=30)) == set()
    shown = url.partition("?")[0]
    assert bills.problem.startswith(f"{shown}/2026/11/export.csv: not readable as a FOCUS bill"), "not the copy's name"
    assert bills.prices.charges["i-0abc"] == kept
    upload(url, tmp_path, charge("24"))
    assert bills.refresh(LATER + timedelta(minutes=40)) == hours
    assert bills.prices.charges["i-0abc"][0].costs[3] == Decimal(24)


def test_a_store_that_is_away_keeps_what_was_read(tmp_path, object_store):
    url = upload(object_store.url("bills/away"), tmp_path, charge("16"))
    bills = Bills(paths=(f"{url.partition('?')[0]}/2026/11/export.csv?{url.partition('?')[2]}",))
    assert bills.refresh(LATER)
    before = bills.prices
    bills.paths = (url.replace(f":{object_store.port}", ":1"),)
    assert bills.refresh(LATER + timedelta(minutes=10)) == set()
    assert bills.problem.startswith(url.partition("?")[0])
    assert "endpoint_override" not in bills.problem
    assert bills.prices == before
    bills.paths = (url,)
    assert bills.refresh(LATER + timedelta(minutes=20))
    assert bills.problem == ""


def test_a_key_in_an_address_is_never_told():
    bills = Bills(paths=("nowhere://key:secret@bucket/export",))
    assert bills.refresh(LATER) == set()
    assert "bucket/export" in bills.problem
    assert "secret" not in bills.problem
