"""Ledgers for tests of the report: real hours computed from windows and facts, and bare rows."""

from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal

from gpuwaste.ledger.hour import HourRules, build_hour
from gpuwaste.ledger.inputs import HourInputs, deduplicate
from gpuwaste.ledger.schema import AMOUNT_COLUMNS, KEY_COLUMNS, LABEL_COLUMNS, LEDGER_SCHEMA, WASTE_CATEGORIES
from gpuwaste.model.facts import merge_facts
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.settings.teams import TeamRules


def real_hour(hour=HOUR, *, price="3.20", cluster="test"):
    """One hour of a GPU that two pods share (one borrows of the other) and of one that nobody holds."""
    journal = Journal(cluster=cluster)
    for minute in range(60):
        at = hour + timedelta(minutes=minute)
        journal.device(at, "gpu-1", replicas=2, unattributed=0.05).device(at, "gpu-2")
        journal.usage(at, "gpu-1", "web", slice_id="gpu-1::0", duty=0.2, sm=0.1)
        journal.usage(at, "gpu-1", "train", slice_id="gpu-1::1", duty=0.8, sm=0.7, namespace="team-b")
    known = [
        fact.node(gpus=2),
        fact.gpu("gpu-1", replicas=2),
        fact.gpu("gpu-2"),
        fact.pod("web"),
        fact.pod("train", namespace="team-b"),
        *([fact.price(price)] if price else []),
    ]
    windows = deduplicate(journal.table())
    inputs = HourInputs(cluster=cluster, hour=hour, windows=windows, facts=tuple(merge_facts(known)))
    return build_hour(inputs, HourRules(teams=TeamRules())).table


def repeated(hours, **more):
    """The same hour's rows once in each of the hours."""
    one = real_hour(**more)
    place = LEDGER_SCHEMA.get_field_index("hour")
    kind = LEDGER_SCHEMA.field("hour")
    return pa.concat_tables([one.set_column(place, kind, pa.array([hour] * one.num_rows, kind.type)) for hour in hours])


def row(**values):
    """One row of the ledger; what is not given is 0 or empty."""
    empty = dict.fromkeys((*KEY_COLUMNS, *LABEL_COLUMNS), "") | dict.fromkeys(AMOUNT_COLUMNS, 0)
    empty |= {"hour": HOUR, "cluster": "test", "row_kind": "holder", "resource": "gpu", "origin": "gpm"}
    price = values.pop("price", None)
    return empty | values | {"effective_unit_cost": None if price is None else Decimal(price)}


def table(*rows):
    """Rows as a table of the ledger's schema."""
    return pa.Table.from_pylist(list(rows), schema=LEDGER_SCHEMA)


@st.composite
def ledgers(draw):
    """Any rows: every kind, several currencies, prices with many decimals, unknown prices and activity."""
    amounts = st.integers(0, NS_PER_HOUR)
    rows = []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["holder", "holder", "free", "unattributed", "unprovisioned"]))
        measured = draw(st.booleans())
        held_by = draw(st.sampled_from(["a", "b", "c"])) if kind == "holder" else ""
        known = {name: draw(amounts) if measured else None for name in AMOUNT_COLUMNS if name.startswith("effective")}
        currency = draw(st.sampled_from([None, "USD", "EUR"]))
        price = draw(st.decimals(0, 99, places=12, allow_nan=False)) if currency else None
        rows.append(
            row(
                row_kind=kind,
                hour=HOUR + timedelta(hours=draw(st.integers(0, 3))),
                cluster=draw(st.sampled_from(["one", "two"])),
                node_uid=f"n{number}",
                gpu_uuid=f"g{number}" if kind != "unprovisioned" else "",
                pool=draw(st.sampled_from(["p", "q"])),
                namespace=held_by,
                team=held_by and draw(st.sampled_from(["red", "blue"])),
                workload_kind=held_by and "Job",
                workload_name=held_by and draw(st.sampled_from(["x", "y"])),
                owned=draw(amounts),
                held=draw(amounts) if kind == "holder" else 0,
                duty=draw(amounts) if measured else None,
                borrowed=draw(amounts),
                lent=draw(amounts),
                currency=currency,
                price=price,
                coverage_ppm=draw(st.sampled_from([None, 0, 999_999, 1_000_000])),
                **known,
                **{name: draw(amounts) for name in WASTE_CATEGORIES},
            )
        )
    return table(*rows)
