"""One node's agent without its servers: ticks go in, durable records come out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpuwaste_agent import __version__
from gpuwaste_agent.accumulate import Tenure
from gpuwaste_agent.holdings import ContainerKey
from gpuwaste_agent.records import RecordMaker, gap_record, node_facts
from gpuwaste_agent.sampler import Sampler
from gpuwaste_agent.telemetry import NvmlUnavailableError
from gpuwaste_agent.wire.usage_pb2 import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.holdings import HoldingSource, ProcessOwners
    from gpuwaste_agent.journal import Journal
    from gpuwaste_agent.sampler import ClosedWindow
    from gpuwaste_agent.telemetry import GpuHealth, Nvml
    from gpuwaste_agent.wire.usage_pb2 import Record

__all__ = ["NodeAgent"]

_HOUR_NS = 3600 * 1_000_000_000
_HOLD_TICKS = 3
# Time between two looks at whether the GPUs themselves changed, and while the driver does not answer.
_LOOK_NS = 10 * 1_000_000_000
_LOOK_AGAIN_NS = 1_000_000_000
# Enough for the last window of a node with sixteen GPUs in seven instances with four holders each.
_LAST_RECORDS = 1000


def _ignore(records: Sequence[Record]) -> None:
    del records


class NodeAgent:
    """Samples one node into its journal.

    Attributes:
        sampler: What accumulates.
        problem: Why GPUs could not be listed again or records not be kept, empty where nothing is wrong.
    """

    def __init__(
        self,
        *,
        nvml: Nvml,
        holdings: HoldingSource,
        owners: ProcessOwners,
        clock: Clock,
        journal: Journal,
        interval_ns: int,
        window_ns: int,
        boot_id: str,
        told: Callable[[Sequence[Record]], None] = _ignore,
    ) -> None:
        """Take the sources, the journal, how often and how finely to sample, and who else is told of new records."""
        self._nvml = nvml
        self._journal = journal
        self._clock = clock
        self._window_ns = window_ns
        self._boot_id = boot_id
        self._told = told
        self._maker = RecordMaker()
        self._facts: tuple[object, ...] = ()
        self._health: dict[str, GpuHealth] = {}
        # Reasons seen since the last facts, and XIDs since the start, by GPU.
        self._throttled: dict[str, dict[str, None]] = {}
        self._xids: dict[str, Counter[int]] = {}
        self._looked_ns = clock.monotonic_ns()
        self._away = False
        self.problem = ""
        self._lost: Record | None = None
        self._reached_ns: int | None = None
        self._driver = nvml.driver()
        self.sampler = Sampler(
            nvml=nvml,
            holdings=holdings,
            owners=owners,
            clock=clock,
            window_ns=window_ns,
            hold_limit_ns=_HOLD_TICKS * interval_ns,
        )
        self._resume()

    def _resume(self) -> None:
        """Go on after an earlier run: remember since when slices are held, and up to where its windows reach."""
        newest_ns = self._journal.newest_window_end_ns
        if newest_ns is None:
            return
        page = self._journal.read(max(0, self._journal.next_seq - 1 - _LAST_RECORDS), _LAST_RECORDS)
        tenures = {}
        for record in Batch.FromString(page.payload).records:
            if record.WhichOneof("body") == "usage" and record.window_start_unix_ns + record.window_ns == newest_ns:
                usage = record.usage
                first = usage.first_activity_unix_ns if usage.HasField("first_activity_unix_ns") else None
                # Of a pod that was made again under the same name nothing is remembered.
                container = ContainerKey(usage.namespace, usage.pod, usage.pod_uid, usage.container)
                tenures[container, usage.slice_id] = Tenure(usage.held_since_unix_ns, first)
        self.sampler.resume(tenures)
        self._reached_ns = newest_ns

    def _tell_gap(self) -> int:
        """Tell of the time between the earlier run's last window and the one that the first reading lies in.

        Not before that reading: a start may take longer than to the window's edge.
        """
        newest_ns, self._reached_ns = self._reached_ns, None
        start_ns = self.sampler.window_start_unix_ns
        if newest_ns is None or start_ns <= newest_ns:
            return 0
        gap = gap_record(newest_ns, start_ns, reason="the agent was not running")
        gap.window_start_unix_ns, gap.window_ns = start_ns - self._window_ns, self._window_ns
        return self._append([gap])

    def _append(self, records: list[Record]) -> int:
        """Append a window; what a full or broken disk refuses becomes a gap in front of the next one it takes."""
        lost = self._lost
        try:
            self._journal.append([*([lost] if lost is not None else []), *records])
        except OSError as error:
            self.problem = f"the journal takes no records ({error})"
            self._lose(records)
            return 0
        if lost is not None:
            self._lost, self.problem = None, ""
        self._told(records)
        return len(records)

    def _lose(self, records: list[Record]) -> None:
        first, last = records[0], records[-1]
        end_ns = last.window_start_unix_ns + last.window_ns
        if self._lost is None:
            self._lost = gap_record(first.window_start_unix_ns, end_ns, reason="the journal's disk took no records")
        self._lost.gap.to_unix_ns = end_ns
        self._lost.gap.lost_records += len(records)
        self._lost.window_start_unix_ns, self._lost.window_ns = last.window_start_unix_ns, last.window_ns
        self._journal.dropped_records += len(records)

    def _refresh(self) -> None:
        """List GPUs and read the driver's versions again where something changed: MIG, a lost GPU, a reload."""
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._looked_ns < (_LOOK_AGAIN_NS if self._away else _LOOK_NS):
            return
        self._looked_ns = now_ns
        if not self._nvml.changed():
            return
        try:
            self.sampler.refresh()
            self._driver = self._nvml.driver()
        except NvmlUnavailableError as error:
            self.problem, self._away = str(error), True
        else:
            self.problem, self._away = "", False

    def tick(self) -> int:
        """Take one reading; returns how many records were appended (they are not yet durable)."""
        self._refresh()
        closed = self.sampler.tick()
        told = 0 if self._reached_ns is None else self._tell_gap()
        return told + sum(self._keep(one) for one in closed)

    def _note_health(self, closed: ClosedWindow) -> None:
        """Take the GPUs' state at the end of a window, what slowed them, and the XIDs in it."""
        health = self._nvml.health()
        self._health = {**self._health, **health}
        for uuid, one in health.items():
            self._throttled.setdefault(uuid, {}).update(dict.fromkeys(one.throttle or ()))
        told = {parent.gpu.uuid: parent.window.xids for parent in closed.parents}
        for uuid, xids in told.items():
            if xids:
                self._xids.setdefault(uuid, Counter()).update(xids)

    def flush(self) -> int:
        """Close the open window as it is and append it, without asking the driver; returns the number of records."""
        closed = self.sampler.flush()
        return 0 if closed is None else self._append(self._maker.window(closed))

    def _keep(self, closed: ClosedWindow) -> int:
        return self._append([*self._facts_due(closed), *self._maker.window(closed)])

    def _facts_due(self, closed: ClosedWindow) -> list[Record]:
        """The node's facts on change, and in the first window of every hour."""
        hour = closed.start_unix_ns // _HOUR_NS
        shared = tuple((parent.replicas, parent.sharing) for parent in closed.parents)
        self._note_health(closed)
        serious = tuple((uuid, health.serious) for uuid, health in self._health.items())
        seen = tuple((uuid, tuple(xids)) for uuid, xids in self._xids.items())
        known = (hour, self.sampler.gpus, self._driver, shared, serious, seen)
        if known == self._facts:
            return []
        self._facts = known
        record = node_facts(
            driver=self._driver,
            gpus=self.sampler.gpus,
            parents=closed.parents,
            mode=self._nvml.mode,
            boot_id=self._boot_id,
            version=__version__,
            health=self._health,
            throttled=self._throttled,
            xids=self._xids,
        )
        self._throttled = {}
        record.window_start_unix_ns = closed.start_unix_ns
        record.window_ns = closed.length_ns
        return [record]
