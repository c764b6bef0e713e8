"""The kinds that the API has, and reading an object whose kind is not known beforehand."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gpuwaste.api.action import RightsizingAction
from gpuwaste.api.base import describe
from gpuwaste.api.chargeback import ChargebackReport
from gpuwaste.api.plan import RightsizingPlan
from gpuwaste.api.policy import ClusterRightsizingPolicy, RightsizingPolicy
from gpuwaste.api.pool import GPUPool
from gpuwaste.api.reservation import GPUReservation
from gpuwaste.api.waste import GPUWaste
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuwaste.api.kindinfo import KindInfo

__all__ = ["KINDS", "MODELS", "AnyResource", "parse"]

AnyResource = (
    GPUWaste
    | GPUPool
    | GPUReservation
    | RightsizingPolicy
    | ClusterRightsizingPolicy
    | RightsizingPlan
    | RightsizingAction
    | ChargebackReport
)

_ALL: tuple[type[AnyResource], ...] = (
    GPUWaste,
    GPUPool,
    GPUReservation,
    RightsizingPolicy,
    ClusterRightsizingPolicy,
    RightsizingPlan,
    RightsizingAction,
    ChargebackReport,
)

MODELS: Mapping[str, type[AnyResource]] = MappingProxyType({model.info.kind: model for model in _ALL})
"""Kind to model."""
KINDS: Mapping[str, KindInfo] = MappingProxyType({model.info.kind: model.info for model in _ALL})
"""Kind to plural, scope, short names and columns."""


def parse(obj: dict[str, Any]) -> AnyResource:
    """Read an object of any of our kinds; unknown fields are ignored.

    Raises:
        InputError: the kind is none of ours, or a field breaks a rule.
    """
    model = MODELS.get(str(obj.get("kind")))
    if model is None:
        raise InputError(f"`kind` must be one of {', '.join(MODELS)}, not {obj.get('kind')!r}", where=describe(obj))
    return model.parse(obj)
