import json

import pytest
from click.testing import CliRunner

from gpuwaste.cli.pack import pack
from gpuwaste.model.errors import InputError

NODES = "sn,cpu_milli,memory_mib,gpu,model,rack\nn1,8000,4096,2,T4,r1\nn2,8000,4096,2,T4,r1\nn3,64000,9000,4,A10,r2\n"
PODS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n"
    "p1,1000,100,1,460,,LS\np2,1000,100,1,500,T4,LS\np3,1000,100,2,1000,T4|A10,BE\np4,500,10,0,0,,BE\n"
)
PRICES = "T4: 0.35\nA10: 0.75\n"


@pytest.fixture
def files(tmp_path):
    def write(nodes=NODES, pods=PODS, prices=PRICES):
        for name, text in (("nodes.csv", nodes), ("pods.csv", pods), ("prices.yaml", prices)):
            (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def run(folder, *more, prices=True):
    arguments = ["--nodes", f"{folder}/nodes.csv", "--pods", f"{folder}/pods.csv", "--out", f"{folder}/plan.json"]
    if prices:
        arguments += ["--prices", f"{folder}/prices.yaml"]
    return CliRunner().invoke(pack, [*arguments, *more])


def test_plan_has_the_fields_and_the_figures(files):
    folder = files()
    result = run(folder, "--time-limit", "1000")
    assert result.exit_code == 0, result.output
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert plan["objective"] == "cost"
    assert plan["cost"] == plan["bound"] == 1.4
    assert plan["gap"] == 0
    assert plan["unplaced"] == []
    assert plan["unplaced_gpu_milli"] == 0
    assert plan["prices"] == {"T4": 0.35, "A10": 0.75}
    assert plan["nodes_used"] == 2
    assert plan["gpus_used"] in {3, 4}
    assert 0 < plan["first_feasible_seconds"] <= plan["seconds"]
    by_pod = {placement["pod"]: placement for placement in plan["placements"]}
    assert set(by_pod) == {"p1", "p2", "p3", "p4"}
    assert by_pod["p4"]["gpus"] == []
    assert [gpu["milli"] for gpu in by_pod["p3"]["gpus"]] == [1000, 1000]
    assert by_pod["p1"]["gpus"][0]["milli"] == 460
    assert sorted(file.name for file in folder.iterdir()) == ["nodes.csv", "plan.json", "pods.csv", "prices.yaml"]


def test_without_prices_every_gpu_costs_one(files):
    folder = files()
    assert run(folder, "--time-limit", "1000", prices=False).exit_code == 0
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert plan["cost"] == 4
    assert plan["prices"] == {"T4": 1, "A10": 1}


def test_time_limit_zero_still_answers(files):
    folder = files()
    assert run(folder, "--time-limit", "0").exit_code == 0
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    assert 0 < plan["bound"] <= plan["cost"]


def replaced(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("broken", "parts"),
    [
        pytest.param({"pods": replaced(PODS, "gpu_milli", "milli")}, ["pods.csv", "gpu_milli"], id="missing column"),
        pytest.param({"nodes": replaced(NODES, "gpu,", "gpus,")}, ["nodes.csv", "column gpu"], id="no gpu column"),
        pytest.param({"pods": ""}, ["pods.csv", "name"], id="empty file"),
        pytest.param(
            {"pods": replaced(PODS, "p2,1000", "p2,-1000")}, ["row 2", "cpu_milli", "negative"], id="negative"
        ),
        pytest.param({"pods": replaced(PODS, "p2,1000", "p2,nan")}, ["row 2", "cpu_milli", "nan"], id="NaN"),
        pytest.param({"pods": replaced(PODS, "p2,1000", "p2,")}, ["row 2", "cpu_milli", "not a number"], id="empty"),
        pytest.param({"pods": replaced(PODS, "p2,1000", "p2,lots")}, ["row 2", "cpu_milli", "lots"], id="words"),
        pytest.param({"pods": replaced(PODS, "p2,1000", "p2,inf")}, ["row 2", "cpu_milli", "large"], id="infinite"),
        pytest.param({"pods": replaced(PODS, "2,1000,T4|", "2.5,1000,T4|")}, ["row 3", "num_gpu", "whole"], id="half"),
        pytest.param({"pods": replaced(PODS, "1,460", "1,0")}, ["row 1", "gpu_milli", "1 to 1000"], id="no share"),
        pytest.param({"pods": replaced(PODS, "1,460", "1,1001")}, ["row 1", "gpu_milli", "1 to 1000"], id="big share"),
        pytest.param({"pods": replaced(PODS, "T4|A10", "T4|H9")}, ["row 3", "gpu_spec", "H9"], id="unknown model"),
        pytest.param({"pods": replaced(PODS, "p2,", "p1,")}, ["row 2", "name", "p1", "twice"], id="same pod twice"),
        pytest.param({"nodes": replaced(NODES, "n2", "n1")}, ["nodes.csv", "row 2", "sn", "twice"], id="same node"),
        pytest.param({"nodes": replaced(NODES, "2,T4,r1\nn2", "2,,r1\nn2")}, ["row 1", "model"], id="no model"),
        pytest.param({"nodes": NODES + "n4,1\n"}, ["nodes.csv"], id="short row"),
        pytest.param({"prices": replaced(PRICES, "0.35", "-0.35")}, ["prices.yaml", "T4", "negative"], id="price < 0"),
        pytest.param({"prices": replaced(PRICES, "0.35", ".nan")}, ["prices.yaml", "T4"], id="price NaN"),
        pytest.param(
            {"prices": replaced(PRICES, "0.35", "cheap")}, ["prices.yaml", "T4", "cheap"], id="price in words"
        ),
        pytest.param({"prices": "T4: 0.35\n"}, ["prices.yaml", "A10"], id="model without price"),
        pytest.param({"prices": "- 1\n"}, ["prices.yaml", "no map"], id="prices no map"),
        pytest.param({"prices": "a: [\n"}, ["prices.yaml"], id="prices no YAML"),
    ],
)
def test_bad_input_is_one_clear_line_and_nothing_is_written(files, broken, parts):
    folder = files(**broken)
    result = run(folder)
    assert isinstance(result.exception, InputError)
    message = str(result.exception)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not (folder / "plan.json").exists()


def test_missing_file_is_refused(files):
    folder = files()
    (folder / "pods.csv").unlink()
    result = run(folder)
    assert isinstance(result.exception, InputError)
    assert "pods.csv" in str(result.exception)


@pytest.mark.parametrize("limit", ["-1", "nan", "inf"])
def test_senseless_time_limits_are_wrong_flags(files, limit):
    assert run(files(), "--time-limit", limit).exit_code == 2


def test_a_folder_that_does_not_exist_is_refused(files):
    folder = files()
    result = run(folder, "--out", f"{folder}/nowhere/plan.json", "--time-limit", "0")
    assert isinstance(result.exception, InputError)
