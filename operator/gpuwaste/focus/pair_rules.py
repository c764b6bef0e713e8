"""The rules of key-value columns: Tags, AllocatedTags, SkuPriceDetails."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["PAIR_COLUMNS", "pair_keys", "pair_problem"]

PAIR_COLUMNS: Final = ("Tags", "AllocatedTags", "SkuPriceDetails")


class _Pairs(list[tuple[str, Any]]):
    """An object as its pairs, so that keys that stand twice are seen."""


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Pairs)


def pair_problem(text: str) -> tuple[str, str] | None:
    """The rule that a text breaks and why: it must be one flat JSON object with each key once."""
    try:
        pairs = _parse(text)
    except ValueError as error:
        return "KeyValueFormat-A-001-M", f"is no JSON: {error}"
    if not isinstance(pairs, _Pairs):
        return "KeyValueFormat-A-001-M", "must be a JSON object"
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        return "KeyValueFormat-A-002-M", "must hold each key once"
    if any(isinstance(value, list) for _, value in pairs):
        return "KeyValueFormat-A-004-M", "must hold numbers, texts, true, false and null only"
    return None


def pair_keys(text: str) -> frozenset[str]:
    """The keys of an object; none where the text is no object."""
    try:
        pairs = _parse(text)
    except ValueError:
        return frozenset()
    return frozenset(key for key, _ in pairs) if isinstance(pairs, _Pairs) else frozenset()
