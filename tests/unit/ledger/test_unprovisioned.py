"""What is paid for and is no GPU of the cluster, and GPUs that no agent measures."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import BEFORE, HOUR
from tests.unit.ledger.test_hour import Journal, assert_conserved, build, minutes, rows
from tests.unit.pricing.test_reservations import reservation

from gpuwaste.cli.conservation import check_rows
from gpuwaste.ledger.unprovisioned import once_over_clusters
from gpuwaste.model.facts import ContainerRequest, Fact, NodeData, PodData
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.pricing.facts import price_facts


def test_what_was_bought_and_is_not_there_is_a_row_of_the_purchase():
    bought = reservation(10, owner_team="research", commitment_id="cr-1")
    table = build([Journal()], [fact.node(gpus=8), bought])
    (row,) = rows(table, row_kind="unprovisioned")
    assert (row["owned"], row["team"], row["parent_id"], row["slice_id"]) == (2 * NS_PER_HOUR, "research", "cr-1", "10")
    assert (row["node_uid"], row["gpu_uuid"], row["pool"]) == ("", "", "H100-80GB/default")
    assert (row["effective_unit_cost"], row["price_source"]) == (Decimal(2), "Reservation")
    assert check_rows(table) == []


def test_a_purchase_counts_from_its_first_to_its_last_moment():
    half = HOUR + timedelta(minutes=30)
    (row,) = rows(build([Journal()], [reservation(4, start=half)]), row_kind="unprovisioned")
    assert row["owned"] == 2 * NS_PER_HOUR
    came = fact.node(gpus=4, start=HOUR + timedelta(minutes=15))
    (row,) = rows(build([Journal()], [came, reservation(4)]), row_kind="unprovisioned")
    assert row["owned"] == NS_PER_HOUR


def test_a_renewal_inside_the_hour_leaves_nothing_missing():
    half = HOUR + timedelta(minutes=30)
    old, new = replace(reservation(8, name="old"), valid_to=half), reservation(8, name="new", start=half)
    found = rows(build([Journal()], [fact.node(gpus=8), old, new]), row_kind="unprovisioned")
    assert [(row["parent_id"], row["owned"]) for row in found] == [("new", 0), ("old", 0)]


def cluster_rows(start=BEFORE, **missing):
    facts = {
        name: [fact.node(gpus=8 - lost), reservation(8, commitment_id="cr-1", start=start)]
        for name, lost in missing.items()
    }
    tables = []
    for name, found in facts.items():
        table = build([Journal()], found)
        names = pa.array([name] * table.num_rows, pa.string())
        tables.append(table.set_column(table.schema.get_field_index("cluster"), table.schema.field("cluster"), names))
    return pa.concat_tables(tables)


@pytest.mark.parametrize(
    ("missing", "left"),
    [({"a": 3}, 3), ({"a": 3, "b": 6}, 1), ({"a": 8, "b": 8}, 8), ({"a": 3, "b": 3}, 0), ({"a": 6, "b": 7, "c": 7}, 4)],
)
def test_a_purchase_of_several_clusters_counts_once(missing, left):
    table = once_over_clusters(cluster_rows(**missing))
    assert sum(row["owned"] for row in rows(table, row_kind="unprovisioned")) == left * NS_PER_HOUR


def test_a_purchase_of_several_clusters_counts_once_from_its_first_moment():
    half = HOUR + timedelta(minutes=30)
    for missing, left in (({"a": 8, "b": 8}, 8), ({"a": 3, "b": 6}, 1), ({"a": 2, "b": 3}, 0)):
        table = once_over_clusters(cluster_rows(half, **missing))
        assert sum(row["owned"] for row in rows(table, row_kind="unprovisioned")) == left * NS_PER_HOUR // 2


def test_a_machine_that_is_charged_before_it_is_a_node():
    node = fact.node(gpus=2, start=HOUR + timedelta(minutes=30))
    early = fact.price()
    early = Fact(kind="price", uid=early.uid, valid_from=HOUR + timedelta(minutes=15), valid_to=None, data=early.data)
    table = build([Journal()], [node, early])
    (row,) = rows(table, row_kind="unprovisioned")
    assert (row["parent_id"], row["owned"], row["node"]) == ("booting", NS_PER_HOUR // 2, "node-a")
    assert row["effective_unit_cost"] == Decimal("3.20")


def other_node(gpus, *, name="node-a", labels=None, product=""):
    labels = {**(labels or {}), **({"nvidia.com/gpu.product": product} if product else {})}
    data = NodeData(name=name, labels=labels, gpus=gpus)
    return Fact(kind="node", uid=f"uid-{name}", valid_from=fact.BEFORE, valid_to=None, data=data)


def other_pod(name, resource, count=1):
    data = PodData(
        namespace="team-a", name=name, node="node-a", containers=(ContainerRequest(name="m", gpus={resource: count}),)
    )
    return Fact(kind="pod", uid=f"uid-{name}", valid_from=fact.BEFORE, valid_to=None, data=data)


@pytest.mark.parametrize(
    ("resource", "labels", "model"),
    [
        ("amd.com/gpu", {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"}, "AMD-Instinct-MI300X-OAM"),
        ("amd.com/gpu", {}, "amd.com/gpu"),
        ("gpu.intel.com/xe", {"gpu.intel.com/product": "Max_1100"}, "Max-1100"),
        ("gpu.intel.com/i915", {}, "gpu.intel.com/i915"),
        ("nvidia.com/GRID_T4-2Q", {}, "nvidia.com/GRID_T4-2Q"),
    ],
)
def test_gpus_that_no_agent_measures_are_held_priced_and_unmeasured(resource, labels, model):
    from gpuwaste.pricing.pricelist import parse_price_list

    own = parse_price_list(f'currency: USD\ndate: 2026-11-01\ngpus: {{"{resource}": 2}}', where="prices.yaml")
    facts = [other_node({resource: 4}, labels=labels), other_pod("train", resource, 3)]
    table = build([Journal()], [*facts, *price_facts(facts, own=own)])
    held = rows(table, row_kind="holder")
    assert sum(row["held"] for row in held) == sum(row["unmeasured"] for row in held) == 3 * NS_PER_HOUR
    assert {(row["gpu_model"], row["effective"], row["effective_unit_cost"]) for row in held} == {(model, None, 2)}
    assert sum(row["unallocated"] for row in rows(table)) == NS_PER_HOUR
    assert_conserved(table)


def test_a_node_with_measured_and_other_gpus_keeps_both():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.5, sm=0.5)
    node = other_node({"nvidia.com/gpu": 1, "amd.com/gpu": 1}, product="NVIDIA-H100-80GB-HBM3")
    table = build([journal], [node, fact.gpu("gpu-1"), fact.pod("web"), other_pod("hip", "amd.com/gpu")])
    held = {row["pod"]: row for row in rows(table, row_kind="holder")}
    assert held["web"]["effective"] == NS_PER_HOUR // 2
    assert (held["hip"]["held"], held["hip"]["effective"]) == (NS_PER_HOUR, None)
    assert_conserved(table)
