"""The store over weeks: old inputs go, what anybody needs stays, a kill costs nothing, a full volume is said."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.helpers.facts import HOUR
from tests.unit.cli.stored import files, store_inputs

from gpuwaste.api import ChargebackReport
from gpuwaste.ledger.catalog import day_file
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file
from gpuwaste.model.errors import UnreachableError
from gpuwaste.runtime.books import Books
from gpuwaste.runtime.metrics import OperatorMetrics
from gpuwaste.runtime.reports import open_since
from gpuwaste.runtime.upkeep import Upkeep
from gpuwaste.settings.teams import TeamRules

HOURS = [HOUR + timedelta(hours=n) for n in range(5)]
OLD = HOUR + timedelta(days=35)


def books(folder):
    store = open_store(str(folder))
    made = Books(inputs=InputStore.open(store, "test"), store=store, rules=HourRules(teams=TeamRules()))
    made.recover()
    return made


@pytest.fixture
def kept(tmp_path):
    """Books of five hours that are all written."""
    store_inputs(tmp_path)
    to = books(tmp_path)
    assert to.update([], now=HOURS[-1] + timedelta(hours=1), through=None) == 0
    return to


def ledger(to):
    return {name: to.store.read(name) for name in to.store.files("ledger")}


def test_inputs_go_after_their_days_and_the_ledger_stays(kept):
    before = ledger(kept)
    assert kept.expire(now=OLD, open_since=None) == []
    assert kept.expire(now=OLD + timedelta(hours=2), open_since=None) == HOURS[:2]
    assert kept.inputs.hours() == HOURS[2:]
    assert kept.expire(now=OLD + timedelta(hours=2), open_since=None) == []
    assert ledger(kept) == before


def test_what_an_open_period_needs_stays(kept):
    assert kept.expire(now=OLD + timedelta(days=9), open_since=HOURS[1]) == HOURS[:1]
    assert kept.inputs.hours() == HOURS[1:]


def test_an_hour_that_was_never_computed_keeps_its_inputs(tmp_path, kept):
    kept.store.delete(hour_file("test", HOURS[0]))
    assert kept.expire(now=OLD + timedelta(days=9), open_since=None) == HOURS[1:]
    late = books(tmp_path)
    assert late.update([], now=OLD + timedelta(days=9), through=None) == 0
    assert late.store.read_or_none(hour_file("test", HOURS[0]))
    assert late.expire(now=OLD + timedelta(days=9), open_since=None) == HOURS[:1]


@pytest.mark.parametrize("left", ["windows", "facts"])
def test_a_kill_while_inputs_go_spoils_no_ledger(tmp_path, kept, left):
    before = ledger(kept)
    for name in kept.store.files("inputs"):
        if "hour=09" in name and left not in name:
            kept.store.delete(name)
    again = books(tmp_path)
    assert again.update([], now=OLD + timedelta(hours=1), through=None) == 0
    assert ledger(again) == before
    assert again.expire(now=OLD + timedelta(hours=1), open_since=None) == HOURS[:1]
    assert not [name for name in files(tmp_path) if name.startswith("inputs") and "hour=09" in name]


def report(**spec):
    body = {"destinationURL": "/bills", "groupBy": "Team", **spec}
    kind = {"apiVersion": "gpuwaste.dev/v1alpha1", "kind": "ChargebackReport", "metadata": {"name": "r"}}
    return ChargebackReport.parse({**kind, "spec": body})


def test_a_period_is_open_until_its_grace_has_passed():
    monthly = report(schedule="5 * * * *", period="Month", gracePeriodSeconds=4 * 86_400)
    first = HOUR.replace(day=1, hour=0)
    assert open_since(monthly, now=first + timedelta(days=33)) == first
    assert open_since(monthly, now=first + timedelta(days=34)) == first.replace(month=12)
    once = report(range={"fromTime": "2026-11-01T00:00:00Z", "toTime": "2026-11-03T00:00:00Z"}, gracePeriodSeconds=3600)
    assert open_since(once, now=first + timedelta(days=2)) == first
    assert open_since(once, now=first + timedelta(days=2, hours=1)) is None


def upkeep(to, **periods):
    chargeback = SimpleNamespace(**{"looked": True, "open_since": None, "needed_since": None, **periods})
    return Upkeep(books=to, chargeback=chargeback, metrics=OperatorMetrics())


def test_old_inputs_are_looked_for_once_a_day_and_only_when_open_periods_are_known(kept):
    one = upkeep(kept, looked=False)
    asyncio.run(one.look(OLD + timedelta(hours=1)))
    assert kept.inputs.hours() == HOURS
    one.chargeback.looked = True
    asyncio.run(one.look(OLD + timedelta(hours=1)))
    assert kept.inputs.hours() == HOURS[1:]
    asyncio.run(one.look(OLD + timedelta(hours=24)))
    assert kept.inputs.hours() == HOURS[1:]
    asyncio.run(one.look(OLD + timedelta(hours=25)))
    assert kept.inputs.hours() == []
    assert one.metrics.registry.get_sample_value("gpuwaste_expired_input_hours_total") == 5


def test_a_store_that_lets_nothing_be_removed_is_said_and_asked_again_in_an_hour(kept, monkeypatch, caplog):
    one, asked = upkeep(kept), []

    def refuse(_self, folder):
        asked.append(folder)
        raise UnreachableError("s3://bucket/inputs: cannot be removed: denied")

    monkeypatch.setattr("gpuwaste.ledger.store.Store.delete_folder", refuse)
    for minutes in (0, 10, 60):
        asyncio.run(one.look(OLD + timedelta(hours=1, minutes=minutes)))
    assert len(asked) == 2
    assert [record.message for record in caplog.records if "denied" in record.message] == [
        "old inputs are not removed: s3://bucket/inputs: cannot be removed: denied"
    ] * 2
    assert kept.inputs.hours() == HOURS


def test_days_are_put_together_some_days_after_they_ended(kept):
    one, before = upkeep(kept), kept.rows(through=HOURS[-1] + timedelta(hours=1))
    midnight = HOUR.replace(hour=0) + timedelta(days=1)
    asyncio.run(one.look(midnight + timedelta(days=2)))
    assert len(kept.store.files("ledger")) == 5
    asyncio.run(one.look(midnight + timedelta(days=3)))
    assert kept.store.files("ledger") == [day_file("test", HOUR)]
    assert one.metrics.registry.get_sample_value("gpuwaste_compacted_days_total") == 1
    again = books(Path(kept.store.root))
    assert again.update([], now=midnight + timedelta(days=3), through=None) == 0, "nothing is computed again"
    assert again.rows(through=HOURS[-1] + timedelta(hours=1)).equals(before)
    assert kept.store.files("ledger") == [day_file("test", HOUR)]


def test_the_ledger_goes_after_its_days_but_never_before_its_inputs_or_what_a_bill_may_need(kept):
    one = upkeep(kept, needed_since=HOUR - timedelta(hours=3), open_since=HOURS[0])
    one.keep_ledger, much_later = timedelta(days=40), HOUR + timedelta(days=99)
    asyncio.run(one.look(much_later))
    assert kept.store.files("ledger"), "its inputs are there, for a period is open"
    one.chargeback.open_since = None
    asyncio.run(one.look(much_later + timedelta(days=1)))
    assert kept.inputs.hours() == []
    assert kept.store.files("ledger"), "a period can be restated"
    one.chargeback.needed_since = None
    asyncio.run(one.look(much_later + timedelta(days=2)))
    assert kept.store.files("ledger") == []
    assert one.metrics.registry.get_sample_value("gpuwaste_expired_ledger_days_total") == 1
    assert not len(books(Path(kept.store.root)).rows(through=HOURS[-1]))


def test_without_a_setting_the_ledger_stays(kept):
    asyncio.run(upkeep(kept).look(HOUR + timedelta(days=4_000)))
    assert kept.inputs.hours() == []
    assert kept.store.files("ledger") == [day_file("test", HOUR)]


def test_a_period_is_needed_while_hours_of_it_can_change(kept):
    monthly = report(schedule="5 * * * *", period="Month", gracePeriodSeconds=3600)
    first = HOUR.replace(day=1, hour=0)
    later = first + timedelta(days=30 + 34)  # inputs of the month's last day are still there
    assert open_since(monthly, now=later) > first
    assert open_since(monthly, now=later, changes_for=timedelta(days=35)) == first
    assert open_since(monthly, now=later + timedelta(days=2), changes_for=timedelta(days=35)) > first
    once = report(range={"fromTime": "2026-11-01T00:00:00Z", "toTime": "2026-11-03T00:00:00Z"}, gracePeriodSeconds=3600)
    assert open_since(once, now=first + timedelta(days=36), changes_for=timedelta(days=35)) == first
    assert open_since(once, now=first + timedelta(days=37), changes_for=timedelta(days=35)) is None


def test_a_volume_that_fills_up_is_said_once(kept, monkeypatch, caplog):
    one = upkeep(kept)
    usage = SimpleNamespace(used=79, free=21)
    monkeypatch.setattr("gpuwaste.ledger.store.shutil.disk_usage", lambda _: usage)
    with caplog.at_level(logging.WARNING):
        for used in (79, 80, 95, 50, 81):
            usage.used, usage.free = used, 100 - used
            asyncio.run(one.look(HOUR))
    assert [record.message.split("is ")[1][:9] for record in caplog.records] == ["80 % full", "81 % full"]
    assert one.metrics.registry.get_sample_value("gpuwaste_store_volume_used_ratio") == 0.81
    assert "81 % full" in one.storage
    usage.used, usage.free = 1, 1
    asyncio.run(one.look(HOUR))
    assert one.storage == ""
