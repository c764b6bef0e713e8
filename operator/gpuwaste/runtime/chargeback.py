"""Publish what `ChargebackReport` objects ask for: on their schedules, in a thread, and say where the files went.

Everything that decides is in the objects and in the archives: a report is due when its schedule has come round since
the run that its status names. After a kill the same run is made again, and writes nothing that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gpuwaste.api import ChargebackReport, ChargebackReportStatus, Reason, Restatement
from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import NotFoundError
from gpuwaste.cluster.kinds import CHARGEBACK_REPORTS
from gpuwaste.focus.layouts import write_layout
from gpuwaste.focus.periods import months_of, period_at, span_period
from gpuwaste.focus.publish import Outcome
from gpuwaste.focus.restate import Restater
from gpuwaste.model.errors import GpuwasteError, InputError, UnreachableError
from gpuwaste.runtime.bill_copy import local_bill
from gpuwaste.runtime.events import event_about, post_event
from gpuwaste.runtime.report_status import MAX_FILES, Run, failed_status, run_status, waiting_status
from gpuwaste.runtime.reports import open_since, publisher_for
from gpuwaste.runtime.schedule import parse_schedule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gpuwaste.cluster.api import ClusterApi, Json
    from gpuwaste.focus.archive import Archive
    from gpuwaste.focus.manifest import Manifest
    from gpuwaste.focus.periods import Period
    from gpuwaste.focus.publish import Publisher, Result
    from gpuwaste.ledger.store import Store
    from gpuwaste.runtime.metrics import OperatorMetrics

__all__ = ["Chargeback", "due_time"]

_log = logging.getLogger(__name__)
_MANAGER = "gpuwaste-chargeback"
_PAGE = 100
_LATE_DATA = timedelta(days=40)
"""Inputs are kept 35 days: a ledger hour that is older than this cannot change by a late window."""
_RETRY = timedelta(minutes=1)
_MAX_RETRY = timedelta(hours=1)
_LONGEST_LATE = timedelta(hours=72)
"""How long an agent's journal can still deliver: the grace of a report that does not say another."""
_SETTLED = timedelta(days=2)
"""So long after its grace a period is surely closed, unless the operator was away; then it is said a run later."""
_CHANGED = frozenset({Outcome.WRITTEN, Outcome.CLOSED})
_COUNTED = _CHANGED | {Outcome.RESTATED}
_SPAN_PERIOD = timedelta(hours=1)
"""How often a single report is looked at for late data, until it is closed."""


def due_time(report: ChargebackReport, *, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The scheduled time that has come and was not run yet, and the next one; None where there is none.

    Raises:
        InputError: the schedule, time zone or range is none.
    """
    status, spec = report.status, report.spec
    last = None if status is None else status.last_run_time
    changed = status is not None and status.observed_generation != report.metadata.generation
    if spec.schedule is None:
        return _span_due(report, last=None if changed else last, now=now)
    schedule = parse_schedule(spec.schedule, spec.time_zone)
    latest, following = schedule.latest(now), schedule.following(now)
    created = report.metadata.creation_timestamp or now
    if latest < created:
        return None, following
    return (latest if last is None or latest > last or changed else None), following


def _span_due(
    report: ChargebackReport, *, last: datetime | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    wanted = report.spec.range
    if wanted is None:
        raise InputError("has neither `schedule` nor `range`", where="spec")
    period = span_period(wanted.from_time, wanted.to_time)
    if now < period.end:
        return None, period.end
    closes = period.end + timedelta(seconds=report.spec.grace_period_seconds)
    if last is None:
        return now, None
    if last >= closes:
        return None, None
    following = min(last + _SPAN_PERIOD, closes)
    return (now if now >= following else None), following


async def first_open(api: ClusterApi, *, now: datetime) -> datetime:
    """Start of the oldest period of any report that is open; without reports, of the month that would be.

    Args:
        api: the API server.
        now: the time.

    Raises:
        GpuwasteError: the API server did not answer.
    """
    starts: list[datetime] = []
    # Without our definitions, which may not be installed yet, there is no page.
    with contextlib.suppress(NotFoundError):
        async for page in list_pages(api, CHARGEBACK_REPORTS, limit=_PAGE):
            for body in page.items:
                with contextlib.suppress(InputError):
                    starts += _start_of(_parsed(body), now=now)
    return min(starts, default=period_at(now - _LONGEST_LATE, "month").start)


def _parsed(body: Json) -> ChargebackReport:
    """A report of a list, whose items come without their kind."""
    kind = {"apiVersion": CHARGEBACK_REPORTS.api_version, "kind": CHARGEBACK_REPORTS.kind}
    return ChargebackReport.parse({**body, **kind})


@dataclass(slots=True, kw_only=True)
class Chargeback:
    """Looks at all reports now and then, and runs those that are due, one after the other.

    Attributes:
        api: the API server.
        ledger: where the ledger lies.
        cluster: name in the ledger.
        generator_version: version of this program.
        look_period_seconds: from one look at the objects to the next.
        metrics: counts runs and periods.
        now: the clock.
        sleep: waits.
        open_since: start of the oldest period of any report that the last look found open.
        needed_since: start of the oldest one that was open or can still be restated.
        changes_for: how long after its end an hour of the ledger can still change.
        looked: whether a look has seen all reports.
    """

    api: ClusterApi
    ledger: Store
    cluster: str
    generator_version: str
    look_period_seconds: float
    metrics: OperatorMetrics
    now: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    changes_for: timedelta = timedelta(days=35)
    open_since: datetime | None = None
    needed_since: datetime | None = None
    looked: bool = False
    _retry: dict[str, tuple[datetime, timedelta]] = field(default_factory=dict)
    _laid_out: set[str] = field(default_factory=set)
    _settled: dict[str, dict[str, str]] = field(default_factory=dict)

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            try:
                await self.look()
            except GpuwasteError as error:
                _log.warning("reports not looked at: %s", error)
            await self.sleep(self.look_period_seconds)

    async def look(self) -> None:
        """Run every report that is due.

        Raises:
            GpuwasteError: the API server did not answer.
        """
        starts: list[datetime] = []
        needed: list[datetime] = []
        async for page in list_pages(self.api, CHARGEBACK_REPORTS, limit=_PAGE):
            for body in page.items:
                report = await self._look_at(body)
                if report is not None:
                    starts += _start_of(report, now=self.now())
                    needed += _start_of(report, now=self.now(), changes_for=self.changes_for)
        self.open_since, self.needed_since = min(starts, default=None), min(needed, default=None)
        self.looked = True

    async def _look_at(self, body: Json) -> ChargebackReport | None:
        """Run a report if it is due. Returns it, unless it goes or is none."""
        if body["metadata"].get("deletionTimestamp"):
            return None
        # Items of a list come without their kind.
        body = {**body, "apiVersion": CHARGEBACK_REPORTS.api_version, "kind": CHARGEBACK_REPORTS.kind}
        name = body["metadata"]["name"]
        try:
            report = ChargebackReport.parse(body)
        except InputError as error:
            _log.warning("report %s: %s", name, error)
            return None
        await self._run_if_due(body, report, self.now())
        return report

    async def _run_if_due(self, body: Json, report: ChargebackReport, now: datetime) -> None:
        name = report.metadata.name
        try:
            due, following = due_time(report, now=now)
        except InputError as error:
            await self._say(body, report, failed_status(report, Reason.INVALID, f"{error}.", now=now))
            return
        if due is None:
            if report.status is None and following is not None:
                await self._say(body, report, waiting_status(report, following=following, now=now))
            return
        if name in self._retry and now < self._retry[name][0]:
            return
        await self._run(body, report, due, following)

    async def _run(self, body: Json, report: ChargebackReport, due: datetime, following: datetime | None) -> None:
        name = report.metadata.name
        now = self.now()
        try:
            results, run = await asyncio.to_thread(self._publish, report, due, following, now)
        except GpuwasteError as error:
            wait = min(self._retry[name][1] * 2, _MAX_RETRY) if name in self._retry else _RETRY
            self._retry[name] = (now + wait, wait)
            self.metrics.report_runs.labels("failed").inc()
            _log.warning("report %s not written: %s", name, error)
            await self._say(body, report, failed_status(report, Reason.WRITE_FAILED, f"{error}.", now=now))
            await self._tell(body, "Warning", "ReportFailed", f"{error}.")
            return
        self._retry.pop(name, None)
        self.metrics.report_runs.labels("written").inc()
        await self._say(body, report, run_status(report, run, now=now))
        for result in results:
            await self._tell_result(body, result)

    def _publish(
        self, report: ChargebackReport, due: datetime, following: datetime | None, now: datetime
    ) -> tuple[list[Result], Run]:
        """Runs in a thread: dividing a month of a large cluster takes seconds."""
        try:
            with nullcontext() if report.spec.bill_url is None else local_bill(report.spec.bill_url) as bill:
                publisher = publisher_for(
                    report,
                    ledger=self.ledger,
                    cluster=self.cluster,
                    generator_version=self.generator_version,
                    bill=bill,
                )
                settled = self._settled.setdefault(report.metadata.name, {})
                results = publish_due(publisher, report, due=due, now=now, settled=settled)
                self._lay_out(publisher, report, results)
        except pa.ArrowException as error:
            what = " ".join(str(error).split())
            raise InputError(f"cannot be reported: {what}", where="ledger") from error
        except OSError as error:  # a full disk, a folder that may not be written: another look may find it mended
            raise UnreachableError(
                f"{error.filename or 'files'}: cannot be written: {error.strerror or error}"
            ) from error
        archive = publisher.archive
        open_from = [one.period.start for one in results if one.manifest is not None and not one.manifest.closed]
        manifests, restated = _newest(archive, since=min([now - publisher.grace - _SETTLED, *open_from]))
        run = Run(manifests=manifests, restatements=restated, at=due, following=following, url=archive.url)
        return results, run

    def _lay_out(self, publisher: Publisher, report: ChargebackReport, results: list[Result]) -> None:
        """Write what other tools import, where something changed, and once after a start for what a kill left."""
        name = report.metadata.name
        changed = [one.period for one in results if one.outcome in _CHANGED]
        periods = changed if name in self._laid_out else [one.period for one in results]
        for layout in report.spec.layouts:
            write_layout(publisher.archive, layout.lower(), months_of(periods))
        self._laid_out.add(name)

    async def _say(self, body: Json, report: ChargebackReport, status: ChargebackReportStatus) -> None:
        if report.status == status:
            return
        manifest = report.model_copy(update={"status": status}).status_manifest()
        try:
            await self.api.apply_status(CHARGEBACK_REPORTS, manifest, field_manager=_MANAGER, force=True)
        except GpuwasteError as error:  # the next look says it again
            _log.warning("status of report %s not written: %s", body["metadata"]["name"], error)

    async def _tell_result(self, body: Json, result: Result) -> None:
        manifest, period = result.manifest, result.period.name
        if manifest is None:
            return
        if result.outcome in _COUNTED:
            self.metrics.report_periods.labels(result.outcome.lower()).inc()
        if result.outcome == Outcome.CLOSED:
            message = f"{period} is closed: {manifest.rows} rows, totals {manifest.totals_sha256}."
            await self._tell(body, "Normal", "PeriodClosed", message)
        elif result.outcome == Outcome.RESTATED:
            carried = f"; {manifest.carried_in} carries the difference" if manifest.carried_in else ""
            message = f"Restatement {manifest.revision} of {period} is published beside it{carried}."
            await self._tell(body, "Normal", "PeriodRestated", message)
        elif result.outcome == Outcome.DIFFERS:
            message = f"{period} is closed; its ledger was written to since, which `restatements` withholds."
            await self._tell(body, "Warning", "PeriodDiffers", message)

    async def _tell(self, body: Json, type_: Any, reason: str, message: str) -> None:
        try:
            event = event_about(body, type_=type_, reason=reason, message=message, now=self.now())
            await post_event(self.api, event)
        except GpuwasteError as error:  # an event is no state; the status says the same
            _log.warning("event not written: %s", error)


def _start_of(report: ChargebackReport, *, now: datetime, changes_for: timedelta = timedelta()) -> list[datetime]:
    try:
        since = open_since(report, now=now, changes_for=changes_for)
    except InputError:  # said in its status
        return []
    return [] if since is None else [since]


def _newest(archive: Archive, *, since: datetime) -> tuple[list[Manifest], int]:
    """Manifests of the newest periods, as many as a status shows and all that may be open; and all restatements."""
    numbers: dict[Period, list[int]] = defaultdict(list)
    for period, number in archive.restatements():
        numbers[period].append(number)
    known = archive.periods()
    shown = [one for at, one in enumerate(known) if at >= len(known) - MAX_FILES or one.end > since]
    found = [manifest for one in shown for manifest in archive.revisions(one, numbers[one])]
    return found, sum(map(len, numbers.values()))


def publish_due(
    publisher: Publisher, report: ChargebackReport, *, due: datetime, now: datetime, settled: dict[str, str]
) -> list[Result]:
    """Publish every complete period of a report, close those whose grace is over, and restate what changed since.

    Args:
        publisher: of the report's series.
        report: what is asked for.
        due: the scheduled time; periods that end after it wait for the next.
        now: decides what is closed.
        settled: hashes of inputs that were found to change no charge, by period; added to, so that a period whose
            ledger was written anew with the same rows is not made again at every run.

    Raises:
        InputError: a period cannot be made.
        UnreachableError: ledger or archive did not answer.
    """
    periods = _periods(publisher, report, due=due, now=now)
    results = publisher.publish(periods, now=now)
    if report.spec.restatements == Restatement.WITHHOLD:
        return results
    restater = Restater(publisher=publisher)
    reason = "the ledger changed after the period was closed"
    done = {}
    for result in results:
        if result.outcome != Outcome.DIFFERS:
            continue
        name = result.period.name
        if settled.get(name) == result.input_sha256:
            done[result.period] = replace(result, outcome=Outcome.FINAL)
            continue
        done[result.period] = restater.restate(result.period, reason=reason, now=now)
        if done[result.period].outcome == Outcome.FINAL:
            settled[name] = result.input_sha256
    if any(result.outcome == Outcome.RESTATED for result in done.values()):
        again = publisher.publish([one for one in periods if one not in done], now=now)
        results = _merged(results, again)
    return [done.get(result.period, result) for result in results]


def _merged(first: list[Result], second: list[Result]) -> list[Result]:
    """The second time only what changed counts."""
    changed = {one.period: one for one in second if one.outcome in {Outcome.WRITTEN, Outcome.CLOSED}}
    return [changed.get(one.period, one) for one in first]


def _periods(publisher: Publisher, report: ChargebackReport, *, due: datetime, now: datetime) -> list[Period]:
    spec = report.spec
    if spec.range is not None:
        return [span_period(spec.range.from_time, spec.range.to_time)]
    length = publisher.series.length
    created = report.metadata.creation_timestamp or now
    # The period that was complete when the report was asked for is its first.
    first = period_at(period_at(created, length).start - timedelta(microseconds=1), length)
    complete = [one for one in publisher.due(first.start, due) if one.end <= due]
    if spec.bill_url is not None:  # a provider may correct any month, and there are few
        return complete
    known = set(publisher.archive.periods())
    recent = now - timedelta(seconds=spec.grace_period_seconds) - _LATE_DATA
    # Whoever was away for long may have left older periods open.
    closed = report.status.closed_through_time if report.status else None
    last = recent if closed is not None and closed >= recent else closed
    return [one for one in complete if last is None or one.end > last or one not in known]
