"""What agents hand over by themselves when they leave, into the same stored inputs that pulls fill."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from gpuwaste.ingest.decode import decode_batch
from gpuwaste.model.errors import GpuwasteError
from gpuwaste.runtime.puller import PullResult, note_newest, with_gap

if TYPE_CHECKING:
    from gpuwaste.ledger.inputs import InputStore

__all__ = ["HoleError", "Intake", "Receipt"]


class HoleError(GpuwasteError):
    """Records before the batch are neither stored nor said to be lost; `after` is where to begin instead."""

    def __init__(self, after: int, first: int) -> None:
        super().__init__(
            f"the batch begins at record {first}, and stored are those up to {after}; "
            f"send what comes after {after}, and say so by `Gpuwaste-After: {after}`"
        )
        self.after = after


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a batch: all of it is durable.

    Attributes:
        stored: records that were new.
        after: the cursor of the journal now.
    """

    stored: int
    after: int


@dataclass(slots=True, kw_only=True)
class Intake:
    """Checks, stores and counts batches; any thread may call it.

    A record that is stored already is passed over, so a batch that comes twice, or was pulled before or is pulled
    afterwards, changes nothing. Files are only added, never joined: that is left to the one that reads them.
    """

    inputs: InputStore
    _news: PullResult = field(default_factory=PullResult)
    _storing: threading.Lock = field(default_factory=threading.Lock)
    _noting: threading.Lock = field(default_factory=threading.Lock)

    def store(self, body: bytes, *, after: int | None, sender: str) -> Receipt:
        """Store a batch durably.

        Args:
            body: the protobuf `Batch`.
            after: the sequence number after which the agent read it: what is missing in between is lost. None where
                the agent did not say.
            sender: the agent, for messages.

        Raises:
            InputError: the bytes are no batch, or a record breaks a rule of the windows; nothing was stored.
            HoleError: records before it would be passed over for ever; nothing was stored.
            UnreachableError: the store did not take it.
        """
        batch = decode_batch(body, where=sender)
        with self._storing:
            cursor = self.inputs.ranges.cursor(batch.journal_id)
            if not batch.windows.num_rows:
                return Receipt(stored=0, after=cursor)
            seq = batch.windows["seq"].to_numpy()
            new = ~self.inputs.ranges.holds(batch.journal_id, seq)
            if not new.any():
                return Receipt(stored=0, after=cursor)
            first = int(seq.min())
            if first > cursor + 1 and (after is None or after > cursor):
                raise HoleError(cursor, first)
            tables = with_gap(replace(batch, first_seq=first), cursor)
            tables[-1] = batch.windows.filter(pa.array(new))
            hours = self.inputs.append_windows(pa.concat_tables(tables), compact=False)
            cursor = self.inputs.ranges.cursor(batch.journal_id)
        stored = int(new.sum())
        with self._noting:
            self._news.hours |= hours
            self._news.records += stored
            note_newest(batch, self._news.newest)
        return Receipt(stored=stored, after=cursor)

    def take(self) -> PullResult:
        """What came since the last call."""
        with self._noting:
            news, self._news = self._news, PullResult()
        return news
