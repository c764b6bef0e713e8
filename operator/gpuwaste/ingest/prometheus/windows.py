"""Readings and holdings as usage windows, in the same table that agents' records become."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpuwaste.ingest.prometheus.figures import ENGINES, holder_figures, parent_figures
from gpuwaste.ingest.prometheus.readings import Grid
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE
from gpuwaste.model.windows import PROMETHEUS_JOURNAL, WINDOW_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from gpuwaste.ingest.prometheus.figures import HolderFigures, ParentFigures
    from gpuwaste.ingest.prometheus.holdings import Holding
    from gpuwaste.ingest.prometheus.parents import Parent
    from gpuwaste.ingest.prometheus.readings import Readings

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Int64s = NDArray[np.int64]

__all__ = ["LEAD_NS", "WindowMaker", "journal_of"]

LEAD_NS = 15 * NS_PER_MINUTE
"""Read before an hour, so that a pod that started just before it is seen to have done something already."""

_PPM = 1_000_000
_MIB = 1 << 20
_SECOND = 1_000_000_000
_ENGINE_ORIGIN = {"tensor": "dcgm_prof", "dram": "dcgm_prof", "enc": "device", "dec": "device"}


def journal_of(cluster: str, hour_ns: int) -> str:
    """The journal of one hour's windows: reading the hour again gives the same identities."""
    return f"{PROMETHEUS_JOURNAL}{uuid.uuid5(uuid.NAMESPACE_OID, f'{cluster}/{hour_ns}')}"


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells (row, window) of matrices that become rows of the table.

    Attributes:
        row: int64[n], parent or holding.
        parent: int64[n].
        window: int64[n].
    """

    row: Int64s
    parent: Int64s
    window: Int64s

    def at(self, matrix: NDArray[Any]) -> NDArray[Any]:
        return matrix[self.row, self.window]

    def of_parent(self, matrix: NDArray[Any]) -> NDArray[Any]:
        return matrix[self.parent, self.window]


class WindowMaker:
    """Makes the windows of one stretch of readings, an hour at a time.

    Args:
        readings: what the store said.
        parents: of these readings.
        holdings: of these parents, sorted by parent.
        node_uids: UID by node name.
        cluster: its name.
    """

    def __init__(
        self,
        readings: Readings,
        parents: Sequence[Parent],
        holdings: Sequence[Holding],
        *,
        node_uids: Mapping[str, str],
        cluster: str,
    ) -> None:
        self._plan, self._parents, self._holdings = readings.plan, parents, holdings
        self._node_uids, self._cluster = node_uids, cluster
        self._descriptions: dict[tuple[int, ...], str] = {}
        self._whole: ParentFigures = parent_figures(readings, parents)
        self._mine: HolderFigures = holder_figures(readings, parents, holdings, self._whole)
        self._of_parent, self._of_holding = self._parent_texts(), self._holding_texts()
        self._rest = self._unexplained()

    def hour(self, hour_ns: int, *, through_ns: int) -> pa.Table:
        """The windows of one hour: nodes, then devices, then holders; rows of WINDOW_SCHEMA.

        Args:
            hour_ns: start of the hour, Unix nanoseconds.
            through_ns: windows that end later are left out.
        """
        plan = self._plan
        first = max((hour_ns - plan.start_ns) // plan.step_ns, 0)
        last = min((min(hour_ns + NS_PER_HOUR, through_ns) - plan.start_ns) // plan.step_ns, plan.windows)
        if last <= first or not self._parents:
            return WINDOW_SCHEMA.empty_table()
        inside = np.zeros(plan.windows, bool)
        inside[first:last] = True
        devices = self._cells(self._whole.present & inside, None)
        seen = self._whole.present[self._mine.parent] if len(self._holdings) else np.zeros((0, plan.windows), bool)
        usage = self._cells(seen & inside & (self._mine.held > 0), self._mine.parent)
        first_activity = self._first_activity(seen_from_ns=hour_ns - LEAD_NS)
        tables = [
            self._node_table(devices, hour_ns),
            self._device_table(devices),
            self._usage_table(usage, first_activity),
        ]
        return _numbered(pa.concat_tables(tables), journal_of(self._cluster, hour_ns))

    @staticmethod
    def _cells(mask: Bools, parent: Int64s | None) -> _Cells:
        row, window = np.nonzero(mask)
        return _Cells(row, row if parent is None else parent[row], window)

    # Rows.

    def _frame(self, cells: _Cells, kind: str) -> dict[str, Any]:
        return {
            "kind": _constant(kind, len(cells.row)),
            "cluster": _constant(self._cluster, len(cells.row)),
            "window_start_ns": self._plan.start_ns + cells.window * self._plan.step_ns,
            "window_ns": np.full(len(cells.row), self._plan.step_ns),
            **_taken(self._of_parent, ("node", "node_uid", "gpu_uuid", "parent_id"), cells.parent),
        }

    def _parent_texts(self) -> dict[str, pa.Array]:
        parents = self._parents
        return _texts(
            {
                "node": [parent.node for parent in parents],
                "node_uid": [self._node_uids.get(parent.node, "") for parent in parents],
                "gpu_uuid": [parent.gpu_uuid for parent in parents],
                "parent_id": [parent.parent_id for parent in parents],
                "sharing": [parent.sharing for parent in parents],
                "mig_profile": [parent.profile for parent in parents],
            }
        )

    def _holding_texts(self) -> dict[str, pa.Array]:
        texts: dict[str, list[str]] = {
            name: [getattr(holding, name) for holding in self._holdings]
            for name in ("namespace", "pod", "pod_uid", "container")
        }
        pairs = [(holding, holding.resource.startswith("claim:")) for holding in self._holdings]
        texts["claim"] = [f"{h.namespace}/{h.resource.removeprefix('claim:')}" if c else "" for h, c in pairs]
        texts["resource_name"] = ["" if c else h.resource for h, c in pairs]
        texts["slice_id"] = [self._slice(holding) for holding in self._holdings]
        return _texts(texts)

    def _device_table(self, cells: _Cells) -> pa.Table:
        parents, whole, step = self._parents, self._whole, self._plan.step_ns
        columns = self._frame(cells, "device")
        columns["weight_num"] = _numbers([parent.weight.numerator for parent in parents])[cells.parent]
        columns["weight_den"] = _numbers([parent.weight.denominator for parent in parents])[cells.parent]
        columns["replicas"] = _numbers([parent.replicas for parent in parents])[cells.parent]
        columns |= _taken(self._of_parent, ("sharing", "mig_profile"), cells.parent)
        bad = cells.at(whole.unhealthy)
        columns["unhealthy_ns"] = np.where(bad, step, 0)
        columns["allocatable_ns"] = np.where(bad, 0, step)
        xids = np.where(cells.at(whole.xid.known), np.rint(cells.at(whole.xid.values)), 0).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(xids > 0)])
        columns["xids"] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(xids[xids > 0], pa.int32()))
        columns |= self._activity(cells, whole.duty, whole.sm, whole.engines, by_pod=None)
        columns |= _memory(cells, whole.memory, whole.peak, step)
        columns["energy_mj"] = _masked(cells.at(whole.power.values) * step / 1e6, cells.at(whole.power.known))
        columns |= self._unattributed(cells)
        return _table(columns, len(cells.row))

    def _usage_table(self, cells: _Cells, first_activity: Int64s) -> pa.Table:
        holdings, mine = self._holdings, self._mine
        columns = self._frame(cells, "usage") | _taken(self._of_holding, self._of_holding, cells.row)
        columns["container_id"] = _constant("", len(cells.row))
        columns["join"] = _constant("NAME", len(cells.row))
        columns["held_ns"] = cells.at(mine.held)
        since = _numbers([holding.start_ns if holding.since_known else 0 for holding in holdings])
        columns["held_since_ns"] = since[cells.row]
        first = first_activity[cells.row]
        began = first <= self._plan.start_ns + cells.window * self._plan.step_ns
        columns["first_activity_ns"] = _masked(first, began)
        columns["missed_processes"] = np.zeros(len(cells.row), np.int64)
        columns |= self._activity(cells, mine.duty, mine.sm, mine.engines, by_pod=mine.by_pod)
        divided = mine.apportioned[cells.row] & cells.at(mine.sm.known)
        columns["sm_low"] = pa.array(cells.at(mine.low), mask=~divided)
        columns["sm_high"] = pa.array(cells.at(mine.high), mask=~divided)
        columns |= _memory(cells, mine.memory, mine.peak, self._plan.step_ns)
        return _table(columns, len(cells.row))

    def _slice(self, holding: Holding) -> str:
        parent = self._parents[holding.parent]
        return f"{parent.parent_id}::{holding.number}" if parent.replicas > 1 else parent.parent_id

    def _activity(
        self, cells: _Cells, duty: Grid, sm: Grid, engines: Mapping[str, Grid], *, by_pod: Bools | None
    ) -> dict[str, Any]:
        """Figures with their quality. Duty always has one: it says how long a window of this store is."""
        count = len(cells.row)
        covered = np.rint(np.clip(cells.of_parent(self._whole.coverage), 0, 1) * _PPM).astype(np.int64)
        seconds = np.maximum(self._whole.interval_seconds, _coarse(self._plan.step_ns))
        resolution = np.maximum(np.rint(seconds * 1000).astype(np.int64), 1)[cells.parent]
        duty_origin = np.where(cells.of_parent(self._whole.from_engine), "dcgm_prof", "device")
        sm_origin = np.full(count, "dcgm_prof")
        if by_pod is not None:
            duty_origin = np.where(by_pod[cells.row], "process", duty_origin)
            sm_origin = np.where(self._mine.apportioned[cells.row], "apportioned", sm_origin)
        columns: dict[str, Any] = {}
        known = cells.at(duty.known)
        columns["duty_ns"] = _masked(cells.at(duty.values), known)
        columns["duty_origin"] = duty_origin
        columns["duty_coverage_ppm"] = np.where(known, covered, 0)
        columns["duty_resolution_ms"] = resolution
        origins = {name: np.full(count, _ENGINE_ORIGIN[name]) for name in ENGINES}
        for name, grid, origin in (("sm", sm, sm_origin), *((n, engines[n], origins[n]) for n in ENGINES)):
            known = cells.at(grid.known)
            if not known.any():  # then all of it is null
                continue
            columns[f"{name}_ns"] = _masked(cells.at(grid.values), known)
            columns[f"{name}_origin"] = pa.array(origin.tolist(), pa.string(), mask=~known)
            columns[f"{name}_coverage_ppm"] = pa.array(covered, mask=~known)
            columns[f"{name}_resolution_ms"] = pa.array(resolution, mask=~known)
        return columns

    def _unattributed(self, cells: _Cells) -> dict[str, Any]:
        return {
            f"unattributed_{name}_ns": _masked(cells.at(rest.values), cells.at(rest.known))
            for name, rest in self._rest.items()
        }

    def _unexplained(self) -> dict[str, Grid]:
        """What ran on a parent and no holder explains: all where nobody held it, the rest where pods are told apart."""
        whole, mine = self._whole, self._mine
        held = np.zeros(whole.present.shape)
        explained = {"duty": np.zeros(held.shape), "sm": np.zeros(held.shape)}
        told = np.zeros(len(self._parents), bool)
        if len(self._holdings):
            np.add.at(held, mine.parent, mine.held)
            np.logical_or.at(told, mine.parent, mine.by_pod)
            for name, grid in (("duty", mine.duty), ("sm", mine.sm)):
                np.add.at(explained[name], mine.parent, grid.values * grid.known)
        found = {}
        for name, grid in (("duty", whole.duty), ("sm", whole.sm)):
            rest = np.where(held > 0, np.where(told[:, None], grid.values - explained[name], 0.0), grid.values)
            found[name] = Grid(np.maximum(rest, 0.0), grid.known)
        return found

    def _node_table(self, devices: _Cells, hour_ns: int) -> pa.Table:
        """What an agent would say of its node: its GPUs and their layout."""
        on_node: dict[str, list[int]] = {}
        for number in np.unique(devices.parent).tolist():
            on_node.setdefault(self._parents[number].node, []).append(number)
        nodes = sorted(on_node)
        count = len(nodes)
        columns = {
            "kind": _constant("node_facts", count),
            "cluster": _constant(self._cluster, count),
            "node": pa.array(nodes, pa.string()),
            "node_uid": pa.array([self._node_uids.get(node, "") for node in nodes], pa.string()),
            "window_start_ns": np.full(count, hour_ns),
            "window_ns": np.full(count, self._plan.step_ns),
            "body_json": pa.array([self._described(tuple(on_node[node])) for node in nodes], pa.string()),
        }
        return _table(columns, count)

    def _described(self, numbers: tuple[int, ...]) -> str:
        """The description of a node with these parents; it is the same in most hours."""
        if numbers not in self._descriptions:
            self._descriptions[numbers] = _description([self._parents[number] for number in numbers])
        return self._descriptions[numbers]

    def _first_activity(self, *, seen_from_ns: int) -> Int64s:
        """Start of the first window in which each holder did anything; far in the future where it never did.

        Of one that holds since before `seen_from_ns` nobody looked for it; it counts as past its start.
        """
        mine, plan = self._mine, self._plan
        ran = (mine.duty.known & (mine.duty.values > 0)) | (mine.sm.known & (mine.sm.values > 0))
        ran = ran & (mine.held > 0)
        starts = plan.start_ns + np.arange(plan.windows) * plan.step_ns
        since = np.array([holding.start_ns for holding in self._holdings], np.int64)
        first = np.where(ran.any(axis=1), starts[ran.argmax(axis=1)], np.iinfo(np.int64).max)
        return np.where(since < seen_from_ns, since, np.maximum(first, since))


def _description(parents: Sequence[Parent]) -> str:
    """The GPUs of a node and their layout, as an agent writes them."""
    gpus: dict[str, dict[str, Any]] = {}
    for parent in parents:
        gpu = gpus.setdefault(parent.gpu_uuid, _gpu(parent))
        if parent.weight < 1 or parent.profile:
            gpu["mig_enabled"] = True
            gpu.setdefault("mig_instances", []).append(_instance(parent))
    return json.dumps({"gpus": [gpus[uuid] for uuid in sorted(gpus)], "mode": "prometheus"})


def _gpu(parent: Parent) -> dict[str, Any]:
    return {
        "uuid": parent.gpu_uuid,
        "index": parent.number,
        "model": parent.model,
        "product": parent.product,
        "memory_bytes": str(parent.memory_mib * _MIB),
        "replicas": parent.replicas,
        "sharing": parent.sharing,
    }


def _instance(parent: Parent) -> dict[str, Any]:
    return {
        "uuid": parent.parent_id,
        "profile": parent.profile,
        **({"place_unknown": True} if parent.start is None else {"start": parent.start}),
        "weight_num": parent.weight.numerator,
        "weight_den": parent.weight.denominator,
    }


def _coarse(step_ns: int) -> float:
    """Seconds that an average over a window longer than a minute stands for; 0 for shorter ones."""
    return step_ns / _SECOND if step_ns > NS_PER_MINUTE else 0.0


def _memory(cells: _Cells, mean: Grid, peak: Grid, step_ns: int) -> dict[str, Any]:
    known = cells.at(mean.known)
    return {
        "memory_byte_s": pa.array(cells.at(mean.values) * _MIB * step_ns / _SECOND, mask=~known),
        "memory_peak_bytes": _masked(cells.at(peak.values) * _MIB, cells.at(peak.known)),
        "memory_origin": pa.array(["device"] * len(known), pa.string(), mask=~known),
    }


def _numbers(values: Sequence[int]) -> Int64s:
    return np.array(values, np.int64)


def _texts(columns: Mapping[str, Sequence[str]]) -> dict[str, pa.Array]:
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}


def _taken(columns: Mapping[str, pa.Array], names: Iterable[str], index: Int64s) -> dict[str, pa.Array]:
    """Some columns, with the values of these rows."""
    rows = pa.array(index)
    return {name: columns[name].take(rows) for name in names}


def _constant(value: str, count: int) -> pa.Array:
    return pa.array([value], pa.string()).take(pa.array(np.zeros(count, np.int64)))


def _masked(values: NDArray[Any], known: Bools) -> pa.Array:
    """Whole numbers, null where they are not known."""
    return pa.array(np.where(known, np.rint(values), 0).astype(np.int64), mask=~known)


def _table(columns: Mapping[str, Any], count: int) -> pa.Table:
    """All columns of WINDOW_SCHEMA; what is not given is null, in one array for all columns of a type."""
    given = dict(columns)
    given["seq"] = np.zeros(count, np.int64)
    given["journal_id"] = _constant("", count)
    arrays = []
    nothing: dict[pa.DataType, pa.Array] = {}
    for one in WINDOW_SCHEMA:
        value = given.get(one.name)
        if value is None:
            if one.type not in nothing:
                nothing[one.type] = pa.nulls(count, one.type)
            arrays.append(nothing[one.type])
            continue
        array = value if isinstance(value, pa.Array) else pa.array(value.tolist() if value.dtype.kind == "U" else value)
        arrays.append(array.cast(one.type))
    return pa.Table.from_arrays(arrays, schema=WINDOW_SCHEMA)


def _numbered(table: pa.Table, journal_id: str) -> pa.Table:
    numbers = pa.array(np.arange(1, table.num_rows + 1), pa.int64())
    for name, values in (("seq", numbers), ("journal_id", _constant(journal_id, table.num_rows))):
        table = table.set_column(WINDOW_SCHEMA.get_field_index(name), WINDOW_SCHEMA.field(name), values)
    return table
