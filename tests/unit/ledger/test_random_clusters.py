"""Laws over random clusters: every sharing mode, gaps, restarts, late and repeated data, in any pieces and order.

Nothing is lost or counted twice, to the last nanosecond, milli-core-millisecond, byte-second and cent; and the stored
hour is the same file whatever way its inputs came.
"""

import tempfile
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.ledger.test_hour import RULES, build
from tests.unit.pricing.test_reservations import reservation

from gpuwaste.cli.conservation import broken_laws, check_rows
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.schema import UNITS_PER_HOUR
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file, update_hour
from gpuwaste.model.facts import Fact, MigInstanceData, ReadyData, merge_facts
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE, to_unix_ns
from gpuwaste.pricing.facts import NodeWeights, PriceSources, price_facts
from gpuwaste.pricing.pricelist import parse_price_list

MORE = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FRACTIONS = st.sampled_from([0.0, 1 / 3, 0.123456789, 0.5, 0.999999, 1.0])
TIMES = st.sampled_from([None, *(HOUR + timedelta(minutes=m, seconds=s) for m, s in ((3, 7), (17, 0), (41, 59)))])
PRICES = parse_price_list(
    'currency: USD\ndate: 2026-11-01\ngpus: {H100-80GB: "3.333333333333", A100-80GB: {list: 7.77, effective: 1.01}}',
    where="prices.yaml",
)


@st.composite
def layouts(draw, product):
    """Parents of a GPU as (id suffix, weight, replicas, MIG instance): whole, shared, or cut into legal instances."""
    mode = draw(st.sampled_from(["whole", "shared", "mig"]))
    if mode != "mig":
        return mode, [("", (1, 1), 1 if mode == "whole" else draw(st.sampled_from([2, 3, 7, 10])), None)]
    free, found = set(range(8)), []
    profiles = [profile for profile in PRODUCTS[product].profiles if not profile.media]
    for profile in draw(st.permutations(profiles)):
        start = draw(st.sampled_from(sorted(profile.starts)))
        taken = set(range(start, start + profile.memory_units))
        if taken <= free:
            free -= taken
            found.append((f"-{start}", (profile.memory_units, 8), 1, (profile.name, start)))
    return mode, found


def _gpu_fact(uuid, node, product, parents, mode):
    mig = [
        MigInstanceData(uuid=uuid + suffix, profile=instance[0], start=instance[1], weight_num=num, weight_den=den)
        for suffix, (num, den), _, instance in parents
        if instance
    ]
    return fact.gpu(uuid, on=node, product=product, mig=mig, replicas=1 if mode == "mig" else parents[0][2])


def _fill(draw, journal, at, window, uuid, parents, pods):
    """One window of one GPU; a restart of the agent cuts a minute into two records of the same window."""
    for suffix, weight, replicas, _ in parents:
        parent = uuid + suffix
        unhealthy = round(draw(st.sampled_from([0, 0, 0, 0.25, 1])) * window)
        journal.device(
            at,
            uuid,
            parent=parent,
            weight=weight,
            replicas=replicas,
            window_ns=window,
            unattributed=draw(st.sampled_from([None, 0.0, 0.2, 1.0])),
            unhealthy_ns=unhealthy,
            allocatable_ns=window - unhealthy,
        )
        for number in range(draw(st.integers(0, min(replicas, 3)))):
            duty = draw(st.one_of(st.none(), FRACTIONS))
            sm = None if duty is None or draw(st.booleans()) else duty * draw(FRACTIONS)
            pod = draw(st.sampled_from(pods))
            slice_id = f"{parent}::{number}" if replicas > 1 else parent
            journal.usage(
                at,
                uuid,
                pod,
                parent=parent,
                slice_id=slice_id,
                duty=duty,
                sm=sm,
                held=draw(FRACTIONS),
                window_ns=window,
                pod_uid=draw(st.sampled_from([f"uid-{pod}", f"uid-{pod}", ""])),
            )


@st.composite
def clusters(draw):
    """Journals of some nodes and the facts about them."""
    bought = reservation(draw(st.integers(1, 5)), price="2.123456789", start=draw(TIMES) or fact.BEFORE)
    over = draw(TIMES)
    journals, facts = [], [bought if over is None or over <= bought.valid_from else replace(bought, valid_to=over)]
    for number in range(draw(st.integers(1, 2))):
        node = f"node-{number}"
        product = draw(st.sampled_from(["H100-80GB", "A100-80GB"]))
        gpus = draw(st.integers(1, 2))
        start, end = draw(TIMES), draw(TIMES)
        labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus)}
        capacity = {"cpu_milli": draw(st.sampled_from([0, 8000, 96_001])), "memory_bytes": 123 << 30}
        known = draw(st.booleans())
        spans = {"start": fact.BEFORE, "end": None}
        if known and not (start and end and start >= end):
            spans = {"start": start or fact.BEFORE, "end": end}
        facts.append(fact.node(node, gpus=gpus, labels=labels, **capacity, **spans))
        facts += [
            Fact(
                kind="ready",
                uid=f"uid-{node}",
                valid_from=since,
                valid_to=None,
                data=ReadyData(node=node, ready=draw(st.booleans())),
            )
            for since in draw(st.sets(TIMES.filter(bool), max_size=3))
        ]
        pods = [f"pod-{number}-{i}" for i in range(3)]
        facts += [fact.pod(pod, on=node, start=draw(TIMES) or fact.BEFORE) for pod in pods]
        journal = Journal(node, node_uid=f"uid-{node}")
        kept = sorted(draw(st.sets(st.integers(0, 59), max_size=5)))
        for place in range(gpus):
            uuid = f"gpu-{number}-{place}"
            mode, parents = draw(layouts(product))
            if draw(st.booleans()):
                facts.append(_gpu_fact(uuid, node, product, parents, mode))
            inside = [
                HOUR + timedelta(minutes=m)
                for m in kept
                if spans["start"] <= HOUR + timedelta(minutes=m)
                and (spans["end"] is None or HOUR + timedelta(minutes=m + 1) <= spans["end"])
            ]
            for at in inside:
                _fill(draw, journal, at, NS_PER_MINUTE, uuid, parents, pods)
        journals.append(journal)
    return journals, merge_facts(facts)


def priced(facts, weights=None):
    return merge_facts(
        list(facts), price_facts(facts, sources=PriceSources(own=PRICES, weights=weights or NodeWeights()), hour=HOUR)
    )


@MORE
@given(clusters())
def test_every_unit_of_every_resource_is_in_one_part(case):
    journals, facts = case
    assert check_rows(build(journals, priced(facts))) == []


@MORE
@given(clusters())
def test_a_gpu_is_owned_for_as_long_as_its_node_was_there(case):
    journals, facts = case
    there = {}
    for one in facts:
        if one.kind == "node":
            end = NS_PER_HOUR if one.valid_to is None else to_unix_ns(one.valid_to) - to_unix_ns(HOUR)
            there[one.data.name] = end - max(to_unix_ns(one.valid_from) - to_unix_ns(HOUR), 0)
    owned = {}
    for row in build(journals, facts).to_pylist():
        if row["resource"] == "gpu" and row["gpu_uuid"]:
            owned[row["node"], row["gpu_uuid"]] = owned.get((row["node"], row["gpu_uuid"]), 0) + row["owned"]
    assert all(amount == there[node] for (node, _), amount in owned.items())


@MORE
@given(clusters(), st.sampled_from([(1, 0, 0), ("0.9", "0.06", "0.04"), ("0.333333333333", "0.333333333333", 0)]))
def test_the_parts_of_a_price_add_up_to_the_price_of_the_node(case, parts):
    gpu, cpu, _ = (Decimal(part) for part in parts)
    journals, facts = case
    money, gpus = [], {}
    for weights in (NodeWeights(), NodeWeights(gpu=gpu, cpu=cpu, memory=1 - gpu - cpu)):
        sums = {}
        for row in build(journals, priced(facts, weights)).to_pylist():
            if row["row_kind"] != "unprovisioned" and row["effective_unit_cost"] is not None:
                cost = row["effective_unit_cost"] * row["owned"] / UNITS_PER_HOUR[row["resource"]]
                sums[row["node"]] = sums.get(row["node"], 0) + cost
                gpus.setdefault(row["node"], set()).add(row["gpu_uuid"])
        money.append(sums)
    for one in facts:
        # Parts are of a node's whole price: all its GPUs must be among the rows, and it must say what CPU it has.
        if one.kind == "node" and one.data.cpu_milli:
            name = one.data.name
            if len(gpus.get(name, set()) - {""}) == one.data.gpus["nvidia.com/gpu"]:
                assert abs(money[0][name] - money[1][name]) < Decimal("0.000001"), name


def _stored(folder, pieces, facts, *, between=False):
    """The bytes of the hour after its windows came in these pieces; `between` computes it after each."""
    store = open_store(str(folder))
    inputs = InputStore(store, "test")
    for number, piece in enumerate(pieces):
        inputs.append_windows(piece)
        inputs.write_facts(HOUR, facts[: number + 1] if number + 1 < len(pieces) else facts)
        if between:
            update_hour(inputs, store, HOUR, RULES)
    inputs.write_facts(HOUR, facts)
    again = InputStore.open(store, "test")  # as after a kill
    update_hour(again, store, HOUR, RULES)
    assert update_hour(again, store, HOUR, RULES) is None, "computing it again changes nothing"
    assert broken_laws(store, "test", HOUR) == []
    return store.read(hour_file("test", HOUR))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters(), st.data())
def test_any_order_twice_and_in_pieces_gives_the_same_bytes(case, data):
    journals, facts = case
    facts = priced(facts)
    whole = pa.concat_tables([journal.table() for journal in journals])
    if not whole.num_rows:
        return
    order = data.draw(st.permutations(range(whole.num_rows)))
    cuts = sorted(data.draw(st.sets(st.integers(0, whole.num_rows), max_size=4)) | {0, whole.num_rows})
    pieces = [whole.take(pa.array(order[a:b], pa.int64())) for a, b in pairwise(cuts)]
    repeated = [pieces[i] for i in data.draw(st.lists(st.integers(0, len(pieces) - 1), max_size=3))]
    shuffled = data.draw(st.permutations([*pieces, *repeated]))
    with tempfile.TemporaryDirectory() as folder:
        once = _stored(Path(folder) / "once", [whole], facts)
        assert _stored(Path(folder) / "pieces", shuffled, facts) == once
        assert _stored(Path(folder) / "late", shuffled, facts, between=True) == once
