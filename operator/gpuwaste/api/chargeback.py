"""`ChargebackReport`: which bills are written, for whom, when, and where the files went."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from gpuwaste.api.base import ApiModel, DisplayText, Generation, Resource, Time, Url
from gpuwaste.api.common import Amount
from gpuwaste.api.conditions import Conditions
from gpuwaste.api.kindinfo import Column, KindInfo, Scope
from gpuwaste.api.markers import Cel, Format, ListMap, ListSet, rules
from gpuwaste.api.policy import Cron, TimeZone

__all__ = [
    "ChargebackReport",
    "ChargebackReportSpec",
    "ChargebackReportStatus",
    "ReportFile",
    "ReportFormat",
    "ReportGrouping",
    "ReportPeriod",
    "ReportRange",
]


class ReportPeriod(StrEnum):
    """How much time one report of a schedule covers: the last one that is complete."""

    DAY = "Day"
    WEEK = "Week"
    MONTH = "Month"


class ReportGrouping(StrEnum):
    """Whom the cost is split by."""

    NAMESPACE = "Namespace"
    WORKLOAD = "Workload"
    TEAM = "Team"


class ReportFormat(StrEnum):
    """What can be written."""

    FOCUS = "FOCUS"
    CSV = "CSV"
    JSON = "JSON"
    HTML = "HTML"


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
        )
    )
    schedule: Cron | None = None
    """is when to write a report, as five cron fields or @daily and the like."""
    time_zone: TimeZone = "UTC"
    """is the time zone of the schedule, by its IANA name; bills themselves are in UTC."""
    period: ReportPeriod | None = None
    """is how much time each report of the schedule covers: the last day, week or month that is complete."""
    range: ReportRange | None = None
    """is the time of a single report."""
    group_by: ReportGrouping = ReportGrouping.TEAM
    """is whom the cost is split by."""
    formats: Annotated[tuple[ReportFormat, ...], Field(min_length=1, max_length=4), ListSet()] = (ReportFormat.FOCUS,)
    """are the kinds of files to write."""
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
    total: Amount | None = None
    """is the cost that the last files hold, absent if a price is not known."""
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
            Column(name="Destination", path=".spec.destinationURL", wide=True),
        ),
    )
    spec: ChargebackReportSpec
    """is what is to be written."""
    status: ChargebackReportStatus | None = None
    """is what was written and what comes next."""
