"""Run the operator's passes over a day that already lies in agents' journals, against a cluster in memory."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

from gpuwaste.cluster.memory import MemoryCluster
from gpuwaste.model.errors import InvariantError, UnreachableError
from gpuwaste.runtime.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.api import PlanDocument
    from gpuwaste.cluster.api import Json
    from gpuwaste.settings.operator import OperatorSettings

__all__ = ["Rehearsal", "rehearse"]

_SYNC_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What a rehearsed day left behind.

    Attributes:
        cluster: the cluster in memory, with the operator's objects in it.
        cluster_name: name in the ledger.
        rows: the ledger rows of the day.
        plan: the whole plan, None where there was nothing to plan for.
    """

    cluster: MemoryCluster
    cluster_name: str
    rows: pa.Table
    plan: PlanDocument | None


async def rehearse(
    settings: OperatorSettings,
    objects: Sequence[Json],
    *,
    end: datetime,
    progress: Callable[[str, float], None],
) -> Rehearsal:
    """Pull everything the agents of `settings` have, build ledger, objects and plan, and stop.

    Args:
        settings: with `agents.endpoints` and `cluster_name` set.
        objects: Kubernetes objects of the cluster.
        end: end of the day; all its hours are closed.
        progress: called with the stage and the part of it that is done.

    Raises:
        UnreachableError: an agent did not answer.
        InvariantError: an object could not be written.
    """
    now = end + timedelta(seconds=1)
    cluster = MemoryCluster(now=lambda: now)
    cluster.put(*objects)
    async with assemble(settings, cluster, now=lambda: now, random=Random(0)) as operator:
        state = asyncio.create_task(operator.state.run(), name="cluster-state")
        try:
            async with asyncio.timeout(_SYNC_SECONDS):
                while not operator.state.synced():  # noqa: ASYNC110 (many things make it so)
                    await asyncio.sleep(0.01)
            total = 0
            while await operator.step():
                total = max(total, len(operator.books.dirty))
                progress("ledger", 1 - len(operator.books.dirty) / max(total, 1))
            if operator.failing:
                raise UnreachableError("; ".join(sorted(operator.failing)))
            if operator.unwritten:
                raise InvariantError(f"objects were refused: {'; '.join(operator.unwritten)}")
            rows = operator.books.rows(through=end)
            return Rehearsal(
                cluster=cluster,
                cluster_name=operator.books.inputs.cluster,
                rows=rows,
                plan=operator.planner.document,
            )
        finally:
            state.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await state
