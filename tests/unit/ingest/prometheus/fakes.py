"""A store in memory: samples by metric, evaluated the few ways that the source asks for."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np

from gpuwaste.ingest.prometheus.store import Sample, Series
from gpuwaste.model.units import HOUR

START = datetime(2026, 11, 2, 9, tzinfo=UTC)
END = START + 24 * HOUR
REQUESTS = "kube_pod_container_resource_requests"
INIT_REQUESTS = "kube_pod_init_container_resource_requests"
_METRIC = re.compile(r"(kube_\w+)\{")
_MATCHER = re.compile(r'(\w+)(=~?)"(.*)"')
_OVER = re.compile(r"(avg|max|count)_over_time\((\w+)\{[^}]*\}\[(\d+)(ms|s|h)\]\)")
_UNITS = {"ms": 0.001, "s": 1.0, "h": 3600.0}


class FakeStore:
    """Series of gauges, and what kube-state-metrics says beside them."""

    address = "http://prometheus.test"
    warnings = ()
    clock_skew_seconds = 0.0

    def __init__(self, kube=None):
        self.series = []
        self.kube = kube or KubeState()

    def gauge(self, name, labels, samples, *, every=30, since=START):
        """Samples from `since` on, one each `every` seconds; None is no sample."""
        begin = since.timestamp()
        points = [(begin + (i + 1) * every, v) for i, v in enumerate(samples) if v is not None]
        self.series.append((name, dict(labels), np.array(points, float).reshape(-1, 2)))
        return self

    def instant(self, query, *, at):
        if "__name__" in query.text():
            names = {name for name, *_ in (*self.series, *self.kube.series)}
            return [Sample(labels={"__name__": name}, value=self._count(name)) for name in sorted(names)]
        return self.kube.instant(query, at=at) if "kube_" in query.text() else []

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


def matches(labels, matcher):
    """As a store matches: the whole value, and a label that is not there is empty."""
    name, how, value = _MATCHER.fullmatch(matcher).groups()
    own = labels.get(name, "")
    return own == value if how == "=" else re.fullmatch(value.replace("\\\\", "\\"), own) is not None


class KubeState:
    """Answers of a store to instant queries: the last value of every series, and when it was last seen."""

    address = "http://prometheus.test"
    warnings = ()
    clock_skew_seconds = 0.0

    def __init__(self):
        self.series = []

    def tell(self, metric, labels, value=1.0, *, until=END):
        self.series.append((metric, labels, value, until))
        return self

    def instant(self, query, *, at):
        text = query.text()
        name = _METRIC.search(text)[1]
        when = "timestamp(" in text
        back = timedelta(hours=6) if "[" in text else timedelta(minutes=5)
        return [
            Sample(labels=labels, value=until.timestamp() if when else value)
            for metric, labels, value, until in self.series
            if metric == name and until > at - back and all(matches(labels, one) for one in query.matchers if one)
        ]

    def node(self, name, *, gpus=0, cores=None, memory=None):
        """A node, with a part of what it has set aside."""
        if gpus:
            self.tell("kube_node_status_capacity", {"node": name, "resource": "nvidia_com_gpu"}, gpus)
        for resource, amount in (("cpu", cores), ("memory", memory)):
            if amount is not None:
                self.tell("kube_node_status_capacity", {"node": name, "resource": resource}, amount * 1.25)
                self.tell("kube_node_status_allocatable", {"node": name, "resource": resource}, amount)
        return self

    def pod(self, name, node, *, metric=REQUESTS, container="main", until=END, **asked):
        labels = {"namespace": "ml", "pod": name, "uid": f"uid-{name}"}
        self.tell("kube_pod_start_time", labels, START.timestamp())
        self.tell("kube_pod_info", {**labels, "node": node}, until=until)
        for resource, amount in asked.items():
            of = {**labels, "container": container, "node": node, "resource": resource}
            self.tell(metric, of, amount, until=until)
        return self
