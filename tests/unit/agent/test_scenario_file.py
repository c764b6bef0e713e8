"""Scenario files: round trips, and messages that say where a mistake is."""

from __future__ import annotations

import copy
import json

import pytest

from gpuwaste_agent.simulate.build import build_cluster
from gpuwaste_agent.simulate.scenario_file import ScenarioError, dump_scenario, load_scenario, parse_scenario

GOOD = {
    "version": 1,
    "nodes": [
        {
            "name": "n1",
            "uid": "u1",
            "gpus": [
                {"uuid": "GPU-a", "product": "T4-16GB", "sharing": {"strategy": "time-slicing", "replicas": 2}},
                {"uuid": "GPU-b", "product": "H100-80GB", "mig": [{"uuid": "MIG-c", "profile": "3g.40gb", "start": 4}]},
            ],
            "containers": [
                {
                    "namespace": "ns",
                    "pod": "p",
                    "pod_uid": "pu",
                    "container": "c",
                    "container_id": "ci",
                    "resource": "nvidia.com/gpu",
                    "devices": ["GPU-a::1"],
                    "until_s": 100,
                    "processes": [{"pid": 7, "parent": "GPU-a", "load": [[0, 0.5, 0.25, 1024]]}],
                }
            ],
        }
    ],
}


def changed(path: str, value) -> str:
    """GOOD with one place set (or deleted with `...`)."""
    scenario = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    target = scenario
    for part in parents:
        target = target[int(part) if part.isdigit() else part]
    if value is ...:
        del target[last]
    elif isinstance(target, list):
        target.append(value)
    else:
        target[last] = value
    return json.dumps(scenario)


CONTAINER = GOOD["nodes"][0]["containers"][0]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, r"f\.json: version must be 1, not 2"),
        ("version", ..., r"version is missing: add it"),
        ("nodes", {}, r"nodes must be a list, not an object"),
        ("nodes/0/gpus/0/product", "T5", r"nodes\[0\]\.gpus\[0\]\.product is unknown: `T5` \(known: P100"),
        ("nodes/0/gpus/0/color", "red", r"nodes\[0\]\.gpus\[0\]\.color is not known here \(known: mig"),
        ("nodes/0/gpus/0/sharing", {"strategy": "magic"}, r"sharing\.strategy must be one of none, time-slicing, mps"),
        ("nodes/0/gpus/0/sharing", {"strategy": "mps", "replicas": 1}, r"replicas must be an integer of at least 2"),
        ("nodes/0/gpus/0/mig", [], r"gpus\[0\]\.mig must be left out: T4-16GB has no MIG"),
        ("nodes/0/gpus/1/mig/0/start", 1, r"gpus\[1\]\.mig\[0\]\.start must be one of 0, 4 for 3g\.40gb"),
        ("nodes/0/gpus/1/mig/0/profile", "9g", r"mig\[0\]\.profile is unknown: H100-80GB has no MIG profile `9g`"),
        (
            "nodes/0/gpus/1/mig/+",
            {"uuid": "M", "profile": "1g.10gb", "start": 5},
            r"mig\[1\] overlaps mig\[0\] in .* 5",
        ),
        ("nodes/0/containers/0/devices", ["GPU-a"], r"devices\[0\] `GPU-a` is no slice of this node; slices: GPU-a::0"),
        ("nodes/0/containers/0/until_s", 0, r"containers\[0\]\.until_s must be later than `from_s` \(0\), not 0"),
        ("nodes/0/containers/0/pod", "", r"containers\[0\]\.pod must be a non-empty string"),
        ("nodes/0/containers/0/processes/0/pid", 0, r"processes\[0\]\.pid must be an integer of at least 1, not `0`"),
        ("nodes/0/containers/0/processes/0/pid", True, r"pid must be an integer"),
        ("nodes/0/containers/0/processes/0/parent", "X", r"processes\[0\]\.parent `X` is no parent of this node"),
        ("nodes/0/containers/0/processes/0/load", [[0, 2, 0, 0]], r"load\[0\]: duty must lie between 0 and 1, not 2"),
        ("nodes/0/containers/0/processes/0/load", [[0, 1]], r"load\[0\] must be \[offset_s, duty"),
        ("nodes/0/containers/0/processes/0/load", [[5, 1, 1, 1]], r"load must begin at or before `from_s`"),
        ("nodes/0/containers/0/processes/0/load", [[0, 1, 1, 1], [0, 1, 1, 1]], r"its offsets must rise"),
        (
            "nodes/0/containers/+",
            {**CONTAINER, "processes": []},
            r"devices\[0\] `GPU-a::1` is held by ns/p at the same",
        ),
        ("nodes/0/faults", [{"kind": "flood"}], r"faults\[0\]\.kind must be one of lost, xid"),
        ("nodes/0/faults", [{"kind": "lost"}], r"faults\[0\]\.gpu is missing: say which GPU"),
        ("nodes/0/faults", [{"kind": "lost", "gpu": "GPU-z"}], r"faults\[0\]\.gpu `GPU-z` is no GPU of this node"),
        ("nodes/0/processes", [{"pid": 7, "parent": "GPU-a", "load": [[0, 0, 0, 0]]}], r"pid 7 is already used by"),
    ],
)
def test_a_mistake_is_named_with_file_and_place(path, value, message):
    with pytest.raises(ScenarioError, match=message) as raised:
        parse_scenario(changed(path, value), "f.json")
    assert str(raised.value).startswith("f.json: ")
    assert "\n" not in str(raised.value)


def test_broken_json_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ScenarioError, match=r"f\.json: line 2 is no JSON"):
        parse_scenario('{"version": 1,\n nodes}', "f.json")
    with pytest.raises(ScenarioError, match=r"f\.json: the file must be an object, not a list"):
        parse_scenario("[]", "f.json")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "none.json")


def test_a_scenario_survives_a_round_trip():
    scenario = parse_scenario(json.dumps(GOOD), "f")
    assert parse_scenario(dump_scenario(scenario), "f") == scenario
    built = build_cluster(nodes=12, start_unix_s=1_767_225_600, length_s=86_400, seed=5).scenario
    assert parse_scenario(dump_scenario(built), "f") == built


def test_one_claim_may_share_a_device():
    scenario = json.loads(json.dumps(GOOD))
    containers = scenario["nodes"][0]["containers"]
    containers[0]["claim"] = "ns/shared"
    containers.append({**containers[0], "pod": "q", "pod_uid": "qu", "processes": []})
    assert len(parse_scenario(json.dumps(scenario), "f").nodes[0].containers) == 2
