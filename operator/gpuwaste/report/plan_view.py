"""What the page shows of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from gpuwaste.model.errors import InputError
from gpuwaste.model.money import plain
from gpuwaste.report.words import money_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PlanView", "plan_view"]

_ACTIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """Texts of one plan; the three savings answer different questions and are never added."""

    pool: str
    unit: str
    current: str
    planned: str
    bound: str
    gap: str
    cash_now: str
    at_renewal: tuple[tuple[str, str], ...]
    freed: str
    moves: int
    actions: tuple[tuple[str, str, str], ...]
    action_count: int
    refused_count: int


def _number(values: Mapping[str, Any], name: str) -> Decimal | None:
    value = values.get(name)
    if value is None:
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise InputError(f"field `{name}` must be a number, not {value!r}", where="plan") from None


def _text(value: Decimal | None, currency: str | None) -> str:
    if value is None:
        return "unknown"
    return plain(value) if currency is None else money_text({currency: value})


def plan_view(plan: Mapping[str, Any]) -> PlanView:
    """Read a plan document (camelCase names, as `plan.json` has them).

    Raises:
        InputError: a figure is no number, or the objective is missing.
    """
    objective, savings = plan.get("objective"), plan.get("savings") or {}
    if not isinstance(objective, dict):
        raise InputError("field `objective` is missing", where="plan", fix="give a file that a plan was written to")
    currency = objective.get("currency")
    gap = _number(objective, "gap")
    paid = savings.get("currency") or currency
    freed = _number(savings, "capacityFreedGPUHours")
    renewals = savings.get("cashAtRenewal") or ()
    actions = list(plan.get("actions") or ())
    return PlanView(
        pool=str(plan.get("pool", "")),
        unit="an hour" if objective.get("unit") != "GPUs" else "GPUs",
        current=_text(_number(objective, "current"), currency),
        planned=_text(_number(objective, "planned"), currency),
        bound=_text(_number(objective, "bound"), currency),
        gap="unknown" if gap is None else f"{gap * 100:.2f} %",
        cash_now=_text(_number(savings, "cashNow"), paid),
        at_renewal=tuple((str(one.get("date", "")), _text(_number(one, "amount"), paid)) for one in renewals),
        freed="unknown" if freed is None else plain(freed, decimals=0),
        moves=int(plan.get("moves") or 0),
        actions=tuple(_action(action) for action in actions[:_ACTIONS]),
        action_count=len(actions),
        refused_count=len(plan.get("refused") or ()),
    )


def _action(action: Mapping[str, Any]) -> tuple[str, str, str]:
    target = action.get("targetRef") or action.get("nodeRef") or {}
    place = "/".join(str(target[part]) for part in ("namespace", "name") if target.get(part))
    saved = action.get("savings") or {}
    now = _number(saved, "cashNow")
    worth = "" if now is None else _text(now, saved.get("currency"))
    return (str(action.get("type", "")), f"{target.get('kind', '')} {place}".strip(), worth)
