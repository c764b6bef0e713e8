"""Rules that tie pods on different nodes together: gangs, spread, affinity and anti-affinity over a topology.

They cannot be looked at one node at a time, so they are no part of a filling. How they are kept is in `ruled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

__all__ = ["Apart", "DomainRule", "Gang", "GroupRule", "Spread", "Together", "check_rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """All of some pods run, or none.

    Attributes:
        name: for messages.
        pods: indexes of its pods.
    """

    name: str
    pods: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A topology spread constraint with `whenUnsatisfiable: DoNotSchedule`, its pods being those it selects.

    In no domain may there be more than `max_skew` pods above the domain that has fewest.

    Attributes:
        name: for messages.
        pods: indexes of its pods.
        domain: int64[N] domain of each node; -1 = its pods may not be there, and the domain counts only through others.
        max_skew: 1 or more.
        min_domains: with fewer domains than this the fewest counts as 0.
    """

    name: str
    pods: tuple[int, ...]
    domain: Ints
    max_skew: int
    min_domains: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Required pod affinity: each pod runs in a domain where one of the anchors runs.

    Where no anchor is outside `pods`, the first of them starts alone, and all others must go where it is. Pods whose
    rules wait for one another can never start.

    Attributes:
        name: for messages.
        pods: indexes of the pods that ask for it.
        anchors: indexes of the pods that they want to be with.
        domain: int64[N] domain of each node; -1 = in none.
    """

    name: str
    pods: tuple[int, ...]
    anchors: tuple[int, ...]
    domain: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """Required pod anti-affinity over domains of several nodes: no pod of `pods` where another of `others` is.

    On single nodes `rules.keep_apart` says the same, and is part of every filling.

    Attributes:
        name: for messages.
        pods: indexes of the pods that ask for it.
        others: indexes of the pods that they keep away from; may be some of `pods`.
        domain: int64[N] domain of each node; -1 = in none, where the rule says nothing.
    """

    name: str
    pods: tuple[int, ...]
    others: tuple[int, ...]
    domain: Ints


DomainRule = Spread | Together | Apart
GroupRule = Gang | DomainRule


def check_rule(rule: GroupRule, *, pods: int, nodes: int) -> None:
    """Refuse a rule that does not fit to an instance.

    Raises:
        InputError: it names a pod that does not exist, its domains are of another number of nodes, or a number of it
            makes no sense.
    """
    where = f"rule {rule.name}"
    named = set(rule.pods)
    named.update(rule.anchors if isinstance(rule, Together) else rule.others if isinstance(rule, Apart) else ())
    if any(not 0 <= pod < pods for pod in named):
        raise InputError("names a pod that does not exist", where=where)
    if not isinstance(rule, Gang) and (rule.domain.shape != (nodes,) or (nodes and int(rule.domain.min()) < -1)):
        raise InputError(f"has no domain, or -1, for each of {nodes} nodes", where=where)
    if isinstance(rule, Spread) and (rule.max_skew < 1 or rule.min_domains < 1):
        raise InputError("maxSkew and minDomains must be 1 or more", where=where)
