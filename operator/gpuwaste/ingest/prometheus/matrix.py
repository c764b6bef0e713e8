"""The JSON of a range query, read at once for all of its series.

Thousands of series with dozens of points each become millions of Python objects on the way through a JSON decoder,
and the same labels come with every metric. Here the numbers of all series go to numpy in one piece, and labels that
were read before are not read again. What is not in the form that Prometheus writes is left to the JSON decoder.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuwaste.ingest.prometheus.store import Series

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LabelSets", "labels_of", "read_matrix", "series_of"]

_HEAD = b'"resultType":"matrix","result":['
_SERIES, _VALUES, _NEXT, _END = b'{"metric":', b',"values":[[', b"],[", b"]]}"
_MOST_LABEL_SETS = 50_000


class LabelSets(dict[bytes, dict[str, str]]):
    """Labels by the JSON that they were read from; equal ones are one object, which nobody may change."""

    def __missing__(self, text: bytes) -> dict[str, str]:
        """Read labels that were not seen before."""
        if len(self) >= _MOST_LABEL_SETS:
            self.clear()
        self[text] = found = labels_of(json.loads(text))
        return found


def labels_of(raw: dict[str, str]) -> dict[str, str]:
    """Each text once in memory: thousands of series of many metrics carry the same labels."""
    return {sys.intern(name): sys.intern(value) for name, value in raw.items()}


def series_of(raw: dict[str, Any]) -> Series:
    """One decoded series of a range query."""
    times, texts = zip(*raw["values"], strict=True)
    count = len(times)
    return Series(
        labels=labels_of(raw["metric"]),
        times_s=np.rint(np.fromiter(times, np.float64, count)).astype(np.int64),
        values=np.fromiter(map(float, texts), np.float64, count),
    )


def read_matrix(body: bytes, known: LabelSets) -> list[Series] | None:
    """The series of an answer; None where it is in any other form than Prometheus' own.

    No search below can find its text within a label: there a quotation mark has a backslash before it.

    Args:
        body: the whole answer.
        known: labels read so far; added to.
    """
    at = body.find(_HEAD) + len(_HEAD)
    if at < len(_HEAD):
        return None
    labels: list[dict[str, str]] = []
    points: list[bytes] = []
    while body.startswith(_SERIES, at):
        middle = body.find(_VALUES, at)
        end = body.find(_END, middle)
        if middle < 0 or end < 0:
            return None
        try:
            labels.append(known[body[at + len(_SERIES) : middle]])
        except (ValueError, AttributeError):  # something stands between labels and values
            return None
        points.append(body[middle + len(_VALUES) : end])
        at = end + len(_END)
        at += body.startswith(b",", at)
    if not body.startswith(b"]", at) or not body[-8:].rstrip().endswith(b"}"):  # it broke off
        return None
    return _series(labels, points)


def _series(labels: list[dict[str, str]], points: list[bytes]) -> list[Series] | None:
    counts = np.array([text.count(_NEXT) + 1 for text in points], np.int64)
    numbers = _numbers(b",".join(points))
    if numbers is None or len(numbers) != 2 * counts.sum():
        return None
    times, values = np.rint(numbers[::2]).astype(np.int64), numbers[1::2].copy()
    ends = np.cumsum(counts)
    return [
        Series(labels=one, times_s=times[start:end], values=values[start:end])
        for one, start, end in zip(labels, (ends - counts).tolist(), ends.tolist(), strict=True)
    ]


def _numbers(text: bytes) -> NDArray[np.float64] | None:
    """The numbers of `1700000000,"0.5"],[1700000060,"NaN"`; None where something else is among them."""
    if not text:
        return np.zeros(0)
    try:
        return np.fromstring(text.translate(None, b'"[]'), np.float64, sep=",")
    except ValueError:
        return None
