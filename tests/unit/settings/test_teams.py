"""Team rules: the first that matches decides, the namespace is the default."""

import pytest
from pydantic import ValidationError

from gpuwaste.settings.teams import TeamRule, TeamRules


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
