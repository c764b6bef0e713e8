"""Waiting until custom resources can be used."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.cluster.access import ControlPlane

__all__ = ["wait_until_served"]

_POLL_SECONDS = 0.1


def wait_until_served(plane: ControlPlane, names: Iterable[str], *, seconds: float = 30.0) -> None:
    """Return once every CRD is Established.

    `kubectl wait` fails at once on a CRD that has no conditions yet, as it has none for a moment after it was made.
    """
    missing = set(names)
    deadline = time.monotonic() + seconds
    while missing:
        found = plane.get("crd")["items"]
        for item in found:
            conditions = item.get("status", {}).get("conditions") or ()
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                missing.discard(item["metadata"]["name"])
        if missing and time.monotonic() > deadline:
            raise ClusterError(f"not served after {seconds:.0f} s: {', '.join(sorted(missing))}")
        time.sleep(_POLL_SECONDS if missing else 0)
