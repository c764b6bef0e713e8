"""`gpuwaste drain`: the steps in its file, and one clear line for whatever is wrong."""

import json

import pytest
from click.testing import CliRunner

from gpuwaste.cli.drain import drain
from gpuwaste.model.errors import InputError

NODES = "sn,cpu_milli,memory_mib,gpu,model\na,9000,900,2,T4\nb,9000,900,2,T4\nc,9000,900,2,A10\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np0,10,10,1,400,\np1,10,10,1,400,\np2,10,10,1,500,T4|A10\n"
PRICES = "{T4: 1, A10: 3}"


def place(pod, node, *gpus, milli=400):
    return {"pod": pod, "node": node, "gpus": [{"index": gpu, "milli": milli} for gpu in gpus]}


HERE = [place("p0", "a", 0), place("p1", "b", 1), place("p2", "c", 0)]


def run(folder, *more, current=None, budgets=None, moves=5):
    for name, text in (("nodes.csv", NODES), ("pods.csv", PODS), ("prices.yaml", PRICES)):
        (folder / name).write_text(text, encoding="utf-8")
    body = {"placements": HERE} if current is None else current
    (folder / "now.json").write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    files = [f"--{name.partition('.')[0]}={folder / name}" for name in ("nodes.csv", "pods.csv", "prices.yaml")]
    if budgets is not None:
        (folder / "budgets.yaml").write_text(budgets, encoding="utf-8")
        files.append(f"--budgets={folder / 'budgets.yaml'}")
    out = folder / "drain.json"
    arguments = [*files, f"--current={folder / 'now.json'}", f"--max-moves={moves}", f"--out={out}", *more]
    return CliRunner().invoke(drain, ["--time-limit=0", *arguments])


def answer_of(folder):
    return json.loads((folder / "drain.json").read_text(encoding="utf-8"))


def test_steps_are_written(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    body = answer_of(tmp_path)
    assert (body["current_cost"], body["planned_cost"], body["saved"], body["max_moves"]) == (10, 2, 8, 5)
    assert len(body["released"]) == 2
    assert body["released"][0] == "c"
    assert body["moves"] == sum(len(wave) for wave in body["waves"]) == 2
    assert body["waves"][0][0]["from"] == "c"
    assert body["repack"] is None


DEAR = [place("p2", "c", 0)]


def test_nodes_are_opened_only_when_asked_for_and_the_output_says_which_question_it_answers(tmp_path):
    (tmp_path / "not").mkdir()
    closed = run(tmp_path / "not", "--time-limit=1", current={"placements": DEAR})
    body = answer_of(tmp_path / "not")
    assert (body["released"], body["opened"], body["open_nodes"], body["saved_at_most"]) == ([], [], False, 0)
    assert "of what any drain into nodes in use could save" in closed.output
    opened = run(tmp_path, "--open-nodes", "--time-limit=1", current={"placements": DEAR})
    body = answer_of(tmp_path)
    assert (body["released"], len(body["opened"]), body["open_nodes"], body["saved"]) == (["c"], 1, True, 4)
    assert "1 nodes emptied and 1 opened with 1 moves" in opened.output
    assert "of what any drain that may open nodes could save" in opened.output


def test_a_better_repack_is_told_with_its_order(tmp_path):
    result = run(tmp_path, "--time-limit=1", moves=0)
    assert result.exit_code == 0, result.output
    body = answer_of(tmp_path)
    assert (body["moves"], body["saved"]) == (0, 0)
    assert body["repack"]["cost"] == 2
    assert body["repack"]["moves"] == sum(len(wave) for wave in body["repack"]["waves"]) == 2
    assert "a full repack would cost 2 with 2 moves" in result.output


def test_a_budget_of_none_pins_its_pods(tmp_path):
    run(tmp_path, budgets="- {name: web, pods: [p2], disruptionsAllowed: 0}")
    assert "c" not in answer_of(tmp_path)["released"]


@pytest.mark.parametrize(
    ("more", "part"),
    [
        pytest.param({"current": "x"}, "is no JSON", id="no JSON"),
        pytest.param({"current": []}, "no list placements", id="no plan"),
        pytest.param({"current": {"placements": [1]}}, "is no placement", id="a number"),
        pytest.param({"current": {"placements": [place("x", "a", 0)]}}, "'x' is no pod", id="unknown pod"),
        pytest.param({"current": {"placements": [place("p0", "x", 0)]}}, "'x' is no node", id="unknown node"),
        pytest.param({"current": {"placements": [place("p0", "a", 7)]}}, "no GPU index", id="unknown GPU"),
        pytest.param({"current": {"placements": [place("p0", "a", 0, 1)]}}, "asks for 1 GPUs", id="too many GPUs"),
        pytest.param({"current": {"placements": [HERE[0], HERE[0]]}}, "stands twice", id="twice"),
        pytest.param(
            {"current": {"placements": [place(f"p{i}", "a", 0) for i in range(3)]}}, "more than 1000", id="GPU overfull"
        ),
        pytest.param({"budgets": "{"}, "is no YAML", id="budgets no YAML"),
        pytest.param({"budgets": "a: 1"}, "no list of budgets", id="budgets no list"),
        pytest.param({"budgets": "- {name: x}"}, "no name and list", id="budget without pods"),
        pytest.param({"budgets": "- {name: x, pods: [p0], disruptionsAllowed: -1}"}, "0 or more", id="budget below 0"),
        pytest.param(
            {"budgets": "- {name: x, pods: [p9], disruptionsAllowed: 1}"}, "'p9' is no pod", id="budget of unknown pod"
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path, more, part):
    result = run(tmp_path, **more)
    assert isinstance(result.exception, InputError), result.output
    assert part in str(result.exception)
    assert not (tmp_path / "drain.json").exists()


@pytest.mark.parametrize("flag", ["--max-moves=-1", "--time-limit=-1", "--time-limit=nan"])
def test_senseless_flags(tmp_path, flag):
    assert run(tmp_path, flag).exit_code == 2
