"""CPU and memory of a node, where they carry a part of its price."""

import json
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.focus.bills import bill, usage
from tests.unit.focus.clusters import random_ledger
from tests.unit.focus.ledgers import free, holder, ledger, rest
from tests.unit.focus.test_bill import divided, read

from gpuwaste.focus.columns import SUMMABLE, coded_schema
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.methods import METHODS
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger
from gpuwaste.focus.verify import verify
from gpuwaste.ledger.schema import LEDGER_SCHEMA

NODE = {"provider_id": "aws:///use1-az1/i-0"}
# A node of 10 an hour: its GPU carries 8, its ten cores 1 and its hundred GiB 1.
NODE_HOUR = [
    holder("a", 0.5, duty=0.4, effective=0.2, price="8", **NODE),
    free(0.5, price="8", **NODE),
    rest("cpu", "a", 4, "0.1", **NODE),
    rest("cpu", "b", 1, "0.1", **NODE),
    rest("cpu", "", 5, "0.1", **NODE),
    rest("memory", "a", 50, "0.01", **NODE),
    rest("memory", "", 50, "0.01", **NODE),
]


def elements_of(row):
    return json.loads(row["AllocatedMethodDetails"], parse_float=Decimal, parse_int=Decimal)["Elements"]


def ratios_of(row):
    return [element["AllocatedRatio"] for element in elements_of(row)]


def test_the_node_costs_what_its_parts_cost_and_each_part_has_an_element():
    rows = split_ledger(ledger(*NODE_HOUR), ExportOptions()).rows.to_pylist()
    found = {
        row["AllocatedResourceName"] or row["x_RemainderReason"]: (row["EffectiveCost"], ratios_of(row)) for row in rows
    }
    assert found == {
        "a": (Decimal("4.9"), [Decimal("0.4"), Decimal("0.04"), Decimal("0.05")]),
        "b": (Decimal("0.1"), [0, Decimal("0.01"), 0]),
        "Unallocated": (5, [Decimal("0.4"), Decimal("0.05"), Decimal("0.05")]),
    }
    assert {(row["ListUnitPrice"], row["PricingUnit"]) for row in rows} == {(10, "Hours")}
    gpu, cpu, memory = elements_of(rows[0])
    assert (gpu["UsageUnit"], gpu["UsageQuantity"]) == ("GPU-Hours", Decimal("0.5"))
    assert (cpu["UsageUnit"], cpu["UsageQuantity"], cpu["x_Resource"]) == ("Core-Hours", 4, "CPU")
    assert (memory["UsageUnit"], memory["UsageQuantity"], memory["x_Resource"]) == ("GiB-Hours", 50, "Memory")


def test_what_costs_nothing_has_no_element():
    free_rest = [
        row | dict.fromkeys(("list_unit_cost", "contracted_unit_cost", "effective_unit_cost"), Decimal(0))
        for row in NODE_HOUR[2:]
    ]
    rows = split_ledger(ledger(*NODE_HOUR[:2], *free_rest), ExportOptions()).rows.to_pylist()
    assert [len(elements_of(row)) for row in rows] == [1, 1]
    assert {row["ListUnitPrice"] for row in rows} == {8}


def test_a_bill_is_divided_by_all_three(tmp_path):
    rows = divided(read(bill(usage(price="100")), tmp_path), ledger(*NODE_HOUR)).rows.to_pylist()
    assert {row["AllocatedResourceName"]: row["BilledCost"] for row in rows} == {"a": 49, "b": 1, None: 50}


def test_cpu_of_a_node_whose_gpus_have_no_price_is_named():
    rows = [holder("a", 1, price=None), rest("cpu", "a", 4, "0.1"), holder("b", 1, node="node-2")]
    split = split_ledger(ledger(*rows), ExportOptions())
    assert {row["ResourceName"] for row in split.rows.to_pylist()} == {"node-2"}
    assert "node node-1: its CPU and memory cost something" in str(split.findings[1])


@st.composite
def with_rest(draw):
    gpus = random_ledger(
        np.random.default_rng(draw(st.integers(0, 2**32))),
        nodes=2,
        gpus=draw(st.integers(1, 2)),
        hours=draw(st.integers(1, 3)),
        holders=2,
        namespaces=3,
        prices=[str(draw(st.decimals("0.01", 99, places=draw(st.integers(0, 12)))))],
    )
    rows = []
    for node in range(2):
        names = {"node": f"node-{node}", "node_uid": f"uid-{node}", "provider_id": f"aws:///use1-az1/i-{node}"}
        for hour in range(len(gpus["hour"].unique())):
            for resource in draw(st.sampled_from([(), ("cpu",), ("memory",), ("cpu", "memory")])):
                price = str(draw(st.decimals("0.000001", 2, places=draw(st.integers(6, 12)))))
                for namespace in draw(st.sets(st.sampled_from(["ns-0", "ns-1", "ns-9", ""]), min_size=1)):
                    amount = draw(st.floats(0.001, 500))
                    rows.append(rest(resource, namespace, amount, price, hour=hour, **names))
    return pa.concat_tables([gpus, ledger(*rows)]) if rows else gpus


@settings(max_examples=8, deadline=None)
@given(with_rest(), st.sampled_from(["hour", "day"]))
@pytest.mark.parametrize("method", METHODS)
def test_parts_add_up_to_their_charge_to_the_last_digit(tmp_path_factory, method, table, grain):
    assert table.schema == LEDGER_SCHEMA
    path = tmp_path_factory.mktemp("focus") / "f.parquet"
    rows = split_ledger(table, ExportOptions(method=METHODS[method], grain=grain)).rows
    with open_sink(path, coded_schema("1.3")) as sink:
        sink.write(rows)
    assert list(verify(path)) == []
    charges = {}
    for row in rows.to_pylist():
        charges.setdefault(row["x_OriginChargeId"], []).append(row)
    with localcontext(prec=60):
        for parts in charges.values():
            assert sum(sum(ratios_of(row)) for row in parts) == 1
            assert all(ratio >= 0 for row in parts for ratio in ratios_of(row))
            totals = {name: sum(row[name] or 0 for row in parts) for name in SUMMABLE}
            assert totals["ListCost"] == parts[0]["ListUnitPrice"] * totals["PricingQuantity"]
            for row in parts:
                assert row["EffectiveCost"] == sum(ratios_of(row)) * totals["EffectiveCost"]
