"""What the facts of an hour say, worked out once: kept for the next hour where its facts say the same."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste.ledger.gpus import Described, described_gpus, gpu_facts
from gpuwaste.ledger.join import FactIndex
from gpuwaste.ledger.labels import LabelMaker
from gpuwaste.ledger.readiness import unready_times
from gpuwaste.ledger.stranded import Stranding
from gpuwaste.ledger.times import FreeTimes
from gpuwaste.model.units import HOUR, to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.ledger.times import Interval
    from gpuwaste.model.facts import Fact
    from gpuwaste.settings.teams import TeamRules

__all__ = ["HourFacts"]


class _Grounds(NamedTuple):
    """All that the index of an hour follows from: facts that hold in it, and descriptions of GPUs by their place."""

    facts: Sequence[Fact]
    described: Sequence[Described]

    def same(self, other: _Grounds) -> bool:
        return self.described == other.described and (
            self.facts is other.facts
            or (len(self.facts) == len(other.facts) and all(map(_equal, self.facts, other.facts)))
        )


def _equal(one: Fact, other: Fact) -> bool:
    return one is other or one == other


class HourFacts:
    """Index, labels and times of what is free in an hour.

    Args:
        inputs: of the hour.
        teams: rules that name teams.
        pool_label: a node label that names the pool before the well-known ones.
        before: of the hour before, by the same rules: used again where its facts are the same.
    """

    def __init__(
        self, inputs: HourInputs, teams: TeamRules, *, pool_label: str, before: HourFacts | None = None
    ) -> None:
        self._grounds = _grounds(inputs)
        if before is not None and before._grounds.same(self._grounds):  # noqa: SLF001 (its own kind)
            self.__dict__.update(before.__dict__)
            return
        self.gpus = gpu_facts(inputs.windows)
        """What agents said of GPUs; where it was used again, with the times of an earlier hour."""
        self.index = FactIndex.build([*inputs.facts, *self.gpus], start=inputs.hour, end=inputs.hour + HOUR)
        self.labels = LabelMaker(self.index, teams, pool_label=pool_label)

    @cached_property
    def _stranding(self) -> Stranding:
        return Stranding(self.index)

    def free_times(self, span: Interval) -> FreeTimes:
        """When what is free on each node is no room for work, within the hour's span."""
        return FreeTimes(unhealthy=unready_times(self.index, span), stranded=self._stranding.times(span))


def _grounds(inputs: HourInputs) -> _Grounds:
    start, end = inputs.hour, inputs.hour + HOUR
    held = [fact for fact in inputs.facts if fact.kind in ("owner", "namespace") or fact.overlaps(start, end)]
    return _Grounds(held, described_gpus(inputs.windows, since_ns=to_unix_ns(start)))
