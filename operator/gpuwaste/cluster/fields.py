"""Objects as flat fields with owners: what server-side apply works on in the in-memory API server.

A field is the path to a leaf. Dicts are walked; a list is one leaf, except the lists that Kubernetes merges by
a key (conditions by `type`, containers by `name`), whose items are walked under that key.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from gpuwaste.cluster.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gpuwaste.cluster.api import Json

__all__ = [
    "IDENTITY",
    "SERVER_METADATA",
    "Path",
    "applied",
    "desired",
    "flatten",
    "intent_of",
    "is_status",
    "take_over",
    "unflatten",
]

_MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "ephemeralContainers": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "resourceClaims": "name",
    "volumes": "name",
}

SERVER_METADATA = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp"}
)
"""What only the server writes; apply ignores it in a body."""


class _Item(NamedTuple):
    """The step into the item of a keyed list."""

    key: str
    value: str


Path = tuple[str | _Item, ...]


IDENTITY: frozenset[Path] = frozenset({("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")})
"""Leaves that name an object and belong to nobody."""


def is_status(path: Path) -> bool:
    """Whether the leaf is written through the status subresource."""
    return path[0] == "status"


def _is_keyed(name: str | _Item, value: Any) -> bool:
    key = _MERGE_KEYS.get(name) if isinstance(name, str) else None
    return bool(key and value) and all(isinstance(item, dict) and key in item for item in value)


def flatten(value: Any, path: Path = ()) -> dict[Path, Any]:
    """All leaves of a JSON value; an empty dict or list is a leaf."""
    if isinstance(value, dict) and value:
        return {p: leaf for key, child in value.items() for p, leaf in flatten(child, (*path, key)).items()}
    if isinstance(value, list) and path and _is_keyed(path[-1], value):
        name = path[-1]
        key = _MERGE_KEYS[str(name)]
        return {p: leaf for item in value for p, leaf in flatten(item, (*path, _Item(key, str(item[key])))).items()}
    return {path: deepcopy(value)}


def _restored(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(isinstance(step, _Item) for step in node):
        return [_restored(child) for child in node.values()]
    return {step: _restored(child) for step, child in node.items()}


def unflatten(fields: Mapping[Path, Any]) -> Json:
    """The object of its leaves; items of a keyed list stand in the order in which their leaves came."""
    tree: dict[Any, Any] = {}
    for path, leaf in fields.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = deepcopy(leaf)
    restored: Json = _restored(tree)
    return restored


def _render(path: Path) -> str:
    """As the API server prints a field: `.status.conditions[type="Ready"].status`."""
    return "".join(f'[{step.key}="{step.value}"]' if isinstance(step, _Item) else f".{step}" for step in path)


def _place(fields: dict[Path, Any], path: Path, leaf: Any) -> None:
    """Set a leaf and remove those that cannot stand beside it: above it, or below it."""
    below = [p for p in fields if len(p) > len(path) and p[: len(path)] == path]
    if below and leaf in ({}, []):
        return  # an empty dict or keyed list asks for nothing of what others put into it
    for length in range(1, len(path)):
        fields.pop(path[:length], None)
    for other in below:
        del fields[other]
    fields[path] = leaf


def applied(live: Mapping[Path, Any], intent: Mapping[Path, Any], *, dropped: Iterable[Path]) -> dict[Path, Any]:
    """The live fields after `intent` was merged in and `dropped` (owned before, no longer named) taken out."""
    out = set(dropped)
    fields = {path: leaf for path, leaf in live.items() if path not in out}
    for path, leaf in intent.items():
        if path in fields:
            fields[path] = leaf
        else:
            _place(fields, path, leaf)
    return fields


def desired(fields: dict[Path, Any]) -> dict[Path, Any]:
    """What a generation counts: everything but metadata and status."""
    return {path: leaf for path, leaf in fields.items() if path[0] not in ("metadata", "status")}


def intent_of(body: Json, *, status: bool) -> dict[Path, Any]:
    """The leaves that an apply speaks of: identity and status, or everything but status."""
    metadata = {k: v for k, v in body["metadata"].items() if k not in SERVER_METADATA}
    fields = flatten({**body, "metadata": metadata})
    return {path: leaf for path, leaf in fields.items() if path in IDENTITY or is_status(path) == status}


def take_over(
    owned: dict[tuple[str, bool], frozenset[Path]],
    live: dict[Path, Any],
    intent: dict[Path, Any],
    manager: tuple[str, bool],
    *,
    force: bool,
) -> None:
    """Settle who owns fields that two managers want to differ; changes `owned` where `force` is set."""
    differing = {path for path, leaf in intent.items() if path in live and live[path] != leaf} - IDENTITY
    for other, paths in list(owned.items()):
        clash = paths & differing
        if other == manager or not clash:
            continue
        if not force:
            listed = ", ".join(sorted(_render(path) for path in clash))
            raise ConflictError(f'conflict with "{other[0]}": {listed}', status=409)
        owned[other] = paths - clash
