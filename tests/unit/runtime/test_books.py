"""The operator's books: an hour that breaks a law, bills that change, prices of hours long gone."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.pricing.test_bills import AWS, bill, charge

from gpuwaste.api import GPUPool
from gpuwaste.cluster.state import ClusterSnapshot
from gpuwaste.ledger.activity import PodActivity
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file
from gpuwaste.model.facts import Fact, ReadyData
from gpuwaste.pricing.bills import Exchange
from gpuwaste.runtime.bills import Bills
from gpuwaste.runtime.books import Books
from gpuwaste.runtime.objects import Surroundings, build_objects
from gpuwaste.settings.teams import TeamRules

LATER = HOUR + timedelta(hours=2)


def books(folder, **more):
    store = open_store(str(folder))
    return Books(inputs=InputStore.open(store, "test"), store=store, rules=HourRules(teams=TeamRules()), **more)


def machine():
    node = fact.node(gpus=8)
    return replace(node, data=replace(node.data, provider_id=AWS))


def fill(to, hour=HOUR, *, weight=(1, 1), gpu="gpu-1"):
    journal = Journal(journal_id=f"journal-{hour:%d%H}-{gpu}-{weight[0]}")
    journal.device(hour, gpu, weight=weight).usage(hour, gpu, "web", duty=0.5, sm=0.5)
    to.inputs.append_windows(journal.table())
    to.dirty.add(hour)


def rows_of(to, hour=HOUR):
    table = to.store.read_table(hour_file("test", hour)).to_pylist()
    return [row for row in table if row["resource"] == "gpu" and row["row_kind"] == "holder"]


def test_an_hour_that_breaks_a_law_is_not_written_and_stops_nothing(tmp_path):
    to = books(tmp_path)
    fill(to)
    for parent in ("a", "b"):
        journal = Journal(journal_id=parent).device(HOUR + timedelta(hours=1), "gpu-2", parent=parent)
        to.inputs.append_windows(journal.table())
    to.dirty.add(HOUR + timedelta(hours=1))
    assert to.update([machine()], now=LATER + timedelta(hours=1), through=None) == 0
    assert rows_of(to), "the sound hour is written"
    (message,) = to.broken.values()
    assert message == "the parents of GPU gpu-2 weigh more than the GPU"
    assert to.store.read_or_none(hour_file("test", HOUR + timedelta(hours=1))) is None
    shown = build_objects(
        to.rows(through=LATER),
        ClusterSnapshot(generation=0),
        activity=PodActivity(),
        through=LATER,
        now=LATER,
        previous=lambda *_: None,
        around=Surroundings(broken=f"10:00: {message}.", prices="bill.csv: amounts are in EUR"),
    )
    (pool,) = [item for item in shown if isinstance(item, GPUPool)]
    conditions = {c.type: (c.status, c.reason, c.message) for c in pool.status.conditions}
    assert conditions["Conserved"][:2] == ("False", "SumsBroken")
    assert "gpu-2 weigh more" in conditions["Conserved"][2]
    assert conditions["Priced"][1:] == ("BillRefused", "The bills are not used: bill.csv: amounts are in EUR")


def test_when_a_node_was_not_ready_is_kept_after_it_is_again(tmp_path):
    to = books(tmp_path)
    went, back = (
        Fact(
            kind="ready",
            uid="uid-node-a",
            valid_from=HOUR + timedelta(minutes=minute),
            valid_to=None,
            data=ReadyData(node="node-a", ready=minute == 40),
        )
        for minute in (10, 40)
    )
    hours = [HOUR + timedelta(hours=n) for n in range(3)]
    for hour in hours[:2]:
        fill(to, hour)
    to.update([machine(), went], now=HOUR + timedelta(minutes=30), through=HOUR + timedelta(minutes=30))
    fill(to, hours[2])
    to.dirty |= set(hours)
    to.update([machine(), back], now=LATER + timedelta(hours=1), through=None)
    of = [[fact for fact in to.inputs.read_facts(hour) if fact.kind == "ready"] for hour in hours]
    assert of == [[went, back], [went, back], []], "the second hour was told before it was known"


def test_a_bill_that_comes_late_prices_its_hours_again(tmp_path):
    to = books(tmp_path / "data", bills=Bills(paths=(tmp_path / "bills",)))
    (tmp_path / "bills").mkdir()
    fill(to)
    to.update([machine()], now=LATER, through=None)
    assert {row["price_source"] for row in rows_of(to)} == {"BuiltIn"}
    assert "holds no file" in to.bills.problem
    bill(tmp_path / "bills", charge("16"))
    to.update([], now=LATER + timedelta(days=5), through=None)
    assert {(row["price_source"], row["effective_unit_cost"]) for row in rows_of(to)} == {("Bill", Decimal(2))}
    assert to.bills.problem == ""
    assert to.update([], now=LATER + timedelta(days=5), through=None) == 0


@pytest.mark.parametrize(
    ("charges", "problem"),
    [([charge(currency="EUR")], "amounts are in EUR"), ([charge("dear")], "not readable as a FOCUS bill")],
    ids=["currency", "value"],
)
def test_a_bad_bill_changes_nothing_but_says_so(tmp_path, charges, problem):
    exchange = Exchange(currency="USD")
    to = books(tmp_path / "data", bills=Bills(paths=(tmp_path / "bill.csv",), exchange=exchange))
    bill(tmp_path, charge("16"))
    fill(to)
    to.update([machine()], now=LATER, through=None)
    before = to.store.read(hour_file("test", HOUR))
    bill(tmp_path, *charges, charge(resource="i-0ddd"))
    to.update([machine()], now=LATER, through=None)
    assert problem in to.bills.problem
    assert "\n" not in to.bills.problem
    to.dirty.add(HOUR)
    to.update([machine()], now=LATER, through=None)
    assert to.store.read(hour_file("test", HOUR)) == before
