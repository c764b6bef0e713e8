"""Builders of packing questions for the tests."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from gpuwaste.packing.instance import Instance


def make_instance(pods, nodes, *, prices=None, current=None):
    """An instance from (name, cpu, memory, gpus, milli, models) and (name, cpu, memory, gpus, model)."""
    models = tuple(dict.fromkeys(node[4] for node in nodes))
    specs = list(dict.fromkeys(pod[5] for pod in pods)) or [""]
    sets = np.array(
        [[not spec or model in spec.split("|") for model in models] for spec in specs], dtype=np.bool_
    ).reshape(len(specs), len(models))
    column = lambda rows, index: np.array([row[index] for row in rows], dtype=np.int64)  # noqa: E731
    return Instance(
        pod_names=[pod[0] for pod in pods],
        pod_cpu=column(pods, 1),
        pod_memory=column(pods, 2),
        pod_gpus=column(pods, 3),
        pod_gpu_milli=column(pods, 4),
        pod_model_set=np.array([specs.index(pod[5]) for pod in pods], dtype=np.int64),
        model_sets=sets,
        node_names=[node[0] for node in nodes],
        node_cpu=column(nodes, 1),
        node_memory=column(nodes, 2),
        node_gpus=column(nodes, 3),
        node_model=np.array([models.index(node[4]) for node in nodes], dtype=np.int64),
        models=models,
        prices=tuple(Decimal(str((prices or {}).get(model, 1))) for model in models),
        current_node=current,
    )


class Ticker:
    """A clock that moves a little at every look."""

    def __init__(self, step_seconds=0.0):
        self.now, self._step = 0.0, step_seconds

    def __call__(self):
        self.now += self._step
        return self.now
