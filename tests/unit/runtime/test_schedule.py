"""When a report is due: by its schedule and time zone, once a time, also after a pause."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from tests.unit.api.samples import all_kinds
from tests.unit.focus.archives import publisher, store_ledger
from tests.unit.focus.ledgers import free, holder

from gpuwaste.api import ChargebackReport
from gpuwaste.focus.publish import Outcome, Publisher
from gpuwaste.model.errors import InputError
from gpuwaste.runtime.chargeback import due_time, publish_due
from gpuwaste.runtime.schedule import parse_schedule

CREATED = datetime(2026, 11, 2, 10, 30, tzinfo=UTC)


def at(text):
    return datetime.fromisoformat(f"{text}+00:00")


@pytest.mark.parametrize(
    ("schedule", "zone", "now", "latest", "following"),
    [
        ("@daily", "UTC", "2026-11-02T00:00", "2026-11-02T00:00", "2026-11-03T00:00"),
        ("@hourly", "UTC", "2026-11-02T00:59", "2026-11-02T00:00", "2026-11-02T01:00"),
        ("0 6 * * *", "Europe/Berlin", "2026-11-02T06:00", "2026-11-02T05:00", "2026-11-03T05:00"),
        ("0 6 1 * *", "Asia/Tokyo", "2026-11-02T00:00", "2026-10-31T21:00", "2026-11-30T21:00"),
        # Berlin's clocks go back on 25 October 2026: half past two comes twice and counts once.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:30", "2026-10-26T01:30"),
        # On 28 March 2027 it does not come at all, and the run is made when the hour has been skipped.
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00", "2027-03-27T01:30", "2027-03-28T01:00"),
    ],
)
def test_times_around_a_moment(schedule, zone, now, latest, following):
    parsed = parse_schedule(schedule, zone)
    assert (parsed.latest(at(now)), parsed.following(at(now))) == (at(latest), at(following))


@pytest.mark.parametrize(
    ("schedule", "zone", "what"),
    [
        ("0 0 30 2 *", "UTC", "is no schedule that ever comes"),
        ("61 * * * *", "UTC", "is no schedule that ever comes"),
        ("@daily", "Europe/Atlantis", "is no time zone"),
        ("@daily", "../etc/passwd", "is no time zone"),
    ],
)
def test_what_is_none_is_refused(schedule, zone, what):
    with pytest.raises(InputError, match=what):
        parse_schedule(schedule, zone)


def report(last=None, generation=1, seen=1, **spec):
    body = all_kinds()["ChargebackReport"].manifest()
    body["spec"] |= {"schedule": "@daily", "period": "Day"} | spec
    body["metadata"] |= {"generation": generation, "creationTimestamp": CREATED.isoformat()}
    if last is not None:
        body["status"] = {"lastRunTime": last.isoformat(), "observedGeneration": seen}
    return ChargebackReport.parse(body)


def test_the_examples_of_the_documentation_are_valid():
    page = (Path(__file__).parents[3] / "docs/chargeback.md").read_text()
    whole, of_bill = (yaml.safe_load(example) for example in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    asked = ChargebackReport.parse(whole)
    assert (
        ChargebackReport.parse({**whole, **of_bill}).spec.bill_url == "s3://billing-exports/focus?region=eu-central-1"
    )
    assert parse_schedule(asked.spec.schedule, asked.spec.time_zone).following(CREATED) == at("2026-11-03T05:00")


FIRST = datetime(2026, 11, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("known", "now", "due"),
    [
        pytest.param(report(), CREATED, None, id="not before its first time"),
        pytest.param(report(), FIRST, FIRST, id="at its first time"),
        pytest.param(report(FIRST), FIRST + timedelta(hours=5), None, id="once a time"),
        pytest.param(report(FIRST), FIRST + timedelta(days=4), FIRST + timedelta(days=4), id="after a pause, once"),
        pytest.param(report(FIRST, generation=2), FIRST + timedelta(hours=5), FIRST, id="again when it was changed"),
    ],
)
def test_a_report_is_due_once_a_time(known, now, due):
    assert due_time(known, now=now)[0] == due


def span(last=None, grace=7200):
    wanted = {"fromTime": "2026-11-01T00:00:00Z", "toTime": "2026-11-02T00:00:00Z"}
    body = all_kinds()["ChargebackReport"].manifest()
    body["spec"] = {"destinationURL": "s3://bills/x", "range": wanted, "gracePeriodSeconds": grace}
    if last is not None:
        body["status"] = {"lastRunTime": last.isoformat(), "observedGeneration": 1}
    body["metadata"]["generation"] = 1
    return ChargebackReport.parse(body)


END = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("known", "now", "due", "following"),
    [
        (span(), END - timedelta(hours=1), False, END),
        (span(), END, True, None),
        (span(END), END + timedelta(minutes=59), False, END + timedelta(hours=1)),
        (span(END), END + timedelta(hours=1), True, END + timedelta(hours=1)),
        (span(END + timedelta(hours=1)), END + timedelta(hours=2), True, END + timedelta(hours=2)),
        (span(END + timedelta(hours=2)), END + timedelta(days=9), False, None),
    ],
)
def test_a_single_report_is_looked_at_until_it_is_closed(known, now, due, following):
    found = due_time(known, now=now)
    assert (found[0] is not None, found[1]) == (due, following)


def test_a_closed_period_whose_ledger_says_the_same_is_made_again_only_once(tmp_path, monkeypatch):
    store_ledger(tmp_path / "ledger", holder("a", 0.5), free(0.5))
    asked = report(period="Day")
    settled = {}

    def run_at(time):
        made = publisher(tmp_path / "ledger", tmp_path / "out")
        whole, counted = made.make, []
        monkeypatch.setattr(Publisher, "make", lambda self, *args, **more: [counted.append(1), whole(*args, **more)][1])
        outcomes = [one.outcome for one in publish_due(made, asked, due=time, now=time, settled=settled)]
        monkeypatch.undo()
        return outcomes, len(counted)

    later = datetime(2026, 11, 9, tzinfo=UTC)
    assert run_at(later) == ([Outcome.CLOSED], 1)
    store_ledger(tmp_path / "ledger", holder("a", 0.5), free(0.5), version="again")
    assert run_at(later) == ([Outcome.FINAL], 1)
    assert run_at(later) == ([Outcome.FINAL], 0)
