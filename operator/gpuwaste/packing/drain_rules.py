"""Rules over several nodes in a drain: whatever they count stays in its domain, so that no count changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuwaste.model.errors import InputError
from gpuwaste.packing.group_rules import Apart, Gang, Together
from gpuwaste.packing.group_verifier import group_violations
from gpuwaste.packing.rules import KEPT_FREE, only_on
from gpuwaste.packing.verifier import node_violations

if TYPE_CHECKING:
    from gpuwaste.packing.answer import Placement
    from gpuwaste.packing.instance import Bools, Instance

__all__ = ["within_domains"]


def within_domains(instance: Instance, current: Placement, *, where: str) -> Instance:
    """The instance without rules over several nodes, in which their pods may only move within the domain they are in.

    Args:
        instance: pods, nodes and rules.
        current: where the pods are.
        where: of the rules, for messages.

    Raises:
        InputError: the pods break a rule where they are, or GPUs shall be kept free, which a drain does not know.
    """
    if any(name.startswith(KEPT_FREE) for name in instance.pod_names):
        raise InputError("keepFree is no rule of a drain", where=where, fix="leave it out")
    broken = [*node_violations(instance, current), *group_violations(instance, current.pod_node)]
    if broken:
        raise InputError(f"the current placement breaks a rule: {broken[0]}", where=where)
    everywhere = np.ones(len(instance.node_names), dtype=np.bool_)
    masks: dict[bytes, tuple[int, Bools]] = {everywhere.tobytes(): (0, everywhere)}
    mine: dict[int, Bools] = {}
    for rule in instance.group_rules:
        if isinstance(rule, Gang):
            continue
        named = set(rule.pods)
        named.update(rule.anchors if isinstance(rule, Together) else rule.others if isinstance(rule, Apart) else ())
        for pod in named:
            host = int(current.pod_node[pod])
            if host >= 0:
                mine[pod] = mine.get(pod, everywhere) & (rule.domain == rule.domain[host])
    row = np.zeros(len(instance.pod_names), dtype=np.int64)
    for pod, mask in mine.items():
        row[pod], _ = masks.setdefault(mask.tobytes(), (len(masks), mask))
    bare = instance.untied()
    return only_on(bare, np.array([mask for _, mask in masks.values()], dtype=np.bool_), row) if mine else bare
