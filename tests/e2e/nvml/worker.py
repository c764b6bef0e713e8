"""An unmodified NVML program: evaluates expressions over `pynvml`, a JSON line in, a JSON line out.

Started with LD_LIBRARY_PATH on the simulated library. An answer is `{"value": …}` or `{"error": NVML's number}`.
"""

import ctypes
import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pynvml


def gpu(index):
    """Handle of a GPU."""
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def mig(index, number):
    """Handle of a MIG device of a GPU."""
    return pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu(index), number)


def instance(index, gi_id):
    """Handle of a GPU instance."""
    return pynvml.nvmlDeviceGetGpuInstanceById(gpu(index), gi_id)


def compute(index, gi_id, ci_id):
    """Handle of a compute instance."""
    return pynvml.nvmlGpuInstanceGetComputeInstanceById(instance(index, gi_id), ci_id)


def places(function, handle, profile):
    """Possible placements: (start, size) each."""
    count = ctypes.c_uint(0)
    function(handle, profile, None, ctypes.byref(count))
    found = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    function(handle, profile, found, ctypes.byref(count))
    return [[place.start, place.size] for place in found]


def listed(function, handle, profile, kind):
    """Handles of all instances of a profile."""
    count = ctypes.c_uint(0)
    found = (kind * 16)()
    function(handle, profile, found, ctypes.byref(count))
    return found[: count.value]


def metrics(first, second, *numbers):
    """GPM metrics between two samples; None for one that is not measured."""
    query = pynvml.c_nvmlGpmMetricsGet_t()
    query.version, query.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, len(numbers)
    query.sample1, query.sample2 = first, second
    for index, number in enumerate(numbers):
        query.metrics[index].metricId = number
    pynvml.nvmlGpmMetricsGet(query)
    found = query.metrics[: len(numbers)]
    return [metric.value if metric.nvmlReturn == pynvml.NVML_SUCCESS else None for metric in found]


def sample(device, gi_id=None):
    """A new GPM sample."""
    made = pynvml.nvmlGpmSampleAlloc()
    if gi_id is None:
        pynvml.nvmlGpmSampleGet(device, made)
    else:
        pynvml.nvmlGpmMigSampleGet(device, gi_id, made)
    return made


def fields(handle, *numbers):
    """Field values: the number, or NVML's error in a list."""
    kinds = {1: "uiVal", 3: "ullVal"}
    return [
        getattr(value.value, kinds[value.valueType]) if value.nvmlReturn == 0 else [value.nvmlReturn]
        for value in pynvml.nvmlDeviceGetFieldValues(handle, list(numbers))
    ]


def event_set(*indexes):
    """An event set that waits for XIDs of GPUs."""
    made = pynvml.nvmlEventSetCreate()
    for index in indexes:
        pynvml.nvmlDeviceRegisterEvents(gpu(index), pynvml.nvmlEventTypeXidCriticalError, made)
    return made


def make(index, profile, start=None):
    """Create a GPU instance, at a place or where the driver likes."""
    if start is None:
        return pynvml.nvmlDeviceCreateGpuInstance(gpu(index), profile)
    sizes = {
        place[0]: place[1] for place in places(pynvml.nvmlDeviceGetGpuInstancePossiblePlacements, gpu(index), profile)
    }
    place = pynvml.c_nvmlGpuInstancePlacement_t(start, sizes.get(start, 1))
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu(index), profile, ctypes.byref(place))


def layouts(index, *without):
    """Every multiset of profile names that can be created on a GPU, found by creating it."""
    options = []
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(index), number)
        except pynvml.NVMLError:
            continue
        name = info.name.decode() if isinstance(info.name, bytes) else info.name
        name = name.removeprefix("MIG ")
        if name not in without and not any(name.endswith(end) for end in without):
            starts = places(pynvml.nvmlDeviceGetGpuInstancePossiblePlacements, gpu(index), info.id)
            options += [(name, info.id, start) for start, _ in starts]
    found = set()

    def grow(first, names):
        for number in range(first, len(options)):
            name, profile, start = options[number]
            try:
                created = make(index, profile, start)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES:
                    raise
                continue
            found.add(tuple(sorted([*names, name])))
            grow(number + 1, [*names, name])
            pynvml.nvmlGpuInstanceDestroy(created)

    grow(0, [])
    return sorted(found)


def make_compute(handle, profile, start, size):
    """Create a compute instance at a place."""
    place = pynvml.c_nvmlComputeInstancePlacement_t(start, size)
    return pynvml.nvmlGpuInstanceCreateComputeInstanceWithPlacement(handle, profile, ctypes.byref(place))


def read_by_threads(threads, times):
    """How often a thread read less energy than it had read before."""
    device = gpu(0)

    def read(_):
        found = [pynvml.nvmlDeviceGetTotalEnergyConsumption(device) for _ in range(times)]
        return sum(after < before for before, after in itertools.pairwise(found))

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(read, range(threads)))


def fill(index, profile):
    """Create instances until there is no room; returns how many."""
    count = 0
    while True:
        try:
            make(index, profile)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES:
                raise
            return count
        count += 1


def old(name, *args):
    """Call a function by its symbol: those that the bindings call no more, old programs do."""
    result = pynvml._nvmlGetFunctionPointer(name)(*args)
    if result != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(result)
    return next((arg._obj for arg in args if hasattr(arg, "_obj")), None)


class OldProcess(ctypes.Structure):
    """The first version of a process entry."""

    _fields_ = (("pid", ctypes.c_uint), ("usedGpuMemory", ctypes.c_ulonglong))


def old_processes(name, device):
    """Processes by the first version of a list call."""
    count, found = ctypes.c_uint(8), (OldProcess * 8)()
    old(name, device, ctypes.byref(count), found)
    return [[entry.pid, entry.usedGpuMemory >> 20] for entry in found[: count.value]]


def old_places(device, profile):
    """Placements by the first version's symbol."""
    count, found = ctypes.c_uint(8), (pynvml.c_nvmlGpuInstancePlacement_t * 8)()
    old("nvmlDeviceGetGpuInstancePossiblePlacements", device, profile, found, ctypes.byref(count))
    return [[place.start, place.size] for place in found[: count.value]]


def pointer(kind):
    """A place for an answer."""
    return ctypes.byref(kind())


def compute_places(handle, profile):
    """Possible placements of a compute instance."""
    return places(pynvml.nvmlGpuInstanceGetComputeInstancePossiblePlacements, handle, profile)


def compute_instances(handle, profile):
    """Compute instances of a profile in a GPU instance."""
    return listed(pynvml.nvmlGpuInstanceGetComputeInstances, handle, profile, pynvml.c_nvmlComputeInstance_t)


def plain(value):
    """What JSON can carry."""
    found = repr(value)
    if isinstance(value, str | int | float | dict | None):
        found = value
    elif isinstance(value, bytes):
        found = value.decode()
    elif isinstance(value, ctypes._SimpleCData):
        found = plain(value.value)
    elif isinstance(value, ctypes.Structure):
        found = {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    elif isinstance(value, list | tuple):
        found = [plain(item) for item in value]
    elif hasattr(value, "__dict__") and not isinstance(value, ctypes._Pointer):
        found = {name: plain(item) for name, item in vars(value).items()}
    return found


def main():
    names = {**vars(pynvml), **globals(), "kept": {}}
    for line in sys.stdin:
        try:
            answer = {"value": plain(eval(line, names))}  # noqa: S307 - the lines are this test's own
        except pynvml.NVMLError as error:
            answer = {"error": error.value}
        except Exception as error:  # noqa: BLE001 - a mistake in one expression is that row's failure alone
            answer = {"value": f"broken: {error!r}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
