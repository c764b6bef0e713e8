"""Which periods a scheduled report looks at."""

from datetime import timedelta

from tests.unit.focus.archives import at, publisher, store_ledger
from tests.unit.focus.ledgers import free, holder

from gpuwaste.api import ChargebackReport
from gpuwaste.focus.publish import Outcome
from gpuwaste.model.units import format_time
from gpuwaste.runtime.chargeback import publish_due


def report(**status):
    return ChargebackReport.parse(
        {
            "apiVersion": "gpuwaste.dev/v1alpha1",
            "kind": "ChargebackReport",
            "metadata": {"name": "teams", "creationTimestamp": format_time(at(hours=25)), "generation": 1},
            "spec": {"schedule": "@daily", "period": "Day", "destinationURL": "/bills"},
            **({"status": status} if status else {}),
        }
    )


def test_a_period_that_was_left_open_for_months_is_closed_at_last(tmp_path):
    store_ledger(tmp_path / "ledger", holder("a", 0.5), free(0.5))
    made = publisher(tmp_path / "ledger", tmp_path / "bills")

    def run(body, time):
        return [one.outcome for one in publish_due(made, body, due=time, now=time, settled={})]

    assert run(report(), at(days=2)) == [Outcome.WRITTEN]
    assert run(report(lastRunTime=format_time(at(days=2))), at(days=200)) == [Outcome.CLOSED]
    through = report(closedThroughTime=format_time(at(days=1)))
    assert run(through, at(days=200) + timedelta(days=1)) == []
