"""A node's GPUs in the scenario file, as the stand-ins change them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.cluster.nodes.gpus import a_gpu, an_instance
from tests.sim.hardware import Hardware, InUseError, new_mig_uuid

from gpuwaste_agent.simulate.scenario import (
    Scenario,
    ScenarioContainer,
    ScenarioFault,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)
from gpuwaste_agent.simulate.scenario_file import dump_scenario, load_scenario

if TYPE_CHECKING:
    from pathlib import Path

_NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
_SMALL, _LARGE = an_instance(0, 0, "1g.10gb", 0), an_instance(0, 0, "3g.40gb", 4)
_GPUS = (a_gpu(0, 0, "A100-80GB", [_SMALL, _LARGE]), a_gpu(0, 1, "A100-80GB"))


def write(path: Path, node: ScenarioNode, start: str = "") -> Hardware:
    other = ScenarioNode(name="other", uid="o", gpus=(a_gpu(1, 0, "T4-16GB"),))
    path.write_text(dump_scenario(Scenario(nodes=(node, other), start=start)))
    return Hardware(path, "n", now=lambda: _NOW)


def process_on(parent: str) -> ScenarioProcess:
    return ScenarioProcess(pid=7, parent=parent, load=(ScenarioLoad(0, 0.5, 0.5, 10),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scenario.json"


def test_a_new_layout_is_what_all_see(path: Path) -> None:
    hardware = write(path, ScenarioNode(name="n", uid="u", gpus=_GPUS))
    hardware.set_layout(_GPUS[1].uuid, (an_instance(0, 1, "7g.80gb", 0),))
    hardware.set_layout(_GPUS[0].uuid, None)
    assert [gpu.mig and len(gpu.mig) for gpu in hardware.gpus()] == [None, 1]
    assert load_scenario(path).node("other").gpus[0].product == "T4-16GB"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("layout", [None, (), (_SMALL,)], ids=["off", "cleared", "another stays"])
def test_an_instance_in_use_cannot_go(path: Path, layout: tuple[()] | None) -> None:
    node = ScenarioNode(name="n", uid="u", gpus=_GPUS, processes=(process_on(_LARGE.uuid),))
    hardware = write(path, node)
    before = path.read_text()
    with pytest.raises(InUseError, match="process 7 runs on"):
        hardware.set_layout(_GPUS[0].uuid, layout)
    assert path.read_text() == before


def test_an_instance_in_use_can_stay(path: Path) -> None:
    hardware = write(path, ScenarioNode(name="n", uid="u", gpus=_GPUS, processes=(process_on(_LARGE.uuid),)))
    hardware.set_layout(_GPUS[0].uuid, (_LARGE,))
    assert hardware.gpus()[0].mig == (_LARGE,)


def test_the_mode_of_a_gpu_in_use_cannot_change(path: Path) -> None:
    hardware = write(path, ScenarioNode(name="n", uid="u", gpus=_GPUS, processes=(process_on(_GPUS[1].uuid),)))
    with pytest.raises(InUseError):
        hardware.set_layout(_GPUS[1].uuid, ())


def test_a_container_loses_what_is_gone(path: Path) -> None:
    container = ScenarioContainer(
        namespace="d", pod="p", pod_uid="u", container="c", container_id="i", devices=(_SMALL.uuid, _LARGE.uuid)
    )
    hardware = write(path, ScenarioNode(name="n", uid="u", gpus=_GPUS, containers=(container,)))
    hardware.set_layout(_GPUS[0].uuid, (_LARGE,))
    assert load_scenario(path).node("n").containers == (replace(container, devices=(_LARGE.uuid,)),)


@pytest.mark.parametrize(
    ("fault", "bad"),
    [
        (ScenarioFault(kind="xid", gpu=_GPUS[0].uuid, xid=79), True),
        (ScenarioFault(kind="xid", gpu=_GPUS[0].uuid, xid=31), False),
        (ScenarioFault(kind="lost", gpu=_GPUS[0].uuid), True),
        (ScenarioFault(kind="counter-reset", gpu=_GPUS[0].uuid), False),
        (ScenarioFault(kind="lost", gpu=_GPUS[0].uuid, from_s=3601), False),
        (ScenarioFault(kind="lost", gpu=_GPUS[0].uuid, until_s=3599), False),
    ],
    ids=["hardware xid", "application xid", "lost", "reset", "not yet", "over"],
)
def test_which_faults_make_a_gpu_unhealthy(path: Path, fault: ScenarioFault, bad: bool) -> None:  # noqa: FBT001
    start = (_NOW - timedelta(hours=1)).isoformat()
    hardware = write(path, ScenarioNode(name="n", uid="u", gpus=_GPUS, faults=(fault,)), start)
    assert hardware.unhealthy() == ({_GPUS[0].uuid} if bad else set())


def test_new_instances_have_new_names() -> None:
    assert len({new_mig_uuid() for _ in range(100)}) == 100
