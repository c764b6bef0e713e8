"""What a scan found: the dearest waste, each with what to do, and what doing it would free."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste.ledger.schema import FREE_CATEGORIES, HOLDER_CATEGORIES
from gpuwaste.model.units import HOURS_PER_MONTH, NS_PER_HOUR, to_unix_ns
from gpuwaste.runtime.advice import advise_workload
from gpuwaste.waste.figures import FIGURE_COLUMNS, Figures, gpu_hours, money_of, summarise
from gpuwaste.waste.windows import cut_windows
from gpuwaste.waste.workloads import WORKLOAD_COLUMNS, collect_workloads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuwaste.runtime.scan import ScanLedger
    from gpuwaste.waste.workloads import WorkloadAdvice, WorkloadWaste

__all__ = ["Finding", "Findings", "Saving", "find"]

_STEP = Decimal("0.000001")
_FREE_ADVICE = {
    "unallocated": "Nobody asked for these GPUs: release nodes (`gpuwaste plan`), or let other work have them.",
    "stranded": "CPU, memory or MIG geometry keep every pod away: move what blocks it, or change the layout.",
    "unhealthy": "The driver reports hardware errors, or the node is not ready: have the GPUs replaced.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place where GPU time is wasted.

    Attributes:
        kind: of the workload, or `Pool`.
        namespace: empty for a pool.
        name: of the workload or pool.
        team: empty for a pool.
        waste_gpu_hours: net waste of the period.
        waste_cost: of it, None where a price is missing.
        currency: of the cost.
        category: the largest part of the waste.
        advice: one sentence.
        frees_gpus: how many GPUs following it would free.
        saving_per_month: what those cost a month; capacity for others, and cash only where nodes go.
        confidence: of the advice, empty where there is none.
    """

    kind: str
    namespace: str
    name: str
    team: str
    waste_gpu_hours: Decimal
    waste_cost: Decimal | None
    currency: str | None
    category: str
    advice: str
    frees_gpus: Decimal | None = None
    saving_per_month: Decimal | None = None
    confidence: str = ""

    @property
    def place(self) -> str:
        """How it is named to people."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(slots=True, kw_only=True)
class Saving:
    """What following the best advice of every workload would free. Capacity, not yet cash.

    Attributes:
        workloads: how many have an advice that frees anything.
        gpus: freed.
        per_month: what they cost, by currency.
        unpriced_gpus: freed GPUs without a known price.
    """

    workloads: int = 0
    gpus: Decimal = Decimal(0)
    per_month: dict[str, Decimal] = field(default_factory=dict)
    unpriced_gpus: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All findings, dearest first; the saving; and the advice of each workload for a report."""

    findings: tuple[Finding, ...]
    saving: Saving
    advice: dict[tuple[str, str, str], str]


def find(ledger: ScanLedger) -> Findings:
    """Look at every workload and at what nobody holds."""
    findings, saving, advice = [], Saving(), {}
    span = ledger.through - ledger.hours[0]
    # Some workloads' rows alone do not tell which hour is the newest of the ledger, nor how long it is.
    newest = (ledger.hours[-1], to_unix_ns(ledger.through) - to_unix_ns(ledger.hours[-1]))
    for rows in ledger.holders(WORKLOAD_COLUMNS):
        windows = cut_windows(rows, through=ledger.through, lengths=(("scan", span),))
        for workload in collect_workloads(windows, newest=newest):
            found = advise_workload(workload, ledger.activity)
            key = workload.key
            advice[key.namespace, key.kind, key.name] = found.headline
            findings.append(_of_workload(workload, found, saving))
    pools = summarise(ledger.free(("resource", "row_kind", "pool", *FIGURE_COLUMNS)), ("pool",))
    findings += [_of_pool(name, figures) for (name,), figures in pools.items() if figures.waste]
    return Findings(findings=tuple(_dearest_first(findings)), saving=saving, advice=advice)


def _dearest_first(findings: Sequence[Finding]) -> list[Finding]:
    """By money where there is one currency, what has no price after it; else by GPU time."""
    currencies = {one.currency for one in findings} - {None}
    priced = len(currencies) == 1

    def key(one: Finding) -> tuple[Decimal, Decimal, str]:
        money = one.waste_cost if priced and one.waste_cost is not None else Decimal(0)
        return (-money, -one.waste_gpu_hours, one.place)

    return sorted(findings, key=key)


def _of_workload(workload: WorkloadWaste, advice: WorkloadAdvice, saving: Saving) -> Finding:
    key = workload.key
    figures = workload.windows[-1][1]
    best = advice.advice[0] if advice.advice else None
    freed = best.savings.capacity_freed_gpu_hours if best and best.savings else None
    gpus = None if freed is None else (freed / HOURS_PER_MONTH).quantize(_STEP)
    cost = figures.known_cost
    monthly = None
    if freed is not None and gpus:
        saving.workloads += 1
        saving.gpus += gpus
        if cost is None or not figures["owned"]:
            saving.unpriced_gpus += gpus
        else:
            monthly = (freed * money_of(cost[0] * NS_PER_HOUR / figures["owned"])).quantize(_STEP)
            saving.per_month[cost[2]] = saving.per_month.get(cost[2], Decimal(0)) + monthly
    waste = _waste(figures, HOLDER_CATEGORIES)
    return Finding(
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        team=key.team,
        waste_gpu_hours=waste.gpu_hours,
        waste_cost=waste.cost,
        currency=waste.currency,
        category=waste.category,
        advice=best.message if best else advice.headline,
        frees_gpus=gpus,
        saving_per_month=monthly,
        confidence=str(best.confidence) if best else "",
    )


def _of_pool(name: str, figures: Figures) -> Finding:
    waste = _waste(figures, FREE_CATEGORIES)
    return Finding(
        kind="Pool",
        namespace="",
        name=name,
        team="",
        waste_gpu_hours=waste.gpu_hours,
        waste_cost=waste.cost,
        currency=waste.currency,
        category=waste.category,
        advice=_FREE_ADVICE[waste.category],
    )


class _Waste(NamedTuple):
    gpu_hours: Decimal
    cost: Decimal | None
    currency: str | None
    category: str


def _waste(figures: Figures, categories: Sequence[str]) -> _Waste:
    cost = figures.known_cost
    return _Waste(
        gpu_hours=gpu_hours(figures.waste),
        cost=money_of(cost[1]) if cost else None,
        currency=cost[2] if cost else None,
        category=max(categories, key=lambda name: figures[name]),
    )
