"""The status of `GPUReservation` objects: how much of what was bought is there, and held, and used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from gpuwaste.api import (
    ConditionStatus,
    ConditionType,
    GPUReservation,
    GPUReservationStatus,
    Reason,
    make_condition,
    set_condition,
)
from gpuwaste.ledger.join import pool_name
from gpuwaste.model.facts import ReservationData
from gpuwaste.model.resources import named_product
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.pricing.reservations import cover_nodes
from gpuwaste.waste.figures import gpu_hours, summarise
from gpuwaste.waste.windows import newest_hour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    import pyarrow as pa

    from gpuwaste.model.facts import Fact
    from gpuwaste.pricing.reservations import Cover

__all__ = ["ReservationUse", "bought_by_pool", "reservation_object", "reservation_uses"]

_SOON = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationUse:
    """GPUs of a reservation, as nanoseconds of GPU an hour where parts of GPUs count.

    Attributes:
        present: GPUs of the cluster that it covers.
        held: what pods hold of these.
        effective: what they use of these; None where nothing is measured.
    """

    present: int = 0
    held: int = 0
    effective: int | None = None


def reservation_uses(
    facts: Sequence[Fact], rows: pa.Table, *, at: datetime, pool_label: str
) -> dict[str, ReservationUse]:
    """By the reservation's UID, what of it is there and in use in the newest hour.

    On a node of which a reservation covers a part, that part of what is held and used counts.

    Args:
        facts: of the newest hour: nodes, GPUs and reservations.
        rows: rows of LEDGER_SCHEMA; the newest hour counts.
        at: the moment: what is over by then, or has not begun, covers nothing.
        pool_label: a node label that names the pool before the well-known ones.
    """
    now = [fact for fact in facts if fact.valid_from <= at and (fact.valid_to is None or fact.valid_to > at)]
    gpus = rows.filter(pc.and_(pc.equal(rows["resource"], "gpu"), pc.not_equal(rows["gpu_uuid"], "")))
    figures, length = {}, NS_PER_HOUR
    if gpus.num_rows:
        newest, length = newest_hour(gpus)
        figures = summarise(newest, ("node", "gpu_model"))
    uses: dict[str, ReservationUse] = {}
    for cover in cover_nodes(now, pool_label=pool_label):
        sums = figures.get((cover.node.node.name, cover.node.product))
        old = uses.get(cover.reservation.uid, ReservationUse())
        held = effective = 0
        measured = old.effective is not None
        if sums is not None:
            held = _part(sums["held"], cover, length)
            measured = measured or sums.amounts["effective"] is not None
            effective = _part(sums["effective"], cover, length)
        uses[cover.reservation.uid] = ReservationUse(
            present=old.present + cover.gpus,
            held=old.held + held,
            effective=(old.effective or 0) + effective if measured else None,
        )
    return uses


def bought_by_pool(facts: Sequence[Fact], *, at: datetime, pool_label: str) -> dict[str, tuple[int, int]]:
    """By pool as the ledger names it, GPUs that reservations cover, and GPUs of the pool's own that are not there."""
    now = [fact for fact in facts if fact.valid_from <= at and (fact.valid_to is None or fact.valid_to > at)]
    covered: dict[str, int] = {}
    given: dict[str, int] = {}
    for cover in cover_nodes(now, pool_label=pool_label):
        pool = pool_name(cover.node.node, cover.node.product, label=pool_label)
        covered[pool] = covered.get(pool, 0) + cover.gpus
        given[cover.reservation.uid] = given.get(cover.reservation.uid, 0) + cover.gpus
    missing: dict[str, int] = {}
    for fact in now:
        if isinstance(fact.data, ReservationData):
            pool = f"{fact.data.product}/{fact.data.node_pool or 'default'}"
            missing[pool] = missing.get(pool, 0) + fact.data.count - given.get(fact.uid, 0)
    return {pool: (covered.get(pool, 0), missing.get(pool, 0)) for pool in sorted({*covered, *missing})}


def _part(amount: int, cover: Cover, length: int) -> int:
    return amount * NS_PER_HOUR * cover.gpus // (length * max(cover.node.count, 1))


def reservation_object(
    reservation: GPUReservation, use: ReservationUse, *, price: Decimal | None, through: datetime | None, now: datetime
) -> GPUReservation:
    """The object with its status; its spec is the user's and stays as it is.

    Args:
        reservation: as it is.
        use: what of it is there and in use.
        price: of a GPU-hour.
        through: up to when data has come in; None before any has.
        now: for the term, and for condition times.
    """
    spec, generation = reservation.spec, reservation.metadata.generation or 1
    conditions = reservation.status.conditions if reservation.status else ()
    for of, (status, reason, message) in _conditions(reservation, use, through=through, now=now).items():
        new = make_condition(of, status, reason, message, observed_generation=generation, now=now)
        conditions = set_condition(conditions, new)
    held = f"{gpu_hours(use.held):.2f}".rstrip("0").rstrip(".")
    written = GPUReservationStatus(
        # Whether the object is understood is said by who checks it.
        conditions=tuple(one for one in conditions if one.type != ConditionType.VALID),
        observed_generation=generation,
        observed_time=through,
        provisioned_gpus=use.present,
        unprovisioned_gpus=max(spec.count - use.present, 0) if _running(reservation, now) else None,
        held_gpus=gpu_hours(use.held),
        effective_gpus=None if use.effective is None else gpu_hours(use.effective),
        price_per_gpu_hour=price,
        used=f"{held} of {spec.count}",
    )
    return reservation.model_copy(update={"status": written})


def _running(reservation: GPUReservation, now: datetime) -> bool:
    term = reservation.spec.term
    return term.start_time <= now and (term.end_time is None or now < term.end_time)


_Said = tuple[ConditionStatus, Reason, str]


def _conditions(
    reservation: GPUReservation, use: ReservationUse, *, through: datetime | None, now: datetime
) -> Mapping[ConditionType, _Said]:
    spec, term = reservation.spec, reservation.spec.term
    yes, no = ConditionStatus.TRUE, ConditionStatus.FALSE
    if now < term.start_time:
        said = (no, Reason.NOT_STARTED, f"The term begins at {term.start_time:%Y-%m-%d %H:%M} UTC.")
        return {ConditionType.READY: said, ConditionType.PROVISIONED: said}
    if term.end_time is not None and now >= term.end_time:
        said = (no, Reason.EXPIRED, f"The term ended at {term.end_time:%Y-%m-%d %H:%M} UTC; delete the object.")
        return {ConditionType.READY: said, ConditionType.PROVISIONED: said}
    missing = spec.count - use.present
    where = f" in node pool {spec.node_pool}" if spec.node_pool else ""
    if missing > 0:
        text = (
            f"{missing} of {spec.count} GPUs are paid for and not in the cluster: it has {use.present} {spec.gpu_model}"
            f"{where} that no other reservation covers. Add nodes, or give the GPUs back at renewal."
        )
        provisioned: _Said = (no, Reason.PARTLY_PROVISIONED, text)
    else:
        provisioned = (yes, Reason.ALL_PROVISIONED, f"All {spec.count} GPUs are in the cluster.")
    if named_product(spec.gpu_model) is None:
        ready: _Said = (no, Reason.INVALID, f"{spec.gpu_model} is no GPU product known here.")
    elif through is None:
        ready = (no, Reason.NO_DATA, "No usage has been read yet.")
    elif term.end_time is not None and term.end_time - now <= _SOON:
        ready = (yes, Reason.UP_TO_DATE, f"The figures are up to date. The term ends at {term.end_time:%Y-%m-%d}.")
    else:
        ready = (yes, Reason.UP_TO_DATE, "The figures are up to date.")
    return {ConditionType.READY: ready, ConditionType.PROVISIONED: provisioned}
