"""The Contract Commitment dataset: one row a purchase of capacity, made from GPUReservation objects."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from gpuwaste.focus.columns import AMOUNT_TYPE, TIME_TYPE
from gpuwaste.focus.options import Finding
from gpuwaste.focus.texts import ascii_text
from gpuwaste.model.money import exact

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from gpuwaste.api.reservation import GPUReservation

__all__ = ["COMMITMENT_SCHEMA", "commitment_rows"]

COMMITMENT_SCHEMA: Final = pa.schema(
    [
        pa.field("BillingCurrency", pa.string()),
        pa.field("ContractCommitmentCategory", pa.string()),
        pa.field("ContractCommitmentCost", AMOUNT_TYPE),
        pa.field("ContractCommitmentDescription", pa.string()),
        pa.field("ContractCommitmentId", pa.string()),
        pa.field("ContractCommitmentPeriodEnd", TIME_TYPE),
        pa.field("ContractCommitmentPeriodStart", TIME_TYPE),
        pa.field("ContractCommitmentQuantity", AMOUNT_TYPE),
        pa.field("ContractCommitmentType", pa.string()),
        pa.field("ContractCommitmentUnit", pa.string()),
        pa.field("ContractId", pa.string()),
        pa.field("ContractPeriodEnd", TIME_TYPE),
        pa.field("ContractPeriodStart", TIME_TYPE),
    ]
)
_SECONDS_PER_HOUR: Final = 3600
_MICROSECOND: Final = Decimal("0.000001")


def commitment_rows(reservations: Iterable[GPUReservation]) -> tuple[pa.Table, tuple[Finding, ...]]:
    """The dataset, sorted by id, and the reservations that it cannot hold, by name.

    A reservation commits to usage: GPUs × the hours of its term, in `GPU-Hours`, rounded to 6 decimals where the term
    is no whole number of hours. Its cost is the total that was agreed, or the price of a GPU-hour × that quantity.
    """
    rows: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for reservation in sorted(reservations, key=lambda item: item.metadata.name):
        end = reservation.spec.term.end_time
        if end is None:
            findings.append(
                Finding(
                    where=f"GPUReservation {reservation.metadata.name}",
                    what="has no end, and a contract commitment must have one; left out",
                    fix="set spec.term.endTime, for hardware of one's own to the end of its depreciation",
                )
            )
            continue
        rows.append(_row(reservation, end))
    return pa.Table.from_pylist(rows, schema=COMMITMENT_SCHEMA), tuple(findings)


def _row(reservation: GPUReservation, end: datetime) -> dict[str, Any]:
    name, spec = reservation.metadata.name, reservation.spec
    start = spec.term.start_time
    seconds = Decimal(int((end - start).total_seconds()))
    quantity = (spec.count * seconds / _SECONDS_PER_HOUR).quantize(_MICROSECOND)
    price = spec.price
    with exact():
        cost = price.total if price.per_gpu_hour is None else price.per_gpu_hour * quantity
    return {
        "BillingCurrency": price.currency,
        "ContractCommitmentCategory": "Usage",
        "ContractCommitmentCost": cost,
        "ContractCommitmentDescription": ascii_text(f"{spec.count} x {spec.gpu_model}, {spec.kind.value.lower()}"),
        "ContractCommitmentId": ascii_text(spec.commitment_id or name),
        "ContractCommitmentPeriodEnd": end,
        "ContractCommitmentPeriodStart": start,
        "ContractCommitmentQuantity": quantity,
        "ContractCommitmentType": f"GPU Reservation ({spec.kind.value})",
        "ContractCommitmentUnit": "GPU-Hours",
        "ContractId": ascii_text(name),
        "ContractPeriodEnd": end,
        "ContractPeriodStart": start,
    }
