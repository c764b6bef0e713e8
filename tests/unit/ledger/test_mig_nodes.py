"""GPUs in MIG mode of nodes without an agent: owned, held as the API's record says, priced, and unmeasured."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.unit.ledger.test_hour import Journal, assert_conserved, build, rows

from gpuwaste.ledger.missing import unseen_layouts
from gpuwaste.model.facts import ContainerRequest, Fact, NodeData, PodData
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.mig_nodes import mig_gpus
from gpuwaste.model.units import NS_PER_HOUR
from gpuwaste.pricing.reservations import gpus_by_node

PRODUCT = "NVIDIA-H100-80GB-HBM3"


def node(gpus, *, product=PRODUCT, **labels):
    named = {f"nvidia.com/{name.replace('_', '.')}": value for name, value in labels.items()}
    data = NodeData(name="node-a", labels={"nvidia.com/gpu.product": product, **named}, gpus=gpus)
    return Fact(kind="node", uid="uid-node-a", valid_from=fact.BEFORE, valid_to=None, data=data)


def pod(name, resource, count=1):
    made = fact.pod(name)
    container = ContainerRequest(name="main", cpu_milli=1000, memory_bytes=2**30, gpus={resource: count})
    assert isinstance(made.data, PodData)
    return replace(made, data=replace(made.data, containers=(container,)))


def priced(made):
    """The GPUs that a node's price is divided by."""
    return {one.product: one.count for one in gpus_by_node([made])}


CASES = {
    "mixed, counted by a label": (node({"nvidia.com/mig-1g.10gb": 7, "nvidia.com/gpu": 1}, gpu_count="3"), 3, 9 / 8),
    "mixed, without the label": (node({"nvidia.com/mig-1g.10gb": 8, "nvidia.com/mig-3g.40gb": 1}), 2, 1),
    "media engines": (node({"nvidia.com/mig-1g.10gb.me": 1, "nvidia.com/mig-2g.20gb": 2}), 1, 3 / 8),
    "single": (
        node({"nvidia.com/gpu": 6}, product=f"{PRODUCT}-MIG-3g.40gb", gpu_count="6", mig_strategy="single"),
        3,
        0,
    ),
    "all instances": (node({"nvidia.com/mig-7g.80gb": 2}, gpu_count="2"), 2, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_every_gpu_is_owned_once(name):
    made, gpus, left = CASES[name]
    table = build([Journal()], [made])
    assert_conserved(table)
    owned = sum(row["owned"] for row in rows(table))
    assert owned == gpus * NS_PER_HOUR
    assert len({row["gpu_uuid"] for row in rows(table)}) == gpus
    assert {row["gpu_model"] for row in rows(table)} == {"H100-80GB"}
    assert priced(made) == {"H100-80GB": gpus}
    undivided = sum(row["owned"] for row in rows(table) if row["parent_id"] == row["gpu_uuid"])
    whole = made.data.gpus.get("nvidia.com/gpu", 0) if "single" not in name else 0
    if name != "mixed, without the label":
        assert undivided - whole * NS_PER_HOUR == left * NS_PER_HOUR


def test_holders_have_their_profile_and_are_unmeasured():
    made = node({"nvidia.com/mig-1g.10gb": 4, "nvidia.com/mig-3g.40gb": 1})
    table = build(
        [Journal()], [made, pod("small", "nvidia.com/mig-1g.10gb", 2), pod("large", "nvidia.com/mig-3g.40gb")]
    )
    assert_conserved(table)
    held = {}
    for row in rows(table, row_kind="holder"):
        held[row["pod"]] = held.get(row["pod"], 0) + row["held"]
        assert row["unmeasured"] == row["held"]
        assert row["effective"] is None
    assert held == {"small": NS_PER_HOUR // 4, "large": NS_PER_HOUR // 2}
    assert sum(row["owned"] for row in rows(table, row_kind="free")) == NS_PER_HOUR // 4


def test_instances_that_are_handed_out_as_gpus():
    made = node({"nvidia.com/gpu": 2}, product=f"{PRODUCT}-MIG-3g.40gb")
    table = build([Journal()], [made, pod("one", "nvidia.com/gpu")])
    assert [row["held"] for row in rows(table, row_kind="holder")] == [NS_PER_HOUR // 2]
    assert sum(row["owned"] for row in rows(table)) == NS_PER_HOUR


def test_shared_instances_are_counted_once():
    made = node({"nvidia.com/mig-3g.40gb.shared": 8}, **{"mig-3g_40gb_replicas": "4"})
    ((gpu),) = mig_gpus(made.data)
    assert [(part.profile, part.replicas) for part in gpu.parts] == [("3g.40gb", 4)] * 2


def test_what_no_table_knows_stays_out():
    assert mig_gpus(node({"nvidia.com/mig-1g.10gb": 7}, product="NVIDIA-Future-1").data) == ()
    assert mig_gpus(node({"nvidia.com/mig-9g.99gb": 7}).data) == ()
    assert mig_gpus(node({"nvidia.com/gpu": 8}).data) == ()


def test_a_node_with_an_agent_is_not_counted_twice():
    made = node({"nvidia.com/mig-1g.10gb": 7})
    assert unseen_layouts(made.data, described=True) == {}
    table = build([Journal().device(HOUR, "gpu-1")], [made, fact.gpu("gpu-1")])
    assert {row["gpu_uuid"] for row in rows(table)} == {"gpu-1"}


@given(st.sampled_from([p for p in PRODUCTS.values() if p.profiles]), st.data())
def test_no_gpu_is_given_more_than_it_has(product, data):
    counts = {
        profile.resource_name: data.draw(st.integers(0, 2 * profile.max_count), profile.name)
        for profile in product.profiles
    }
    made = node(counts, product=product.name)
    for gpu in mig_gpus(made.data):
        assert sum(part.weight for part in gpu.parts) <= 1
    assert sum(len(gpu.parts) for gpu in mig_gpus(made.data)) == sum(counts.values())
    assert_conserved(build([Journal()], [made]))
