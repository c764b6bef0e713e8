"""Team rules: who owns the cost of a workload."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from gpuwaste.model.printed import label_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["EarlierTeamRules", "TeamDecision", "TeamHistory", "TeamRule", "TeamRules", "TeamStep"]

_Where = Literal["namespace", "namespaceLabel", "namespaceAnnotation", "podLabel", "podAnnotation"]


class TeamRule(BaseModel):
    """One rule: look at one place, and name the team from what stands there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: _Where = Field(description="Where to look: the namespace's name, or a label or annotation.")
    key: Annotated[str, Field(max_length=317)] = Field(default="", description="Label or annotation key.")
    match: str = Field(
        default="", description="Regular expression that the whole value must match; a group 1 becomes the team."
    )
    team: str = Field(default="", description="Name of the team; empty takes group 1, else the value itself.")

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"`match` must be a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _names_its_place(self) -> Self:
        if self.source != "namespace" and not self.key:
            raise ValueError(f"a rule that looks at {self.source} needs the `key` of the label or annotation")
        if self.source == "namespace" and self.key:
            raise ValueError("a rule that looks at the namespace's name has no `key`")
        return self

    def apply(self, value: str) -> str | None:
        """The team for a value found at the place, or None where the rule does not match."""
        if not value:
            return None
        if not self.match:
            return self.team or value
        found = re.fullmatch(self.match, value)
        if not found:
            return None
        return self.team or (found.group(1) if found.re.groups else value)


class TeamStep(BaseModel):
    """What one rule made of a pod.

    Attributes:
        rule: its number, from 1; None is the default, the namespace.
        place: where it looks.
        value: what stands there; None where nothing does.
        team: the team it names; None where it does not match.
        why: the reason in words.
    """

    model_config = ConfigDict(frozen=True)

    rule: int | None
    place: str
    value: str | None
    team: str | None
    why: str


class TeamDecision(BaseModel):
    """Which team, and by which rule (1 is the first; None is the default, the namespace)."""

    model_config = ConfigDict(frozen=True)

    team: str
    rule: int | None


class TeamRules(BaseModel):
    """Rules in order of precedence: the first that matches decides, else the team is the namespace."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[TeamRule, ...] = Field(default=(), description="The rules, first match first.")

    def hash(self) -> str:
        """Changes whenever the rules change."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def annotation_keys(self) -> frozenset[str]:
        """Annotations that a rule looks at: of all others nothing is kept."""
        places = ("namespaceAnnotation", "podAnnotation")
        return frozenset(rule.key for rule in self.rules if rule.source in places and rule.key)

    def resolve(
        self,
        *,
        namespace: str,
        namespace_labels: Mapping[str, str],
        namespace_annotations: Mapping[str, str],
        pod_labels: Mapping[str, str],
        pod_annotations: Mapping[str, str],
    ) -> TeamDecision:
        """Decide the team of a pod."""
        places: dict[str, Mapping[str, str]] = {
            "namespaceLabel": namespace_labels,
            "namespaceAnnotation": namespace_annotations,
            "podLabel": pod_labels,
            "podAnnotation": pod_annotations,
        }
        for number, rule in enumerate(self.rules, start=1):
            value = namespace if rule.source == "namespace" else label_value(places[rule.source], rule.key)
            team = rule.apply(value or "")
            if team:
                return TeamDecision(team=team, rule=number)
        return TeamDecision(team=namespace, rule=None)

    def explain(
        self,
        *,
        namespace: str,
        namespace_labels: Mapping[str, str],
        namespace_annotations: Mapping[str, str],
        pod_labels: Mapping[str, str],
        pod_annotations: Mapping[str, str],
    ) -> list[TeamStep]:
        """Every rule in its order with what it made of a pod, up to the one that decided."""
        places: dict[str, Mapping[str, str]] = {
            "namespace": {"": namespace},
            "namespaceLabel": namespace_labels,
            "namespaceAnnotation": namespace_annotations,
            "podLabel": pod_labels,
            "podAnnotation": pod_annotations,
        }
        steps: list[TeamStep] = []
        for number, rule in enumerate(self.rules, start=1):
            key = "" if rule.source == "namespace" else rule.key
            value = label_value(places[rule.source], key)
            team = rule.apply(value or "") or None
            place = f"{rule.source} {key}".rstrip()
            steps.append(TeamStep(rule=number, place=place, value=value, team=team, why=_why(rule, value, team)))
            if team:
                return steps
        why = "no rule matches, so the namespace is the team" if self.rules else "there are no rules"
        return [*steps, TeamStep(rule=None, place="namespace", value=namespace, team=namespace, why=why)]


class EarlierTeamRules(TeamRules):
    """Rules that hours before a time were named by."""

    until: AwareDatetime = Field(description="The first hour that these rules no longer name.")


class TeamHistory(TeamRules):
    """The rules in force, and those that closed periods keep; without the latter it is written as the rules are."""

    earlier: tuple[EarlierTeamRules, ...] = Field(default=(), description="Rules of before, oldest first.")

    def at(self, hour: datetime) -> TeamRules:
        """The rules that name the teams of an hour."""
        rules = next((one.rules for one in self.earlier if hour < one.until), self.rules)
        return TeamRules(rules=rules)

    def changed(self, rules: TeamRules, *, since: datetime) -> TeamHistory:
        """With other rules from a time on; hours before it keep theirs.

        Args:
            rules: the new rules.
            since: the first hour that they name.
        """
        if rules.rules == self.rules:
            return self
        kept = [one for one in self.earlier if one.until < since]
        before = self.at(since - timedelta(microseconds=1)).rules
        if before != rules.rules:
            kept.append(EarlierTeamRules(rules=before, until=since))
        return TeamHistory(rules=rules.rules, earlier=tuple(kept))

    def to_json(self) -> str:
        """As it is stored."""
        return self.model_dump_json(exclude=None if self.earlier else {"earlier"})


def _why(rule: TeamRule, value: str | None, team: str | None) -> str:
    if not value:
        return "it is empty" if value == "" else "there is none"
    if not team:
        return f"does not match `{rule.match}`" if not re.fullmatch(rule.match, value) else "names no team"
    if rule.team:
        named = "the rule names the team"
    else:
        named = "group 1 is the team" if rule.match and re.compile(rule.match).groups else "the value is the team"
    return f"matches `{rule.match}`, and {named}" if rule.match else named
