"""Names of labels as kube-state-metrics prints them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["label_value", "printed_label"]


@lru_cache(maxsize=4096)
def printed_label(label: str) -> str:
    """`app_kubernetes_io_name` of `app.kubernetes.io/name`: `_` for other characters, and `_x` for capitals."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", re.sub(r"\W", "_", label)).lower()


def label_value(labels: Mapping[str, str], key: str) -> str | None:
    """The value of a label of an object, also where the object is only known by metrics; None without it."""
    found = labels.get(key)
    return labels.get(printed_label(key)) if found is None else found
