"""A scan: hours of a Prometheus and one look at a cluster, through the same ledger as everything else.

Memory is bounded by an hour: each is computed, written to a store and let go; sums are read off the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from gpuwaste.ledger.activity import ACTIVITY_COLUMNS, PodActivity, merge_activity, pod_activity
from gpuwaste.ledger.catalog import HourPlace, find_hours
from gpuwaste.ledger.columns import COMPUTED_FROM
from gpuwaste.ledger.gpus import described_gpus, gpu_facts
from gpuwaste.ledger.hour import HourBuilder
from gpuwaste.ledger.inputs import HourInputs, InputStore
from gpuwaste.ledger.read import read_hours as read_stored
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.write import hour_file, update_hour
from gpuwaste.model.facts import Fact, merge_facts
from gpuwaste.model.grouping import only
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.facts import price_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from gpuwaste.ingest.prometheus.source import PrometheusSource, SourceHour, StoreFacts
    from gpuwaste.ledger.hour import HourRules
    from gpuwaste.ledger.store import Store
    from gpuwaste.pricing.facts import PriceSources

__all__ = ["READ_COLUMNS", "ScanLedger", "read_hours"]

READ_COLUMNS = tuple(dict.fromkeys((*COMPUTED_FROM, *ACTIVITY_COLUMNS)))
"""Columns of usage windows that a scan reads which stores none."""

_ROWS_AT_ONCE = 300_000
"""Rows that lie in memory together, about 200 bytes each."""


@dataclass(slots=True, kw_only=True)
class ScanLedger:
    """Ledger hours of a scan.

    Attributes:
        store: where they lie.
        cluster: name of the cluster.
        hours: those for which the store knew anything, oldest first.
        count: how many rows they have.
        through: end of the last window.
        nodes: names of those whose GPUs were seen.
        activity: peak memory and media engines of pods.
        findings: what had to be noted while hours were computed.
    """

    store: Store
    cluster: str
    through: datetime
    hours: list[datetime] = field(default_factory=list)
    count: int = 0
    nodes: set[str] = field(default_factory=set)
    activity: PodActivity = field(default_factory=PodActivity)
    findings: dict[str, None] = field(default_factory=dict)

    def places(self) -> list[HourPlace]:
        """Where its hours lie: in a ledger that was there before, some may be in the files of their days."""
        if not self.hours:
            return []
        end = self.hours[-1] + HOUR
        found = find_hours(self.store, start=self.hours[0], end=end).get(self.cluster, {})
        return [found[hour] for hour in self.hours]

    def rows(self, columns: Sequence[str]) -> pa.Table | ds.Dataset:
        """Some columns of all rows; where these are too many for memory, still to be read from the files."""
        places = self.places()
        if self.count <= _ROWS_AT_ONCE or any(place.of_day for place in places):  # a day may have other hours as well
            return self._read(columns)
        files = [f"{self.store.root}/{place.name}" for place in places]
        return ds.dataset(files, schema=LEDGER_SCHEMA, format="parquet", filesystem=self.store.filesystem)

    def holders(self, columns: Sequence[str], *, most_rows: int = _ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """Rows of the holders of GPUs, all rows of a workload together, about so many rows at once.

        Args:
            columns: which columns, `resource`, `row_kind` and `workload_name` among them.
            most_rows: a workload with more comes alone.
        """
        if self.count <= most_rows:
            yield self._read(columns, "holder")
            return
        names = self._read(("resource", "row_kind", "workload_name"), "holder")["workload_name"].cast(pa.string())
        batch: list[str] = []
        size = 0
        for name, count in sorted(tuple(one.values()) for one in pc.value_counts(names).to_pylist()):
            if batch and size + count > most_rows:
                yield self._read(columns, "holder", pa.array(batch))
                batch, size = [], 0
            batch.append(name)
            size += count
        if batch:
            yield self._read(columns, "holder", pa.array(batch))

    def free(self, columns: Sequence[str]) -> pa.Table:
        """Rows of what nobody holds of GPUs: some columns, `resource` and `row_kind` among them."""
        return self._read(columns, "free")

    def _read(self, columns: Sequence[str], row_kind: str = "", workloads: pa.Array | None = None) -> pa.Table:
        """Rows of GPUs, a file after the other; texts as dictionaries, which is a quarter of the memory.

        Args:
            columns: which columns.
            row_kind: rows of this kind alone.
            workloads: rows of workloads of these names alone.
        """
        tables = []
        for _, rows in read_stored(self.store, self.places(), columns=columns):
            table = only(rows, pc.equal(rows["resource"], "gpu"))
            if row_kind:
                table = only(table, pc.equal(table["row_kind"], row_kind))
            if workloads is not None:
                table = only(table, pc.is_in(table["workload_name"].cast(pa.string()), workloads))
            tables.append(table)
        return pa.concat_tables(tables).unify_dictionaries()


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
    around, builder = _Facts(facts, prices), HourBuilder(rules)
    for number, hour in enumerate(source.read(start, end, facts=facts, looked=looked), start=1):
        if hour.windows.num_rows:
            known = around.of(hour)
            if inputs is not None:
                findings = _stored(inputs, store, hour, known, rules)
            else:
                findings = _computed(store, hour, known, builder, cluster=source.cluster, end=end)
            found.findings |= dict.fromkeys(findings)
            seen.append(pod_activity(hour.windows))
            found.hours.append(hour.hour)
            found.nodes.update(pc.unique(hour.windows["node"]).to_pylist())
        del hour  # before the next one is made: the windows of a large fleet are the most of all memory
        progress(number, total)
    if found.hours:
        found.through = min(end, found.hours[-1] + HOUR)
    found.count = sum(store.row_count(name) for name in {place.name for place in found.places()})
    found.activity = merge_activity(seen)
    return found


class _Facts:
    """Facts of one hour after the other; worked out again only where they change.

    Args:
        facts: what the API server tells, sorted by key.
        prices: where prices come from.
    """

    def __init__(self, facts: Sequence[Fact], prices: PriceSources) -> None:
        self._facts, self._prices = facts, prices
        self._priced: tuple[object, list[Fact]] = (None, [])
        self._known: tuple[object, list[Fact]] = (None, [])

    def of(self, hour: SourceHour) -> list[Fact]:
        """All facts of an hour, prices among them, sorted by key; the same list where they are those of the last."""
        end = hour.hour + HOUR
        mine = [fact for fact in self._facts if fact.overlaps(hour.hour, end) or fact.kind in ("owner", "namespace")]
        prices = [fact for fact in self._prices_of(hour, mine) if fact.overlaps(hour.hour, end)]
        key = (mine, hour.facts, prices)
        if self._known[0] != key:
            self._known = (key, merge_facts(list(hour.facts), mine, prices))
        return self._known[1]

    def _prices_of(self, hour: SourceHour, mine: list[Fact]) -> list[Fact]:
        wanted = [fact for fact in (*hour.facts, *mine) if fact.kind in ("node", "reservation")]
        nodes = merge_facts(wanted)
        by_hour = self._prices.bills is not None or any(fact.kind == "reservation" for fact in nodes)
        described = [(node, uid, body) for node, uid, _, body in described_gpus(hour.windows)]
        key = (hour.hour if by_hour else None, self._prices.own_at(hour.hour), nodes, described)
        if self._priced[0] != key:
            priced = price_facts([*nodes, *gpu_facts(hour.windows)], sources=self._prices, hour=hour.hour)
            self._priced = (key, priced)
        return self._priced[1]


def _stored(inputs: InputStore, store: Store, hour: SourceHour, facts: list[Fact], rules: HourRules) -> tuple[str, ...]:
    """Facts first: an hour with windows has its facts, wherever a kill comes."""
    inputs.write_facts(hour.hour, facts)
    inputs.append_windows(hour.windows)
    built = update_hour(inputs, store, hour.hour, rules)
    return built.findings if built else ()


def _computed(
    store: Store, hour: SourceHour, facts: list[Fact], builder: HourBuilder, *, cluster: str, end: datetime
) -> tuple[str, ...]:
    windows = hour.windows.select(list(COMPUTED_FROM))
    inputs = HourInputs(cluster=cluster, hour=hour.hour, windows=windows, facts=tuple(facts))
    built = builder.build(inputs, through=end if end < hour.hour + HOUR else None, gpus_only=True)
    store.write_table(hour_file(cluster, hour.hour), built.table)
    return built.findings
