"""`GPUReservation` objects: read as facts."""

from __future__ import annotations

import logging
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

from gpuwaste.api import GPUReservation, OwnerKind, ReservationKind
from gpuwaste.cluster.api import list_pages
from gpuwaste.cluster.errors import NotFoundError
from gpuwaste.cluster.kinds import GPU_RESERVATIONS
from gpuwaste.model.errors import InputError
from gpuwaste.model.facts import Fact, ReservationData
from gpuwaste.model.resources import named_product

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuwaste.api import GPUReservationSpec
    from gpuwaste.cluster.api import ClusterApi, Json

__all__ = ["gpu_hour_price", "parse_reservations", "read_reservations", "reservation_facts"]

_log = logging.getLogger(__name__)
_STEP = Decimal(1).scaleb(-12)
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_EVEN)


async def read_reservations(api: ClusterApi) -> list[Json]:
    """All reservations of the cluster, as they are.

    Raises:
        UnreachableError: the API server did not answer.
    """
    found: list[Json] = []
    try:
        async for page in list_pages(api, GPU_RESERVATIONS):
            found += page.items
    except NotFoundError:
        return []  # a cluster without our definitions has none
    return found


def parse_reservations(items: Iterable[Json]) -> list[GPUReservation]:
    """Those that can be understood; of the others the `Valid` condition says why not, and nothing is billed."""
    found: list[GPUReservation] = []
    for item in items:
        try:
            one = GPUReservation.parse(item)
        except InputError as error:
            _log.debug("reservation not understood: %s", error)
            continue
        if named_product(one.spec.gpu_model) is None:
            _log.debug("reservation %s is of an unknown model", one.metadata.name)
            continue
        found.append(one)
    return found


def gpu_hour_price(spec: GPUReservationSpec) -> Decimal | None:
    """The price of one GPU for one hour; a sum for the term is spread evenly over it, rounded to 12 decimals."""
    if spec.price.per_gpu_hour is not None:
        return spec.price.per_gpu_hour
    if spec.price.total is None or spec.term.end_time is None:
        return None
    seconds = round((spec.term.end_time - spec.term.start_time).total_seconds())
    if seconds <= 0:
        return None
    return _ROUNDING.divide(spec.price.total * 3600, Decimal(spec.count * seconds)).quantize(_STEP, context=_ROUNDING)


def reservation_facts(reservations: Iterable[GPUReservation]) -> list[Fact]:
    """What was bought as facts that hold for its term, sorted by key."""
    facts = []
    for one in reservations:
        spec, price = one.spec, gpu_hour_price(one.spec)
        owner = spec.owner
        data = ReservationData(
            name=one.metadata.name,
            product=named_product(spec.gpu_model) or spec.gpu_model,
            count=spec.count,
            price=None if price is None else f"{price.normalize():f}",
            currency=spec.price.currency,
            owner_team=owner.name or "" if owner.kind is OwnerKind.TEAM else "",
            owner_namespace=owner.name or "" if owner.kind is OwnerKind.NAMESPACE else "",
            term_end="" if spec.term.end_time is None else spec.term.end_time.date().isoformat(),
            node_pool=spec.node_pool or "",
            commitment_id=spec.commitment_id or "",
            owned=spec.kind is ReservationKind.OWNED,
            prepaid=spec.price.total is not None,
        )
        facts.append(
            Fact(
                kind="reservation",
                uid=one.metadata.uid or one.metadata.name,
                valid_from=spec.term.start_time,
                valid_to=spec.term.end_time,
                data=data,
            )
        )
    return sorted(facts, key=lambda fact: fact.key)
