"""The cluster that `make node-cluster` shows: two nodes, a few GPUs of two kinds, and two teams that hold some."""

from __future__ import annotations

from typing import Any

from tests.cluster.nodes.gpus import LOAD_IMAGE, a_gpu, an_instance

from gpuwaste_agent.simulate.scenario import Scenario, ScenarioNode

__all__ = ["example_scenario", "example_workloads"]


def example_scenario() -> Scenario:
    """Two nodes: one with two A100 of which one is cut up, one with four T4."""
    layout = [("3g.40gb", 0), ("2g.20gb", 4), ("1g.10gb", 6)]
    first = [a_gpu(0, 0, "A100-80GB"), a_gpu(0, 1, "A100-80GB", [an_instance(0, 1, *part) for part in layout])]
    second = [a_gpu(1, index, "T4-16GB") for index in range(4)]
    return Scenario(
        nodes=(
            ScenarioNode(name="gpu-node-0", uid="node-0", gpus=tuple(first)),
            ScenarioNode(name="gpu-node-1", uid="node-1", gpus=tuple(second)),
        )
    )


def example_workloads() -> list[dict[str, Any]]:
    """Two namespaces with Deployments that hold GPUs and MIG instances, and use them as `gpuwaste-load` is told."""
    wanted = [
        ("team-vision", "trainer", "nvidia.com/gpu", 3, "0.85:0.6:9000"),
        ("team-vision", "labeler", "nvidia.com/mig-2g.20gb", 1, "0.3:0.9:4000"),
        ("team-search", "ranker", "nvidia.com/mig-3g.40gb", 1, "0.7:0.2:12000"),
        ("team-search", "notebook", "nvidia.com/gpu", 1, "0.02:0.1:1500"),
    ]
    namespaces = dict.fromkeys(namespace for namespace, *_ in wanted)
    return [
        *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in namespaces),
        *(_deployment(*each) for each in wanted),
    ]


def _deployment(namespace: str, name: str, resource: str, replicas: int, load: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": LOAD_IMAGE,
        "args": [load],
        "imagePullPolicy": "Never",
        "resources": {"limits": {resource: "1"}},
    }
    pods = {"containers": [container], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": {"app": name}}, "spec": pods}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
