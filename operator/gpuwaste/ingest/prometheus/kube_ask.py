"""Questions to a store about what kube-state-metrics tells: last values, last samples, and the names of pods."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpuwaste.ingest.prometheus.store import Query

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from gpuwaste.ingest.prometheus.store import MetricStore, Sample

__all__ = ["POD", "Asker", "Key", "PodName", "key_of", "pod_of"]

POD = "namespace, exported_namespace, pod, exported_pod"
"""Labels that name a pod, whether those of the scrape renamed them or not."""

_SEEN_STEP = timedelta(minutes=1)
_PIECE = timedelta(hours=6)


@dataclass(frozen=True, slots=True, order=True)
class PodName:
    """The name of a pod."""

    namespace: str
    name: str


def pod_of(labels: Mapping[str, str]) -> PodName:
    """The pod that a series is about: with `honor_labels: false` its names got a prefix."""
    return PodName(
        labels.get("exported_namespace") or labels.get("namespace", ""),
        labels.get("exported_pod") or labels.get("pod", ""),
    )


Key = tuple[PodName, str]
"""A pod and its UID; old versions of kube-state-metrics print the UID on `kube_pod_info` alone."""


def key_of(labels: Mapping[str, str]) -> Key:
    """The pod that a series is about, with its UID where the series has it."""
    return pod_of(labels), labels.get("uid", "")


class Asker:
    """Asks for the last value of metrics within a stretch of time, in pieces that a store with low limits answers."""

    def __init__(self, store: MetricStore, start: datetime, end: datetime, metrics: frozenset[str]) -> None:
        self._store, self.metrics = store, metrics
        self._pieces: list[tuple[datetime, str]] = []
        at = end
        while at > start:
            length = min(_PIECE, at - start)
            self._pieces.insert(0, (at, f"{max(int(length.total_seconds()), 1)}s"))
            at -= length

    def last(self, name: str, by: str, *matchers: str) -> list[Sample]:
        """The largest of the last values of the series with the same labels `by`."""
        return self._ask(name, f"max by ({by}) (last_over_time({name}{{$selector}}[$window]))", matchers)

    def whole(self, name: str, *matchers: str) -> list[Sample]:
        """With all labels: for metrics whose labels are what they tell."""
        return self._ask(name, f"last_over_time({name}{{$selector}}[$window])", matchers)

    def newest(self, name: str, by: str, *matchers: str) -> list[Sample]:
        """The time of the sample that holds at the end, in Unix seconds; nothing of what is gone then."""
        if name not in self.metrics or not self._pieces:
            return []
        query = Query(template=f"max by ({by}) (timestamp({name}{{$selector}}))", matchers=matchers)
        return self._store.instant(query, at=self._pieces[-1][0])

    def last_seen(self, name: str, by: str, *matchers: str) -> list[Sample]:
        """The time of the last sample, in Unix seconds; dear, for the store looks at every minute."""
        step = f"{int(_SEEN_STEP.total_seconds())}s"
        inner = f"timestamp({name}{{$selector}})[$window:{step}]"
        return self._ask(name, f"max by ({by}) (max_over_time({inner}))", matchers)

    def _ask(self, name: str, template: str, matchers: tuple[str, ...]) -> list[Sample]:
        """One sample a set of labels: what a later piece says replaces what an earlier one did."""
        if name not in self.metrics:
            return []
        found: dict[tuple[tuple[str, str], ...], Sample] = {}
        for at, window in self._pieces:
            query = Query(template=template.replace("$window", window), matchers=matchers)
            for sample in self._store.instant(query, at=at):
                found[tuple(sorted(sample.labels.items()))] = sample
        return list(found.values())
