"""Nodes that followed one another under the same name within an hour.

A machine that is taken out and joins again, or whose name a new machine gets, is a new node: with another UID, price
and presence, and perhaps with other GPUs. Windows, pods and GPUs name their node, so for such an hour each of these
nodes but the newest is given a name of its own, in which its UID stands, until its rows have their labels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.model.facts import GpuData, NodeData, PodData, ReadyData
from gpuwaste.model.units import HOUR, to_unix_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpuwaste.ledger.inputs import HourInputs
    from gpuwaste.model.facts import Fact

__all__ = ["shown_name", "told_apart"]

_MARK = "@"
"""No node name holds it."""
_ALWAYS = datetime.min.replace(tzinfo=UTC)


def shown_name(name: str) -> str:
    """The name that a node has in the cluster."""
    return name.partition(_MARK)[0]


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of one name, oldest first: their names of their own by UID, and since when each had the name."""

    names: dict[str, str]
    since: list[datetime]

    @classmethod
    def of(cls, facts: list[Fact], name: str) -> _Nodes:
        ordered = sorted(facts, key=lambda fact: (fact.valid_from, fact.uid))
        names = {fact.uid: f"{name}{_MARK}{fact.uid}" for fact in ordered}
        names[ordered[-1].uid] = name
        return cls(names, [_ALWAYS, *(fact.valid_from for fact in ordered[1:])])

    def name_at(self, at: datetime, uid: str = "") -> str:
        """Which of them it was by its UID, else at a time."""
        return self.names.get(uid) or list(self.names.values())[bisect_right(self.since, at) - 1]

    def reigns(self) -> Iterator[tuple[str, datetime, datetime | None]]:
        """Each name with the time from which, and to which, it was theirs."""
        yield from zip(self.names.values(), self.since, [*self.since[1:], None], strict=True)


def told_apart(inputs: HourInputs) -> HourInputs:
    """The inputs with nodes of the same name told apart; the same object where there are none, as in most hours."""
    by_name: dict[str, list[Fact]] = defaultdict(list)
    for fact in inputs.facts:
        if isinstance(fact.data, NodeData) and fact.overlaps(inputs.hour, inputs.hour + HOUR):
            by_name[fact.data.name].append(fact)
    several = {name: _Nodes.of(facts, name) for name, facts in by_name.items() if len({fact.uid for fact in facts}) > 1}
    if not several:
        return inputs
    facts = tuple(one for fact in inputs.facts for one in _renamed(fact, several))
    return replace(inputs, facts=facts, windows=_windows(inputs.windows, several))


def _renamed(fact: Fact, several: dict[str, _Nodes]) -> Iterator[Fact]:
    match fact.data:
        case NodeData(name=name) as node if name in several and fact.uid in several[name].names:
            yield replace(fact, data=replace(node, name=several[name].names[fact.uid]))
        case GpuData(node=name) as gpu if name in several:
            yield replace(fact, data=replace(gpu, node=several[name].name_at(fact.valid_from, gpu.node_uid)))
        case ReadyData(node=name) as said if name in several:
            yield replace(fact, data=replace(said, node=several[name].name_at(fact.valid_from, fact.uid)))
        case PodData(node=name) as pod if name in several:
            # A pod may run on while its node joins anew.
            for own, since, until in several[name].reigns():
                begins = max(fact.valid_from, since)
                ends = min(filter(None, (fact.valid_to, until)), default=None)
                if ends is None or begins < ends:
                    yield replace(fact, valid_from=begins, valid_to=ends, data=replace(pod, node=own))
        case _:
            yield fact


def _windows(windows: pa.Table, several: dict[str, _Nodes]) -> pa.Table:
    """The windows by the node of their time; one that holds the change of two by its UID, if it has one of them.

    Others' UIDs are not asked: a store of metrics knows names, and gives all windows the UID of the newest node.
    """
    names = np.array(pc.fill_null(windows["node"].cast(pa.string()), "").to_pylist(), object)
    uids = pc.fill_null(windows["node_uid"].cast(pa.string()), "").to_pylist()
    starts = windows["window_start_ns"].to_numpy()
    ends = starts + windows["window_ns"].to_numpy()
    for name, nodes in several.items():
        own = np.array(list(nodes.names.values()), object)
        since = np.array([0, *(to_unix_ns(at) for at in nodes.since[1:])])
        rows = np.flatnonzero(names == name)
        first = np.searchsorted(since, starts[rows], side="right") - 1
        last = np.searchsorted(since, ends[rows], side="left") - 1
        names[rows] = own[first]
        for row, one, other in zip(rows.tolist(), first.tolist(), last.tolist(), strict=True):
            if one != other and nodes.names.get(uids[row]) in own[one : other + 1]:
                names[row] = nodes.names[uids[row]]
    field = windows.schema.field("node")
    return windows.set_column(
        windows.schema.get_field_index("node"), field, pa.array(names, pa.string()).cast(field.type)
    )
