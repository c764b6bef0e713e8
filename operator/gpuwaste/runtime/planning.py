"""Make a plan now and then: whole to a file, its dearest actions into one object."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from gpuwaste.api import (
    UNKNOWN,
    ConditionStatus,
    ConditionType,
    ObjectMeta,
    PlanDocument,
    Reason,
    RightsizingPlan,
    RightsizingPlanStatus,
    make_condition,
    plan_spec,
)
from gpuwaste.model.errors import InputError
from gpuwaste.model.money import plain
from gpuwaste.model.units import hour_start
from gpuwaste.packing.child import pack_in_child
from gpuwaste.packing.drain_child import drain_in_child
from gpuwaste.recommend.plan import plan_for

if TYPE_CHECKING:
    import pyarrow as pa

    from gpuwaste.recommend.drain import Drainer
    from gpuwaste.recommend.plan import Solver
    from gpuwaste.runtime.books import Books
    from gpuwaste.settings.operator import PlanSettings

__all__ = ["Planner", "plan_object"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Planner:
    """Plans every `period_seconds`; the solver runs in a child of its own and is killed at its deadline.

    Attributes:
        settings: when and how long.
        pool_label: a node label that names the pool before the well-known ones.
        solver: answers the packing question.
        drainer: solves the drain where a greedy one does not reach the bound.
        document: the last plan.
    """

    settings: PlanSettings
    pool_label: str
    solver: Solver = field(default=pack_in_child)
    drainer: Drainer = field(default=drain_in_child)
    document: PlanDocument | None = None
    _made: datetime | None = None

    def due(self, now: datetime) -> bool:
        """Whether it is time for a plan."""
        return self._made is None or now - self._made >= timedelta(seconds=self.settings.period_seconds)

    async def make(self, books: Books, rows: pa.Table, *, at: datetime, now: datetime) -> RightsizingPlan | None:
        """The plan for the cluster as it was at `at`; None where there is nothing to plan for."""
        self._made = now
        return await asyncio.to_thread(self._make, books, rows, at, now)

    def _make(self, books: Books, rows: pa.Table, at: datetime, now: datetime) -> RightsizingPlan | None:
        # The moment before the end of data: what held up to then holds in that hour.
        moment = at - timedelta(microseconds=1)
        try:
            document = plan_for(
                books.facts_of(hour_start(moment)),
                moment,
                solver=self.solver,
                now=lambda: now,
                time_limit_seconds=self.settings.time_limit_seconds,
                ledger=rows,
                pool_label=self.pool_label,
                drainer=self.drainer,
            )
        except InputError as error:
            _log.info("no plan: %s", error)
            return None
        name = f"plans/cluster={books.inputs.cluster}/{document.id}.json"
        document = document.model_copy(update={"plan_url": f"{books.store.root}/{name}"})
        text = json.dumps(document.to_json(), indent=2, ensure_ascii=False)
        books.store.write(name, text.encode())
        self.document = document
        return plan_object(document, now=now)


def plan_object(document: PlanDocument, *, now: datetime) -> RightsizingPlan:
    """The object that shows a plan."""
    saving = document.savings
    reason = Reason.FEASIBLE if document.actions else Reason.NOTHING_TO_SAVE
    shown = UNKNOWN if saving.cash_now is None else f"{plain(saving.cash_now)} {saving.currency or ''}".strip()
    gap = document.objective.gap * 100
    ready = make_condition(
        ConditionType.READY,
        ConditionStatus.TRUE,
        reason,
        f"{len(document.actions)} actions; {gap:.2f} % above the proven bound.",
        observed_generation=1,
        now=now,
    )
    return RightsizingPlan(
        metadata=ObjectMeta(name=document.id),
        spec=plan_spec(document),
        status=RightsizingPlanStatus(
            conditions=(ready,), observed_generation=1, saving=shown, gap=f"{gap:.2f} %", applied_actions=0
        ),
    )
