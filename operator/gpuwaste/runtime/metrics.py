"""What the operator says of itself to Prometheus; labels are bounded, and no name of a pod or person is one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["OperatorMetrics"]


class OperatorMetrics:
    """All metrics of the operator, in a registry of their own."""

    def __init__(self) -> None:
        """Register everything at zero, so that a rate can be taken from the first scrape on."""
        self.registry = CollectorRegistry()
        own = self.registry
        self.records = Counter("gpuwaste_pulled_records", "Records of usage windows taken in.", registry=own)
        self.pull_failures = Counter("gpuwaste_pull_failures", "Agents that did not answer a pull.", registry=own)
        self.received = Counter("gpuwaste_received_records", "Records that leaving agents handed over.", registry=own)
        self.refused_batches = Counter(
            "gpuwaste_refused_batches", "Batches of leaving agents that were refused.", registry=own
        )
        self.agents = Gauge("gpuwaste_agents", "Agents that the last pull asked.", registry=own)
        self.newest_window = Gauge(
            "gpuwaste_newest_window_timestamp_seconds", "End of the newest usage window, Unix time.", registry=own
        )
        self.pass_seconds = Histogram(
            "gpuwaste_pass_duration_seconds",
            "Time of one pass of the decide loop, by part.",
            ["part"],
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60),
            registry=own,
        )
        self.last_success = Gauge(
            "gpuwaste_last_successful_pass_timestamp_seconds", "End of the last pass without an error.", registry=own
        )
        self.pass_failures = Counter("gpuwaste_pass_failures", "Passes that ended in an error.", registry=own)
        self.dirty_hours = Gauge(
            "gpuwaste_ledger_hours_pending", "Ledger hours still to be brought up to date.", registry=own
        )
        self.volume_used = Gauge(
            "gpuwaste_store_volume_used_ratio",
            "How full the volume of inputs and ledger is, 0 to 1; 0 with an object store.",
            registry=own,
        )
        self.compacted_days = Counter(
            "gpuwaste_compacted_days", "Days of the ledger whose hours were put together.", registry=own
        )
        self.expired_days = Counter(
            "gpuwaste_expired_ledger_days", "Days of the ledger that were old and removed.", registry=own
        )
        self.backfill_pending = Gauge(
            "gpuwaste_backfill_hours_pending", "Hours still to be read from Prometheus at this start.", registry=own
        )
        self.backfill_stored = Counter(
            "gpuwaste_backfill_hours", "Hours that were read from Prometheus and stored.", registry=own
        )
        self.expired_hours = Counter(
            "gpuwaste_expired_input_hours", "Hours whose inputs were old and removed.", registry=own
        )
        self.writes = Counter(
            "gpuwaste_object_writes", "Objects written, left alone or removed.", ["result"], registry=own
        )
        self.report_runs = Counter("gpuwaste_report_runs", "Runs of ChargebackReports.", ["result"], registry=own)
        self.report_periods = Counter(
            "gpuwaste_report_periods",
            "Periods of bills written, closed or restated.",
            ["outcome"],
            registry=own,
        )
        for result in ("written", "failed"):
            self.report_runs.labels(result)
        for outcome in ("written", "closed", "restated"):
            self.report_periods.labels(outcome)
        for part in ("pull", "ledger", "objects", "plan"):
            self.pass_seconds.labels(part)
        for result in ("written", "unchanged", "removed", "failed"):
            self.writes.labels(result)
