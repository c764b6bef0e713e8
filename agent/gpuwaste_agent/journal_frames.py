"""How records lie in a journal's segment: frames, each all records of one append.

    length u32 | crc32 u32 | first sequence u64 | records u32 | newest window end u64 | payload

little-endian; the checksum covers everything after itself. The payload is the records as they stand in a `Batch`
(field tag, length, record), so serving a frame copies bytes.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuwaste_agent.wire.usage_pb2 import Record

__all__ = ["BODY", "HEAD", "OVERHEAD", "cut_payload", "encode_frame"]

HEAD = struct.Struct("<II")
BODY = struct.Struct("<QIQ")
OVERHEAD = HEAD.size + BODY.size
_RECORD_TAG = b"\x32"  # Batch.records: field 6, length-delimited


def encode_frame(records: Sequence[Record], first_seq: int) -> tuple[bytes, int]:
    """Number the records from `first_seq` on and encode them; returns the frame and its newest window's end."""
    parts = []
    newest_ns = 0
    for seq, record in enumerate(records, first_seq):
        record.seq = seq
        newest_ns = max(newest_ns, record.window_start_unix_ns + record.window_ns)
        encoded = record.SerializeToString()
        parts += [_RECORD_TAG, _varint(len(encoded)), encoded]
    payload = b"".join(parts)
    body = BODY.pack(first_seq, len(records), newest_ns) + payload
    return HEAD.pack(len(payload), zlib.crc32(body)) + body, newest_ns


def cut_payload(payload: bytes, skip: int, limit: int) -> tuple[bytes, int]:
    """Leave out the first `skip` records and keep at most `limit`; returns the bytes and how many records they are."""
    begin = end = taken = 0
    for index, (start, stop) in enumerate(_split(payload)):
        if index == skip:
            begin = start
        if skip <= index < skip + limit:
            end = stop
            taken += 1
    return payload[begin:end], taken


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte, as protobuf has it
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _split(payload: bytes) -> Iterator[tuple[int, int]]:
    """Start of each record's field and its end."""
    position = 0
    while position < len(payload):
        start = position
        position += 1
        size = shift = 0
        while True:
            byte = payload[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004 - as above
                break
        yield start, position + size
        position += size
