"""Every function of the simulated driver, called through pynvml, agrees with the scenario."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.nvml.nodes import START_NS, Refused, a_gpu, a_node, a_process, gpu_uuid, make_node, mig_uuid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.nvml.nodes import Program

pytestmark = pytest.mark.smoke

MIB = 1 << 20
NONE = 0xFFFFFFFF
UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = (Refused(number) for number in (1, 2, 3, 4, 6))

# GPU 0: H100, two processes in turns. GPU 1: H100 under MIG. GPU 2: T4. GPU 3: A100 under MIG. GPU 4: A10, MPS.
# GPU 5: P100, idle.
NODE = a_node(
    [
        a_gpu(0, "H100-80GB"),
        a_gpu(1, "H100-80GB", ("1g.10gb", 0), ("2g.20gb", 2), ("3g.40gb", 4)),
        a_gpu(2, "T4-16GB"),
        a_gpu(3, "A100-80GB", ("7g.80gb", 0)),
        a_gpu(4, "A10-24GB", strategy="mps", replicas=2),
        a_gpu(5, "P100-16GB"),
    ],
    [
        a_process(100, gpu_uuid(0), (0, 0.7, 0.3, 1000, 0.2, 0.5)),
        a_process(101, gpu_uuid(0), (0, 0.2, 0.9, 2000, 0.0, 0.1)),
        a_process(110, mig_uuid(16), (0, 1.0, 0.5, 500, 0.25, 0.75)),
        a_process(111, mig_uuid(17), (0, 0.5, 0.4, 600)),
        a_process(120, gpu_uuid(2), (0, 0.25, 0.5, 700, 0, 0.4), (5, 0.75, 0.5, 800, 0, 0.4)),
        a_process(121, gpu_uuid(2), (0, 1.0, 1.0, 100), until_s=4),
        a_process(130, mig_uuid(48), (0, 0.5, 1.0, 900)),
        a_process(140, gpu_uuid(4), (0, 0.5, 0.5, 300, 0, 0, 0.25, 0.1)),
        a_process(141, gpu_uuid(4), (0, 0.5, 0.25, 400)),
    ],
)


def memory(total_mib: int, used_mib: int) -> dict[str, int]:
    """NVML's first memory structure: what is not free is used; the driver keeps a part."""
    total = total_mib * MIB
    reserved = total // 128 // MIB * MIB
    return {"total": total, "free": total - reserved - used_mib * MIB, "used": reserved + used_mib * MIB}


def process(pid: int, mib: int, gi: int = NONE, ci: int = NONE) -> dict[str, int]:
    return {"pid": pid, "usedGpuMemory": mib * MIB, "gpuInstanceId": gi, "computeInstanceId": ci}


TABLE: list[tuple[str, str, Any]] = [
    # The system.
    ("driver version", "nvmlSystemGetDriverVersion()", "580.95.05"),
    ("NVML version", "nvmlSystemGetNVMLVersion()", "13.580.95.05"),
    ("CUDA version", "nvmlSystemGetCudaDriverVersion()", 13000),
    ("CUDA version v2", "nvmlSystemGetCudaDriverVersion_v2()", 13000),
    ("process name", "'python' in nvmlSystemGetProcessName(__import__('os').getpid())", True),
    ("process name of none", "nvmlSystemGetProcessName(4194305)", NOT_FOUND),
    ("error text", "nvmlErrorString(999)", "Unknown Error"),
    ("count", "nvmlDeviceGetCount()", 6),
    # Handles.
    ("index out of range", "nvmlDeviceGetHandleByIndex(6)", INVALID),
    ("by UUID", f"nvmlDeviceGetIndex(nvmlDeviceGetHandleByUUID('{gpu_uuid(2)}'))", 2),
    ("MIG device by UUID", f"nvmlDeviceGetUUID(nvmlDeviceGetHandleByUUID('{mig_uuid(17)}'))", mig_uuid(17)),
    ("unknown UUID", "nvmlDeviceGetHandleByUUID('GPU-none')", NOT_FOUND),
    ("by PCI id", "nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('00000000:12:00.0'))", 2),
    ("by short PCI id", "nvmlDeviceGetIndex(nvmlDeviceGetHandleByPciBusId('0000:11:00.0'))", 1),
    ("unknown PCI id", "nvmlDeviceGetHandleByPciBusId('0000:77:00.0')", NOT_FOUND),
    ("no PCI id", "nvmlDeviceGetHandleByPciBusId('here')", INVALID),
    # Identity.
    ("name", "nvmlDeviceGetName(gpu(0))", "NVIDIA H100 80GB HBM3"),
    ("MIG device's name", "nvmlDeviceGetName(mig(1, 0))", "NVIDIA H100 80GB HBM3 MIG 3g.40gb"),
    ("UUID", "nvmlDeviceGetUUID(gpu(0))", gpu_uuid(0)),
    ("MIG device's index", "nvmlDeviceGetIndex(mig(1, 2))", 2),
    ("minor number", "nvmlDeviceGetMinorNumber(gpu(3))", 3),
    ("serial", "nvmlDeviceGetSerial(gpu(3))", "000000000003"),
    ("PCI", "nvmlDeviceGetPciInfo(gpu(4)).busId", "00000000:14:00.0"),
    ("PCI device id", "nvmlDeviceGetPciInfo(gpu(0)).pciDeviceId", 0x233010DE),
    ("brand", "nvmlDeviceGetBrand(gpu(2)) == NVML_BRAND_TESLA", True),
    ("architecture", "[nvmlDeviceGetArchitecture(gpu(i)) for i in range(6)]", [9, 9, 6, 7, 7, 4]),
    ("compute capability", "nvmlDeviceGetCudaComputeCapability(gpu(4))", [8, 6]),
    ("persistence", "nvmlDeviceGetPersistenceMode(gpu(0))", 1),
    ("virtualization", "nvmlDeviceGetVirtualizationMode(gpu(0))", 0),
    ("compute mode", "nvmlDeviceGetComputeMode(gpu(0))", 0),
    ("PCIe generation", "[nvmlDeviceGetMaxPcieLinkGeneration(gpu(i)) for i in range(6)]", [5, 5, 3, 4, 4, 3]),
    ("PCIe width", "nvmlDeviceGetCurrPcieLinkWidth(gpu(0))", 16),
    # Memory.
    ("memory", "nvmlDeviceGetMemoryInfo(gpu(0))", memory(81559, 3000)),
    ("memory after a change", "nvmlDeviceGetMemoryInfo(gpu(2))", memory(15360, 800)),
    ("memory v2", "nvmlDeviceGetMemoryInfo(gpu(0), nvmlMemory_v2).used", 3000 * MIB),
    ("memory v2 reserved", "nvmlDeviceGetMemoryInfo(gpu(0), nvmlMemory_v2).reserved", 637 * MIB),
    ("memory of a wrong version", "nvmlDeviceGetMemoryInfo(gpu(0), 7)", Refused(25)),
    ("memory of a MIG device", "nvmlDeviceGetMemoryInfo(mig(1, 2))", memory(9984, 500)),
    ("memory of a MIG GPU", "nvmlDeviceGetMemoryInfo(gpu(1))", memory(81559, 1100)),
    ("BAR1", "nvmlDeviceGetBAR1MemoryInfo(gpu(0)).bar1Used", 0),
    # Utilization: of the last sample period.
    ("utilization", "nvmlDeviceGetUtilizationRates(gpu(0))", {"gpu": 90, "memory": 37}),
    ("utilization of an idle GPU", "nvmlDeviceGetUtilizationRates(gpu(5))", {"gpu": 0, "memory": 0}),
    ("utilization under MPS", "nvmlDeviceGetUtilizationRates(gpu(4)).gpu", 75),
    ("utilization under MIG", "nvmlDeviceGetUtilizationRates(gpu(1))", NOT_SUPPORTED),
    ("utilization of a MIG device", "nvmlDeviceGetUtilizationRates(mig(1, 0))", NOT_SUPPORTED),
    ("encoder", "nvmlDeviceGetEncoderUtilization(gpu(0))", [0, 200_000]),
    ("encoder in use", "nvmlDeviceGetEncoderUtilization(gpu(4))[0]", 25),
    ("decoder in use", "nvmlDeviceGetDecoderUtilization(gpu(4))[0]", 10),
    ("encoder by process", f"nvmlDeviceGetProcessUtilization(gpu(4), {START_NS // 1000})[0].encUtil", 25),
    ("encoder under MIG", "nvmlDeviceGetEncoderUtilization(gpu(3))", NOT_SUPPORTED),
    ("decoder", "nvmlDeviceGetDecoderUtilization(gpu(2))", [0, 200_000]),
    ("decoder under MIG", "nvmlDeviceGetDecoderUtilization(gpu(3))", NOT_SUPPORTED),
    ("samples", "[s.sampleValue.uiVal for s in nvmlDeviceGetSamples(gpu(2), 1, 0)[1]][::12]", [100, 100, 25, 75, 75]),
    ("samples under MIG", "nvmlDeviceGetSamples(gpu(1), NVML_GPU_UTILIZATION_SAMPLES, 0)", NOT_SUPPORTED),
    ("power samples under MIG", "len(nvmlDeviceGetSamples(gpu(1), NVML_TOTAL_POWER_SAMPLES, 0)[1])", 50),
    # 70 W at rest, 630 W more at full width: 0.7 × 0.3 + 0.2 × 0.9 of the SMs are in use.
    ("power", "nvmlDeviceGetPowerUsage(gpu(0))", 315_700),
    ("power of an idle GPU", "nvmlDeviceGetPowerUsage(gpu(5))", 26_000),
    # Instances weigh by memory units: 1/8 × 0.5 + 2/8 × 0.2 of 630 W.
    ("power under MIG", "nvmlDeviceGetPowerUsage(gpu(1))", round(70_000 + 630_000 * 0.1125)),
    ("energy", "nvmlDeviceGetTotalEnergyConsumption(gpu(0))", 3_157_000),
    # 10 W for 10 s; 60 W × (4 s × 1.25/1.25 in turns: 0.9 busy SMs; then 1 s at 0.125, 5 s at 0.375).
    ("energy after changes", "nvmlDeviceGetTotalEnergyConsumption(gpu(2))", 100_000 + 60_000 * (3.6 + 0.125 + 1.875)),
    ("energy of a Pascal", "nvmlDeviceGetTotalEnergyConsumption(gpu(5))", NOT_SUPPORTED),
    ("power limit", "nvmlDeviceGetPowerManagementLimit(gpu(2))", 70_000),
    ("default limit", "nvmlDeviceGetPowerManagementDefaultLimit(gpu(2))", 70_000),
    ("enforced limit", "nvmlDeviceGetEnforcedPowerLimit(gpu(0))", 700_000),
    ("temperature", "nvmlDeviceGetTemperature(gpu(0), NVML_TEMPERATURE_GPU)", 30 + round(45 * 0.39)),
    ("temperature of a MIG device", "nvmlDeviceGetTemperature(mig(1, 0), NVML_TEMPERATURE_GPU)", NOT_SUPPORTED),
    ("shutdown threshold", "nvmlDeviceGetTemperatureThreshold(gpu(0), NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)", 95),
    ("acoustic threshold", "nvmlDeviceGetTemperatureThreshold(gpu(0), 4)", NOT_SUPPORTED),
    ("clock", "nvmlDeviceGetClockInfo(gpu(0), NVML_CLOCK_SM)", 1980),
    ("clock at rest", "nvmlDeviceGetClockInfo(gpu(5), NVML_CLOCK_SM)", 210),
    ("highest clock", "nvmlDeviceGetMaxClockInfo(gpu(5), NVML_CLOCK_SM)", 1328),
    ("memory clock", "nvmlDeviceGetClockInfo(gpu(2), NVML_CLOCK_MEM)", 5001),
    ("reasons when busy", "nvmlDeviceGetCurrentClocksThrottleReasons(gpu(0))", 0),
    ("reasons at rest", "nvmlDeviceGetCurrentClocksEventReasons(gpu(5))", 1),
    ("known reasons", "nvmlDeviceGetSupportedClocksThrottleReasons(gpu(5))", 5),
    ("performance state", "nvmlDeviceGetPerformanceState(gpu(5))", 8),
    # Processes.
    ("processes", "nvmlDeviceGetComputeRunningProcesses(gpu(0))", [process(100, 1000), process(101, 2000)]),
    ("processes v2", "nvmlDeviceGetComputeRunningProcesses_v2(gpu(2))", [process(120, 800)]),
    ("no processes", "nvmlDeviceGetComputeRunningProcesses(gpu(5))", []),
    (
        "processes of a MIG GPU",
        "nvmlDeviceGetComputeRunningProcesses(gpu(1))",
        [process(110, 500, 7, 0), process(111, 600, 4, 0)],
    ),
    ("processes of a MIG device", "nvmlDeviceGetComputeRunningProcesses(mig(1, 1))", [process(111, 600, 4, 0)]),
    ("graphics processes", "nvmlDeviceGetGraphicsRunningProcesses(gpu(0))", []),
    ("MPS clients", "[p.pid for p in nvmlDeviceGetMPSComputeRunningProcesses(gpu(4))]", [140, 141]),
    ("no MPS clients", "nvmlDeviceGetMPSComputeRunningProcesses(gpu(0))", []),
    (
        "process utilization",
        "[(u.pid, u.smUtil) for u in nvmlDeviceGetProcessUtilization(gpu(0), 0)]",
        [[100, 70], [101, 20]],
    ),
    # 4 s at 0.2 (1.25 asked for), 1 s at 0.25, 5 s at 0.75; the other one 4 s at 0.8.
    (
        "process utilization of all kept",
        "[(u.pid, u.smUtil) for u in nvmlDeviceGetProcessUtilization(gpu(2), 0)]",
        [[120, 48], [121, 32]],
    ),
    (
        "process utilization since",
        f"[(u.pid, u.smUtil) for u in nvmlDeviceGetProcessUtilization(gpu(2), {START_NS // 1000 + 8_000_000})]",
        [[120, 75]],
    ),
    ("its time", "nvmlDeviceGetProcessUtilization(gpu(2), 0)[0].timeStamp", START_NS // 1000 + 10_000_000),
    ("nothing new", f"nvmlDeviceGetProcessUtilization(gpu(2), {START_NS // 1000 + 10_000_000})", NOT_FOUND),
    ("nothing at all", "nvmlDeviceGetProcessUtilization(gpu(5), 0)", NOT_FOUND),
    ("process utilization under MIG", "nvmlDeviceGetProcessUtilization(gpu(1), 0)", NOT_SUPPORTED),
    (
        "processes' utilization",
        "[(u.pid, u.smUtil) for u in nvmlDeviceGetProcessesUtilizationInfo(gpu(4), 0)]",
        [[140, 50], [141, 50]],
    ),
    ("accounting is off", "nvmlDeviceGetAccountingMode(gpu(0))", 0),
    ("accounting under MIG", "nvmlDeviceGetAccountingMode(gpu(1))", NOT_SUPPORTED),
    ("accounting buffer", "nvmlDeviceGetAccountingBufferSize(gpu(0))", 4000),
    # GPM.
    ("GPM", "[nvmlGpmQueryDeviceSupport(gpu(i)).isSupportedDevice for i in range(6)]", [1, 1, 0, 0, 0, 0]),
    ("GPM sample of an Ampere", "sample(gpu(3))", NOT_SUPPORTED),
    ("GPM sample of no instance", "sample(gpu(1), 5)", NOT_FOUND),
    ("GPM instance sample without MIG", "sample(gpu(0), 5)", NOT_SUPPORTED),
    # Field values.
    ("energy fields", "fields(gpu(0), NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, NVML_FI_DEV_ENERGY)", [3_157_000] * 2),
    ("power fields", "fields(gpu(0), NVML_FI_DEV_POWER_INSTANT, NVML_FI_DEV_POWER_MAX_LIMIT)", [315_700, 700_000]),
    ("field without an answer", "fields(gpu(0), NVML_FI_DEV_MEMORY_TEMP, 100000)", [[3], [2]]),
    ("remapped rows", "fields(gpu(2), NVML_FI_DEV_REMAPPED_UNC)", [[3]]),
    # MIG.
    ("MIG mode", "[nvmlDeviceGetMigMode(gpu(i)) for i in (0, 1, 3)]", [[0, 0], [1, 1], [1, 1]]),
    ("MIG mode of a T4", "nvmlDeviceGetMigMode(gpu(2))", NOT_SUPPORTED),
    ("MIG mode of an A10", "nvmlDeviceSetMigMode(gpu(4), 1)", NOT_SUPPORTED),
    ("most MIG devices", "[nvmlDeviceGetMaxMigDeviceCount(gpu(i)) for i in range(6)]", [0, 7, 0, 7, 0, 0]),
    ("MIG devices", "[nvmlDeviceGetUUID(mig(1, i)) for i in range(3)]", [mig_uuid(18), mig_uuid(17), mig_uuid(16)]),
    ("no more MIG devices", "mig(1, 3)", NOT_FOUND),
    ("MIG device of a GPU without", "mig(0, 0)", NOT_SUPPORTED),
    ("is it a MIG device", "[nvmlDeviceIsMigDeviceHandle(h) for h in (gpu(1), mig(1, 0))]", [0, 1]),
    ("GPU instance id", "[nvmlDeviceGetGpuInstanceId(mig(1, i)) for i in range(3)]", [2, 4, 7]),
    ("compute instance id", "nvmlDeviceGetComputeInstanceId(mig(1, 1))", 0),
    ("GPU instance id of a GPU", "nvmlDeviceGetGpuInstanceId(gpu(1))", NOT_SUPPORTED),
    ("parent", "nvmlDeviceGetUUID(nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig(1, 1)))", gpu_uuid(1)),
    ("attributes: SMs", "[nvmlDeviceGetAttributes(mig(1, i)).multiprocessorCount for i in range(3)]", [60, 32, 16]),
    ("attributes: memory", "[nvmlDeviceGetAttributes(mig(1, i)).memorySizeMB for i in range(3)]", [39744, 19840, 9984]),
    ("attributes of a GPU", "nvmlDeviceGetAttributes(gpu(1))", NOT_SUPPORTED),
    ("profile", "nvmlDeviceGetGpuInstanceProfileInfo(gpu(0), 2).name", "MIG 3g.40gb"),
    ("profile v1", "nvmlDeviceGetGpuInstanceProfileInfo(gpu(0), 9, version=1).id", 15),
    ("profile by id", "nvmlDeviceGetGpuInstanceProfileInfoById(gpu(0), 5).sliceCount", 4),
    ("profile it has not", "nvmlDeviceGetGpuInstanceProfileInfo(gpu(0), 5)", NOT_SUPPORTED),
    ("profile there is not", "nvmlDeviceGetGpuInstanceProfileInfo(gpu(0), 0x12)", INVALID),
    ("profile of a T4", "nvmlDeviceGetGpuInstanceProfileInfo(gpu(2), 0)", NOT_SUPPORTED),
    ("placements", "places(nvmlDeviceGetGpuInstancePossiblePlacements, gpu(0), 9)", [[0, 4], [4, 4]]),
    ("remaining", "nvmlDeviceGetGpuInstanceRemainingCapacity(gpu(1), 19)", 1),
    ("remaining without MIG", "nvmlDeviceGetGpuInstanceRemainingCapacity(gpu(0), 19)", NOT_SUPPORTED),
    ("instance", "nvmlGpuInstanceGetInfo(instance(1, 4)).placement", {"start": 2, "size": 2}),
    ("no instance", "instance(1, 6)", NOT_FOUND),
    ("instances", "len(listed(nvmlDeviceGetGpuInstances, gpu(1), 14, c_nvmlGpuInstance_t))", 1),
    ("compute profile", "nvmlGpuInstanceGetComputeInstanceProfileInfo(instance(1, 2), 0, 0).name", "MIG 1c.3g.40gb"),
    (
        "compute profile v1",
        "nvmlGpuInstanceGetComputeInstanceProfileInfo(instance(1, 2), 2, 0, version=1).multiprocessorCount",
        60,
    ),
    ("compute profile too large", "nvmlGpuInstanceGetComputeInstanceProfileInfo(instance(1, 2), 3, 0)", NOT_SUPPORTED),
    ("compute placements", "compute_places(instance(3, 0), 1)", [[0, 2], [2, 2], [4, 2]]),
    ("compute remaining", "nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance(1, 2), 0)", 0),
    ("compute instance", "nvmlComputeInstanceGetInfo(compute(1, 2, 0)).placement.size", 3),
    ("compute instances", "len(compute_instances(instance(1, 2), 2))", 1),
    ("no compute instance", "compute(1, 2, 1)", NOT_FOUND),
    # Symbols of earlier versions, and structures of earlier versions.
    ("old init", "[old(name) for name in ('nvmlInit', 'nvmlInit_v2')]", [None, None]),
    ("old count", "old('nvmlDeviceGetCount', pointer(c_uint))", 6),
    (
        "old index",
        "nvmlDeviceGetIndex(old('nvmlDeviceGetHandleByIndex', 2, pointer(c_nvmlDevice_t)))",
        2,
    ),
    (
        "old PCI id",
        "nvmlDeviceGetIndex(old('nvmlDeviceGetHandleByPciBusId', b'0000:12:00.0', pointer(c_nvmlDevice_t)))",
        2,
    ),
    ("old PCI", "old('nvmlDeviceGetPciInfo_v2', gpu(4), pointer(nvmlPciInfo_v2_t)).bus", 0x14),
    ("old CUDA version", "old('nvmlSystemGetCudaDriverVersion', pointer(c_int))", 13000),
    ("old processes", "old_processes('nvmlDeviceGetComputeRunningProcesses', gpu(0))", [[100, 1000], [101, 2000]]),
    ("old graphics", "old_processes('nvmlDeviceGetGraphicsRunningProcesses', gpu(0))", []),
    ("old MPS clients", "old_processes('nvmlDeviceGetMPSComputeRunningProcesses', gpu(4))", [[140, 300], [141, 400]]),
    ("graphics v2", "nvmlDeviceGetGraphicsRunningProcesses_v2(gpu(0))", []),
    ("MPS clients v2", "len(nvmlDeviceGetMPSComputeRunningProcesses_v2(gpu(4)))", 2),
    (
        "old attributes",
        "old('nvmlDeviceGetAttributes', mig(1, 0), pointer(c_nvmlDeviceAttributes)).memorySizeMB",
        39744,
    ),
    ("old placements", "old_places(gpu(0), 9)", [[0, 4], [4, 4]]),
    (
        "old compute instance",
        "old('nvmlComputeInstanceGetInfo', compute(1, 2, 0), pointer(c_nvmlComputeInstanceInfo_t)).id",
        0,
    ),
    ("old wait", "old('nvmlEventSetWait', event_set(0), pointer(c_nvmlEventData_t), c_uint(1))", Refused(10)),
    ("temperature v1", "nvmlDeviceGetTemperatureV(gpu(5), NVML_TEMPERATURE_GPU)", 30),
    ("known reasons by the new name", "nvmlDeviceGetSupportedClocksEventReasons(gpu(0))", 5),
    ("reasons by the new name", "nvmlDeviceGetCurrentClocksEventReasons(gpu(0))", 0),
    ("current PCIe generation", "nvmlDeviceGetCurrPcieLinkGeneration(gpu(0))", 5),
    ("highest PCIe width", "nvmlDeviceGetMaxPcieLinkWidth(gpu(0))", 16),
    # Events.
    ("kinds of events", "nvmlDeviceGetSupportedEventTypes(gpu(0))", 8),
    ("events of another kind", "nvmlDeviceRegisterEvents(gpu(0), 1, nvmlEventSetCreate())", NOT_SUPPORTED),
    ("no event", "nvmlEventSetWait_v2(event_set(0, 1), 1)", Refused(10)),
]


# Functions that change something: `test_mig.py` and `test_faults.py` call them.
CHANGING = {
    "nvmlComputeInstanceDestroy",
    "nvmlDeviceClearAccountingPids",
    "nvmlDeviceCreateGpuInstance",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlDeviceGetAccountingPids",
    "nvmlDeviceGetAccountingStats",
    "nvmlDeviceSetAccountingMode",
    "nvmlDeviceSetComputeMode",
    "nvmlDeviceSetMigMode",
    "nvmlEventSetFree",
    "nvmlGpmMetricsGet",
    "nvmlGpmSampleFree",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlGpuInstanceCreateComputeInstanceWithPlacement",
    "nvmlGpuInstanceDestroy",
    "nvmlInitWithFlags",
    "nvmlShutdown",
}


def test_every_function_is_called(library: Path, tmp_path: Path):
    """What the library has and no row of the table calls is among those that change something."""
    node = make_node(tmp_path, library, NODE)
    try:
        program = node.program()
        for _, expression, _ in TABLE:
            program.ask(expression)
        called = set(program.ask("list(_nvmlGetFunctionPointer_cache)"))
    finally:
        node.close()
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", library / "libnvidia-ml.so.1"], capture_output=True, text=True, check=True
    )
    there = {line.split()[-1] for line in symbols.stdout.splitlines()}
    assert {name for name in there if name.startswith("nvml")} - called == CHANGING - called
    files = [Path(__file__).with_name(name).read_text() for name in ("test_mig.py", "test_faults.py", "worker.py")]
    assert [name for name in CHANGING if name not in "".join(files)] == []


@pytest.fixture(scope="module")
def program(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    node = make_node(tmp_path_factory.mktemp("node"), library, NODE)
    yield node.program()
    node.close()


@pytest.mark.parametrize(("expression", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_answer(program: Program, expression: str, expected: Any):
    assert program.ask(expression) == expected
