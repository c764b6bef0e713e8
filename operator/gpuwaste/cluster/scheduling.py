"""What the spec of a pod requires of its node and of other pods; preferences are not read."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from gpuwaste.cluster.quantity import parse_quantity
from gpuwaste.model.scheduling import (
    NodeTerm,
    PodTerm,
    Requirement,
    Scheduling,
    Selector,
    SpreadTerm,
    Toleration,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gpuwaste.cluster.api import Json

__all__ = ["extended_amounts", "label_selector", "pod_scheduling"]

_ORDINARY = ("cpu", "memory", "ephemeral-storage")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_ADDED_TOLERATIONS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
"""The API server gives these to every pod; they say nothing of where it may run."""


def _requirement(raw: Json) -> Requirement:
    return Requirement(
        key=sys.intern(raw["key"]), operator=sys.intern(raw["operator"]), values=tuple(raw.get("values") or ())
    )


def label_selector(raw: Json | None) -> Selector:
    """A Kubernetes label selector; None selects nothing."""
    if raw is None:
        return Selector(nothing=True)
    return Selector(
        labels=dict(sorted((raw.get("matchLabels") or {}).items())),
        expressions=tuple(_requirement(one) for one in raw.get("matchExpressions") or ()),
    )


def extended_amounts(amounts: Mapping[str, object], is_gpu: Callable[[str], bool]) -> dict[str, int]:
    """Resources besides CPU, memory, disk and GPUs as whole numbers; of a fraction the next larger one."""
    found = {}
    for name, amount in sorted(amounts.items()):
        if name not in _ORDINARY and not is_gpu(name):
            found[sys.intern(name)] = -int(-parse_quantity(str(amount)) // 1)
    return {name: amount for name, amount in found.items() if amount}


def _pod_terms(spec: Json | None, namespace: str, labels: Mapping[str, str]) -> tuple[PodTerm, ...]:
    return tuple(_pod_term(raw, namespace, labels) for raw in (spec or {}).get(_REQUIRED) or ())


def _pod_term(raw: Json, namespace: str, labels: Mapping[str, str]) -> PodTerm:
    return PodTerm(
        topology=sys.intern(raw["topologyKey"]),
        selector=_with_keys(raw, labels),
        namespaces=tuple(raw.get("namespaces") or (() if "namespaceSelector" in raw else (namespace,))),
        all_namespaces="namespaceSelector" in raw and raw["namespaceSelector"] is not None,
    )


def _with_keys(raw: Json, labels: Mapping[str, str]) -> Selector:
    """The selector with what `matchLabelKeys` and `mismatchLabelKeys` add of the pod's own labels."""
    selector = label_selector(raw.get("labelSelector"))
    same = [
        Requirement(key=key, operator="In", values=(labels[key],))
        for key in raw.get("matchLabelKeys") or ()
        if key in labels
    ]
    other = [
        Requirement(key=key, operator="NotIn", values=(labels[key],))
        for key in raw.get("mismatchLabelKeys") or ()
        if key in labels
    ]
    return Selector(
        labels=selector.labels, expressions=(*selector.expressions, *same, *other), nothing=selector.nothing
    )


def _extended(containers: Iterable[Json], is_gpu: Callable[[str], bool]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for container in containers:
        resources = container.get("resources") or {}
        asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        total.update(extended_amounts(asked, is_gpu))
    return dict(sorted(total.items()))


def pod_scheduling(metadata: Json, spec: Json, is_gpu: Callable[[str], bool]) -> Scheduling | None:
    """What a pod requires; None where it requires nothing.

    Extended resources of init containers are added to those of the others, which is never too little.
    """
    namespace, labels = metadata["namespace"], metadata.get("labels") or {}
    affinity = spec.get("affinity") or {}
    node_terms = ((affinity.get("nodeAffinity") or {}).get(_REQUIRED) or {}).get("nodeSelectorTerms") or ()
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    found = Scheduling(
        node_selector={sys.intern(key): value for key, value in sorted((spec.get("nodeSelector") or {}).items())},
        node_terms=tuple(
            NodeTerm(
                labels=tuple(_requirement(one) for one in term.get("matchExpressions") or ()),
                fields=tuple(_requirement(one) for one in term.get("matchFields") or ()),
            )
            for term in node_terms
        ),
        tolerations=tuple(
            Toleration(
                key=sys.intern(raw.get("key") or ""),
                operator=sys.intern(raw.get("operator") or "Equal"),
                value=raw.get("value") or "",
                effect=sys.intern(raw.get("effect") or ""),
            )
            for raw in spec.get("tolerations") or ()
            if raw.get("key") not in _ADDED_TOLERATIONS
        ),
        near=_pod_terms(affinity.get("podAffinity"), namespace, labels),
        apart=_pod_terms(affinity.get("podAntiAffinity"), namespace, labels),
        spread=tuple(
            SpreadTerm(
                topology=sys.intern(raw["topologyKey"]),
                selector=_with_keys(raw, labels),
                max_skew=int(raw["maxSkew"]),
            )
            for raw in spec.get("topologySpreadConstraints") or ()
            if raw.get("whenUnsatisfiable") == "DoNotSchedule"
        ),
        host_ports=tuple(
            sorted(
                {
                    f"{port.get('protocol') or 'TCP'}/{port['hostPort']}"
                    for container in containers
                    for port in container.get("ports") or ()
                    if port.get("hostPort")
                }
            )
        ),
        extended=_extended(containers, is_gpu),
        volumes=tuple(
            sorted(
                volume["persistentVolumeClaim"]["claimName"]
                if "persistentVolumeClaim" in volume
                else f"{metadata['name']}-{volume['name']}"
                for volume in spec.get("volumes") or ()
                if "persistentVolumeClaim" in volume or "ephemeral" in volume
            )
        ),
    )
    return None if found == Scheduling() else found
