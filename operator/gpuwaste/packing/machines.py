"""Machines in one of several modes: each mode is a node of its own, and of these one is used.

A mode is what a device plugin can be told of a whole machine: GPUs as they are, so many replicas of each, or MIG.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gpuwaste.packing.instance import Bools, Instance, Ints

__all__ = ["in_a_second_mode", "modes_of_machines", "on_machines_of_their_own"]


def _kinds(instance: Instance) -> Ints:
    """int64[N]: nodes of one number hold the same, in every respect."""
    rows = np.column_stack(
        [
            instance.node_model,
            instance.node_gpus,
            instance.node_cpu,
            instance.node_memory,
            instance.islands,
            instance.rooms,
            *(rule.domain for rule in instance.group_rules if hasattr(rule, "domain")),
        ]
    )
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def on_machines_of_their_own(instance: Instance, node: Ints) -> Ints:
    """int64[P]: what is on a second mode of a machine goes to an equal node of an unused machine, if there is one."""
    if instance.node_machine is None:
        return node
    machine, kind = instance.node_machine, _kinds(instance)
    node = node.copy()
    used = np.unique(node[node >= 0]).tolist()
    taken: set[int] = set()
    second = []
    for one in used:
        if int(machine[one]) in taken:
            second.append(one)
        taken.add(int(machine[one]))
    for one in second:
        free = [other for other in np.flatnonzero(kind == kind[one]).tolist() if int(machine[other]) not in taken]
        if free:
            node[node == one] = free[0]
            taken.add(int(machine[free[0]]))
    return node


def in_a_second_mode(machine: Ints, node: Ints, milli: Ints) -> Ints:
    """Pods on nodes whose machine is used in another mode by more GPU-milli, or as many on a node before."""
    used = np.unique(node[node >= 0])
    load = np.bincount(node[node >= 0], weights=milli[node >= 0], minlength=len(machine))
    best: dict[int, int] = {}
    for one in used.tolist():
        known = best.get(int(machine[one]))
        if known is None or load[one] > load[known]:
            best[int(machine[one])] = one
    second = [one for one in used.tolist() if best[int(machine[one])] != one]
    return np.flatnonzero(np.isin(node, second))


def modes_of_machines(instance: Instance, node: Ints, *, choice: int) -> Bools:
    """bool[N]: one mode of each machine.

    Machines that have the same modes are shared out among these as a placement uses them. Where it uses more than
    there are, each mode gets its part of them.

    Args:
        instance: its nodes are machines in modes.
        node: int64[P] a placement that may use a machine in several modes.
        choice: 0, or which one machine is in another mode than that.
    """
    assert instance.node_machine is not None  # noqa: S101 - the caller looked
    kind = _kinds(instance)
    modes: dict[int, list[int]] = defaultdict(list)
    for one, machine in enumerate(instance.node_machine.tolist()):
        modes[machine].append(one)
    alike: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for nodes in modes.values():
        ordered = sorted(nodes, key=lambda one: int(kind[one]))
        alike[tuple(int(kind[one]) for one in ordered)].append(ordered)
    used = Counter(kind[np.unique(node[node >= 0])].tolist())
    groups = list(alike.items())
    shares = [_shared_out([used[one] for one in kinds], len(machines)) for kinds, machines in groups]
    _change_one(shares, [[used[one] for one in kinds] for kinds, _ in groups], choice)
    usable = np.zeros(len(kind), dtype=np.bool_)
    for (_, machines), share in zip(groups, shares, strict=True):
        chosen = [mode for mode, count in enumerate(share) for _ in range(count)]
        for nodes, mode in zip(machines, chosen, strict=True):
            usable[nodes[mode]] = True
    return usable


def _shared_out(wanted: list[int], count: int) -> list[int]:
    """Whole numbers that add up to `count`, in proportion to what is wanted."""
    total = sum(wanted)
    shares = list(wanted) if total <= count else [count * want // total for want in wanted]
    order = sorted(range(len(wanted)), key=lambda mode: (-(wanted[mode] * count - shares[mode] * max(total, 1)), mode))
    for number in range(count - sum(shares)):
        shares[order[number % len(order)]] += 1
    return shares


def _change_one(shares: list[list[int]], wanted: list[list[int]], choice: int) -> None:
    """Put one machine into another mode: the first that more machines are wanted in, then the next, and so on."""
    changes = [
        (share[there] - want[there], group, here, there)
        for group, (share, want) in enumerate(zip(shares, wanted, strict=True))
        for here in range(len(share))
        for there in range(len(share))
        if share[here] and here != there
    ]
    if choice and changes:
        _, group, here, there = sorted(changes)[(choice - 1) % len(changes)]
        shares[group][here] -= 1
        shares[group][there] += 1
