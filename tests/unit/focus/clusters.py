"""Whole ledgers of random clusters, divided by the real rules of the accounting."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
from tests.unit.focus.ledgers import START

from gpuwaste.ledger.accounting import Holders, Parents, split_parents
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, KEY_COLUMNS, LABEL_COLUMNS, LEDGER_SCHEMA

_MINUTE_NS = 60_000_000_000
_MINUTES = 60


def random_ledger(
    rng, *, nodes, gpus, hours, holders, namespaces, prices=("2",), measured=0.9, currency="USD", first_hour=0
):
    """Rows of `nodes` × `gpus` × `hours` parents, each with `holders` holders, a free part and unattributed work.

    Each hour is sixty equal minutes, so that the accounting of a window (at most 2³⁶ ns) serves for the hour.
    """
    count = nodes * gpus * hours
    parent = np.repeat(np.arange(count), holders)
    held = _cuts(rng, count, holders + 1)
    duty = rng.integers(0, _MINUTE_NS + 1, len(parent))
    holder = Holders(
        parent=parent,
        held=held[:, :-1].ravel(),
        duty=duty,
        effective=(duty * rng.random(len(parent))).astype(np.int64),
        measured=rng.random(len(parent)) < measured,
        starting_limit=np.where(rng.random(len(parent)) < 0.2, _MINUTE_NS // 10, 0),
    )
    split = split_parents(
        Parents(
            capacity=np.full(count, _MINUTE_NS),
            unattributed=np.where(rng.random(count) < 0.3, rng.integers(0, _MINUTE_NS, count), 0),
            free_unhealthy=rng.integers(0, _MINUTE_NS // 4, count),
            free_stranded=rng.integers(0, _MINUTE_NS // 4, count),
            unhealthy=np.where(rng.random(count) < 0.1, _MINUTE_NS // 2, 0),
        ),
        holder,
    )
    place = {"hours": hours, "gpus": gpus, "prices": prices, "currency": currency, "first_hour": first_hour}
    unknown = ~holder.measured
    held_rows = _table(
        "holder",
        parent,
        place,
        {
            "owned": holder.held,
            "held": holder.held,
            "duty": (np.minimum(np.maximum(holder.duty, split.effective), _MINUTE_NS), unknown),
            "effective": (split.effective, unknown),
            "borrowed": split.borrowed,
            "lent": split.holder_lent,
            **split.holder,
        },
        names=rng.integers(0, namespaces, len(parent)),
    )
    free = {"owned": held[:, -1], "lent": split.free_lent, **split.free}
    ran = split.unattributed
    tables = [
        held_rows,
        _table("free", np.arange(count), place, free),
        _table("unattributed", np.arange(count), place, {"effective": ran, "borrowed": ran}).filter(pa.array(ran > 0)),
    ]
    return pa.concat_tables(tables)


def _cuts(rng, count, parts):
    """int64[count, parts] whose rows add up to a minute."""
    cuts = np.sort(rng.integers(0, _MINUTE_NS + 1, (count, parts - 1)), axis=1)
    return np.diff(cuts, prepend=0, append=_MINUTE_NS)


def _texts(prefix, numbers):
    known = pa.array([f"{prefix}{number}" for number in range(int(numbers.max(initial=0)) + 1)])
    return known.take(pa.array(numbers))


def _table(kind, parent, place, amounts, names=None):
    count = len(parent)
    gpu, hour = np.divmod(parent, place["hours"])
    node = gpu // place["gpus"]
    times = np.datetime64(START.replace(tzinfo=None), "us") + (hour + place["first_hour"]).astype("m8[h]")
    columns = dict.fromkeys((*KEY_COLUMNS, *LABEL_COLUMNS), pa.repeat("", count))
    columns |= {
        "hour": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        "cluster": pa.repeat("c1", count),
        "row_kind": pa.repeat(kind, count),
        "resource": pa.repeat("gpu", count),
        "node": _texts("node-", node),
        "node_uid": _texts("uid-", node),
        "provider_id": _texts("aws:///use1-az1/i-", node),
        "gpu_uuid": _texts("GPU-", gpu),
        "parent_id": _texts("GPU-", gpu),
        "pool": pa.repeat("default", count),
        "gpu_model": pa.repeat("H100-80GB", count),
        "origin": pa.repeat("gpm", count),
    }
    if names is not None:
        columns |= {
            "namespace": _texts("ns-", names),
            "team": _texts("team-", names // 3),
            "workload_kind": pa.repeat("Deployment", count),
            "workload_name": _texts("app-", names % 7),
            "pod": _texts("app-", names),
            "pod_uid": _texts("pod-", np.arange(count)),
        }
    for name in AMOUNT_COLUMNS:
        value = amounts.get(name, np.zeros(count, np.int64))
        value, unknown = value if isinstance(value, tuple) else (value, None)
        columns[name] = pa.array(value * _MINUTES, mask=unknown)
    price = pa.array([Decimal(text) for text in place["prices"]], pa.decimal128(38, 18))
    costs = price.take(pa.array(node % len(place["prices"])))
    columns |= dict.fromkeys(("list_unit_cost", "contracted_unit_cost", "effective_unit_cost"), costs)
    columns |= {
        "billed_unit_cost": pa.nulls(count, pa.decimal128(38, 18)),
        "currency": pa.repeat(place["currency"], count),
        "price_source": pa.repeat("PriceList", count),
        "price_date": pa.repeat("2026-11-01", count),
        "coverage_ppm": pa.array(np.full(count, 1_000_000, np.int32)),
    }
    return pa.table([columns[name] for name in LEDGER_SCHEMA.names], schema=LEDGER_SCHEMA)
