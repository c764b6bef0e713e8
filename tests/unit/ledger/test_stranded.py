"""Free GPUs that no typical or pending pod could use."""

from itertools import combinations_with_replacement

import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.unit.ledger.test_hour import Journal, build, rows

from gpuwaste.ledger.join import FactIndex
from gpuwaste.ledger.stranded import stranded_nodes
from gpuwaste.model.facts import ContainerRequest, Fact, PodData
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.units import HOUR as ONE_HOUR


def pod(name, *, gpus=1, cpu=1000, on="node-a", kind="pod", resource="nvidia.com/gpu"):
    container = ContainerRequest(name="main", cpu_milli=cpu, memory_bytes=1 << 30, gpus={resource: gpus})
    data = PodData(namespace="team-a", name=name, node=on if kind == "pod" else "", containers=(container,))
    return Fact(kind=kind, uid=f"uid-{name}", valid_from=fact.BEFORE, valid_to=None, data=data)


def node(name="node-a", *, gpus=8, cpu=32_000):
    return fact.node(name, gpus=gpus, cpu_milli=cpu, memory_bytes=256 << 30)


def stranded(*facts):
    return set(stranded_nodes(FactIndex.build(facts, start=HOUR, end=HOUR + ONE_HOUR)))


def test_a_gpu_beside_pods_that_took_all_cpu():
    assert stranded(node(cpu=4000), pod("a", cpu=3500)) == {"node-a"}
    assert stranded(node(cpu=8000), pod("a", cpu=3500)) == set()


def test_fewer_gpus_than_any_pod_asks_for():
    assert stranded(node(), pod("a", gpus=6)) == {"node-a"}
    assert stranded(node(), pod("a", gpus=6), pod("b", gpus=2, on="node-b"), node("node-b")) == set()


def test_a_pending_pod_is_work_that_could_use_them():
    crowded = (node(), pod("a", gpus=6))
    assert stranded(*crowded, pod("b", gpus=1, kind="pending")) == set()
    assert stranded(*crowded, pod("b", gpus=4, kind="pending")) == {"node-a"}
    assert stranded(*crowded, pod("b", gpus=1, cpu=40_000, kind="pending")) == {"node-a"}


def test_work_for_other_gpus_says_nothing():
    assert stranded(node(), pod("a", gpus=1, resource="amd.com/gpu", on="node-b")) == set()


def test_a_pending_pod_holds_nothing():
    table = build([Journal()], [node(gpus=1), pod("wait", kind="pending")])
    assert rows(table, row_kind="holder") == []
    assert sum(row["unallocated"] for row in rows(table)) == 3_600 * 10**9


def legal_multisets():
    """All sets of instances without media engines that fit on an H100 at the starts that are legal."""
    product = PRODUCTS["H100-80GB"]
    profiles = [profile for profile in product.profiles if not profile.media]

    def fits(chosen, taken=frozenset()):
        if not chosen:
            return True
        first, *rest = chosen
        spans = [frozenset(range(start, start + first.memory_units)) for start in first.starts]
        return any(fits(rest, taken | span) for span in spans if taken.isdisjoint(span))

    sizes = range(1, 8)
    return product, [
        chosen for size in sizes for chosen in combinations_with_replacement(profiles, size) if fits(list(chosen))
    ]


def test_the_slice_weights_of_all_77_mig_multisets_add_up_to_at_most_one():
    product, multisets = legal_multisets()
    assert len(multisets) == 77
    weights = [sum(profile.memory_units for profile in chosen) for chosen in multisets]
    assert max(weights) == product.axis_units
    assert all(weight <= product.axis_units for weight in weights)


@pytest.mark.parametrize("name", sorted(name for name, one in PRODUCTS.items() if one.mig_capable))
def test_no_product_weighs_more_than_itself(name):
    product = PRODUCTS[name]
    for profile in product.profiles:
        assert 0 < profile.memory_units <= product.axis_units
        assert all(start + profile.memory_units <= product.axis_units for start in profile.starts)
