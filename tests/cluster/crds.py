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
    """Return once objects of every CRD can be listed and watched.

    Established alone is too early: `kubectl wait` fails on a CRD that has no conditions yet, and for a moment after
    it has them the server answers 429, because its watch cache is being filled. A list of resourceVersion 0 is
    served from that cache.
    """
    api = plane.api()
    missing = set(names)
    deadline = time.monotonic() + seconds
    while missing:
        for item in plane.get("crd")["items"]:
            name, spec = item["metadata"]["name"], item["spec"]
            version = next(one["name"] for one in spec["versions"] if one["served"])
            path = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}?resourceVersion=0&limit=1"
            if name in missing and api.answers(path):
                missing.discard(name)
        if missing and time.monotonic() > deadline:
            raise ClusterError(f"not served after {seconds:.0f} s: {', '.join(sorted(missing))}")
        time.sleep(_POLL_SECONDS if missing else 0)
