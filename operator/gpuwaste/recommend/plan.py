"""A plan from stored facts: which nodes to drain and release, what that saves, and how good any plan could be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, localcontext
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpuwaste.api.action import (
    ActionSpec,
    ActionState,
    ActionType,
    Disruption,
    Reversibility,
    spec_hash,
)
from gpuwaste.api.common import Confidence, NodeRef, ObjectRef, Savings
from gpuwaste.api.names import API_VERSION, object_name
from gpuwaste.api.plan import Objective, ObjectiveUnit, PlanDocument, PlannedAction, Refusal
from gpuwaste.model.errors import InputError, InvariantError
from gpuwaste.model.facts import plain_data
from gpuwaste.recommend.drain import drain_nodes
from gpuwaste.recommend.history import pool_histories
from gpuwaste.recommend.instance import build_instances
from gpuwaste.recommend.money import savings_of_nodes, total_savings
from gpuwaste.recommend.movable import loses_no_work
from gpuwaste.recommend.scope import facts_at, scope_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.model.facts import Fact
    from gpuwaste.packing.answer import Answer
    from gpuwaste.packing.instance import Instance
    from gpuwaste.recommend.drain import Drain, Drainer
    from gpuwaste.recommend.history import PoolHistory
    from gpuwaste.recommend.instance import PlanInstance
    from gpuwaste.recommend.scope import PlanNode, Scope

__all__ = ["ALL_POOLS", "Solver", "input_hash", "make_plan", "plan_for"]

ALL_POOLS = "all"
"""`pool` of a plan for nodes of more than one pool."""

_PLACES = Decimal("1e-12")
_GAP_PLACES = Decimal("1e-6")
_ID_LENGTH = 16
_LEAST_SECONDS = 1.0
_DRAIN_PART = 0.5

Answered = tuple["PlanInstance", "Answer | None"]


class Solver(Protocol):
    """Packs an instance; the real one runs in a child process."""

    def __call__(self, instance: Instance, *, time_limit_seconds: float) -> Answer:
        """The least-cost answer found in the time, with its proven bound."""
        ...


def plan_for(
    facts: Iterable[Fact],
    at: datetime,
    *,
    solver: Solver,
    now: Callable[[], datetime],
    time_limit_seconds: float,
    ledger: pa.Table | None = None,
    pool_label: str = "",
    drainer: Drainer | None = None,
    max_moves: int | None = None,
) -> PlanDocument:
    """The plan for the whole cluster as it was at `at`.

    A pod is never planned into another group of nodes than its own, so each group is a question of its own.

    Args:
        facts: stored facts; those that do not hold at `at` are left out.
        at: the moment that the plan is made for.
        solver: answers the packing question.
        now: the time that the plan says it was made at.
        time_limit_seconds: for the solver; groups share it by their pods, and each gets at least a second of it.
        ledger: rows of LEDGER_SCHEMA to draw risk, confidence and evidence from.
        pool_label: a node label that names the pool before the well-known ones.
        drainer: solves the drain exactly; None = a greedy one.
        max_moves: pods that may be moved in all; None = any number.

    Raises:
        InputError: no GPU node is known at that time.
        InvariantError: the answer's bound is above what the plan reaches.
    """
    holding = facts_at(facts, at)
    scope = scope_of(holding, pool_label=pool_label)
    if not scope.pool_gpus:
        raise InputError("no GPU node is known", where=f"facts at {at.isoformat()}", fix="choose a time with data")
    histories = pool_histories(ledger)
    digest = input_hash(
        holding, histories, pool_label=pool_label, time_limit_seconds=time_limit_seconds, max_moves=max_moves
    )
    answered = [
        (question, _solve(question, solver, pods=len(scope.pods), time_limit_seconds=time_limit_seconds))
        for question in build_instances(scope)
    ]
    return make_plan(
        scope,
        answered,
        histories=histories,
        digest=digest,
        created=now(),
        drains=Drains(drainer=drainer, max_moves=max_moves, time_limit_seconds=_DRAIN_PART * time_limit_seconds),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drains:
    """How drains are sought.

    Attributes:
        drainer: solves them exactly; None = greedily.
        max_moves: pods that may be moved in all; None = any number.
        time_limit_seconds: for the drainer.
    """

    drainer: Drainer | None = None
    max_moves: int | None = None
    time_limit_seconds: float = 0.0


def _solve(question: PlanInstance, solver: Solver, *, pods: int, time_limit_seconds: float) -> Answer | None:
    """The answer to one question; None where there is nothing to ask: no pods, or only nodes that stay."""
    own = len(question.instance.pod_names)
    if not own or not any(question.instance.prices):
        return None
    part = time_limit_seconds * own / pods
    return solver(question.instance, time_limit_seconds=min(max(part, _LEAST_SECONDS), time_limit_seconds))


def input_hash(
    facts: Sequence[Fact],
    histories: Mapping[str, PoolHistory],
    *,
    pool_label: str,
    time_limit_seconds: float,
    max_moves: int | None = None,
) -> str:
    """SHA-256, in hex, of all that a plan is made from; when a fact began to hold makes no difference."""
    content = {
        "facts": [[fact.kind, fact.uid, plain_data(fact.data)] for fact in facts],
        "histories": {
            name: [one.held_gpus.tolist(), one.from_time.isoformat(), one.to_time.isoformat(), one.measured]
            for name, one in histories.items()
        },
        "pool_label": pool_label,
        "time_limit_seconds": time_limit_seconds,
        **({} if max_moves is None else {"max_moves": max_moves}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def make_plan(
    scope: Scope,
    answered: Sequence[Answered],
    *,
    histories: Mapping[str, PoolHistory],
    digest: str,
    created: datetime,
    drains: Drains | None = None,
) -> PlanDocument:
    """Turn a solver's answers into drains and releases of nodes.

    The answers give the bound, and which kinds of nodes are worth emptying. What is planned are direct drains
    only (see `drain_nodes`): a full repack may be cheaper, but needs pods to trade places, which nothing here
    would carry out. That difference is told in `refused`.

    Args:
        scope: the cluster.
        answered: each question of `build_instances(scope)` with the solver's answer; None where nothing was asked.
        histories: what the ledger says of each pool.
        digest: the input's hash.
        created: when the plan is made.
        drains: how they are sought; None = greedily, with any number of moves.
    """
    how = drains or Drains()
    bound, repacked = _bound(answered)
    drain = drain_nodes(
        scope,
        empty_hint=_left_empty(scope, answered),
        max_moves=how.max_moves,
        most=sum((node.hourly for node in scope.nodes), Decimal(0)) - bound,
        drainer=how.drainer,
        time_limit_seconds=how.time_limit_seconds,
    )
    objective = _objective(scope, bound, drain)
    savings = savings_of_nodes(scope, drain.released)
    plan_id = f"plan-{digest[:_ID_LENGTH]}"
    actions = _actions(scope, drain, savings, histories, plan_id)
    pool = _pool(scope)
    notes = [
        *_notes(scope, objective, repacked, pool, released=bool(drain.released)),
        *_moves_note(drain, how.max_moves, pool, currency=scope.currency),
    ]
    return PlanDocument(
        id=plan_id,
        created_time=created,
        input_hash=digest,
        pool=pool,
        objective=objective,
        savings=total_savings(savings.values(), currency=scope.currency),
        moves=drain.moves,
        actions=actions,
        refused=(*notes, *scope.refused),
    )


def _pool(scope: Scope) -> str:
    """The name of the one GPUPool that the plan is for, or `ALL_POOLS`."""
    pools = {node.pool for node in scope.nodes} or set(scope.pool_gpus)
    if len(pools) != 1:
        return ALL_POOLS
    product, _, node_pool = next(iter(pools)).partition("/")
    return object_name(product, node_pool)


def _left_empty(scope: Scope, answered: Sequence[Answered]) -> list[int]:
    empty: list[int] = []
    for question, answer in answered:
        if answer is not None and not answer.unplaced_pods:
            used = set(np.unique(answer.placement.pod_node).tolist())
            empty += [index for place, index in enumerate(question.nodes) if place not in used]
    return [index for index in empty if not scope.nodes[index].pinned]


def _bound(answered: Sequence[Answered]) -> tuple[Decimal, Decimal | None]:
    """What no packing can cost less than an hour, and what the solver's costs (None where it left pods out)."""
    bound = repacked = sum((question.fixed for question, _ in answered), Decimal(0))
    complete = True
    for question, answer in answered:
        if answer is not None:
            bound += _down(answer.bound, question.scale)
            repacked += answer.cost / question.scale
            complete &= not answer.unplaced_pods
    return bound, repacked if complete else None


def _objective(scope: Scope, bound: Decimal, drain: Drain) -> Objective:
    """The plan's figures."""
    current = sum((node.hourly for node in scope.nodes), Decimal(0))
    planned = current - drain.hourly
    if bound > planned:
        raise InvariantError(f"the bound {bound} is above the planned cost {planned}")
    gap = ((planned - bound) / max(bound, Decimal("1e-9"))).quantize(_GAP_PLACES, ROUND_HALF_EVEN)
    return Objective(
        current=current,
        planned=planned,
        bound=bound,
        gap=gap,
        unit=ObjectiveUnit.MONEY_PER_HOUR,
        currency=scope.currency,
    )


def _moves_note(drain: Drain, max_moves: int | None, pool: str, *, currency: str | None) -> list[Refusal]:
    """That moves were limited, and how good the plan is among drains within the limit."""
    if max_moves is None:
        return []
    message = f"at most {max_moves} moves were allowed"
    if drain.hourly_at_most is not None:
        most, freed = (amount.quantize(Decimal("0.01")) for amount in (drain.hourly_at_most, drain.hourly))
        message += f"; no drain within them frees more than {most} {currency} an hour, this one frees {freed}"
    target = ObjectRef(api_version=API_VERSION, kind="GPUPool", name=pool)
    return [Refusal(target=target, reason="MoveBudget", message=message)]


def _down(bound: Decimal, scale: int) -> Decimal:
    """A bound in money an hour, rounded to the safe side: it may only get lower."""
    with localcontext(prec=60, rounding=ROUND_FLOOR):
        return (bound / scale).quantize(_PLACES)


def _notes(scope: Scope, objective: Objective, repacked: Decimal | None, pool: str, *, released: bool) -> list[Refusal]:
    """What a person must know about the plan as a whole."""
    target = ObjectRef(api_version=API_VERSION, kind="GPUPool", name=pool)
    notes = []
    if not released:
        why = "no node can be emptied into the free room of the others" if scope.nodes else "no node can be planned"
        notes.append(Refusal(target=target, reason="NothingToSave", message=f"nothing is planned: {why}"))
    if repacked is not None and repacked < objective.planned:
        less = (objective.planned - repacked).quantize(Decimal("0.01"))
        message = (
            f"a full repack would cost {less} {objective.currency} an hour less, but needs pods on nodes that "
            "stay to trade places; this plan only drains nodes"
        )
        notes.append(Refusal(target=target, reason="NeedsSwaps", message=message))
    return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backing:
    """What stands behind the actions of one pool."""

    confidence: Confidence
    history: PoolHistory | None
    gpus_left: int


def _actions(
    scope: Scope,
    drain: Drain,
    savings: Mapping[int, Savings],
    histories: Mapping[str, PoolHistory],
    plan_id: str,
) -> tuple[PlannedAction, ...]:
    """A drain and a release of each node, dearest node first."""
    left = dict(scope.pool_gpus)
    for index in drain.released:
        left[scope.nodes[index].pool] -= scope.nodes[index].gpus
    found: list[PlannedAction] = []
    for index in sorted(drain.released, key=lambda one: (-scope.nodes[one].hourly, scope.nodes[one].name)):
        node = scope.nodes[index]
        history = histories.get(node.pool)
        backing = _Backing(
            confidence=history.confidence() if history else Confidence.LOW,
            history=history,
            gpus_left=left[node.pool],
        )
        kinds = [pod.workload_kind for pod in scope.pods if pod.node == index]
        found += _pair(node, kinds, savings[index], backing, plan_id)
    return tuple(found)


def _pair(
    node: PlanNode, workload_kinds: list[str], savings: Savings, backing: _Backing, plan_id: str
) -> tuple[PlannedAction, PlannedAction]:
    history = backing.history
    common = {
        "node_ref": NodeRef(name=node.name, uid=node.uid),
        "from_": ActionState(node_name=node.name),
        "risk": history.risk(backing.gpus_left) if history else None,
        "confidence": backing.confidence,
        "evidence": history.evidence() if history else None,
    }
    harmless = all(loses_no_work(kind) for kind in workload_kinds)
    drain = PlannedAction.model_validate(
        {
            **common,
            "name": object_name("drain", node.name, node.uid, plan_id),
            "type": ActionType.DRAIN_NODE,
            "reversible": Reversibility.REVERSIBLE if harmless else Reversibility.IRREVERSIBLE,
            "savings": Savings(),
            "disruption": Disruption(pods=len(workload_kinds)),
        }
    )
    release = PlannedAction.model_validate(
        {
            **common,
            "name": object_name("release", node.name, node.uid, plan_id),
            "type": ActionType.RELEASE_NODE,
            "reversible": Reversibility.IRREVERSIBLE,
            "savings": savings,
            "depends_on": (drain.name,),
        }
    )
    return _hashed(drain), _hashed(release)


def _hashed(action: PlannedAction) -> PlannedAction:
    """With the hash of its spec, to which its name in the plan does not belong."""
    spec = ActionSpec.model_validate({name: getattr(action, name) for name in ActionSpec.model_fields})
    return action.model_copy(update={"spec_hash": spec_hash(spec)})
