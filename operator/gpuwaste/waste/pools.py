"""`GPUPool` objects from the ledger: one a GPU model and node pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from gpuwaste.api import (
    UNKNOWN,
    ConditionStatus,
    ConditionType,
    GPUPool,
    GPUPoolSpec,
    GPUPoolStatus,
    ObjectMeta,
    PoolCapacity,
    PoolNode,
    PoolSummary,
    PoolWaste,
    PoolWindow,
    Reason,
    make_condition,
    object_name,
    set_condition,
)
from gpuwaste.ledger.schema import FREE_CATEGORIES, HOLDER_CATEGORIES
from gpuwaste.model.money import plain
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.waste.figures import Figures, gpu_hours, summarise, total
from gpuwaste.waste.texts import cost_per_month, hours_text, percent_text, unit_price, waste_percent, window_values
from gpuwaste.waste.windows import newest_hour

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.waste.windows import LedgerWindow

__all__ = ["PoolKey", "PoolParts", "collect_pools", "pool_object"]

_MAX_NODES = 100


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PoolKey:
    """`<GPU model>/<node pool>` as the ledger's column `pool` has it."""

    pool: str
    gpu_model: str

    @property
    def node_pool(self) -> str:
        """The node pool's name."""
        return self.pool.split("/", 1)[1] if "/" in self.pool else self.pool

    @property
    def object_name(self) -> str:
        """Name of the pool's `GPUPool`."""
        return object_name(self.gpu_model or "unknown", self.node_pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParts:
    """Figures of one window of a pool by who had the time."""

    holders: Figures
    free: Figures
    unattributed: Figures
    unprovisioned: Figures

    @property
    def whole(self) -> Figures:
        """All of it that belongs to a GPU."""
        return total((self.holders, self.free, self.unattributed))


def collect_pools(windows: Sequence[LedgerWindow]) -> dict[PoolKey, list[tuple[LedgerWindow, PoolParts]]]:
    """Sum each window by pool and kind of row, shortest window first."""
    found: dict[PoolKey, list[tuple[LedgerWindow, PoolParts]]] = {}
    for window in windows:
        by_kind: dict[PoolKey, dict[str, Figures]] = {}
        for (pool, model, row_kind), figures in summarise(window.rows, ("pool", "gpu_model", "row_kind")).items():
            by_kind.setdefault(PoolKey(pool=pool, gpu_model=model), {})[row_kind] = figures
        for key, kinds in by_kind.items():
            parts = PoolParts(
                holders=kinds.get("holder", Figures()),
                free=kinds.get("free", Figures()),
                unattributed=kinds.get("unattributed", Figures()),
                unprovisioned=kinds.get("unprovisioned", Figures()),
            )
            found.setdefault(key, []).append((window, parts))
    return dict(sorted(found.items()))


def pool_object(
    key: PoolKey, windows: Sequence[tuple[LedgerWindow, PoolParts]], *, now: datetime, previous: GPUPool | None = None
) -> GPUPool:
    """The object that shows one pool.

    Args:
        key: the pool.
        windows: its figures, shortest first.
        now: for condition times.
        previous: the object as it is, for its conditions and generation.
    """
    window, parts = windows[-1]
    whole = parts.whole
    generation = previous.metadata.generation or 1 if previous else 1
    conditions = previous.status.conditions if previous and previous.status else ()
    unpriced = bool(whole.unpriced)
    for of, status, reason, message in (
        (ConditionType.READY, ConditionStatus.TRUE, Reason.UP_TO_DATE, "The figures are up to date."),
        (ConditionType.CONSERVED, ConditionStatus.TRUE, Reason.SUMS_HOLD, "Every nanosecond is in one part."),
        (
            ConditionType.PRICED,
            ConditionStatus.FALSE if unpriced else ConditionStatus.TRUE,
            Reason.PRICE_UNKNOWN if unpriced else Reason.PRICE_KNOWN,
            f"No price is known for {key.gpu_model or 'this GPU model'}."
            if unpriced
            else "Every GPU-hour has a price.",
        ),
    ):
        conditions = set_condition(
            conditions, make_condition(of, status, reason, message, observed_generation=generation, now=now)
        )
    return GPUPool(
        metadata=ObjectMeta(name=key.object_name),
        spec=GPUPoolSpec(gpu_model=key.gpu_model or "unknown", node_pool=key.node_pool),
        status=GPUPoolStatus(
            conditions=conditions,
            observed_generation=generation,
            observed_time=window.to_time,
            summary=_summary(whole, window),
            capacity=_capacity(window, key),
            price=unit_price(whole),
            windows=tuple(_window(parts, window) for window, parts in windows),
            nodes=_nodes(window, key),
        ),
    )


def _window(parts: PoolParts, window: LedgerWindow) -> PoolWindow:
    whole = parts.whole
    waste = PoolWaste(
        total=gpu_hours(whole.waste),
        **{name: gpu_hours(parts.holders[name]) for name in HOLDER_CATEGORIES},
        **{f"free_{name}": gpu_hours(parts.free[name]) for name in FREE_CATEGORIES},
    )
    return PoolWindow(
        **window_values(whole, window, of="owned"),
        owned_gpu_hours=gpu_hours(whole["owned"]),
        unattributed_gpu_hours=gpu_hours(parts.unattributed["effective"]),
        unprovisioned_gpu_hours=gpu_hours(parts.unprovisioned["owned"]),
        net_waste_gpu_hours=waste,
    )


def _summary(whole: Figures, window: LedgerWindow) -> PoolSummary:
    price = unit_price(whole)
    return PoolSummary(
        window=window.length,
        owned_gpu_hours=hours_text(whole["owned"]),
        held_gpu_hours=hours_text(whole["held"]),
        effective_gpu_hours=hours_text(whole.amounts["effective"]),
        waste_percent=percent_text(waste_percent(whole, of="owned")),
        price=UNKNOWN if price is None else f"{plain(price.amount)} {price.currency}",
        cost_per_month=cost_per_month(whole, window),
    )


def _pool_rows(window: LedgerWindow, key: PoolKey) -> pa.Table:
    return window.rows.filter(pc.equal(window.rows["pool"], key.pool))


def _capacity(window: LedgerWindow, key: PoolKey) -> PoolCapacity:
    rows = _pool_rows(window, key)
    newest, length = newest_hour(rows)
    held = pc.sum(newest["held"]).as_py() or 0
    gpus = [uuid for uuid in pc.unique(newest["gpu_uuid"]).to_pylist() if uuid]
    return PoolCapacity(
        nodes=pc.count_distinct(newest["node"]).as_py(),
        gpus=len(gpus),
        held_gpus=gpu_hours(held * NS_PER_HOUR // length),
    )


def _nodes(window: LedgerWindow, key: PoolKey) -> tuple[PoolNode, ...]:
    rows = _pool_rows(window, key)
    gpus = rows.group_by(["node"], use_threads=False).aggregate([("gpu_uuid", "count_distinct")])
    count = dict(zip(gpus["node"].to_pylist(), gpus["gpu_uuid_count_distinct"].to_pylist(), strict=True))
    found = []
    for (node,), figures in summarise(rows, ("node",)).items():
        owned = figures["owned"]
        held = min(100, round(100 * figures["held"] / owned)) if owned else None
        node_object = PoolNode(
            name=node, gpus=count[node], held_percent=held, waste_percent=waste_percent(figures, of="owned")
        )
        found.append((-figures.waste, node_object))
    ordered = sorted(found, key=lambda pair: (pair[0], pair[1].name))
    return tuple(node_object for _, node_object in ordered[:_MAX_NODES])
