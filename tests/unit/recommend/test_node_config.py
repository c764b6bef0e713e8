"""Plans as ConfigMaps of mig-manager and the device plugin, and every rule of the two."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.model.errors import InvariantError
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.packing.mig import Layout, legal_geometries
from gpuwaste.recommend.node_config import (
    MigStrategy,
    NodePlan,
    Sharing,
    SharingMode,
    config_violations,
    node_configs,
    offered,
    plan_violations,
    plans_of_layouts,
)

H100, T4 = PRODUCTS["H100-80GB"], PRODUCTS["T4-16GB"]
GPU = "nvidia.com/gpu"
SEVEN = ("1g.10gb",) * 7
HALVES = ("3g.40gb", "3g.40gb")


def plan(gpus, strategy=MigStrategy.MIXED, mode=None, **replicas):
    shared = tuple(Sharing(resource=name.replace("__", "."), replicas=count) for name, count in replicas.items())
    sharing = tuple(replace(one, resource=f"nvidia.com/{one.resource}") for one in shared)
    return NodePlan(node="n", strategy=strategy, gpus=tuple(gpus), mode=mode, sharing=sharing)


def test_mixed_layouts_and_sharing_are_written_and_read_back():
    made = plan([SEVEN, None, (*HALVES,)], mode=SharingMode.TIME_SLICING, gpu=4)
    configs = node_configs(H100, [made])
    assert offered(H100, made) == {GPU: 4, "nvidia.com/mig-1g.10gb": 7, "nvidia.com/mig-3g.40gb": 2}
    mig = yaml.safe_load(configs.mig)
    name = configs.labels["n"]["nvidia.com/mig.config"]
    assert mig["version"] == "v1"
    assert {"all-disabled", "all-enabled"} <= set(mig["mig-configs"])
    assert mig["mig-configs"][name] == [
        {"devices": [0], "mig-enabled": True, "mig-devices": {"1g.10gb": 7}},
        {"devices": [1], "mig-enabled": False},
        {"devices": [2], "mig-enabled": True, "mig-devices": {"3g.40gb": 2}},
    ]
    plugin = yaml.safe_load(configs.plugin[configs.labels["n"]["nvidia.com/device-plugin.config"]])
    assert plugin == {
        "version": "v1",
        "flags": {"migStrategy": "mixed"},
        "sharing": {"timeSlicing": {"resources": [{"name": GPU, "replicas": 4}]}},
    }


def test_what_is_not_shared_has_no_sharing_and_the_name_follows_the_content():
    first, second = (node_configs(H100, [plan([cut])]) for cut in (SEVEN, HALVES))
    assert "sharing" not in next(iter(first.plugin.values()))
    assert first.plugin == second.plugin
    assert first.labels["n"]["nvidia.com/mig.config"] != second.labels["n"]["nvidia.com/mig.config"]


def test_single_offers_instances_as_gpus():
    made = plan([SEVEN, SEVEN], MigStrategy.SINGLE, SharingMode.TIME_SLICING, gpu=2)
    assert offered(H100, made) == {GPU: 28}
    assert node_configs(H100, [made]).labels


def test_a_gpu_without_mig_is_shared_by_mps():
    made = plan([None, None], MigStrategy.NONE, SharingMode.MPS, gpu=10)
    configs = node_configs(T4, [made])
    assert offered(T4, made) == {GPU: 20}
    assert "nvidia.com/mig.config" not in configs.labels["n"]


@pytest.mark.parametrize(
    ("product", "made", "part"),
    [
        pytest.param(H100, plan([("7g.80gb", "1g.10gb")]), "do not fit on one GPU", id="illegal"),
        pytest.param(H100, plan([("1g.5gb",)]), "has no profile 1g.5gb", id="unknown profile"),
        pytest.param(T4, plan([("1g.5gb",)]), "has no MIG", id="no MIG"),
        pytest.param(H100, plan([SEVEN], MigStrategy.NONE), "does not offer MIG", id="strategy none"),
        pytest.param(H100, plan([SEVEN, HALVES], MigStrategy.SINGLE), "all GPUs cut into the same", id="single, two"),
        pytest.param(H100, plan([SEVEN, None], MigStrategy.SINGLE), "all GPUs cut into the same", id="single, one off"),
        pytest.param(
            H100, plan([("3g.40gb", "4g.40gb")], MigStrategy.SINGLE), "all GPUs cut into the same", id="single, mixed"
        ),
        pytest.param(H100, plan([None], mode=SharingMode.TIME_SLICING, gpu=1), "2 or more", id="one replica"),
        pytest.param(H100, plan([None], mode=SharingMode.MPS), "no replicas", id="no replicas"),
        pytest.param(H100, plan([None], gpu=2), "no sharing mode", id="no mode"),
        pytest.param(
            H100, plan([SEVEN], mode=SharingMode.MPS, gpu=2), "MPS does not work on a node with MIG", id="MPS"
        ),
        pytest.param(
            H100,
            plan([None], mode=SharingMode.MPS, **{"mig-1g__10gb": 2}),
            "shares nvidia.com/gpu only",
            id="MPS on MIG",
        ),
        pytest.param(H100, plan([SEVEN], mode=SharingMode.TIME_SLICING, gpu=2), "does not offer it", id="not there"),
        pytest.param(
            H100,
            replace(plan([None], mode=SharingMode.TIME_SLICING), sharing=(Sharing(resource=GPU, replicas=2),) * 2),
            "in two ways",
            id="twice",
        ),
    ],
)
def test_plans_that_cannot_be_carried_out(product, made, part):
    assert any(part in one for one in plan_violations(product, made))
    with pytest.raises(InvariantError, match="cannot be carried out"):
        node_configs(product, [made])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param(lambda c: replace(c, labels={}), "name no configuration", id="no labels"),
        pytest.param(lambda c: replace(c, mig=c.mig.replace("1g.10gb: 7", "1g.10gb: 6")), "offers", id="fewer"),
        pytest.param(lambda c: replace(c, mig=c.mig.replace("- 0", "- 5")), "offers", id="another GPU"),
        pytest.param(
            lambda c: replace(c, plugin={k: v.replace("replicas: 3", "replicas: 2") for k, v in c.plugin.items()}),
            "offers",
            id="replicas",
        ),
    ],
)
def test_a_configuration_that_says_something_else_is_found(change, part):
    made = plan([SEVEN], mode=SharingMode.TIME_SLICING, **{"mig-1g__10gb": 3})
    configs = node_configs(H100, [made])
    assert config_violations(H100, [made], configs) == []
    assert any(part in one for one in config_violations(H100, [made], change(configs)))


LEGAL = list(legal_geometries(H100).values())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LEGAL), st.integers(1, 5)), min_size=1, max_size=5), st.integers(1, 8))
def test_layouts_on_nodes_keep_every_instance(parts, gpus_a_node):
    layouts = [Layout(count=count, instances=instances) for instances, count in parts]
    names = [f"n{i}" for i in range(30)]
    plans = plans_of_layouts(layouts, names, gpus_a_node=gpus_a_node, strategy=MigStrategy.MIXED)
    total = sum(count * len(instances) for instances, count in parts)
    assert sum(sum(offered(H100, one).values()) for one in plans) == total
    assert len(plans) == -(-sum(count for _, count in parts) // gpus_a_node)
    assert node_configs(H100, plans).labels.keys() == {one.node for one in plans}


def test_single_puts_one_profile_on_a_node():
    layouts = [
        Layout(count=3, instances=(("3g.40gb", 0), ("3g.40gb", 4))),
        Layout(count=1, instances=(("3g.40gb", 0),)),
    ]
    layouts.append(Layout(count=1, instances=(("7g.80gb", 0),)))
    plans = plans_of_layouts(layouts, ["a", "b", "c"], gpus_a_node=2, strategy=MigStrategy.SINGLE)
    assert [offered(H100, one) for one in plans] == [{GPU: 4}, {GPU: 4}, {GPU: 2}]
    assert node_configs(H100, plans).labels.keys() == {"a", "b", "c"}
    with pytest.raises(InvariantError, match="3 nodes are needed and 2"):
        plans_of_layouts(layouts, ["a", "b"], gpus_a_node=2, strategy=MigStrategy.SINGLE)
