"""What the hourly ledger does not keep and advice needs: peak memory and the media engines, by pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ACTIVITY_COLUMNS", "PodActivity", "merge_activity", "pod_activity"]

ACTIVITY_COLUMNS = ("journal_id", "seq", "kind", "pod_uid", "enc_ns", "dec_ns", "copy_ns", "memory_peak_bytes")
"""What of WINDOW_SCHEMA is read for it."""


class PodActivity(dict[str, tuple[int | None, int | None]]):
    """Pod UID to (highest memory on one GPU in bytes, nanoseconds of encoder, decoder and copy engines).

    None is unmeasured: memory where no window had it, media where any window lacked encoder or decoder.
    """


def pod_activity(windows: pa.Table) -> PodActivity:
    """Sum one hour's usage windows by pod; windows without a pod UID count for nobody.

    Args:
        windows: rows of WINDOW_SCHEMA.
    """
    known = pc.and_(pc.equal(windows["kind"], "usage"), pc.not_equal(windows["pod_uid"], ""))
    usage = windows.filter(pc.fill_null(known, fill_value=False))
    media = pc.add(pc.add(usage["enc_ns"], usage["dec_ns"]), pc.fill_null(usage["copy_ns"], 0))
    rows = pa.table(
        {
            "pod_uid": usage["pod_uid"],
            "memory": usage["memory_peak_bytes"],
            "media": media,
            "unknown": pc.cast(pc.is_null(media), pa.int64()),
        }
    )
    grouped = rows.group_by(["pod_uid"], use_threads=False).aggregate(
        [("memory", "max"), ("media", "sum"), ("unknown", "sum")]
    )
    found = PodActivity()
    for row in grouped.to_pylist():
        found[row["pod_uid"]] = (row["memory_max"], None if row["unknown_sum"] else row["media_sum"])
    return found


def merge_activity(hours: Iterable[PodActivity]) -> PodActivity:
    """Several hours as one: the highest peak, the sum of media, unknown where one hour does not know."""
    merged = PodActivity()
    for hour in hours:
        for uid, (memory, media) in hour.items():
            if uid not in merged:
                merged[uid] = (memory, media)
                continue
            old_memory, old_media = merged[uid]
            peak = max((m for m in (old_memory, memory) if m is not None), default=None)
            merged[uid] = (peak, None if old_media is None or media is None else old_media + media)
    return merged
