"""The whole source: what the store has, and hours of usage windows with the facts that go with them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste.ingest.check import check_windows
from gpuwaste.ingest.prometheus.holdings import find_holdings
from gpuwaste.ingest.prometheus.kube_state import KUBE_STATE_METRICS, kube_state_facts
from gpuwaste.ingest.prometheus.labels import HolderLabels, HostNames
from gpuwaste.ingest.prometheus.metrics import FIGURE_METRICS
from gpuwaste.ingest.prometheus.parents import find_parents
from gpuwaste.ingest.prometheus.readings import ReadPlan, read_readings
from gpuwaste.ingest.prometheus.store import Query
from gpuwaste.ingest.prometheus.windows import LEAD_NS, WindowMaker
from gpuwaste.model.facts import Fact, NodeData, PodData, merge_facts
from gpuwaste.model.units import HOUR, hours_between, to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    import pyarrow as pa

    from gpuwaste.ingest.prometheus.holdings import Holding
    from gpuwaste.ingest.prometheus.parents import Parent
    from gpuwaste.ingest.prometheus.readings import Readings
    from gpuwaste.ingest.prometheus.store import MetricStore

__all__ = ["PrometheusSource", "SourceHour", "StoreFacts", "step_for"]

_STEPS_SECONDS = (60, 300, 900, 1800, 3600)
_WINDOWS_AT_ONCE = 400_000
_CELLS_A_PAGE = 130_000
_MOST_HOURS_A_PAGE = 24
_SKEW_SECONDS = 30.0
_STALE = timedelta(minutes=10)
_AHEAD = timedelta(minutes=10)
_NOBODY = HolderLabels("", "", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What a store has that matters here.

    Attributes:
        metrics: names of ours that it has had within the last day.
        devices: GPUs and MIG instances that it has seen within the last day.
        missing: metrics that it lacks, and what cannot be known without them.
        problems: what is wrong with it, one line each.
        wrong_clock: those of them because of which times may be wrong.
    """

    metrics: frozenset[str]
    devices: int
    missing: dict[str, str]
    problems: tuple[str, ...] = ()
    wrong_clock: tuple[str, ...] = ()

    @property
    def has_devices(self) -> bool:
        """Whether there is anything of dcgm-exporter's."""
        return any(name.startswith("DCGM_") for name in self.metrics)

    @property
    def has_kube_state(self) -> bool:
        """Whether there is anything of kube-state-metrics'."""
        return any(name.startswith("kube_") for name in self.metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHour:
    """Usage windows and facts of one hour.

    Attributes:
        hour: its start.
        windows: rows of WINDOW_SCHEMA, or of its columns that are kept, none where the store knows nothing of the hour.
        facts: what the store alone knows; those that were given are not among them.
    """

    hour: datetime
    windows: pa.Table
    facts: tuple[Fact, ...]


class _Told(NamedTuple):
    """What the store says of some hours: facts that the API server does not tell, all facts, and readings."""

    gone: list[Fact]
    known: list[Fact]
    readings: Readings


def step_for(devices: int, hours: int) -> int:
    """Seconds of a window: a minute, or longer where devices and hours are so many that a laptop would not do."""
    for step in _STEPS_SECONDS:
        if devices * hours * 3600 // step <= _WINDOWS_AT_ONCE:
            return step
    return _STEPS_SECONDS[-1]


@dataclass(slots=True, kw_only=True)
class PrometheusSource:
    """Reads hours from a store. Everything here blocks: call it in a thread.

    Attributes:
        store: where to ask.
        cluster: name of the cluster in the windows.
        step_seconds: length of a window.
        columns: of the windows, those that are kept once all are checked; none: all.
        notes: what could not be told from the answers, each once.
    """

    store: MetricStore
    cluster: str
    step_seconds: int = 60
    columns: tuple[str, ...] = ()
    notes: dict[str, None] = field(default_factory=dict)
    _largest: dict[str, dict[str, float]] = field(default_factory=dict)

    def look(self, now: datetime, *, until: datetime | None = None) -> StoreFacts:
        """What the store has had within a day, and whether its clock and ours agree.

        Args:
            now: the time.
            until: the end of that day, where it is not now.
        """
        end = until or now
        wanted = [*(name for metric in FIGURE_METRICS for name in metric.names), *KUBE_STATE_METRICS, *_MORE]
        matching = '{__name__=~"' + "|".join(wanted) + '",$selector}'
        query = Query(template=f"count by (__name__) ({matching})")
        found: dict[str, int] = {}
        for at in (end, end - timedelta(hours=6), end - timedelta(hours=24)):
            found = self._counted(query, at, found)
        if not any(name.startswith("DCGM_") for name in found):
            # A store looks back five minutes. Only where that finds no device is the whole day read, which is dear.
            found = self._counted(Query(template=f"count by (__name__) (last_over_time({matching}[1d]))"), end, found)
        devices = max((count for name, count in found.items() if name.startswith("DCGM_FI_DEV")), default=0)
        metrics = frozenset(found)
        wrong = tuple(self._clock_problems(metrics, now))
        return StoreFacts(
            metrics=metrics,
            devices=devices or max((count for name, count in found.items() if name.startswith("DCGM_")), default=0),
            missing=_missing(metrics),
            problems=wrong if until else (*wrong, *self._stale(metrics, now)),
            wrong_clock=wrong,
        )

    def _counted(self, query: Query, at: datetime, known: dict[str, int]) -> dict[str, int]:
        """Series by name, the larger count of this moment and of what is known."""
        found = dict(known)
        for sample in self.store.instant(query, at=at):
            name = sample.labels.get("__name__", "")
            found[name] = max(found.get(name, 0), round(sample.value))
        return found

    def hours_with_data(self, start: datetime, end: datetime, metrics: frozenset[str]) -> list[datetime]:
        """The full hours of [start, end) in which any device was seen, oldest first."""
        name = _main(metrics)
        if not name:
            return []
        query = Query(template=f"count(count_over_time({name}{{$selector}}[1h]))")
        found: set[datetime] = set()
        for series in self.store.range(query, start=start + HOUR, end=end, step_seconds=3600):
            for second in series.times_s[series.values > 0].tolist():
                found.add(datetime.fromtimestamp(second, tz=start.tzinfo) - HOUR)
        return sorted(hour for hour in found if start <= hour < end)

    def read(
        self, start: datetime, end: datetime, *, facts: Sequence[Fact], looked: StoreFacts
    ) -> Iterator[SourceHour]:
        """The hours that touch [start, end), oldest first. While some are worked on, the next are asked for.

        Args:
            start: a full hour.
            end: windows that end later are left out; the last hour may be a part of one.
            facts: what the API server tells.
            looked: what the store has.
        """
        hours = hours_between(start, end)
        cells = max(looked.devices, 1) * (3600 // self.step_seconds)
        size = min(max(_CELLS_A_PAGE // cells, 1), _MOST_HOURS_A_PAGE)
        pages = [hours[first : first + size] for first in range(0, len(hours), size)]
        ask = partial(self._told, end=end, facts=facts, looked=looked)
        coming: Future[_Told] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="prometheus-page") as asking:
            for page, following in zip_longest(pages, pages[1:]):
                told = (coming or asking.submit(ask, page)).result()
                coming = asking.submit(ask, following) if following else None
                yield from self._hours(page, end, told)

    def _told(self, hours: Sequence[datetime], *, end: datetime, facts: Sequence[Fact], looked: StoreFacts) -> _Told:
        """All that is asked of the store for some hours."""
        until = min(hours[-1] + HOUR, end)
        gone = kube_state_facts(self.store, start=hours[0], end=until, metrics=looked.metrics, known=facts)
        known = merge_facts(gone, list(facts))
        plan = self._plan(hours[0], until, looked.metrics)
        readings = read_readings(self.store, plan, _host_names(known), largest=self._largest)
        return _Told(gone, known, readings)

    def _hours(self, hours: Sequence[datetime], end: datetime, told: _Told) -> Iterator[SourceHour]:
        gone, known, readings = told
        nodes = {fact.data.name: (fact.uid, fact.data) for fact in known if isinstance(fact.data, NodeData)}
        parents = find_parents(readings, {name: data for name, (_, data) in nodes.items()})
        # Who has GPUs by a claim asks for none in kube-state-metrics: labels alone tell of these pods.
        others = {fact.key for fact in gone if isinstance(fact.data, PodData) and not _asks_for_gpus(fact.data)}
        holdings = find_holdings(readings, parents, [fact for fact in known if fact.key not in others])
        self._note(readings.blanks, readings.unscaled)
        guessed = {parents[h.parent].node for h in holdings if not h.certain and parents[h.parent].replicas == 1}
        if guessed:
            self.notes[_unlabelled(guessed)] = None
        bare = {
            f.data.name for f in gone if isinstance(f.data, NodeData) and not (f.data.cpu_milli and f.data.memory_bytes)
        }
        if bare:
            self.notes[_without_cpu_memory(bare)] = None
        mixed = _mixed_nodes(readings, parents, holdings)
        if mixed:
            self.notes[_not_told_apart(mixed)] = None
        maker = WindowMaker(
            readings,
            parents,
            holdings,
            node_uids={name: uid for name, (uid, _) in nodes.items()},
            cluster=self.cluster,
        )
        for hour in hours:
            yield self._hour(hour, end, maker, gone)

    def _hour(self, hour: datetime, end: datetime, maker: WindowMaker, gone: Sequence[Fact]) -> SourceHour:
        windows = maker.hour(to_unix_ns(hour), through_ns=to_unix_ns(end))
        where = f"{self.store.address}, hour {hour:%Y-%m-%dT%H}"
        check_windows(windows, where=partial("{}, row {}".format, where))
        mine = [f for f in gone if f.overlaps(hour, hour + HOUR) or f.kind in ("owner", "namespace")]
        return SourceHour(
            hour=hour,
            windows=windows.select(self.columns or windows.schema.names),
            facts=tuple(mine if windows.num_rows else ()),
        )

    def _plan(self, start: datetime, end: datetime, metrics: frozenset[str]) -> ReadPlan:
        step = timedelta(seconds=self.step_seconds)
        lead = -(-timedelta(microseconds=LEAD_NS // 1000) // step) * step
        windows = -(-(end - (start - lead)) // step)
        return ReadPlan(start=start - lead, windows=windows, step_seconds=self.step_seconds, metrics=metrics)

    def _note(self, blanks: dict[str, int], unscaled: dict[str, tuple[str, ...]]) -> None:
        for name, count in blanks.items():
            self.notes[f"{name}: {count} averages hold DCGM's blank value and count as unmeasured"] = None
        for name, nodes in unscaled.items():
            self.notes[
                f"{name}: whether {_listed(nodes)} count from 0 to 1 or to 100 cannot be told; taken as unmeasured"
            ] = None

    def _clock_problems(self, metrics: frozenset[str], now: datetime) -> Iterator[str]:
        skew = self.store.clock_skew_seconds
        if skew is not None and abs(skew) > _SKEW_SECONDS:
            way = "ahead of" if skew > 0 else "behind"
            yield f"its clock is {abs(skew):.0f} s {way} this machine's; set both by NTP: times may be wrong by as much"
        name = _main(metrics)
        if not name:
            return
        ahead = self.store.instant(Query(template=f"count({name}{{$selector}})"), at=now + _AHEAD)
        # A store looks back five minutes; what is found ten minutes on is of the future.
        if ahead:
            yield "it holds samples of the future: the clock of what scrapes is wrong"

    def _stale(self, metrics: frozenset[str], now: datetime) -> Iterator[str]:
        name = _main(metrics)
        if not name:
            return
        query = Query(template=f"count({name}{{$selector}})")
        if self.store.instant(query, at=now):
            return  # a store looks back five minutes
        step = timedelta(minutes=5)
        start = now.replace(second=0, microsecond=0) - timedelta(days=1)
        series = self.store.range(query, start=start, end=now, step_seconds=int(step.total_seconds()))
        seen = [int(one.times_s.max()) for one in series if one.times_s.size]
        if seen and now.timestamp() - max(seen) > _STALE.total_seconds():
            minutes = (now.timestamp() - max(seen)) / 60
            yield f"its newest reading of a GPU is about {minutes:.0f} minutes old: is dcgm-exporter still scraped?"


_MORE = (
    "kube_job_owner",
    "kube_namespace_labels",
    "kube_node_created",
    "kube_node_info",
    "kube_node_labels",
    "kube_node_status_allocatable",
    "kube_pod_completion_time",
    "kube_pod_init_container_info",
    "kube_pod_init_container_resource_requests",
    "kube_pod_labels",
    "kube_replicaset_owner",
)


def _main(metrics: frozenset[str]) -> str:
    """A metric by which devices are counted; memory first, for every device has it."""
    names = ("DCGM_FI_DEV_FB_USED", *(name for metric in FIGURE_METRICS for name in metric.names))
    return next((name for name in names if name in metrics), "")


def _missing(metrics: frozenset[str]) -> dict[str, str]:
    found = {
        metric.names[0]: metric.needed_for
        for metric in FIGURE_METRICS
        if metric.needed_for and not metrics.intersection(metric.names)
    }
    return found | {name: why for name, why in KUBE_STATE_METRICS.items() if name not in metrics}


def _host_names(facts: Sequence[Fact]) -> HostNames:
    nodes = [fact.data.name for fact in facts if isinstance(fact.data, NodeData)]
    pods = {(fact.data.namespace, fact.data.name): fact.data.node for fact in facts if isinstance(fact.data, PodData)}
    return HostNames(nodes, pods)


def _mixed_nodes(readings: Readings, parents: Sequence[Parent], holdings: Sequence[Holding]) -> set[str]:
    """Nodes with a parent that several share, and whose exporter does not tell them apart."""
    sharers: dict[int, int] = {}
    for holding in holdings:
        if parents[holding.parent].replicas > 1:
            sharers[holding.parent] = sharers.get(holding.parent, 0) + 1
    told = {
        number for number in sharers if any((readings.rows[row].holder or _NOBODY).vgpu for row in parents[number].rows)
    }
    return {parents[number].node for number, count in sharers.items() if count > 1 and number not in told}


def _not_told_apart(nodes: set[str]) -> str:
    return (
        f"pods that share a GPU on {_listed(sorted(nodes))} cannot be told apart; their use is an interval, and equal "
        "parts stand for it: set KUBERNETES_VIRTUAL_GPUS=true on dcgm-exporter"
    )


def _asks_for_gpus(pod: PodData) -> bool:
    return any(container.gpus for container in pod.containers)


def _without_cpu_memory(nodes: set[str]) -> str:
    return (
        f"what is held and free of CPU or memory on {_listed(sorted(nodes))} is not in the store, so it has no rows "
        "and no GPUs are called stranded there: let kube-state-metrics export kube_pod_container_resource_requests and "
        "kube_node_status_allocatable with the resources cpu and memory"
    )


def _unlabelled(nodes: set[str]) -> str:
    return (
        f"the GPUs of {_listed(sorted(nodes))} carry no pod names, so who used which is not known there: set "
        "DCGM_EXPORTER_KUBERNETES=true on dcgm-exporter"
    )


def _listed(names: Sequence[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
