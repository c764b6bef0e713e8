"""Which rows of a bill are divided, and by which hours of which node."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.focus.columns import SUMMABLE, TIME_TYPE
from gpuwaste.focus.options import Finding
from gpuwaste.focus.ratios import (
    AMOUNT_DECIMALS,
    MAX_ORIGIN_DIGITS,
    MAX_RATIO_DECIMALS,
    MIN_RATIO_DECIMALS,
    decimals_used,
    digits_used,
)
from gpuwaste.pricing.bills import DATA_CATEGORIES, TIME_UNIT, machine_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from gpuwaste.focus.node_hours import NodeHours, NodeNames

    Int64s = NDArray[np.int64]

__all__ = ["BillPlan", "BillPlanner", "Span", "asked_rows", "timed_rows"]

Span = tuple[datetime, datetime]
"""A time that is asked for: its start, and its end, which is no part of it."""

_TIME_COLUMNS: Final = ("ResourceId", "ChargePeriodStart", "ChargePeriodEnd")
_SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class BillPlan:
    """What becomes of some rows of a bill.

    Attributes:
        row: int64[n], the rows that are divided.
        span: int64[n], the span of node hours of each.
        decimals: int64[n], the decimals of its ratios.
        ids, clusters, nodes: n texts, the id of the origin charge and the names of its node.
        cells, span_of_cell: int64[m], the node hours of every span, in pairs.
    """

    row: Int64s
    span: Int64s
    decimals: Int64s
    ids: pa.Array
    clusters: pa.Array
    nodes: pa.Array
    cells: Int64s
    span_of_cell: Int64s


@dataclass(slots=True)
class _Spans:
    """Spans of node hours, numbered as they are asked for; one without any hour in the ledger has no number."""

    hours: NodeHours | None
    numbers: dict[tuple[str, str, int, int], int | None] = field(default_factory=dict)
    cells: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    def number(self, node: NodeNames, start: datetime, end: datetime) -> int | None:
        if self.hours is None:
            return None
        # Whatever period a bill claims, there are no more hours than the ledger has.
        first = max(int(start.timestamp()) // _SECONDS_PER_HOUR, self.hours.first)
        last = min(-(-int(end.timestamp()) // _SECONDS_PER_HOUR), self.hours.last + 1)
        key = (node.cluster, node.node_uid, first, last)
        if key not in self.numbers:
            known = self.hours.cell
            found = [known.get((node.cluster, node.node_uid, hour)) for hour in range(first, last)]
            cells = [cell for cell in found if cell is not None]
            number = (self.owners[-1] + 1 if self.owners else 0) if cells else None
            self.numbers[key] = number
            if number is not None:
                self.cells += cells
                self.owners += [number] * len(cells)
        return self.numbers[key]


class BillPlanner:
    """Chooses the rows that bill the time of a node, piece by piece of a bill, and numbers the charges of each node."""

    def __init__(self, nodes: tuple[NodeNames, ...], span: Span | None = None) -> None:
        """A planner for a bill of these nodes; outside of a span only Corrections are divided."""
        self._nodes, self._findings = _node_keys(nodes)
        self._span = span
        self._missing: Counter[str] = Counter()
        self._divided: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()

    def plan(
        self, columns: dict[str, pa.Array], amounts: dict[str, pa.Array], hours: NodeHours | None, numbers: Int64s
    ) -> BillPlan:
        """Choose among the next rows of the bill, and find the node hours that each covers.

        Args:
            columns: FOCUS columns of the rows.
            amounts: their metrics, as they will be written.
            hours: the ledger by node and hour; None where there is none for the time of the rows.
            numbers: the number of each row in the bill.
        """
        used, digits, room = _sizes(amounts)
        allocated = _allocated(columns, len(numbers))
        spans = _Spans(hours)
        chosen: list[tuple[int, int, str, NodeNames]] = []
        for row, resource, start, end, asked in _time_rows(columns, self._span):
            node = next((self._nodes[name] for name in machine_names(resource) if name in self._nodes), None)
            if node is None:
                continue
            if allocated[row]:
                self._divided[node.node] += 1
                continue
            if used[row] > room - MIN_RATIO_DECIMALS or digits[row] > MAX_ORIGIN_DIGITS:
                what = f"an amount has {digits[row]} digits and {used[row]} decimals; passed through unsplit"
                self._findings.append(Finding(where=f"bill row {numbers[row] + 1}, node {node.node}", what=what))
                continue
            span = spans.number(node, start, end) if asked else None
            if span is None:
                self._missing[node.node] += 1
                continue
            identity = f"{resource}/{start:%Y-%m-%dT%H:%M:%SZ}"
            chosen.append((row, span, f"{identity}/{self._numbers[identity]}", node))
            self._numbers[identity] += 1
        at = np.array([row for row, *_ in chosen], np.int64)
        return BillPlan(
            row=at,
            span=np.array([span for _, span, *_ in chosen], np.int64),
            decimals=np.minimum(MAX_RATIO_DECIMALS, room - used[at]),
            ids=pa.array([identity for *_, identity, _ in chosen], pa.string()),
            clusters=pa.array([node.cluster for *_, node in chosen], pa.string()),
            nodes=pa.array([node.node for *_, node in chosen], pa.string()),
            cells=np.array(spans.cells, np.int64),
            span_of_cell=np.array(spans.owners, np.int64),
        )

    def findings(self) -> tuple[Finding, ...]:
        """Rows that look like a node's and are not divided, by name."""
        return (*self._findings, *_without_ledger(self._missing), *_divided_before(self._divided))


def _sizes(amounts: dict[str, pa.Array]) -> tuple[Int64s, Int64s, int]:
    """Decimals and digits of each row's largest amount, and the decimals that every column has room for."""
    summable = [amounts[name] for name in SUMMABLE if name in amounts]
    used = np.max([decimals_used(values) for values in summable], axis=0, initial=0)
    digits = np.max([digits_used(values) for values in summable], axis=0, initial=0)
    return used, digits, min((values.type.scale for values in summable), default=AMOUNT_DECIMALS)


def _node_keys(nodes: tuple[NodeNames, ...]) -> tuple[dict[str, NodeNames], list[Finding]]:
    """The names by which a bill may call each node; a name that two nodes share calls neither."""
    named: dict[str, list[NodeNames]] = {}
    for node in nodes:
        for key in machine_names(node.provider_id):
            named.setdefault(key, []).append(node)
    shared = {key: several for key, several in named.items() if len(several) > 1}
    findings = [
        Finding(
            where=f"nodes {', '.join(sorted(node.node for node in several))}",
            what=f"a bill that names only {key!r} may mean any of them; such rows pass through unsplit",
        )
        for key, several in sorted(shared.items())
    ]
    findings += [
        Finding(where=f"node {node.node}", what="has no provider id; no row of a bill can be its own")
        for node in nodes
        if not node.provider_id
    ]
    return {key: several[0] for key, several in named.items() if key not in shared}, findings


def timed_rows(columns: dict[str, pa.Array]) -> Int64s:
    """The Usage rows of some resource that are billed by time, and Corrections that name no unit.

    Traffic and volumes are a node's neither by category nor by unit.
    """
    if any(name not in columns for name in ("ChargeCategory", *_TIME_COLUMNS)):
        return np.zeros(0, np.int64)
    nothing = pa.nulls(len(columns["ChargeCategory"]), pa.string())
    unit = pc.utf8_lower(columns.get("PricingUnit", nothing))
    timed = pc.match_substring_regex(unit, TIME_UNIT)
    correction = pc.and_(pc.equal(columns.get("ChargeClass", nothing), "Correction"), pc.is_null(unit))
    usage = pc.equal(columns["ChargeCategory"], "Usage")
    of_data = pc.is_in(columns.get("ServiceCategory", nothing), value_set=pa.array(DATA_CATEGORIES))
    usage = pc.and_not(usage, of_data)
    for name in _TIME_COLUMNS:
        usage = pc.and_(usage, pc.is_valid(columns[name]))
    chosen = pc.and_kleene(usage, pc.or_kleene(timed, pc.fill_null(correction, fill_value=False)))
    rows: Int64s = pc.indices_nonzero(pc.fill_null(chosen, fill_value=False)).to_numpy().astype(np.int64)
    return rows


def asked_rows(columns: dict[str, pa.Array], rows: Int64s, span: Span | None) -> NDArray[np.bool_]:
    """Which of some rows to divide where a span of time is asked for: those that reach into it, and all Corrections.

    A Correction is divided by the ratios of the period that it corrects, however old that is.
    """
    if span is None:
        return np.ones(len(rows), bool)
    at = pa.array(rows)
    first, end = (pa.scalar(time, TIME_TYPE) for time in span)
    inside = pc.and_(
        pc.less(columns["ChargePeriodStart"].take(at), end), pc.greater(columns["ChargePeriodEnd"].take(at), first)
    )
    if "ChargeClass" in columns:
        correction = pc.equal(columns["ChargeClass"].take(at), "Correction")
        inside = pc.or_(inside, pc.fill_null(correction, fill_value=False))
    asked: NDArray[np.bool_] = inside.to_numpy(zero_copy_only=False)
    return asked


def _time_rows(columns: dict[str, pa.Array], span: Span | None) -> Iterator[tuple[int, str, datetime, datetime, bool]]:
    """The timed rows as row, resource, start and end of the charge period, and whether the row is to be divided."""
    rows = timed_rows(columns)
    if len(rows):
        lists = [columns[name].take(pa.array(rows)).to_pylist() for name in _TIME_COLUMNS]
        yield from zip(rows.tolist(), *lists, asked_rows(columns, rows, span).tolist(), strict=True)


def _allocated(columns: dict[str, pa.Array], rows: int) -> NDArray[np.bool_]:
    """Rows that are parts of a charge already: whoever divided it wrote his method into them."""
    method = columns.get("AllocatedMethodId", pa.nulls(rows, pa.string()))
    mask: NDArray[np.bool_] = pc.is_valid(method).to_numpy(zero_copy_only=False)
    return mask


def _divided_before(divided: Counter[str]) -> list[Finding]:
    return [
        Finding(where=f"node {node}", what=f"{count} rows of the bill are parts of a divided charge already; kept so")
        for node, count in sorted(divided.items())
    ]


def _without_ledger(missing: Counter[str]) -> list[Finding]:
    return [
        Finding(
            where=f"node {node}",
            what=f"{count} rows of the bill lie in hours without a ledger, or not asked for; passed through unsplit",
            fix="choose the days that the bill covers with --from and --to",
        )
        for node, count in sorted(missing.items())
    ]
