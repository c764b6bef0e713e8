"""`gpuwaste plan` on stored facts, with the real solver in its child process."""

import json

import pytest
from click.testing import CliRunner
from tests.unit.recommend.clusters import HOUR, cluster, node, pod

from gpuwaste.api.plan import PlanDocument
from gpuwaste.cli.main import cli
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.store import open_store


@pytest.fixture
def stored(tmp_path):
    facts = cluster(node("a"), node("b"), node("c", price=None), pod("p", on="a", gpus=2), pod("q", on="b"))
    InputStore(open_store(str(tmp_path)), "one").write_facts(HOUR, facts)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, ["plan", *map(str, arguments)])


def test_the_table_the_file_and_json_say_the_same(stored):
    out = stored / "plan.json"
    done = run("--inputs", stored, "--time-limit", "0", "--out", out)
    assert done.exit_code == 0, done.output
    document = PlanDocument.model_validate(json.loads(out.read_text(encoding="utf-8")))
    assert [action.type for action in document.actions] == ["DrainNode", "ReleaseNode"]
    assert "11,680.00 USD a month now" in done.output
    assert "c: no price is known" in done.output
    assert not list(stored.glob(".plan.json*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["--at", "2026-12-01T00:00:00Z"], 1, "holds nothing for the hour of", id="no such hour"),
        pytest.param(["--at", "yesterday"], 2, "is no time", id="no time"),
        pytest.param(["--time-limit", "-1"], 2, "is no number of seconds", id="negative limit"),
        pytest.param(["--cluster", "two"], 1, "holds no cluster 'two'", id="no such cluster"),
    ],
)
def test_wrong_input_is_one_clear_line(stored, arguments, code, message):
    done = run("--inputs", stored, *arguments)
    assert done.exit_code == code
    assert message in done.output


def test_two_clusters_ask_for_a_choice(stored):
    InputStore(open_store(str(stored)), "two").write_facts(HOUR, cluster(node("a")))
    done = run("--inputs", stored)
    assert (done.exit_code, "choose one with --cluster" in done.output) == (1, True)
