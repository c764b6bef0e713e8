"""`gpuwaste team explain`: the rule that decides, and why those before it did not."""

import json

import pytest
from tests.unit.cli.stored import run, store_inputs

RULES = """
- {source: podLabel, key: tier, match: gold, team: vip}
- {source: namespaceLabel, key: team}
- {source: namespace, match: "team-(.+)"}
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "teams.yaml"
    path.write_text(RULES)
    return path


def explain(rules, *more):
    result = run("team", "explain", "--team-rules", rules, *more, "-o", "json")
    assert result.exit_code == 0, result.output
    return [(step["rule"], step["team"], step["why"]) for step in json.loads(result.stdout)]


def test_the_first_rule_that_matches_decides(rules):
    more = ("--namespace", "team-search", "--namespace-label", "team=ads")
    assert explain(rules, *more, "--label", "tier=gold") == [(1, "vip", "matches `gold`, and the rule names the team")]
    assert explain(rules, *more, "--label", "tier=tin") == [
        (1, None, "does not match `gold`"),
        (2, "ads", "the value is the team"),
    ]
    assert explain(rules, "--namespace", "team-search")[-1] == (
        3,
        "search",
        "matches `team-(.+)`, and group 1 is the team",
    )


def test_without_a_match_the_namespace_is_the_team(rules):
    assert explain(rules, "--namespace", "default") == [
        (1, None, "there is none"),
        (2, None, "there is none"),
        (3, None, "does not match `team-(.+)`"),
        (None, "default", "no rule matches, so the namespace is the team"),
    ]


def test_stored_pods_are_explained(tmp_path, rules):
    data = store_inputs(tmp_path / "data")
    text = run("team", "explain", "--inputs", data, "--team-rules", rules).stdout.splitlines()
    assert text[0].split()[:4] == ["NAMESPACE", "POD", "TEAM", "RULE"]
    assert [line.split()[:4] for line in text[1:]] == [["team-a", "web", "a", "3"]]
    steps = run("team", "explain", "--inputs", data, "--pod", "web").stdout
    assert "there are no rules" in steps
    missing = run("team", "explain", "--inputs", data, "--pod", "gone")
    assert (missing.exit_code, "holds no pod gone" in missing.stderr) == (1, True)


@pytest.mark.parametrize(
    "more",
    [(), ("--namespace", "a"), ("--inputs", ".", "--label", "a=b"), ("--label", "nonsense")],
    ids=["nothing", "no rules", "both", "no pair"],
)
def test_wrong_flags(more):
    assert run("team", "explain", *more).exit_code == 2
