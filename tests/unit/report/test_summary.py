"""Sums of the ledger: exact for every grouping, in money too, and honest about what is not known."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from tests.helpers.facts import HOUR

from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.model.errors import InputError
from gpuwaste.model.money import exact
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.report.summary import GROUPINGS, group_rows, summarize
from gpuwaste.report.tables import flat_row
from gpuwaste.report.totals import CATEGORIES, MEASURES, Totals, amount, gpu_hours

from .ledgers import ledgers, real_hour, row, table


def expected_total(ledger):
    """The totals by plain Python over the rows."""
    rows = ledger.to_pylist()
    time = {name: sum(r[name] or 0 for r in rows) for name in MEASURES if name != "unprovisioned"}
    time["unprovisioned"] = sum(r["owned"] for r in rows if r["row_kind"] == "unprovisioned")
    money = {}
    with exact():
        for r in rows:
            if r["effective_unit_cost"] is not None:
                owned = money.setdefault(r["currency"], Decimal(0))
                money[r["currency"]] = owned + r["effective_unit_cost"] * r["owned"]
    unpriced = sum(r["owned"] for r in rows if r["effective_unit_cost"] is None)
    return time, money, unpriced


@pytest.mark.parametrize("by", GROUPINGS)
@settings(max_examples=10, deadline=None)
@given(ledger=ledgers())
def test_the_groups_of_every_grouping_add_up_to_the_rows(ledger, by):
    time, money, unpriced = expected_total(ledger)
    total = Totals.sum(group.totals for group in group_rows(ledger, by))
    assert {name: total.time(name) for name in MEASURES} == time
    assert {currency: sums["owned"] for currency, sums in total.money_ns.items()} == money
    assert total.unpriced_ns == unpriced


@pytest.mark.parametrize("by", ["team", "namespace", "workload", "pool", "hour"])
@settings(max_examples=6, deadline=None)
@given(ledger=ledgers())
def test_the_summary_says_the_same_as_each_grouping_by_itself(ledger, by):
    summary = summarize(ledger)
    assert getattr(summary, f"{by}s") == group_rows(ledger, by)
    assert sum(use.owned_ns for use in summary.prices) == summary.total.time("owned")
    held = sum(r["held"] for r in ledger.to_pylist() if r["row_kind"] == "holder")
    assert sum(origin.held_ns for origin in summary.origins) == held


def test_a_real_hour_adds_up_and_every_team_keeps_its_law():
    summary = summarize(real_hour())
    total = summary.total
    assert total.time("owned") == 2 * NS_PER_HOUR == total.time("effective") + total.time("waste")
    for group in (*summary.teams, *summary.workloads, *summary.pools):
        t = group.totals
        mine = t.time("owned") + t.time("borrowed")
        assert mine == t.time("effective") + t.time("waste") + t.time("lent"), group.key
    assert total.cost() == {"USD": Decimal("6.400000000000")}
    assert total.cost("effective")["USD"] + total.cost("waste")["USD"] == total.cost()["USD"]
    assert [group.key["team"] for group in summary.teams] == ["", "team-a", "team-b"]
    assert (summary.gpu_count, summary.node_count, summary.pod_count, summary.hour_count) == (2, 1, 2, 1)
    assert (summary.start, summary.end) == (HOUR, HOUR + timedelta(hours=1))


def test_currencies_are_never_added_and_an_unknown_price_is_in_no_amount():
    ledger = table(
        row(owned=NS_PER_HOUR, currency="USD", price="2", slice_id="1"),
        row(owned=NS_PER_HOUR, currency="EUR", price="3", slice_id="2"),
        row(owned=NS_PER_HOUR, slice_id="3"),
    )
    (group,) = group_rows(ledger, "cluster")
    assert group.totals.cost() == {"EUR": Decimal(3), "USD": Decimal(2)}
    assert group.totals.unpriced_ns == NS_PER_HOUR


def test_nothing_measured_is_none_and_not_zero():
    unknown = dict.fromkeys(("duty", "effective", "effective_low", "effective_high"))
    held = row(owned=NS_PER_HOUR, held=NS_PER_HOUR, unmeasured=NS_PER_HOUR, origin=None, **unknown)
    (alone,) = group_rows(table(held), "team")
    assert alone.totals.ns["effective"] is None
    assert alone.totals.measured_share == 0
    zero = row(owned=NS_PER_HOUR, held=NS_PER_HOUR, idle=NS_PER_HOUR, slice_id="2", coverage_ppm=1_000_000)
    (both,) = group_rows(table(held, zero), "team")
    assert both.totals.ns["effective"] == 0
    assert both.totals.measured_share == Fraction(1, 2)


def test_rows_of_other_resources_are_left_out():
    ledger = table(row(owned=NS_PER_HOUR), row(owned=5, resource="cpu", slice_id="2"))
    assert summarize(ledger).total.time("owned") == NS_PER_HOUR


def test_capacity_in_no_cluster_is_waste():
    (group,) = group_rows(table(row(row_kind="unprovisioned", owned=NS_PER_HOUR)), "cluster")
    assert group.totals.time("waste") == group.totals.time("unprovisioned") == NS_PER_HOUR


def test_sums_beyond_64_bits_stay_exact():
    ledger = table(*(row(owned=2**63 - 1, currency="USD", price="99.123456789012", slice_id=str(i)) for i in range(3)))
    (group,) = group_rows(ledger, "cluster")
    assert group.totals.time("owned") == 3 * (2**63 - 1)
    with exact():
        assert group.totals.money_ns["USD"]["owned"] == 3 * (2**63 - 1) * Decimal("99.123456789012")


def test_dearest_waste_comes_first_and_hours_by_time():
    hours = [HOUR + timedelta(hours=i) for i in range(3)]
    waste = zip(hours, (5, 9, 7), strict=True)
    ledger = table(*(row(hour=h, owned=n, idle=n, team=f"t{n}", currency="USD", price="1") for h, n in waste))
    assert [group.key["team"] for group in group_rows(ledger, "team")] == ["t9", "t7", "t5"]
    assert [group.key["hour"] for group in group_rows(ledger, "hour")] == hours


def test_an_empty_ledger_is_refused():
    with pytest.raises(InputError, match="no GPU"):
        summarize(LEDGER_SCHEMA.empty_table())


def test_the_order_of_rows_changes_nothing():
    ledger = pa.concat_tables([real_hour(), real_hour(HOUR + timedelta(hours=1), price=None)])
    shuffled = ledger.take(pa.array(range(ledger.num_rows - 1, -1, -1)))
    assert summarize(ledger) == summarize(shuffled)


@pytest.mark.parametrize(
    ("ns", "hours"), [(0, "0.000000"), (NS_PER_HOUR, "1.000000"), (1, "0.000000"), (NS_PER_HOUR // 3, "0.333333")]
)
def test_gpu_hours(ns, hours):
    assert f"{gpu_hours(ns):f}" == hours


def test_amounts_are_rounded_to_twelve_decimals():
    assert amount(Decimal("3.2") * (NS_PER_HOUR // 3)) == Decimal("1.066666666667")


def test_every_category_is_a_measure():
    assert set(CATEGORIES) < set(MEASURES)


def test_where_nothing_was_measured_neither_use_nor_percentage_is_a_number():
    held = {"namespace": "a", "workload_name": "w", "owned": NS_PER_HOUR, "held": NS_PER_HOUR, "price": "2"}
    held |= {"currency": "USD"}
    unknown = row(**held, unmeasured=NS_PER_HOUR, duty=None, effective=None, coverage_ppm=0)
    (group,) = group_rows(table(unknown), "workload")
    flat = flat_row(group)
    assert (flat["effective_gpu_hours"], flat["used_cost"], flat["waste_percent"]) == (None, None, None)
    assert flat["costs"]["USD"] == {"cost": 2, "used_cost": None, "waste_cost": 2}
    idle = row(**held, idle=NS_PER_HOUR, coverage_ppm=1_000_000)
    (group,) = group_rows(table(idle), "workload")
    flat = flat_row(group)
    assert (flat["effective_gpu_hours"], flat["used_cost"], flat["waste_percent"]) == (0, 0, 100)
