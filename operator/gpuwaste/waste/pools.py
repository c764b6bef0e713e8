"""`GPUPool` objects from the ledger: one a GPU model and node pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
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
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.waste.windows import LedgerWindow

__all__ = ["Backfilled", "PoolKey", "PoolParts", "PoolSurroundings", "collect_pools", "pool_object"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfilled:
    """How far reading of the hours before the first agent is: whether it ended, why, and a sentence for people."""

    status: ConditionStatus
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSurroundings:
    """What besides the ledger is known of the pools.

    Attributes:
        bought: GPUs that reservations cover in each pool, and those of its own reservations that are not there.
        waiting: by pool, when each pod was created that waits for a GPU that it offers.
        broken: why the newest hours are not in the figures; empty where they all are.
        prices: why the bills are not used; empty where they are, or there are none.
        storage: what is wrong with the volume of inputs and ledger; empty where it has room.
        backfill: how far reading from before the first agent is; None where nothing is to be read.
    """

    bought: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    waiting: Mapping[str, Sequence[datetime]] = field(default_factory=dict)
    broken: str = ""
    prices: str = ""
    storage: str = ""
    backfill: Backfilled | None = None


def pool_object(
    key: PoolKey,
    windows: Sequence[tuple[LedgerWindow, PoolParts]],
    *,
    now: datetime,
    previous: GPUPool | None = None,
    around: PoolSurroundings | None = None,
) -> GPUPool:
    """The object that shows one pool.

    Args:
        key: the pool.
        windows: its figures, shortest first.
        now: for condition times.
        previous: the object as it is, for its conditions and generation.
        around: what else is known.
    """
    around = around or PoolSurroundings()
    window, parts = windows[-1]
    whole = parts.whole
    generation = previous.metadata.generation or 1 if previous else 1
    conditions = previous.status.conditions if previous and previous.status else ()
    for of, (status, reason, message) in _conditions(key, whole, around).items():
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
            capacity=_capacity(window, key, around, now),
            price=unit_price(whole),
            windows=tuple(_window(parts, window) for window, parts in windows),
            nodes=_nodes(window, key),
        ),
    )


def _conditions(
    key: PoolKey, whole: Figures, around: PoolSurroundings
) -> dict[ConditionType, tuple[ConditionStatus, Reason, str]]:
    yes, no = ConditionStatus.TRUE, ConditionStatus.FALSE
    conserved = (yes, Reason.SUMS_HOLD, "Every nanosecond is in one part.")
    if around.broken:
        conserved = (no, Reason.SUMS_BROKEN, f"{around.broken} The hour is not in the figures; please report this.")
    if whole.unpriced:
        text = f"No price is known for {key.gpu_model or 'this GPU model'} in a part of the time; see `priceList`."
        priced = (
            no,
            Reason.PRICE_UNKNOWN,
            f"{text} The bills are not used: {around.prices}" if around.prices else text,
        )
    elif len(whole.cost) > 1:
        priced = (no, Reason.CURRENCIES_DIFFER, f"Prices are in {' and '.join(sorted(whole.cost))}.")
    elif around.prices:
        priced = (no, Reason.BILL_REFUSED, f"The bills are not used: {around.prices}")
    else:
        priced = (yes, Reason.PRICE_KNOWN, "Every GPU-hour has a price.")
    stored = (yes, Reason.HAS_ROOM, "Inputs and ledger have room.")
    if around.storage:
        stored = (no, Reason.VOLUME_FILLING, around.storage)
    filled = around.backfill
    return {
        ConditionType.READY: (yes, Reason.UP_TO_DATE, "The figures are up to date."),
        ConditionType.CONSERVED: conserved,
        ConditionType.PRICED: priced,
        ConditionType.STORED: stored,
        **({} if filled is None else {ConditionType.BACKFILLED: (filled.status, filled.reason, filled.message)}),
    }


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
    """The rows of the pool's GPUs; what is bought and not there has none."""
    mine = pc.and_(pc.equal(window.rows["pool"], key.pool), pc.not_equal(window.rows["gpu_uuid"], ""))
    return window.rows.filter(mine)


def _capacity(window: LedgerWindow, key: PoolKey, around: PoolSurroundings, now: datetime) -> PoolCapacity:
    rows = _pool_rows(window, key)
    newest, length = newest_hour(rows) if rows.num_rows else (rows, NS_PER_HOUR)
    sums = total(summarise(newest, ("row_kind",)).values())
    gpus = [uuid for uuid in pc.unique(newest["gpu_uuid"]).to_pylist() if uuid]
    covered, missing = around.bought.get(key.pool, (0, 0))
    waiting = around.waiting.get(key.pool, ())
    effective = sums.amounts["effective"]
    return PoolCapacity(
        nodes=pc.count_distinct(newest["node"]).as_py(),
        gpus=len(gpus),
        held_gpus=gpu_hours(sums["held"] * NS_PER_HOUR // length),
        effective_gpus=None if effective is None else gpu_hours(effective * NS_PER_HOUR // length),
        bought_gpus=covered + missing or None,
        unprovisioned_gpus=Decimal(missing) if covered + missing else None,
        waiting_pods=len(waiting),
        longest_wait_seconds=round((now - min(waiting)).total_seconds()) if waiting else None,
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
