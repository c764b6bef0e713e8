"""All `GPUWaste` and `GPUPool` objects that the ledger calls for, and the status of `GPUReservation` objects."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from gpuwaste.api import GPUPool, GPUReservation, GPUWaste, Resource
from gpuwaste.ledger.join import pool_name
from gpuwaste.model.resources import resource_product
from gpuwaste.runtime.advice import advise_workload, due_time
from gpuwaste.runtime.reservations import gpu_hour_price
from gpuwaste.waste.pools import PoolSurroundings, collect_pools, pool_object
from gpuwaste.waste.reservations import ReservationUse, bought_by_pool, reservation_object, reservation_uses
from gpuwaste.waste.windows import cut_windows
from gpuwaste.waste.workloads import collect_workloads, workload_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.cluster.state import ClusterSnapshot
    from gpuwaste.ledger.activity import PodActivity
    from gpuwaste.model.facts import Fact
    from gpuwaste.waste.pools import Backfilled

__all__ = ["Surroundings", "build_objects"]


_Model = TypeVar("_Model", bound=Resource)


class Previous(Protocol):
    """Finds an object as it was last seen."""

    def __call__(self, model: type[_Model], name: str, namespace: str = "") -> _Model | None:
        """The object of that kind, None where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What besides ledger and snapshot goes into the objects.

    Attributes:
        facts: facts of the newest hour: nodes, GPUs and reservations.
        reservations: what people bought, as they wrote it.
        pool_label: a node label that names the pool before the well-known ones.
        broken: why the newest hours are not in the ledger; empty where they all are.
        prices: why the bills are not used; empty where they are, or there are none.
        storage: what is wrong with the volume of inputs and ledger; empty where it has room.
        backfill: how far reading from before the first agent is; None where nothing is to be read.
    """

    facts: Sequence[Fact] = ()
    reservations: Sequence[GPUReservation] = ()
    pool_label: str = ""
    broken: str = ""
    prices: str = ""
    storage: str = ""
    backfill: Backfilled | None = None


def build_objects(
    rows: pa.Table,
    snapshot: ClusterSnapshot,
    *,
    activity: PodActivity,
    through: datetime,
    now: datetime,
    previous: Previous,
    around: Surroundings | None = None,
) -> list[Resource]:
    """Build every object from the ledger rows of the last 7 days.

    Args:
        rows: rows of LEDGER_SCHEMA, the running hour among them.
        snapshot: the cluster; workloads of namespaces that are gone get no object.
        activity: peak memory and media engines of pods, for advice.
        through: up to when data has come in.
        now: for condition times.
        previous: finds an object as it is.
        around: reservations, and what is wrong with hours and prices.
    """
    around = around or Surroundings()
    windows = cut_windows(rows, through=through)
    objects: list[Resource] = list(_reservations(rows, around, through=through, now=now))
    if not windows:
        return objects
    namespaces = {record.data.name for record in snapshot.namespaces.values()}
    api_versions = {uid: data.api_version for uid, data in snapshot.owner_data.items()}
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
    pools = PoolSurroundings(
        bought=bought_by_pool(around.facts, at=through, pool_label=around.pool_label),
        waiting=_waiting(snapshot, around.pool_label),
        broken=around.broken,
        prices=around.prices,
        storage=around.storage,
        backfill=around.backfill,
    )
    for key, figures in collect_pools(windows).items():
        before = previous(GPUPool, key.object_name)
        objects.append(pool_object(key, figures, now=now, previous=before, around=pools))
    return objects


def _reservations(
    rows: pa.Table, around: Surroundings, *, through: datetime, now: datetime
) -> Iterable[GPUReservation]:
    if not around.reservations:
        return
    uses = reservation_uses(around.facts, rows, at=through, pool_label=around.pool_label)
    for one in around.reservations:
        use = uses.get(one.metadata.uid or one.metadata.name, ReservationUse())
        yield reservation_object(one, use, price=gpu_hour_price(one.spec), through=through, now=now)


def _waiting(snapshot: ClusterSnapshot, pool_label: str) -> dict[str, list[datetime]]:
    """By pool, when each pod was created that waits for a kind of GPU that a node of the pool offers."""
    pools: dict[str, set[str]] = defaultdict(set)
    for record in snapshot.nodes.values():
        for resource in record.data.gpus:
            product = resource_product(record.data.labels, resource)
            pools[resource].add(pool_name(record.data, product, label=pool_label))
    found: dict[str, list[datetime]] = defaultdict(list)
    for pod in snapshot.pending:
        for pool in sorted({pool for resource in pod.gpus for pool in pools.get(resource, ())}):
            found[pool].append(pod.created)
    return found
