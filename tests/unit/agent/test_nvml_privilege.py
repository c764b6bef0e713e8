"""A driver that tells the unprivileged only a part: the agent goes on with it, and says what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pynvml
import pytest

from gpuwaste_agent.nvml import RealNvml
from gpuwaste_agent.telemetry import NvmlUnavailableError

GIB = 1 << 30
DENIED = pynvml.NVML_ERROR_NO_PERMISSION
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED


@dataclass(frozen=True)
class Mig:
    """An instance; the driver tells its place to nobody here."""

    uuid: str
    profile: str
    gi_id: int


@dataclass(frozen=True)
class Gpu:
    """A GPU; one that is `closed` may not be opened at all."""

    uuid: str
    name: str = "NVIDIA A100-SXM4-80GB"
    migs: tuple[Mig, ...] | None = None
    closed: bool = False


def refuse(number: int):
    raise pynvml.NVMLError(number)


def driver(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> RealNvml:
    """The telemetry on NVML calls that answer as the unprivileged get it; handles are the values themselves."""

    def opened(index: int) -> Gpu:
        return refuse(DENIED) if gpus[index].closed else gpus[index]

    def mig_of(gpu: Gpu, number: int) -> Mig:
        found = gpu.migs or ()
        return found[number] if number < len(found) else refuse(pynvml.NVML_ERROR_NOT_FOUND)

    def memory(handle: Gpu | Mig, **_: int):
        if isinstance(handle, Gpu) and handle.migs is not None:
            refuse(DENIED)
        return SimpleNamespace(total=80 * GIB, used=GIB)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(gpus),
        "nvmlDeviceGetHandleByIndex": opened,
        "nvmlDeviceGetName": lambda h: h.name if isinstance(h, Gpu) else f"NVIDIA A100 MIG {h.profile}",
        "nvmlDeviceGetUUID": lambda h: h.uuid,
        "nvmlDeviceGetMigMode": lambda gpu: (int(gpu.migs is not None),) * 2,
        "nvmlDeviceGetMinorNumber": gpus.index,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetPciInfo": lambda _: SimpleNamespace(busId="0000:10:00.0"),
        "nvmlDeviceGetMaxMigDeviceCount": lambda _: 7,
        "nvmlDeviceGetMigDeviceHandleByIndex": mig_of,
        "nvmlDeviceGetGpuInstanceId": lambda mig: mig.gi_id,
        "nvmlDeviceGetComputeInstanceId": lambda _: 0,
        "nvmlDeviceGetGpuInstanceById": lambda *_: refuse(DENIED),
        "nvmlGpmQueryDeviceSupport": lambda _: SimpleNamespace(isSupportedDevice=0),
        "nvmlEventSetCreate": lambda: refuse(DENIED),
        "nvmlDeviceGetFieldValues": lambda *_: refuse(NOT_SUPPORTED),
        "nvmlDeviceGetTotalEnergyConsumption": lambda _: 5,
        "nvmlDeviceGetEncoderUtilization": lambda _: (0, 1),
        "nvmlDeviceGetDecoderUtilization": lambda _: (0, 1),
        "nvmlDeviceGetSamples": lambda *_: refuse(NOT_SUPPORTED),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=40),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    return RealNvml(library=None, list_processes=False)


def test_instances_whose_places_are_not_told_are_read_by_what_the_product_says(monkeypatch):
    mig = Gpu("GPU-m", migs=(Mig("MIG-a", "3g.40gb", 1), Mig("MIG-b", "1g.20gb", 5)))
    nvml = driver(monkeypatch, Gpu("GPU-w"), mig)
    whole, cut = nvml.gpus()
    assert whole.memory_bytes == 80 * GIB
    assert cut.memory_bytes == 81920 << 20
    assert [(p.parent_id, p.weight_num, p.weight_den, p.start) for p in cut.parents] == [
        ("MIG-a", 4, 8, None),
        ("MIG-b", 2, 8, None),
    ]
    assert nvml.read("GPU-w").parents[0].activity.duty == 0.4
    reading = nvml.read("GPU-m")
    assert reading.energy_mj == 5
    # Memory is each instance's own; activity nobody tells, which is not the same as none.
    assert [(p.memory_bytes, p.activity.duty, p.activity.sm) for p in reading.parents] == [(GIB, None, None)] * 2
    assert nvml.problem == (
        "the driver refuses memory total, places of GPU-m: "
        "give the agent CAP_SYS_ADMIN (value `agent.migMonitoring` of the chart)"
    )
    assert not nvml.changed()


def test_an_instance_of_unknown_size_is_left_out_without_listing_for_ever(monkeypatch):
    nvml = driver(monkeypatch, Gpu("GPU-w"), Gpu("GPU-m", name="NVIDIA Z1", migs=(Mig("MIG-a", "3g.99gb", 1),)))
    assert [[p.parent_id for p in gpu.parents] for gpu in nvml.gpus()] == [["GPU-w"], []]
    assert "the product table does not know 3g.99gb" in nvml.refusals()["GPU-m"]["instances"]
    assert not nvml.changed()


def test_a_gpu_that_may_not_be_opened_does_not_end_the_others(monkeypatch):
    nvml = driver(monkeypatch, Gpu("GPU-x", closed=True), Gpu("GPU-w"))
    assert [gpu.uuid for gpu in nvml.gpus()] == ["GPU-w"]
    assert nvml.problem.startswith("the driver refuses GPU 0 (Insufficient Permissions): give the agent")
    assert not nvml.changed()


def test_a_node_of_which_nothing_may_be_read_is_an_error_that_says_what_to_set(monkeypatch):
    with pytest.raises(NvmlUnavailableError, match=r"none of 2 GPUs .*agent\.migMonitoring"):
        driver(monkeypatch, Gpu("GPU-x", closed=True), Gpu("GPU-y", closed=True)).gpus()


def test_where_all_is_told_there_is_no_problem(monkeypatch):
    nvml = driver(monkeypatch, Gpu("GPU-w"))
    nvml.gpus()
    nvml.read("GPU-w")
    assert nvml.problem == ""
