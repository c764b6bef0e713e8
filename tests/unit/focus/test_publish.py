"""Periods are open, then closed for good, then restated beside; whatever happens in between."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.archives import at, publisher, store_ledger, sums, tree
from tests.unit.focus.bills import bill, correction, usage
from tests.unit.focus.ledgers import free, holder

from gpuwaste.focus.files import open_sink
from gpuwaste.focus.manifest import parse_manifest
from gpuwaste.focus.periods import parse_period, period_at
from gpuwaste.focus.publish import Outcome
from gpuwaste.focus.restate import Restater
from gpuwaste.focus.totals import Totals, differences
from gpuwaste.focus.verify import verify
from gpuwaste.ledger.store import Store
from gpuwaste.model.errors import InputError
from gpuwaste.model.money import exact

DAY = parse_period("2026-11-01", "day")
NEXT = DAY.following


def halves(hour=0, a=0.5, **where):
    return [holder("a", a, hour=hour, **where), holder("b", 0.75 - a, hour=hour, **where), free(0.25, hour=hour)]


def data(root, period=DAY, revision=0):
    folder = f"cost-and-usage/period={period.name}"
    if revision:
        folder = f"restatements/period={period.name}/revision={revision}"
    return pq.read_table(root / folder / "cost-and-usage.parquet")


def manifest(root, period=DAY, revision=0):
    folder = f"cost-and-usage/period={period.name}"
    if revision:
        folder = f"restatements/period={period.name}/revision={revision}"
    return parse_manifest((root / folder / "_manifest.json").read_bytes(), where="test")


def outcomes(results):
    return [result.outcome for result in results]


@pytest.fixture
def stored(tmp_path):
    store_ledger(tmp_path / "ledger", *halves(0), *halves(1))
    return tmp_path


def test_an_open_period_says_that_it_is_incomplete_and_is_replaced_whole(stored):
    first = publisher(stored / "ledger", stored / "out").publish([DAY], now=at(hours=3))
    assert outcomes(first) == [Outcome.WRITTEN]
    found = manifest(stored / "out")
    (recency,) = found.metadata["Recency"]
    assert [sector["TimeSectorComplete"] for sector in recency["TimeSectors"]] == [False]
    assert (found.state, found.missing_hours) == ("Open", 22)
    store_ledger(stored / "ledger", *halves(2))
    second = publisher(stored / "ledger", stored / "out").publish([DAY], now=at(hours=4))
    assert outcomes(second) == [Outcome.WRITTEN]
    assert sorted(tree(stored / "out")) == [
        "cost-and-usage/period=2026-11-01/_manifest.json",
        "cost-and-usage/period=2026-11-01/cost-and-usage.parquet",
    ]
    assert sums(data(stored / "out")) == {"a": Decimal(3), "b": Decimal("1.5"), None: Decimal("1.5")}


def test_a_new_version_of_the_program_adds_a_schema_to_those_before(stored):
    store_ledger(stored / "ledger", *halves(24))
    publisher(stored / "ledger", stored / "out").publish([DAY], now=at(hours=97))
    made = publisher(stored / "ledger", stored / "out")
    made.publish([NEXT], now=at(hours=98))
    (same,) = manifest(stored / "out", NEXT).metadata["Schema"]
    assert same == manifest(stored / "out").metadata["Schema"][0]
    made.generator_version = "newer"
    made.publish([NEXT], now=at(hours=99))
    versions = [schema["DataGeneratorVersion"] for schema in manifest(stored / "out", NEXT).metadata["Schema"]]
    assert versions == ["test", "newer"]


def test_running_twice_writes_nothing_twice(stored):
    publisher(stored / "ledger", stored / "out").publish([DAY], now=at(hours=3))
    before = {path: path.stat().st_mtime_ns for path in (stored / "out").rglob("*")}
    again = publisher(stored / "ledger", stored / "out").publish([DAY], now=at(hours=9))
    assert outcomes(again) == [Outcome.UNCHANGED]
    assert {path: path.stat().st_mtime_ns for path in (stored / "out").rglob("*")} == before


def test_the_same_input_gives_the_same_bytes(stored):
    for name in ("one", "two"):
        made = publisher(stored / "ledger", stored / name, formats=("parquet", "csv", "json"))
        made.publish([DAY], now=at(hours=3))
        made.publish([DAY], now=at(hours=96))
    assert tree(stored / "one") == tree(stored / "two")


def test_a_period_is_closed_when_its_grace_is_over_and_not_before(stored):
    def run(**now):
        return outcomes(publisher(stored / "ledger", stored / "out").publish([DAY], now=at(**now)))

    assert run(hours=24) == [Outcome.WRITTEN]
    assert run(hours=24 + 71) == [Outcome.UNCHANGED]
    assert run(hours=24 + 72) == [Outcome.CLOSED]
    found = manifest(stored / "out")
    assert (found.state, found.closed_time) == ("Closed", at(hours=96))
    (recency,) = found.metadata["Recency"]
    assert [sector["TimeSectorComplete"] for sector in recency["TimeSectors"]] == [True]
    closed = tree(stored / "out")
    assert run(hours=500) == [Outcome.FINAL]
    store_ledger(stored / "ledger", *halves(0, a=0.25), version="late")
    assert run(hours=501) == [Outcome.DIFFERS]
    assert tree(stored / "out") == closed


def test_a_period_whose_ledger_is_written_to_meanwhile_is_not_closed_yet(stored):
    made = publisher(stored / "ledger", stored / "out")
    whole = made.source.splits

    def meanwhile(period, options):
        yield from whole(period, options)
        store_ledger(stored / "ledger", *halves(0, a=0.25), version="meanwhile")

    made.source = SimpleNamespace(inputs=made.source.inputs, hours=made.source.hours, splits=meanwhile)
    assert outcomes(made.publish([DAY], now=at(hours=97))) == [Outcome.WRITTEN]
    assert not manifest(stored / "out").closed
    made = publisher(stored / "ledger", stored / "out")
    assert outcomes(made.publish([DAY], now=at(hours=98))) == [Outcome.CLOSED]
    assert sums(data(stored / "out"))["a"] == Decimal("1.5")


def test_late_data_becomes_a_numbered_restatement_and_an_adjustment_in_the_next_report(stored):
    out = stored / "out"
    store_ledger(stored / "ledger", *halves(24))
    publisher(stored / "ledger", out).publish([DAY, NEXT], now=at(hours=97))
    closed = tree(out)
    assert manifest(out).closed
    assert not manifest(out, NEXT).closed
    store_ledger(stored / "ledger", *halves(0, a=0.25), version="late")
    made = publisher(stored / "ledger", out)
    result = Restater(publisher=made).restate(DAY, reason="windows of node-1 came late", now=at(hours=98))
    assert result.outcome == Outcome.RESTATED
    assert {name: text for name, text in tree(out).items() if name in closed} == closed
    restated = manifest(out, revision=1)
    assert (restated.revision, restated.carried_in) == (1, NEXT.name)
    assert sums(data(out, revision=1)) == {"a": Decimal("1.5"), "b": Decimal("1.5"), None: Decimal(1)}
    assert outcomes(made.publish([DAY, NEXT], now=at(hours=99))) == [Outcome.FINAL, Outcome.WRITTEN]
    adjustments = [row for row in data(out, NEXT).to_pylist() if row["ChargeCategory"] == "Adjustment"]
    assert [(row["x_Team"], row["EffectiveCost"], row["BilledCost"]) for row in adjustments] == [
        ("a", Decimal("-0.5"), Decimal("-0.5")),
        ("b", Decimal("0.5"), Decimal("0.5")),
    ]
    assert {row["ChargePeriodStart"] for row in adjustments} == {NEXT.start}
    assert list(verify(out / f"cost-and-usage/period={NEXT.name}/cost-and-usage.parquet")) == []


def test_what_was_charged_and_adjusted_is_what_the_restatements_say(stored):
    """Originals with their adjustments are the chargeback; restated periods without them are the truth: one sum."""
    out = stored / "out"
    store_ledger(stored / "ledger", *halves(24))
    publisher(stored / "ledger", out).publish([DAY, NEXT], now=at(hours=97))
    for number, (a, price) in enumerate([("0.25", "2"), ("0.6", "3.123456789012"), ("0.125", "2.5")], start=1):
        rows = [row | {} for hour in (0, 1) for row in halves(hour, a=float(a))]
        prices = dict.fromkeys(("list_unit_cost", "contracted_unit_cost", "effective_unit_cost"), Decimal(price))
        store_ledger(stored / "ledger", *(row | prices for row in rows), version=f"late-{number}")
        made = publisher(stored / "ledger", out)
        assert Restater(publisher=made).restate(DAY, reason="", now=at(hours=98)).outcome == Outcome.RESTATED
    made.publish([DAY, NEXT], now=at(hours=99))
    charged, truth = {}, {}
    for table in (data(out), data(out, NEXT)):
        for team, cost in sums(table).items():
            charged[team] = charged.get(team, 0) + cost
    own = data(out, NEXT).to_pylist()
    for row in [*data(out, revision=3).to_pylist(), *(r for r in own if r["ChargeCategory"] != "Adjustment")]:
        truth[row["x_Team"]] = truth.get(row["x_Team"], 0) + row["EffectiveCost"]
    assert charged == truth


def test_a_restatement_that_changes_nothing_is_none(stored):
    out = stored / "out"
    publisher(stored / "ledger", out).publish([DAY], now=at(hours=97))
    before = tree(out)
    store_ledger(stored / "ledger", *halves(0), version="touched")
    made = publisher(stored / "ledger", out)
    assert Restater(publisher=made).restate(DAY, reason="", now=at(hours=98)).outcome == Outcome.FINAL
    assert tree(out) == before


def test_only_a_closed_period_can_be_restated(stored):
    made = publisher(stored / "ledger", stored / "out")
    made.publish([DAY], now=at(hours=3))
    with pytest.raises(InputError, match=r"2026-11-01 is not closed"):
        Restater(publisher=made).restate(DAY, reason="", now=at(hours=4))


def test_the_difference_waits_for_a_period_that_has_no_hours_yet(stored):
    out = stored / "out"
    made = publisher(stored / "ledger", out)
    made.publish([DAY], now=at(hours=97))
    store_ledger(stored / "ledger", *halves(0, a=0.25), version="late")
    made = publisher(stored / "ledger", out)
    result = Restater(publisher=made).restate(DAY, reason="", now=at(hours=98))
    assert result.manifest.carried_in == NEXT.name
    assert made.due(at(days=1), at(days=9)) == [NEXT]
    assert outcomes(made.publish([NEXT], now=at(hours=98))) == [Outcome.WRITTEN]
    assert sums(data(out, NEXT)) == {"a": Decimal("-0.5"), "b": Decimal("0.5")}


def test_two_series_never_share_a_folder(stored):
    publisher(stored / "ledger", stored / "out").publish([DAY], now=at(hours=3))
    before = tree(stored / "out")
    with pytest.raises(InputError, match=r"grouping 'team', not 'namespace'"):
        publisher(stored / "ledger", stored / "out", grouping="namespace").publish([DAY], now=at(hours=3))
    assert tree(stored / "out") == before


def test_a_changed_manifest_is_noticed(stored):
    made = publisher(stored / "ledger", stored / "out")
    made.publish([DAY], now=at(hours=97))
    path = stored / "out/cost-and-usage/period=2026-11-01/_manifest.json"
    document = json.loads(path.read_text())
    document["totals"][0]["billedCost"] = "9"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="was changed"):
        made.publish([DAY], now=at(hours=98))


def test_a_correction_is_divided_by_the_ratios_of_the_period_that_it_corrects(tmp_path):
    october = {"hour": -24 * 10, "provider_id": "aws:///use1-az1/i-0"}
    november = {"hour": 0, "provider_id": "aws:///use1-az1/i-0"}
    store_ledger(
        tmp_path / "ledger",
        holder("a", 0.75, **october),
        holder("b", 0.25, **october),
        holder("a", 0.25, **november),
        holder("b", 0.75, **november),
    )
    corrected = datetime(2026, 10, 22, tzinfo=UTC)
    path = tmp_path / "bill.parquet"
    moved = {"ChargePeriodStart": corrected, "ChargePeriodEnd": corrected.replace(hour=1)}
    pq.write_table(bill(usage(price="8"), correction(cost="-4", **moved)), path)
    made = publisher(tmp_path / "ledger", tmp_path / "out", length="month", bill=path)
    month = period_at(at(), "month")
    assert outcomes(made.publish([month], now=at(days=40))) == [Outcome.CLOSED]
    rows = data(tmp_path / "out", month).to_pylist()
    assert {(row["ChargeClass"], row["x_Team"]): row["BilledCost"] for row in rows} == {
        (None, "a"): Decimal(2),
        (None, "b"): Decimal(6),
        ("Correction", "a"): Decimal(-3),
        ("Correction", "b"): Decimal(-1),
    }
    assert list(verify(tmp_path / f"out/cost-and-usage/period={month.name}/cost-and-usage.parquet", origin=path)) == []


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ""])
def test_a_bill_of_several_months_is_published_month_by_month(tmp_path, suffix):
    where = {"provider_id": "aws:///use1-az1/i-0"}
    store_ledger(tmp_path / "ledger", *halves(-24, **where)[:2], *halves(0, a=0.25, **where)[:2])
    october = {
        "BillingPeriodStart": datetime(2026, 10, 1, tzinfo=UTC),
        "BillingPeriodEnd": datetime(2026, 11, 1, tzinfo=UTC),
        "ChargePeriodStart": datetime(2026, 10, 31, tzinfo=UTC),
        "ChargePeriodEnd": datetime(2026, 10, 31, 1, tzinfo=UTC),
    }
    path = tmp_path / f"bill{suffix}"
    table = bill(usage(price="3"), usage(price="6", **october))
    if suffix == ".csv":
        with open_sink(path, table.schema) as sink:
            sink.write(table)
    elif suffix:
        pq.write_table(table, path)
    else:
        path.mkdir()
        for number in range(2):
            pq.write_table(table.slice(number, 1), path / f"part-{number}.parquet")
    made = publisher(tmp_path / "ledger", tmp_path / "out", length="month", bill=path)
    months = made.due(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert [month.name for month in months] == ["2026-10", "2026-11"]
    assert outcomes(made.publish(months, now=at(days=90))) == [Outcome.CLOSED, Outcome.CLOSED]
    found = [sums(data(tmp_path / "out", month)) for month in months]
    assert [sum(costs.values()) for costs in found] == [6, 3]
    assert [{team: round(cost, 9) for team, cost in costs.items()} for costs in found] == [
        {"a": Decimal(4), "b": Decimal(2)},
        {"a": Decimal(1), "b": Decimal(2)},
    ]
    assert [manifest(tmp_path / "out", month).charges for month in months] == [1, 1]
    assert outcomes(made.publish(months, now=at(days=91))) == [Outcome.FINAL, Outcome.FINAL]


def test_a_month_of_a_bill_differs_only_where_its_own_rows_do(tmp_path):
    where = {"provider_id": "aws:///use1-az1/i-0"}
    store_ledger(tmp_path / "ledger", *halves(0, **where)[:2])
    folder = tmp_path / "bill"
    folder.mkdir()
    later = {
        "BillingPeriodStart": datetime(2026, 12, 1, tzinfo=UTC),
        "BillingPeriodEnd": datetime(2027, 1, 1, tzinfo=UTC),
        "ChargePeriodEnd": datetime(9999, 12, 31, tzinfo=UTC),
    }
    pq.write_table(bill(usage(price="3")), folder / "november.parquet")
    month = parse_period("2026-11", "month")
    made = publisher(tmp_path / "ledger", tmp_path / "out", length="month", bill=folder)
    assert outcomes(made.publish([month], now=at(days=90))) == [Outcome.CLOSED]
    pq.write_table(bill(usage(price="5", **later)), folder / "december.parquet")
    assert outcomes(made.publish([month, month.following], now=at(days=91))) == [Outcome.FINAL, Outcome.CLOSED]
    pq.write_table(bill(usage(price="4")), folder / "november.parquet")
    assert outcomes(made.publish([month], now=at(days=92))) == [Outcome.DIFFERS]


def test_a_month_of_a_bill_without_any_hour_of_the_ledger_is_not_published(tmp_path):
    store_ledger(tmp_path / "ledger", *halves(24 * 40))
    path = tmp_path / "bill.parquet"
    pq.write_table(bill(usage()), path)
    made = publisher(tmp_path / "ledger", tmp_path / "out", length="month", bill=path)
    assert outcomes(made.publish([parse_period("2026-11", "month")], now=at(days=90))) == [Outcome.EMPTY]
    assert not (tmp_path / "out").exists()


def test_a_new_split_makes_no_correction(stored):
    out = stored / "out"
    store_ledger(stored / "ledger", *halves(24))
    publisher(stored / "ledger", out).publish([DAY, NEXT], now=at(hours=97))
    store_ledger(stored / "ledger", *halves(0, a=0.25), version="late")
    made = publisher(stored / "ledger", out)
    Restater(publisher=made).restate(DAY, reason="", now=at(hours=98))
    made.publish([NEXT], now=at(hours=98))
    for table in (data(out), data(out, NEXT), data(out, revision=1)):
        assert set(table["ChargeClass"].to_pylist()) == {None}


def test_the_store_is_listed_as_often_for_many_periods_as_for_few(tmp_path, monkeypatch):
    store_ledger(tmp_path / "ledger", *(row for hour in range(12) for row in halves(hour)))
    listed = []
    whole = Store.files
    monkeypatch.setattr(Store, "files", lambda self, folder: [listed.append(folder), *whole(self, folder)][1:])
    counts = []
    for name, last in (("few", 2), ("many", 12)):
        made = publisher(tmp_path / "ledger", tmp_path / name, length="hour")
        hours = made.due(at(), at(hours=last))
        listed.clear()
        made.publish(hours, now=at(days=9))
        made.publish(hours, now=at(days=9))
        counts.append(len(listed))
    assert counts[0] == counts[1]


@settings(max_examples=50)
@given(
    before=st.lists(st.tuples(st.sampled_from("abc"), st.decimals("-9e9", "9e9", places=18)), max_size=8),
    after=st.lists(st.tuples(st.sampled_from("abc"), st.decimals("-9e9", "9e9", places=18)), max_size=8),
)
def test_a_difference_takes_the_old_totals_to_the_new_ones_exactly(before, after):
    def totals(rows, pieces):
        found = Totals()
        for piece in pieces(rows):
            costs = dict.fromkeys(
                ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"),
                pa.array([cost for _, cost in piece], pa.decimal128(38, 28)),
            )
            teams = pa.array([team for team, _ in piece], pa.string())
            currency = pa.array(["USD"] * len(piece), pa.string())
            found.add(pa.table({"BillingCurrency": currency, "AllocatedResourceId": teams, **costs}))
        return found.by_receiver()

    old, new = totals(before, lambda rows: [rows]), totals(after, lambda rows: [rows])
    assert new == totals(after, lambda rows: [[row] for row in rows])
    change = {row.receiver_id: row.effective_cost for row in differences(old, new)}
    for team in "abc":
        with exact():
            was = sum((cost for name, cost in before if name == team), Decimal(0))
            now = sum((cost for name, cost in after if name == team), Decimal(0))
            assert change.get(team, 0) == now - was
    assert 0 not in change.values()
