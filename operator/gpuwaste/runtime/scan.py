"""A scan: hours of a Prometheus and one look at a cluster, through the same ledger as everything else.

Memory is bounded by an hour: each is computed, written to a store and let go; sums are read off the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from gpuwaste.ledger.activity import PodActivity, merge_activity, pod_activity
from gpuwaste.ledger.columns import COMPUTED_FROM
from gpuwaste.ledger.gpus import gpu_facts
from gpuwaste.ledger.hour import build_hour
from gpuwaste.ledger.inputs import HourInputs, InputStore
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.write import hour_file, update_hour
from gpuwaste.model.facts import Fact, merge_facts
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.facts import price_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from gpuwaste.ingest.prometheus.source import PrometheusSource, SourceHour, StoreFacts
    from gpuwaste.ledger.hour import HourRules
    from gpuwaste.ledger.store import Store
    from gpuwaste.pricing.facts import PriceSources

__all__ = ["ScanLedger", "read_hours"]


@dataclass(slots=True, kw_only=True)
class ScanLedger:
    """Ledger hours of a scan.

    Attributes:
        store: where they lie.
        cluster: name of the cluster.
        hours: those for which the store knew anything, oldest first.
        through: end of the last window.
        nodes: names of those whose GPUs were seen.
        activity: peak memory and media engines of pods.
        findings: what had to be noted while hours were computed.
    """

    store: Store
    cluster: str
    through: datetime
    hours: list[datetime] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    activity: PodActivity = field(default_factory=PodActivity)
    findings: dict[str, None] = field(default_factory=dict)

    def rows(self) -> ds.Dataset:
        """All rows, read from the files when they are asked for."""
        files = [f"{self.store.root}/{hour_file(self.cluster, hour)}" for hour in self.hours]
        return ds.dataset(files, schema=LEDGER_SCHEMA, format="parquet", filesystem=self.store.filesystem)

    def batches(self, filter_: ds.Expression, *, most_rows: int) -> Iterator[pa.Table]:
        """Rows of whole workloads, about so many at once.

        Args:
            filter_: which rows.
            most_rows: a workload with more comes alone.
        """
        rows = self.rows()
        names = rows.to_table(columns=["workload_name"], filter=filter_).group_by(["workload_name"])
        batch: list[str] = []
        size = 0
        for row in names.aggregate([("workload_name", "count")]).sort_by("workload_name").to_pylist():
            if batch and size + row["workload_name_count"] > most_rows:
                yield _taken(rows, filter_, batch)
                batch, size = [], 0
            batch.append(row["workload_name"])
            size += row["workload_name_count"]
        if batch:
            yield _taken(rows, filter_, batch)


def _taken(rows: ds.Dataset, filter_: ds.Expression, names: list[str]) -> pa.Table:
    """Rows of some workloads, a file after the other: hours read ahead would lie in memory with all their columns."""
    wanted = filter_ & ds.field("workload_name").isin(names)
    return rows.to_table(filter=wanted, batch_readahead=1, fragment_readahead=1)


def read_hours(
    source: PrometheusSource,
    looked: StoreFacts,
    facts: Sequence[Fact],
    *,
    start: datetime,
    end: datetime,
    rules: HourRules,
    prices: PriceSources,
    store: Store,
    keep_inputs: bool,
    progress: Callable[[int, int], None],
) -> ScanLedger:
    """Compute the ledger of every hour of [start, end) that the source knows anything of.

    Args:
        source: where windows come from.
        looked: what it has.
        facts: what the API server tells.
        start: a full hour.
        end: up to when; the last hour may be a part of one.
        rules: of the ledger.
        prices: where prices come from.
        store: where hours are written.
        keep_inputs: whether windows and facts are stored as well, so that the ledger can be computed again. Only
            whole hours are then written.
        progress: called with hours done and all.
    """
    found = ScanLedger(store=store, cluster=source.cluster, through=end)
    total = -(-(end - start) // HOUR)
    inputs = InputStore.open(store, source.cluster) if keep_inputs else None
    seen: list[PodActivity] = []
    around = _Facts(facts, prices)
    for number, hour in enumerate(source.read(start, end, facts=facts, looked=looked), start=1):
        if hour.windows.num_rows:
            known = around.of(hour)
            if inputs is not None:
                findings = _stored(inputs, store, hour, known, rules)
            else:
                findings = _computed(store, hour, known, rules, cluster=source.cluster, end=end)
            found.findings |= dict.fromkeys(findings)
            seen.append(pod_activity(hour.windows))
            found.hours.append(hour.hour)
            found.nodes.update(pc.unique(hour.windows["node"]).to_pylist())
        progress(number, total)
    if found.hours:
        found.through = min(end, found.hours[-1] + HOUR)
    found.activity = merge_activity(seen)
    return found


class _Facts:
    """Facts of one hour after the other; prices are worked out again only when nodes or GPUs change.

    Args:
        facts: what the API server tells, sorted by key.
        prices: where prices come from.
    """

    def __init__(self, facts: Sequence[Fact], prices: PriceSources) -> None:
        self._facts, self._prices = facts, prices
        self._priced: tuple[object, list[Fact]] = (None, [])

    def of(self, hour: SourceHour) -> list[Fact]:
        """All facts of an hour, prices among them, sorted by key."""
        end = hour.hour + HOUR
        mine = [fact for fact in self._facts if fact.overlaps(hour.hour, end) or fact.kind in ("owner", "namespace")]
        known = merge_facts(list(hour.facts), mine) if hour.facts else mine
        described = gpu_facts(hour.windows)
        nodes = [fact for fact in known if fact.kind in ("node", "reservation")]
        bills = hour.hour if self._prices.bills is not None else None
        key = (bills, [fact.key for fact in nodes], [(fact.uid, fact.data) for fact in described])
        if self._priced[0] != key:
            self._priced = (key, price_facts([*nodes, *described], sources=self._prices, hour=hour.hour))
        return merge_facts(known, [fact for fact in self._priced[1] if fact.overlaps(hour.hour, end)])


def _stored(inputs: InputStore, store: Store, hour: SourceHour, facts: list[Fact], rules: HourRules) -> tuple[str, ...]:
    """Facts first: an hour with windows has its facts, wherever a kill comes."""
    inputs.write_facts(hour.hour, facts)
    inputs.append_windows(hour.windows)
    built = update_hour(inputs, store, hour.hour, rules)
    return built.findings if built else ()


def _computed(
    store: Store, hour: SourceHour, facts: list[Fact], rules: HourRules, *, cluster: str, end: datetime
) -> tuple[str, ...]:
    windows = hour.windows.select(list(COMPUTED_FROM))
    inputs = HourInputs(cluster=cluster, hour=hour.hour, windows=windows, facts=tuple(facts))
    built = build_hour(inputs, rules, through=end if end < hour.hour + HOUR else None, gpus_only=True)
    store.write_table(hour_file(cluster, hour.hour), built.table)
    return built.findings
