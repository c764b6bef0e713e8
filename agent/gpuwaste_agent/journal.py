"""The agent's memory of closed windows: append-only segments that survive `kill -9` and power loss.

A segment is a file of frames; a frame holds all records of one append, so a window is kept whole or not at all.
Policy of fsync: `append` writes, `sync` makes durable,
and nothing is served before it is durable. A torn tail (a frame cut off or damaged at the end of the newest segment)
is cut away on opening; it was never served.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from gpuwaste_agent.journal_frames import BODY, HEAD, OVERHEAD, cut_payload, encode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gpuwaste_agent.wire.usage_pb2 import Record

__all__ = ["Journal", "JournalError", "Page"]

_SUFFIX = ".seg"
_IDENTITY = "journal.json"
_LOCK = "lock"
_HOUR_NS = 3600 * 1_000_000_000
_SEGMENT_BYTES = 8 << 20


class JournalError(Exception):
    """The journal's directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A piece of the journal.

    Attributes:
        first_seq: Oldest record still held at or after the one asked for.
        next_seq: The record after the last one of this page.
        more: Durable records follow.
        payload: The records, encoded as the `records` field of a `Batch`.
        count: Number of records in the payload.
    """

    first_seq: int
    next_seq: int
    more: bool
    payload: bytes
    count: int


@dataclass(slots=True)
class _Frame:
    first_seq: int
    count: int
    offset: int
    length: int


@dataclass(slots=True)
class _Segment:
    path: Path
    first_seq: int
    next_seq: int = 0
    size: int = 0
    newest_ns: int = 0
    frames: list[_Frame] = field(default_factory=list)


def _read_frames(segment: _Segment, handle: BinaryIO) -> int:
    """Index the good frames of a segment from its start; returns where they end.

    A frame that lies there whole and fails its checksum was damaged after it was made durable, and may have been
    served: it is passed over, and its numbers stay spent. What no good frame follows, and has no frame's head, is a
    torn tail.
    """
    end = position = 0
    known = segment.next_seq
    while True:
        head = handle.read(HEAD.size)
        if len(head) < HEAD.size:
            return end
        length, crc = HEAD.unpack(head)
        body = handle.read(BODY.size + length)
        if len(body) < BODY.size + length:
            return end
        first_seq, count, newest_ns = BODY.unpack_from(body)
        position += OVERHEAD + length
        if zlib.crc32(body) == crc and first_seq >= known:
            segment.frames.append(_Frame(first_seq, count, position - length, length))
            segment.newest_ns = max(segment.newest_ns, newest_ns)
            known = segment.next_seq = first_seq + count
        elif first_seq == segment.next_seq and 0 < count <= length:
            segment.next_seq = first_seq + count
        else:
            continue
        end = position


class Journal:
    """One node's journal. One thread appends; any thread may read."""

    def __init__(
        self,
        directory: Path,
        *,
        journal_id: str | None = None,
        retention_hours: int = 72,
        limit_bytes: int = 2 << 30,
        segment_bytes: int = _SEGMENT_BYTES,
    ) -> None:
        """Open a journal or make a new one.

        Args:
            directory: Where it lives; made if missing.
            journal_id: UUID for a new journal; random if None. An old journal keeps its own.
            retention_hours: Segments whose newest window is older are dropped.
            limit_bytes: Oldest segments are dropped above this size.
            segment_bytes: Size at which a new segment begins.

        Raises:
            JournalError: The directory cannot be used.
        """
        self._directory = directory
        self._retention_ns = retention_hours * _HOUR_NS
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._handle: BinaryIO | None = None
        self._lock_fd: int | None = None
        self.dropped_records = 0
        self.repaired_bytes = 0
        self._next_seq = 1
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = self._take_lock()
            self.journal_id = self._identity(journal_id)
            self._segments = self._open_segments()
        except (OSError, ValueError) as error:
            raise JournalError(f"{directory}: the journal cannot be opened ({error}); check the volume") from error
        self._durable_seq = self._next_seq

    def _take_lock(self) -> int | None:
        """The right to write, which one process has at a time; None where another one has it."""
        descriptor = os.open(self._directory / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def writable(self) -> bool:
        """Whether this journal may be appended to: another process does not write it."""
        return self._lock_fd is not None

    def _identity(self, wanted: str | None) -> str:
        path = self._directory / _IDENTITY
        if path.exists():
            return str(uuid.UUID(json.loads(path.read_text())["journal_id"]))
        for stale in self._directory.glob("*" + _SUFFIX):
            raise ValueError(f"{stale.name} lies there without {_IDENTITY}: move the segments away")
        journal_id = str(uuid.UUID(wanted) if wanted else uuid.uuid4())
        temporary = path.with_suffix(".tmp")
        with temporary.open("w") as handle:
            handle.write(json.dumps({"journal_id": journal_id, "version": 1}) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        self._sync_directory()
        return journal_id

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _open_segments(self) -> list[_Segment]:
        segments = []
        paths = sorted(self._directory.glob("*" + _SUFFIX))
        for path in paths:
            segment = _Segment(path, int(path.stem))
            segment.next_seq = segment.first_seq
            with path.open("rb") as handle:
                segment.size = _read_frames(segment, handle)
            torn = path.stat().st_size - segment.size
            if torn and path == paths[-1] and self.writable:
                self.repaired_bytes += torn
                with path.open("r+b") as handle:
                    handle.truncate(segment.size)
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
            # A segment that was begun, and killed before its first frame, still tells how far the count has come.
            self._next_seq = max(self._next_seq, segment.next_seq)
            if segment.size:
                segments.append(segment)
        return segments

    @property
    def next_seq(self) -> int:
        """The sequence number the next record gets."""
        return self._next_seq

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def newest_window_end_ns(self) -> int | None:
        """End of the newest window held, None in an empty journal."""
        return max((segment.newest_ns for segment in self._segments), default=None)

    def append(self, records: Sequence[Record]) -> None:
        """Give the records their sequence numbers and write them as one frame; all are kept or none.

        Raises:
            JournalError: Another process writes this journal.
            OSError: The disk is full even after the oldest segments were dropped, or fails.
        """
        if not records:
            return
        if not self.writable:
            raise JournalError(f"{self._directory}: another process writes this journal: stop it or move")
        frame, newest_ns = encode_frame(records, self._next_seq)
        segment = self._writable(newest_ns)
        self._write(segment, frame)
        with self._lock:
            offset = segment.size + OVERHEAD
            segment.frames.append(_Frame(self._next_seq, len(records), offset, len(frame) - OVERHEAD))
            segment.size += len(frame)
            segment.newest_ns = max(segment.newest_ns, newest_ns)
            self._next_seq += len(records)
            segment.next_seq = self._next_seq

    def _write(self, segment: _Segment, frame: bytes) -> None:
        """Write at the segment's end; a failed write leaves the file as it was."""
        handle = self._handle
        if handle is None:
            handle = self._handle = segment.path.open("r+b" if segment.path.exists() else "x+b", buffering=0)
            handle.seek(segment.size)
        while True:
            try:
                view = memoryview(frame)
                while view:
                    view = view[handle.write(view) :]
            except OSError:
                handle.truncate(segment.size)
                handle.seek(segment.size)
                if not self._drop_oldest():
                    raise
            else:
                return

    def sync(self) -> None:
        """Make everything appended so far durable; from then on it is served."""
        if self._handle is not None:
            os.fsync(self._handle.fileno())
        with self._lock:
            self._durable_seq = self._next_seq

    def _writable(self, newest_ns: int) -> _Segment:
        if self._segments and self._segments[-1].size < self._segment_bytes:
            return self._segments[-1]
        if self._handle is not None:
            self.sync()
            self._handle.close()
            self._handle = None
        self._retain(newest_ns)
        segment = _Segment(self._directory / f"{self._next_seq:020d}{_SUFFIX}", self._next_seq, self._next_seq)
        segment.path.unlink(missing_ok=True)
        self._handle = segment.path.open("x+b", buffering=0)
        self._sync_directory()
        with self._lock:
            self._segments = [*self._segments, segment]
        return segment

    def _retain(self, now_ns: int) -> None:
        while len(self._segments) > 1 and self._segments[0].newest_ns < now_ns - self._retention_ns:
            self._drop_oldest(count=False)
        while len(self._segments) > 1 and self.size_bytes > self._limit_bytes:
            self._drop_oldest()

    def _drop_oldest(self, *, count: bool = True) -> bool:
        """Delete the oldest segment that is not being written; False where there is none."""
        if len(self._segments) < 2:  # noqa: PLR2004 - the newest one stays
            return False
        with self._lock:
            oldest, *rest = self._segments
            self._segments = rest
        oldest.path.unlink(missing_ok=True)
        if count:
            self.dropped_records += oldest.next_seq - oldest.first_seq
        return True

    def read(self, after: int, limit: int, limit_bytes: int = 4 << 20) -> Page:
        """Return durable records from `after + 1` on, at most `limit` of them and about `limit_bytes` bytes.

        A page ends early where a damaged frame follows; the page after it then begins behind the damage.
        """
        with self._lock:
            segments, durable = self._segments, self._durable_seq
        first_held = segments[0].first_seq if segments else durable
        wanted = max(after + 1, first_held)
        first_seq = min(wanted, durable)
        chunks: list[bytes] = []
        count = size = 0
        position = first_seq
        for segment, frame in self._frames_from(segments, first_seq, durable):
            # A page has no holes: it ends before one, or begins behind it.
            if count and (count >= limit or size >= limit_bytes or frame.first_seq > position):
                break
            payload = self._load(segment, frame)
            if payload is None:
                if count:
                    break
                first_seq = position = frame.first_seq + frame.count
                continue
            if not count:
                first_seq = position = max(position, frame.first_seq)
            part, taken = self._cut(payload, position - frame.first_seq, frame.count, limit - count)
            chunks.append(part)
            count += taken
            size += len(part)
            position += taken
        if not count:
            first_seq = position = durable
        return Page(
            first_seq=first_seq,
            next_seq=position,
            more=position < durable,
            payload=b"".join(chunks),
            count=count,
        )

    @staticmethod
    def _frames_from(segments: list[_Segment], seq: int, durable: int) -> Iterator[tuple[_Segment, _Frame]]:
        for segment in segments:
            if segment.next_seq <= seq:
                continue
            low, high = 0, len(segment.frames)
            while low < high:
                middle = (low + high) // 2
                frame = segment.frames[middle]
                if frame.first_seq + frame.count <= seq:
                    low = middle + 1
                else:
                    high = middle
            for index in range(low, len(segment.frames)):
                frame = segment.frames[index]
                if frame.first_seq >= durable:
                    return
                yield segment, frame

    @staticmethod
    def _load(segment: _Segment, frame: _Frame) -> bytes | None:
        """Read and check a frame's payload; None where it is damaged or its segment was dropped meanwhile."""
        try:
            with segment.path.open("rb") as handle:
                handle.seek(frame.offset - OVERHEAD)
                data = handle.read(OVERHEAD + frame.length)
        except FileNotFoundError:
            return None
        if len(data) < HEAD.size or zlib.crc32(data[HEAD.size :]) != HEAD.unpack_from(data)[1]:
            return None
        return data[OVERHEAD:]

    @staticmethod
    def _cut(payload: bytes, skip: int, count: int, limit: int) -> tuple[bytes, int]:
        if not skip and count <= limit:
            return payload, count
        return cut_payload(payload, skip, limit)

    def close(self) -> None:
        """Make everything durable, and let the file and the right to write go."""
        if self._handle is not None:
            self.sync()
            self._handle.close()
            self._handle = None
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
