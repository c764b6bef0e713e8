"""Builders of drains for the tests."""

from __future__ import annotations

import numpy as np
from tests.unit.packing.questions import make_instance

from gpuwaste.packing.answer import Placement
from gpuwaste.packing.drain_question import DrainQuestion, node_costs


def make_drain(pods, nodes, *, prices=None, moves=100, stuck=(), budgets=(), keep=None, opens=False):
    """A question; pods as for `make_instance` with node and GPU indexes after, nodes as there."""
    instance = make_instance([pod[:6] for pod in pods], nodes, prices=prices)
    sets = tuple(dict.fromkeys([(), *(tuple(pod[7]) for pod in pods)]))
    names = [node[0] for node in nodes]
    current = Placement(
        pod_node=np.array([names.index(pod[6]) if pod[6] else -1 for pod in pods], dtype=np.int64),
        pod_gpu_set=np.array([sets.index(tuple(pod[7])) for pod in pods], dtype=np.int64),
        gpu_sets=sets,
    )
    return DrainQuestion(
        instance=instance,
        current=current,
        node_cost=node_costs(instance),
        max_moves=moves,
        movable=np.array([pod[0] not in stuck for pod in pods], dtype=np.bool_),
        budgets=tuple(budgets),
        keep=None if keep is None else np.array([name in keep for name in names], dtype=np.bool_),
        open_nodes=opens,
    )


def random_drain(seed, *, pods=14, nodes=5, moves=6, opens=False):
    """A few pods on a few nodes, placed at random where they fit."""
    random = np.random.default_rng(seed)
    hosts = [
        (f"n{i}", int(random.choice([8, 16])), 64, int(random.choice([1, 2, 4])), f"m{i % 2}") for i in range(nodes)
    ]
    free = [[cpu, memory, [1000] * gpus] for _, cpu, memory, gpus, _ in hosts]
    made = []
    for number in range(pods):
        cpu, memory = int(random.integers(0, 7)), int(random.integers(0, 20))
        gpus = int(random.choice([0, 1, 1, 1, 2]))
        milli = int(random.choice([200, 350, 500, 700, 1000])) if gpus == 1 else 0
        spec = str(random.choice(["", "", "m0", "m1"]))
        for node in random.permutation(nodes).tolist():
            room = free[node]
            whole = milli if gpus == 1 else 1000
            able = [gpu for gpu, left in enumerate(room[2]) if left >= whole][:gpus]
            if room[0] >= cpu and room[1] >= memory and len(able) == gpus and spec in ("", hosts[node][4]):
                room[0] -= cpu
                room[1] -= memory
                for gpu in able:
                    room[2][gpu] -= whole
                made.append((f"p{number}", cpu, memory, gpus, milli, spec, f"n{node}", able))
                break
    return make_drain(made, hosts, prices={"m0": "1.5", "m1": "0.7"}, moves=moves, opens=opens)
