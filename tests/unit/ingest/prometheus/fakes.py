"""A store in memory: samples by metric, evaluated the few ways that the source asks for."""

import re
from datetime import UTC, datetime

import numpy as np

from gpuwaste.ingest.prometheus.store import Sample, Series

START = datetime(2026, 11, 2, 9, tzinfo=UTC)
_OVER = re.compile(r"(avg|max|count)_over_time\((\w+)\{[^}]*\}\[(\d+)(ms|s|h)\]\)")
_UNITS = {"ms": 0.001, "s": 1.0, "h": 3600.0}


class FakeStore:
    """Series of gauges; what kube-state-metrics would say is left out."""

    address = "http://prometheus.test"
    warnings = ()
    clock_skew_seconds = 0.0

    def __init__(self):
        self.series = []

    def gauge(self, name, labels, samples, *, every=30, since=START):
        """Samples from `since` on, one each `every` seconds; None is no sample."""
        begin = since.timestamp()
        points = [(begin + (i + 1) * every, v) for i, v in enumerate(samples) if v is not None]
        self.series.append((name, dict(labels), np.array(points, float).reshape(-1, 2)))
        return self

    def instant(self, query, *, at):
        if "__name__" in query.text():
            names = {name for name, _, _ in self.series}
            return [Sample(labels={"__name__": name}, value=self._count(name)) for name in sorted(names)]
        return []

    def _count(self, name):
        return sum(one == name for one, _, _ in self.series)

    def range(self, query, *, start, end, step_seconds):
        found = _OVER.search(query.text())
        if found is None:
            return []
        over, name, length = found[1], found[2], int(found[3]) * _UNITS[found[4]]
        reduce = {"avg": np.mean, "max": np.max, "count": len}[over]
        times = np.arange(int(start.timestamp()), int(end.timestamp()) + 1, step_seconds)
        answer = []
        for metric, labels, points in self.series:
            if metric != name:
                continue
            inside = [points[(points[:, 0] > t - length) & (points[:, 0] <= t), 1] for t in times]
            known = np.array([len(one) > 0 for one in inside])
            if known.any():
                values = np.array([float(reduce(one)) for one in inside if len(one)])
                answer.append(Series(labels=labels, times_s=times[known], values=values))
        return answer
