"""`gpuwaste pack --modes`: modes, places and configuration in one file; one clear line for whatever is wrong."""

import json

import pytest
import yaml
from click.testing import CliRunner

from gpuwaste.cli.pack import pack
from gpuwaste.model.errors import InputError

NODES = (
    "sn,cpu_milli,memory_mib,gpu,model\na,64000,900000,2,H100-80GB\nb,64000,900000,2,H100-80GB\nc,9000,900,1,T4-16GB\n"
)
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,gpu_mem_gib\nw,10,10,2,1000,H100-80GB,\n" + "".join(
    f"s{i},10,10,1,250,H100-80GB,12\n" for i in range(8)
)
MODES = "[{model: H100-80GB, modes: [{sharing: mps, replicas: 4}, {sharing: timeSlicing, replicas: 2}]}]"


def run(folder, *more, modes=MODES, nodes=NODES, pods=PODS):
    for name, text in (("nodes.csv", nodes), ("pods.csv", pods), ("modes.yaml", modes)):
        (folder / name).write_text(text, encoding="utf-8")
    files = [f"--{name.partition('.')[0]}={folder / name}" for name in ("nodes.csv", "pods.csv", "modes.yaml")]
    arguments = [*files, "--time-limit=1000", f"--out={folder / 'plan.json'}", *more]
    return CliRunner().invoke(pack, arguments)


def test_modes_places_and_configuration_are_written(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert (plan["cost"], plan["bound"], plan["unplaced"]) == (4, 4, [])
    modes = {one["node"]: (one["sharing"], one["replicas"], one["units"]) for one in plan["modes"]}
    assert sorted(modes.values(), key=str) == [("mps", 4, 8), (None, 1, 2)]
    where = {one["pod"]: one["node"] for one in plan["placements"]}
    shared = next(node for node, mode in modes.items() if mode[0])
    assert {where[f"s{i}"] for i in range(8)} == {shared}
    assert where["w"] != shared
    configs = plan["configs"]["H100-80GB"]
    key = configs["labels"][shared]["nvidia.com/device-plugin.config"]
    assert yaml.safe_load(configs["plugin"][key])["sharing"] == {
        "mps": {"resources": [{"name": "nvidia.com/gpu", "replicas": 4}]}
    }


def test_memory_decides_as_well(tmp_path):
    four = "".join(PODS.replace(",12\n", ",30\n").splitlines(keepends=True)[:6])
    assert run(tmp_path, pods=four).exit_code == 0
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert {one["sharing"] for one in plan["modes"]} == {None, "timeSlicing"}
    assert plan["unplaced"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modes": "{}"}, "is no list of models"),
        ({"modes": "[{model: H9, modes: []}]"}, "'H9' is a GPU model of no node"),
        ({"modes": "[{model: H100-80GB}]"}, "has no model and list of modes"),
        ({"modes": "[{model: H100-80GB, modes: [{kind: mps}]}]"}, "a mode has profile, sharing and replicas"),
        ({"modes": "[{model: H100-80GB, modes: [{sharing: mig}]}]"}, "'mig' is not timeSlicing or mps"),
        ({"modes": "[{model: H100-80GB, modes: [{sharing: mps, replicas: many}]}]"}, "replicas a whole number"),
        (
            {"modes": "[{model: H100-80GB, modes: [{sharing: mps, profile: 1g.10gb, replicas: 2}]}]"},
            "MPS does not work",
        ),
        ({"modes": "[{model: T4-16GB, modes: [{profile: 1g.10gb}]}]"}, "T4-16GB has no profile"),
        ({"modes": "[{model: T4-16GB, modes: []}, {model: T4-16GB, modes: []}]"}, "stands twice"),
        ({"nodes": NODES.replace("T4-16GB", "Q9")}, "'Q9' is no GPU product that is known"),
        ({"pods": PODS.replace(",12\n", ",-1\n")}, "gpu_mem_gib"),
        ({"pods": PODS.replace(",12\n", ",nan\n")}, "gpu_mem_gib"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, change, message):
    result = run(tmp_path, **change)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not (tmp_path / "plan.json").exists()


def test_what_does_not_go_together_is_a_wrong_flag(tmp_path):
    assert run(tmp_path, "--objective=gpus").exit_code == 2
