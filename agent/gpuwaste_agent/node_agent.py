"""One node's agent without its servers: ticks go in, durable records come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuwaste_agent import __version__
from gpuwaste_agent.records import RecordMaker, node_facts
from gpuwaste_agent.sampler import Sampler

if TYPE_CHECKING:
    from gpuwaste_agent.clock import Clock
    from gpuwaste_agent.holdings import HoldingSource, ProcessOwners
    from gpuwaste_agent.journal import Journal
    from gpuwaste_agent.sampler import ClosedWindow
    from gpuwaste_agent.telemetry import Nvml
    from gpuwaste_agent.wire.usage_pb2 import Record

__all__ = ["NodeAgent"]

_HOUR_NS = 3600 * 1_000_000_000
_HOLD_TICKS = 3


class NodeAgent:
    """Samples one node into its journal."""

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
    ) -> None:
        """Take the sources, the journal, and how often and how finely to sample (nanoseconds)."""
        self._nvml = nvml
        self._journal = journal
        self._boot_id = boot_id
        self._maker = RecordMaker()
        self._facts_told_ns: int | None = None
        self._facts: bytes = b""
        self.sampler = Sampler(
            nvml=nvml,
            holdings=holdings,
            owners=owners,
            clock=clock,
            window_ns=window_ns,
            hold_limit_ns=_HOLD_TICKS * interval_ns,
        )

    def tick(self) -> int:
        """Take one reading; returns how many records were appended (they are not yet durable)."""
        written = 0
        for closed in self.sampler.tick():
            written += self._keep(closed)
        return written

    def flush(self) -> int:
        """Close the open window as it is and append it; returns the number of records."""
        closed = self.sampler.flush()
        return 0 if closed is None else self._keep(closed)

    def _keep(self, closed: ClosedWindow) -> int:
        records = [*self._facts_due(closed), *self._maker.window(closed)]
        self._journal.append(records)
        return len(records)

    def _facts_due(self, closed: ClosedWindow) -> list[Record]:
        """The node's facts on change, and in the first window of every hour."""
        record = node_facts(
            driver=self._nvml.driver(),
            gpus=self.sampler.gpus,
            parents=closed.parents,
            mode=self._nvml.mode,
            boot_id=self._boot_id,
            version=__version__,
        )
        content = record.SerializeToString(deterministic=True)
        hour = closed.start_unix_ns // _HOUR_NS
        if content == self._facts and hour == self._facts_told_ns:
            return []
        self._facts, self._facts_told_ns = content, hour
        record.window_start_unix_ns = closed.start_unix_ns
        record.window_ns = closed.length_ns
        return [record]
