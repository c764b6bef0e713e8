"""What objects show is what the ledger says."""

from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal

from gpuwaste.api import ConditionType, Confidence, GPUPool, GPUWaste, find_condition
from gpuwaste.ledger.hour import HourRules, build_hour
from gpuwaste.ledger.inputs import HourInputs
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, LEDGER_SCHEMA
from gpuwaste.model.facts import merge_facts
from gpuwaste.model.units import HOUR as ONE_HOUR
from gpuwaste.settings.teams import TeamRules
from gpuwaste.waste.figures import money_of, summarise, total
from gpuwaste.waste.pools import Backfilled, PoolSurroundings, collect_pools, pool_object
from gpuwaste.waste.texts import cost_per_month
from gpuwaste.waste.windows import cut_windows
from gpuwaste.waste.workloads import WorkloadAdvice, collect_workloads, workload_object

NO_ADVICE = WorkloadAdvice(headline="none")


def day(*, hours=26, price="2.00", sm=0.25, facts=None):
    """A ledger of some hours in which `web` holds one of two GPUs."""
    tables = []
    for number in range(hours):
        start = HOUR + number * ONE_HOUR
        journal = Journal()
        for minute in range(60):
            at = start + timedelta(minutes=minute)
            journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.5, sm=sm, first_activity=HOUR)
            journal.device(at, "gpu-2")
        known = facts or [fact.node(gpus=2), fact.gpu("gpu-1"), fact.gpu("gpu-2"), fact.pod("web")]
        known = [*known, fact.price(price)] if price else known
        inputs = HourInputs(cluster="test", hour=start, windows=journal.table(), facts=tuple(merge_facts(known)))
        tables.append(build_hour(inputs, HourRules(teams=TeamRules())).table)
    rows = pa.concat_tables(tables).replace_schema_metadata(LEDGER_SCHEMA.metadata)
    return rows, HOUR + hours * ONE_HOUR


@pytest.fixture(scope="module")
def priced():
    return day()


@pytest.fixture(scope="module")
def unpriced():
    return day(hours=2, price=None)


def workload(ledger, **more):
    rows, through = ledger
    (found,) = collect_workloads(cut_windows(rows, through=through))
    shown = workload_object(found, api_versions={}, advice=NO_ADVICE, due=more.get("due"), now=through)
    return found, GPUWaste.parse(shown.manifest() | {"status": shown.status_manifest()["status"]})


def test_windows_are_cut_in_whole_hours(priced):
    rows, through = priced
    windows = cut_windows(rows, through=through)
    assert [(w.length, w.hours) for w in windows] == [("1h", 1), ("24h", 24), ("7d", 26)]
    assert [w.length for w in cut_windows(day(hours=1)[0], through=HOUR + ONE_HOUR)] == ["1h"]
    assert cut_windows(LEDGER_SCHEMA.empty_table(), through=through) == []


def test_a_workload_shows_hours_waste_and_cost(priced):
    found, shown = workload(priced)
    summary = shown.status.summary
    assert (summary.held_gpu_hours, summary.effective_gpu_hours, summary.waste_percent) == ("26.00", "6.50", "75")
    assert summary.cost_per_month == "1,460.00 USD"
    assert shown.status.projected_waste_cost_per_month.amount == Decimal("1095.00")
    assert shown.status.windows[0].cost.amount == 2
    assert (shown.status.gpus, shown.status.confidence) == (1, Confidence.HIGH)
    assert shown.status.price.amount == 2
    assert found.exclusive
    assert found.pod_uids == ("uid-web",)


def test_a_pool_shows_what_nobody_held(priced):
    rows, through = priced
    ((key, windows),) = collect_pools(cut_windows(rows, through=through)).items()
    shown = pool_object(key, windows, now=through)
    pool = GPUPool.parse(shown.manifest() | {"status": shown.status_manifest()["status"]})
    assert (pool.status.capacity.nodes, pool.status.capacity.gpus, pool.status.capacity.held_gpus) == (1, 2, 1)
    last = pool.status.windows[-1]
    assert (last.owned_gpu_hours, last.net_waste_gpu_hours.free_unallocated) == (52, 26)
    waste = last.net_waste_gpu_hours
    assert waste.total == waste.idle + waste.underused + waste.free_unallocated
    assert last.owned_gpu_hours == last.effective_gpu_hours + waste.total


def test_a_pool_says_that_the_volume_fills_and_how_far_a_backfill_is(priced):
    rows, through = priced
    ((key, windows),) = collect_pools(cut_windows(rows, through=through)).items()

    def said(around):
        shown = pool_object(key, windows, now=through, around=around)
        return {one.type: (one.status, one.reason, one.message) for one in shown.status.conditions}

    assert said(PoolSurroundings())["Stored"] == ("True", "HasRoom", "Inputs and ledger have room.")
    assert "Backfilled" not in said(PoolSurroundings()), "nothing is to be read"
    filling = "The volume of /data is 81 % full: enlarge it."
    running = Backfilled(status="False", reason="Running", message="3 of 700 hours are stored.")
    found = said(PoolSurroundings(storage=filling, backfill=running))
    assert found["Stored"] == ("False", "VolumeFilling", filling)
    assert found["Backfilled"] == ("False", "Running", "3 of 700 hours are stored.")


def test_an_unknown_price_is_unknown_and_not_zero(unpriced):
    _, shown = workload(unpriced)
    assert shown.status.summary.cost_per_month == "<unknown>"
    assert shown.status.windows[-1].cost is None
    priced = find_condition(shown.status.conditions, ConditionType.PRICED)
    assert (priced.status, priced.reason) == ("False", "PriceUnknown")
    assert "H100-80GB" in priced.message


def test_unmeasured_is_shown_as_such():
    rows, through = day(hours=1)
    place, field = rows.schema.get_field_index("effective"), LEDGER_SCHEMA.field("effective")
    _, shown = workload((rows.set_column(place, field, pa.nulls(rows.num_rows, pa.int64())), through))
    assert shown.status.summary.effective_gpu_hours == "<unmeasured>"
    assert shown.status.windows[-1].effective_gpu_hours is None


def test_no_month_is_projected_from_less_than_a_day(unpriced):
    rows, through = day(hours=3)
    (found,) = collect_workloads(cut_windows(rows, through=through))
    window, figures = found.windows[-1]
    assert cost_per_month(figures, window) == "collecting"


def test_conditions_move_their_time_only_with_their_status(priced):
    rows, through = priced
    (found,) = collect_workloads(cut_windows(rows, through=through))
    first = workload_object(found, api_versions={}, advice=NO_ADVICE, due=through, now=through)
    again = workload_object(
        found, api_versions={}, advice=NO_ADVICE, due=through, now=through + ONE_HOUR, previous=first
    )
    done = workload_object(found, api_versions={}, advice=NO_ADVICE, due=None, now=through + ONE_HOUR, previous=first)
    times = [find_condition(o.status.conditions, "Ready").last_transition_time for o in (first, again, done)]
    assert times == [through, through, through + ONE_HOUR]


@pytest.mark.parametrize("by", [("namespace",), ("pool",), ("team", "row_kind"), ("node", "gpu_uuid"), ("pod_uid",)])
def test_every_grouping_adds_up_to_the_ledger(priced, by):
    rows, _ = priced
    whole = total(summarise(rows, by).values())
    for name in AMOUNT_COLUMNS:
        assert whole[name] == sum(value or 0 for value in rows[name].to_pylist())
    assert money_of(whole.cost["USD"]) == 2 * 2 * 26
    assert whole["owned"] == whole["effective"] + whole.waste
