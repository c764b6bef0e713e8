"""Ledgers for tests: rows in the ledger's schema from a few words."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from gpuwaste.ledger.schema import (
    AMOUNT_COLUMNS,
    FREE_CATEGORIES,
    KEY_COLUMNS,
    LABEL_COLUMNS,
    LEDGER_SCHEMA,
    UNITS_PER_HOUR,
)

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR_NS = 3_600_000_000_000


def _row(kind, *, node="node-1", gpu="GPU-0", hour=0, price="2", currency="USD", **values):
    row = dict.fromkeys((*KEY_COLUMNS, *LABEL_COLUMNS), "")
    row |= dict.fromkeys(AMOUNT_COLUMNS, 0)
    row |= {
        "hour": START + timedelta(hours=hour),
        "cluster": "c1",
        "row_kind": kind,
        "resource": "gpu",
        "node": node,
        "node_uid": f"uid-{node}",
        "gpu_uuid": gpu,
        "parent_id": gpu,
        "pool": "default",
        "gpu_model": "A100-80GB",
        "currency": currency,
        "price_source": "price-list",
        "price_date": "2026-11-01",
        "origin": "gpm",
        "coverage_ppm": 1_000_000,
    }
    cost = None if price is None else Decimal(price)
    row |= dict.fromkeys(("list_unit_cost", "contracted_unit_cost", "effective_unit_cost"), cost)
    row["billed_unit_cost"] = None
    return row | values


def holder(namespace, hours, *, duty=None, effective=None, workload="web", team="", **values):
    """A holder of `hours` GPU-hours."""
    held = round(hours * HOUR_NS)
    measured = {
        "duty": None if duty is None else round(duty * HOUR_NS),
        "effective": None if effective is None else round(effective * HOUR_NS),
    }
    labels = {
        "namespace": namespace,
        "team": team or namespace,
        "workload_kind": "Deployment",
        "workload_name": workload,
        "pod": f"{workload}-0",
        "pod_uid": f"{namespace}-{workload}",
    }
    return _row("holder", **({"owned": held, "held": held} | measured | labels | values))


def free(hours, *, kind="unallocated", lent=0.0, **values):
    """`hours` GPU-hours that nobody held, of which others used `lent`."""
    owned, used = round(hours * HOUR_NS), round(lent * HOUR_NS)
    assert kind in FREE_CATEGORIES
    return _row("free", **({"owned": owned, kind: owned - used, "lent": used} | values))


def unattributed(hours, **values):
    """What ran without a known holder."""
    return _row("unattributed", **({"effective": round(hours * HOUR_NS)} | values))


def unprovisioned(hours, **values):
    """Capacity that is paid for and in no cluster."""
    return _row("unprovisioned", **({"owned": round(hours * HOUR_NS), "gpu": "", "node": "reservation-1"} | values))


def rest(resource, namespace, hours, price, **values):
    """Core-hours of CPU or GiB-hours of memory that a namespace held; an empty one for what is free."""
    amount = round(hours * UNITS_PER_HOUR[resource])
    row = holder(namespace, 0, **values) if namespace else free(0, **values)
    waste = "unmeasured" if namespace else "unallocated"
    mine = {"owned": amount, "held": amount if namespace else 0, waste: amount}
    row |= {"resource": resource, "gpu_uuid": "", "parent_id": "", "slice_id": "", "container": ""} | mine
    return row | dict.fromkeys(("list_unit_cost", "contracted_unit_cost", "effective_unit_cost"), Decimal(price))


def ledger(*rows):
    """The rows as a table of the ledger's schema."""
    return pa.Table.from_pylist(list(rows), schema=LEDGER_SCHEMA)
