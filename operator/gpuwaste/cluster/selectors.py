"""Label and field selectors, as far as the in-memory API server answers them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpuwaste.cluster.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste.cluster.api import Json

__all__ = ["matches"]

_SET = re.compile(r"^(?P<key>[\w./-]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[\w./-]+)\s*(?P<op>!=|==|=)\s*(?P<value>[\w.-]*)$")
_EXISTS = re.compile(r"^(?P<absent>!?)\s*(?P<key>[\w./-]+)$")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


def _label_term(term: str, labels: Mapping[str, str]) -> bool:
    if found := _SET.match(term):
        values = {value.strip() for value in found["values"].split(",")}
        # As in Kubernetes, `notin` also holds where the label is missing.
        return (labels.get(found["key"]) in values) == (found["op"] == "in")
    if found := _EQUAL.match(term):
        return (labels.get(found["key"]) == found["value"]) == (found["op"] != "!=")
    if found := _EXISTS.match(term):
        return (found["key"] in labels) == (not found["absent"])
    raise InvalidError(f"unable to parse the label selector {term!r}", status=400)


def _field_term(term: str, body: Json) -> bool:
    found = _EQUAL.match(term)
    if not found:
        raise InvalidError(f"unable to parse the field selector {term!r}", status=400)
    value: object = body
    for part in found["key"].split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return (str(value or "") == found["value"]) == (found["op"] != "!=")


def matches(body: Json, *, label_selector: str, field_selector: str) -> bool:
    """Whether an object is selected; an empty selector selects everything.

    Raises:
        InvalidError: a selector cannot be parsed.
    """
    labels = (body.get("metadata") or {}).get("labels") or {}
    label_terms = _COMMA_OUTSIDE_PARENTHESES.split(label_selector) if label_selector else []
    field_terms = field_selector.split(",") if field_selector else []
    return all(_label_term(term.strip(), labels) for term in label_terms) and all(
        _field_term(term.strip(), body) for term in field_terms
    )
