"""All `GPUWaste` and `GPUPool` objects that the ledger calls for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from gpuwaste.api import GPUPool, GPUWaste, Resource
from gpuwaste.runtime.advice import advise_workload, due_time
from gpuwaste.waste.pools import collect_pools, pool_object
from gpuwaste.waste.windows import cut_windows
from gpuwaste.waste.workloads import collect_workloads, workload_object

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.cluster.state import ClusterSnapshot
    from gpuwaste.ledger.activity import PodActivity

__all__ = ["build_objects"]


_Model = TypeVar("_Model", bound=Resource)


class Previous(Protocol):
    """Finds an object as it was last seen."""

    def __call__(self, model: type[_Model], name: str, namespace: str = "") -> _Model | None:
        """The object of that kind, None where there is none."""
        ...


def build_objects(
    rows: pa.Table,
    snapshot: ClusterSnapshot,
    *,
    activity: PodActivity,
    through: datetime,
    now: datetime,
    previous: Previous,
) -> list[Resource]:
    """Build every object from the ledger rows of the last 7 days.

    Args:
        rows: rows of LEDGER_SCHEMA, the running hour among them.
        snapshot: the cluster; workloads of namespaces that are gone get no object.
        activity: peak memory and media engines of pods, for advice.
        through: up to when data has come in.
        now: for condition times.
        previous: finds an object as it is.
    """
    windows = cut_windows(rows, through=through)
    if not windows:
        return []
    namespaces = {record.data.name for record in snapshot.namespaces.values()}
    api_versions = {uid: data.api_version for uid, data in snapshot.owner_data.items()}
    objects: list[Resource] = []
    for workload in collect_workloads(windows):
        if workload.key.namespace not in namespaces:
            continue
        objects.append(
            workload_object(
                workload,
                api_versions=api_versions,
                advice=advise_workload(workload, activity),
                due=due_time(workload),
                now=now,
                previous=previous(GPUWaste, workload.key.object_name, workload.key.namespace),
            )
        )
    for key, figures in collect_pools(windows).items():
        objects.append(pool_object(key, figures, now=now, previous=previous(GPUPool, key.object_name)))
    return objects
