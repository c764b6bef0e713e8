"""Carry windows from agents into the stored inputs: a batch counts only once its file is durable."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from gpuwaste.ingest.decode import DecodedBatch, gap_row
from gpuwaste.ingest.pull import AgentEndpoint, JournalChangedError
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.model.units import from_unix_ns

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.inputs import InputStore

__all__ = ["PullResult", "Puller", "WindowSource", "note_newest", "with_gap"]

_log = logging.getLogger(__name__)
_MAX_BATCHES_A_PULL = 64


class WindowSource(Protocol):
    """What the puller reads from; `ingest.pull.AgentClient` in production."""

    async def fetch(self, endpoint: AgentEndpoint, *, journal_id: str, after: int, limit: int) -> DecodedBatch:
        """The records after a sequence number."""
        ...


@dataclass(slots=True, kw_only=True)
class PullResult:
    """What one round brought.

    Attributes:
        hours: ledger hours with new windows.
        records: new records.
        more: some agent had more than one round takes.
        failed: message by endpoint.
        newest: end of the newest window of each node.
    """

    hours: set[datetime] = field(default_factory=set)
    records: int = 0
    more: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    newest: dict[str, datetime] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Puller:
    """Pulls all agents side by side, `concurrency` at once, and stores what a round brought together.

    Attributes:
        source: the agents.
        inputs: where windows go; its files are the only cursor.
        batch_records: records asked for at once.
        concurrency: agents read at once.
    """

    source: WindowSource
    inputs: InputStore
    batch_records: int
    concurrency: int
    _journal_of: dict[str, str] = field(default_factory=dict)

    async def pull(self, endpoints: list[AgentEndpoint]) -> PullResult:
        """One round: everything every agent has, as far as `_MAX_BATCHES_A_PULL` batches go."""
        result = PullResult()
        turn = asyncio.Semaphore(self.concurrency)

        async def one(endpoint: AgentEndpoint) -> list[pa.Table]:
            async with turn:
                return await self._pull_agent(endpoint, result)

        tables = [table for found in await asyncio.gather(*map(one, endpoints)) for table in found]
        if tables:
            # In the order of journals they are in the order of identities, and need no sorting later.
            windows = pa.concat_tables(sorted(tables, key=lambda table: table["journal_id"][0].as_py()))
            result.hours = await asyncio.to_thread(self.inputs.append_windows, windows)
            result.records = windows.num_rows
        return result

    async def _pull_agent(self, endpoint: AgentEndpoint, result: PullResult) -> list[pa.Table]:
        tables: list[pa.Table] = []
        try:
            journal = self._journal_of.get(endpoint.url) or await self._current_journal(endpoint)
            after = self.inputs.ranges.cursor(journal)
            for _ in range(_MAX_BATCHES_A_PULL):
                batch = await self.source.fetch(endpoint, journal_id=journal, after=after, limit=self.batch_records)
                tables += with_gap(batch, after)
                note_newest(batch, result.newest)
                after = max(after, batch.next_seq - 1)
                if not batch.more:
                    break
            else:
                result.more = True
        except JournalChangedError:
            self._journal_of.pop(endpoint.url, None)
            result.more = True
            _log.info("journal changed", extra={"endpoint": endpoint.url})
        except GpuwasteError as error:
            result.failed[endpoint.url] = str(error)
        return tables

    async def _current_journal(self, endpoint: AgentEndpoint) -> str:
        batch = await self.source.fetch(endpoint, journal_id="", after=0, limit=1)
        self._journal_of[endpoint.url] = batch.journal_id
        return batch.journal_id


def with_gap(batch: DecodedBatch, after: int) -> list[pa.Table]:
    """The windows of a batch that was read from after a sequence number, and a row for what is lost before them."""
    if not batch.windows.num_rows:
        return []
    if batch.first_seq <= after + 1:
        return [batch.windows]
    lost = gap_row(
        journal_id=batch.journal_id,
        cluster=batch.cluster,
        node=batch.node,
        node_uid=batch.node_uid,
        first_seq=after + 1,
        last_seq=batch.first_seq - 1,
        at_unix_ns=batch.windows["window_start_ns"][0].as_py(),
    )
    return [lost, batch.windows]


def note_newest(batch: DecodedBatch, newest: dict[str, datetime]) -> None:
    """Note the end of a batch's newest window under the name of its node."""
    if batch.windows.num_rows:
        last = batch.windows.num_rows - 1
        end = batch.windows["window_start_ns"][last].as_py() + batch.windows["window_ns"][last].as_py()
        newest[batch.node] = from_unix_ns(end)
