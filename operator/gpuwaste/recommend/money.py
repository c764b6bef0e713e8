"""What giving nodes up saves: cash now, cash at renewal, or GPU time for others; never one sum of them."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from gpuwaste.api.common import Renewal, Savings
from gpuwaste.model.units import HOURS_PER_MONTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpuwaste.recommend.scope import Scope

__all__ = ["savings_of_nodes", "total_savings"]


def savings_of_nodes(scope: Scope, released: Sequence[int]) -> dict[int, Savings]:
    """The savings a month of each released node.

    A node saves cash now unless its price is that of a reservation, or so many GPUs of its product are reserved
    that fewer would be left: what is bought is paid for whichever node runs it. On-demand nodes therefore
    count first, dearest first.
    """
    left = Counter(scope.product_gpus)
    reserved: Counter[str] = Counter()
    for reservation in scope.reservations:
        reserved[reservation.product] += reservation.count
    found: dict[int, Savings] = {}
    for index in sorted(released, key=lambda one: (scope.nodes[one].committed, -scope.nodes[one].hourly, one)):
        node = scope.nodes[index]
        left[node.product] -= node.gpus
        monthly = node.hourly * HOURS_PER_MONTH
        if node.committed or left[node.product] < reserved[node.product]:
            found[index] = Savings(
                cash_at_renewal=_renewal(scope, node.product, monthly),
                capacity_freed_gpu_hours=Decimal(node.gpus * HOURS_PER_MONTH),
                currency=scope.currency,
            )
        else:
            found[index] = Savings(cash_now=monthly, currency=scope.currency)
    return found


def _renewal(scope: Scope, product: str, monthly: Decimal) -> tuple[Renewal, ...]:
    """The last end among the product's reservations: until then the capacity may be bound. None without a date."""
    ends = [one.term_end[:10] for one in scope.reservations if one.product == product]
    if not ends or not all(ends):
        return ()
    return (Renewal(date=date.fromisoformat(max(ends)), amount=monthly),)


def total_savings(parts: Iterable[Savings], *, currency: str | None) -> Savings:
    """Each of the three figures summed by itself; renewals by date, the 32 earliest."""
    listed = list(parts)
    renewals: dict[date, Decimal] = {}
    for part in listed:
        for renewal in part.cash_at_renewal:
            renewals[renewal.date] = renewals.get(renewal.date, Decimal(0)) + renewal.amount
    freed = [part.capacity_freed_gpu_hours for part in listed if part.capacity_freed_gpu_hours is not None]
    return Savings(
        cash_now=sum((part.cash_now for part in listed if part.cash_now is not None), Decimal(0)) if currency else None,
        cash_at_renewal=tuple(Renewal(date=day, amount=renewals[day]) for day in sorted(renewals)[:32]),
        capacity_freed_gpu_hours=sum(freed, Decimal(0)) if freed else None,
        currency=currency,
    )
