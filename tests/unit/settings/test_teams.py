"""Team rules: the first that matches decides, the namespace is the default."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from gpuwaste.settings.teams import TeamHistory, TeamRule, TeamRules


def team(*rules, namespace="ml-search", namespace_labels=None, pod_labels=None):
    decided = TeamRules(rules=rules).resolve(
        namespace=namespace,
        namespace_labels=namespace_labels or {},
        namespace_annotations={},
        pod_labels=pod_labels or {},
        pod_annotations={},
    )
    return decided.team, decided.rule


BY_LABEL = TeamRule(source="namespaceLabel", key="team")
BY_NAME = TeamRule(source="namespace", match="ml-(.+)")
GOLD = TeamRule(source="podLabel", key="tier", match="gold", team="vip")


@pytest.mark.parametrize(
    ("rules", "more", "want"),
    [
        ((), {}, ("ml-search", None)),
        ((BY_LABEL,), {"namespace_labels": {"team": "search"}}, ("search", 1)),
        ((BY_LABEL, BY_NAME), {}, ("search", 2)),
        ((BY_LABEL, BY_NAME), {"namespace_labels": {"team": "ads"}}, ("ads", 1)),
        ((BY_NAME,), {"namespace": "xml-search"}, ("xml-search", None)),
        (
            (GOLD,),
            {"pod_labels": {"tier": "gold"}},
            ("vip", 1),
        ),
        (
            (GOLD,),
            {"pod_labels": {"tier": "tin"}},
            ("ml-search", None),
        ),
    ],
)
def test_precedence(rules, more, want):
    assert team(*rules, **more) == want


def test_the_hash_changes_with_the_rules():
    assert TeamRules().hash() == TeamRules().hash() != TeamRules(rules=(BY_NAME,)).hash()


def test_hours_keep_the_rules_that_were_in_force_when_their_period_closed():
    first, second, third = (TeamRules(rules=(TeamRule(source="namespace", team=name),)) for name in "abc")
    october, november = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)

    def named(history):
        return [
            history.at(at + timedelta(hours=hours)).rules[0].team for at in (october, november) for hours in (-1, 0)
        ]

    history = TeamHistory(rules=first.rules)
    assert history.to_json() == first.model_dump_json(), "without a change it is written as ever"
    assert history.changed(first, since=november) == history
    changed = history.changed(second, since=october)
    assert named(changed) == ["a", "b", "b", "b"]
    assert named(changed.changed(third, since=november)) == ["a", "b", "b", "c"]
    assert named(changed.changed(third, since=october)) == ["a", "c", "c", "c"], "in the same period once more"
    assert changed.changed(first, since=october) == history, "and back: nothing was"
    assert TeamHistory.model_validate_json(changed.to_json()) == changed
    assert [changed.at(at).hash() for at in (october - timedelta(hours=1), october)] == [first.hash(), second.hash()]


def test_a_broken_expression_is_refused():
    with pytest.raises(ValidationError, match="regular expression"):
        TeamRule(source="namespace", match="(")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"source": "podLabel"}, "needs the `key`"),
        ({"source": "namespaceAnnotation", "match": "a"}, "needs the `key`"),
        ({"source": "namespace", "key": "team"}, "has no `key`"),
    ],
)
def test_a_rule_names_its_place(rule, says):
    with pytest.raises(ValidationError, match=says):
        TeamRule(**rule)


def test_labels_are_found_as_metrics_print_them():
    rules = TeamRules(rules=(TeamRule(source="podLabel", key="example.com/costCenter"),))
    about = {"namespace": "ml", "namespace_labels": {}, "namespace_annotations": {}, "pod_annotations": {}}
    printed = {"example_com_cost_center": "search"}
    assert rules.resolve(**about, pod_labels=printed).team == "search"
    assert rules.explain(**about, pod_labels=printed)[0].team == "search"
    both = {**printed, "example.com/costCenter": "ads"}
    assert rules.resolve(**about, pod_labels=both).team == "ads"
