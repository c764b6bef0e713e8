"""`ChargebackReport`: which bills are written, for whom, when, and where the files went."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gpuwaste.api.base import ApiModel, Count, Currency, DisplayText, Generation, Resource, Time, Url
from gpuwaste.api.common import Amount
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, Format, ListMap, ListSet, rules
from gpuwaste.api.policy import Cron, TimeZone

__all__ = [
    "ChargebackReport",
    "ChargebackReportSpec",
    "ChargebackReportStatus",
    "FileState",
    "ReportFile",
    "ReportFormat",
    "ReportGrain",
    "ReportGrouping",
    "ReportLayout",
    "ReportPeriod",
    "ReportRange",
    "Restatement",
]


METHOD_PATTERN = r"^gpuwaste-[a-z]+-v[0-9]+(\+proportional(\.[a-z]+){1,16})?(\+reservation-owner(\.[a-z]+){1,8})?$"
ProviderName = Annotated[str, Field(pattern=r"^[ -~]*[!-~][ -~]*$", min_length=1, max_length=128)]


class ReportPeriod(StrEnum):
    """How much time one report of a schedule covers; each run publishes those that are complete and not yet closed."""

    HOUR = "Hour"
    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"


class ReportGrouping(StrEnum):
    """Whom the cost is split by."""

    NAMESPACE = "Namespace"
    WORKLOAD = "Workload"
    TEAM = "Team"


class ReportGrain(StrEnum):
    """How much time one charge of a report covers."""

    HOUR = "Hour"
    DAY = "Day"


class ReportFormat(StrEnum):
    """What can be written: FOCUS rows as Parquet or CSV, totals by receiver as JSON, a page for people as HTML."""

    FOCUS = "FOCUS"
    CSV = "CSV"
    JSON = "JSON"
    HTML = "HTML"


class ReportLayout(StrEnum):
    """Tools whose documented import formats can be written from published bills."""

    VANTAGE = "Vantage"
    CLOUD_ZERO = "CloudZero"
    FINOUT = "Finout"
    OPEN_COST = "OpenCost"


class Restatement(StrEnum):
    """What becomes of late data for a period that is closed."""

    PUBLISH = "Publish"
    WITHHOLD = "Withhold"


class FileState(StrEnum):
    """Whether a file may still be replaced."""

    OPEN = "Open"
    CLOSED = "Closed"


class ReportRange(ApiModel):
    """The time of a single report."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel("self.toTime > self.fromTime", "`toTime` must be later than `fromTime`", field_path=".toTime")
        )
    )
    from_time: Time
    """is the first moment that the report covers."""
    to_time: Time
    """is the end of the time that the report covers."""


class ChargebackReportSpec(ApiModel):
    """What is to be written: a report at each time of a schedule, or a single one."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra=rules(
            Cel("has(self.schedule) != has(self.range)", "`spec` must have exactly one of `schedule` and `range`"),
            Cel("has(self.schedule) == has(self.period)", "`period` must be set together with `schedule`"),
            Cel(
                "!has(self.period) || self.period != 'Hour' || self.grain == 'Hour'",
                "`grain` must be 'Hour' where `period` is 'Hour'",
                field_path=".grain",
            ),
            Cel(
                "!has(self.billURL) || (has(self.period) && self.period == 'Month')",
                "`period` must be 'Month' where `billURL` is set",
                field_path=".period",
            ),
            Cel(
                "!has(self.billURL) || !self.formats.exists(f, f == 'HTML')",
                "`formats` must not hold 'HTML' where `billURL` is set",
                field_path=".formats",
            ),
        )
    )
    schedule: Cron | None = None
    """is when to write a report, as five cron fields or @daily and the like."""
    time_zone: TimeZone = "UTC"
    """is the time zone of the schedule, by its IANA name; bills themselves are in UTC."""
    period: ReportPeriod | None = None
    """is how much time each report of the schedule covers: an hour, day, week or month in UTC."""
    range: ReportRange | None = None
    """is the time of a single report."""
    group_by: ReportGrouping = ReportGrouping.TEAM
    """is whom the cost is split by."""
    grain: ReportGrain = ReportGrain.HOUR
    """is how much time one charge covers."""
    method: Annotated[str, Field(pattern=METHOD_PATTERN, min_length=1, max_length=128)] = "gpuwaste-held-v1"
    """is the id of the method by which a node's cost is divided."""
    currency: Currency | None = None
    """is the one currency to report, for a ledger that has several."""
    bill_url: Url | None = None
    """is the file, folder or object store of the provider's FOCUS bill, whose rows are divided instead, by month."""
    provider: ProviderName = "Platform"
    """is who provides the nodes, for the provider columns of charges that no bill names."""
    grace_period_seconds: Annotated[int, Field(ge=0, le=366 * 86_400), Format("int32")] = 259_200
    """is how long after its end a period stays open for late data; then it is closed and never changes."""
    restatements: Restatement = Restatement.PUBLISH
    """is Publish to publish late data for a closed period beside it and carry the difference into the next report."""
    formats: Annotated[tuple[ReportFormat, ...], Field(min_length=1, max_length=4), ListSet()] = (ReportFormat.FOCUS,)
    """are the kinds of files to write; the FOCUS file is written in any case."""
    layouts: Annotated[tuple[ReportLayout, ...], Field(max_length=4), ListSet()] = ()
    """are the tools for which published months are written below layouts as they import them."""
    focus_version: Annotated[str, Field(pattern=r"^1\.[34]$", max_length=3)] = "1.3"
    """is the version of FOCUS that FOCUS files follow."""
    destination_url: Url
    """is the folder or object store that the files go to."""


class ReportFile(ApiModel):
    """A file that was written."""

    url: Url
    """is where the file lies."""
    format: ReportFormat
    """is what kind of file it is."""
    from_time: Time
    """is the first moment that the file covers."""
    to_time: Time
    """is the end of the time that the file covers."""
    state: FileState
    """is Open until the file is never replaced again."""
    revision: Count = 0
    """is 0 for what was published first, else the number of the restatement."""
    size_bytes: Annotated[int, Field(ge=0, le=2**53 - 1), Format("int64")]
    """is the size of the file."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """is the SHA-256 of the file."""


class ChargebackReportStatus(ApiModel):
    """What was written and what comes next."""

    conditions: Conditions = ()
    """are the observations of the object's state; Ready sums them up."""
    observed_generation: Generation | None = None
    """is the generation of the spec that the status is of."""
    last_run_time: Time | None = None
    """is when files were last written."""
    next_run_time: Time | None = None
    """is when files will next be written."""
    closed_through_time: Time | None = None
    """is the end of the newest closed period before which none is open."""
    restatement_count: Count = 0
    """is the number of restatements of all periods."""
    total: Amount | None = None
    """is the cost that the last files hold, rounded to 12 decimals; absent if they are in several currencies."""
    totals_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)] | None = None
    """is the hash of the exact totals of the last files, as their manifest has it."""
    files: Annotated[tuple[ReportFile, ...], Field(max_length=64), ListMap("url")] = ()
    """are the newest files, newest first."""
    summary: DisplayText | None = None
    """is the time and total of the last report as text for kubectl's table."""


class ChargebackReport(Resource):
    """A bill by team, namespace or workload: period, grouping, schedule, and where the files went."""

    info: ClassVar[KindInfo] = KindInfo(
        kind="ChargebackReport",
        plural="chargebackreports",
        scope=Scope.CLUSTER,
        columns=(
            Column(name="Group By", path=".spec.groupBy"),
            Column(name="Schedule", path=".spec.schedule"),
            Column(name="Last Report", path=".status.summary"),
            Column(name="Next Run", path=".status.nextRunTime"),
            Column(name="Ready", path='.status.conditions[?(@.type=="Ready")].status'),
            Column(name="Closed Through", path=".status.closedThroughTime", wide=True),
            Column(name="Destination", path=".spec.destinationURL", wide=True),
        ),
    )
    spec: ChargebackReportSpec
    """is what is to be written."""
    status: ChargebackReportStatus | None = None
    """is what was written and what comes next."""
