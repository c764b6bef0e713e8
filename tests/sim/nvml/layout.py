"""The mapped state file: what all processes of a simulated node share about its GPUs.

One description for both languages: Python maps these classes, `generate.py` writes them as C structs.

Every change becomes visible by one aligned store (`published`, `until_ns`, `next`, `clock_slot`), made last, so a
process killed in the middle leaves the old state and no half one. Writers exclude each other by a lock on the byte
`LOCK_WRITER`; who is alive shows in locks on other bytes. All are POSIX record locks: the kernel drops them when
their holder dies, whatever killed it, and tells each reader the holder's PID in the reader's own PID namespace.
"""

from __future__ import annotations

import ctypes
import hashlib

__all__ = [
    "ANY",
    "CONSTANTS",
    "MAGIC",
    "Clock",
    "Compute",
    "Fault",
    "Gpu",
    "Instance",
    "Point",
    "Process",
    "State",
]

ANY = 0xFFFFFFFF

# Written to C as SIM_<name>.
CONSTANTS = {
    "MAX_GPUS": 16,
    "MAX_INSTANCES": 2048,
    "MAX_COMPUTES": 2048,
    "MAX_PROCESSES": 4096,
    "MAX_FAULTS": 256,
    "MAX_CLIENTS": 512,
    "LOCK_WRITER": 1 << 40,
    "LOCK_CLIENTS": 2 << 40,
    "LOCK_PROCESSES": 3 << 40,
    "CLOCK_RUNNING": 0,
    "CLOCK_SET": 1,
    "SHARING_EXCLUSIVE": 0,
    "SHARING_TIME_SLICING": 1,
    "SHARING_MPS": 2,
    "COMPUTE_PROHIBITED": 2,
    "COMPUTE_EXCLUSIVE_PROCESS": 3,
    "ORIGIN_GIVEN": 1,  # `pid` is the PID
    "ORIGIN_LIVE": 2,  # the PID is that of the lock's holder, and the process ends when the lock does
    "KIND_COMPUTE": 0,
    "KIND_GRAPHICS": 1,
    "FAULT_LOST": 1,
    "FAULT_XID": 2,
    "FAULT_COUNTER_RESET": 3,
    "FAULT_HANG": 4,
    "FAULT_DRIVER_RELOAD": 5,
}

_u32, _i64, _f64 = ctypes.c_uint32, ctypes.c_int64, ctypes.c_double


class Clock(ctypes.Structure):
    """Scenario time: `base_ns`, plus `speed` for every nanosecond of CLOCK_MONOTONIC after `base_monotonic_ns`."""

    c_name = "sim_clock"
    _fields_ = [
        ("base_ns", _i64),
        ("base_monotonic_ns", _i64),
        ("speed", _f64),
        ("mode", _u32),
        ("spare", _u32),
    ]


class Gpu(ctypes.Structure):
    """One GPU; its product is looked up by name, so that library and file need not be of one build."""

    c_name = "sim_gpu"
    _fields_ = [
        ("uuid", ctypes.c_char * 48),
        ("product", ctypes.c_char * 32),
        ("mig_mode", _u32),
        ("mig_pending", _u32),
        ("sharing", _u32),
        ("compute_mode", _u32),
        ("accounting_since_ns", _i64),  # -1: accounting is off
        ("accounting_cleared_ns", _i64),
    ]


class Instance(ctypes.Structure):
    """A GPU instance; an entry is used again only where no process ever ran on it, so the history stays readable."""

    c_name = "sim_instance"
    _fields_ = [
        ("created_ns", _i64),
        ("until_ns", _i64),
        ("gpu", _u32),
        ("gi_id", _u32),
        ("profile_id", _u32),
        ("start", _u32),
        ("size", _u32),
        ("published", _u32),
    ]


class Compute(ctypes.Structure):
    """A compute instance: what NVML calls a MIG device."""

    c_name = "sim_compute"
    _fields_ = [
        ("uuid", ctypes.c_char * 48),
        ("created_ns", _i64),
        ("until_ns", _i64),
        ("instance", _u32),
        ("ci_id", _u32),
        ("slices", _u32),
        ("start", _u32),
        ("spare", _u32),
        ("published", _u32),
    ]


class Point(ctypes.Structure):
    """From `at_ns` on a process asks for this; `next` is the index of its next point, 0 for none."""

    c_name = "sim_point"
    _fields_ = [
        ("at_ns", _i64),
        ("duty", _f64),
        ("sm_width", _f64),
        ("memory_mib", _f64),
        ("tensor", _f64),
        ("dram", _f64),
        ("enc", _f64),
        ("dec", _f64),
        ("next", _u32),
        ("spare", _u32),
    ]


class Process(ctypes.Structure):
    """A process on a GPU (`compute` ANY) or on a compute instance; the entry is never used again."""

    c_name = "sim_process"
    _fields_ = [
        ("from_ns", _i64),
        ("until_ns", _i64),
        ("pid", _u32),
        ("gpu", _u32),
        ("compute", _u32),
        ("first", _u32),
        ("last", _u32),
        ("origin", _u32),
        ("kind", _u32),
        ("published", _u32),
        ("name", ctypes.c_char * 64),  # host name of one that attached itself: in a pod, the pod's name
    ]


class Fault(ctypes.Structure):
    """Something that goes wrong from `from_ns` to `until_ns`; `call` narrows a hang to one function."""

    c_name = "sim_fault"
    _fields_ = [
        ("from_ns", _i64),
        ("until_ns", _i64),
        ("kind", _u32),
        ("gpu", _u32),
        ("xid", _u32),
        ("published", _u32),
        ("call", ctypes.c_char * 64),
    ]


class State(ctypes.Structure):
    """The whole file, but for the points, which follow it; point 0 is none."""

    c_name = "sim_state"
    _fields_ = [
        ("magic", ctypes.c_uint64),
        ("start_utc_ns", _i64),
        ("point_capacity", _u32),
        ("point_count", _u32),
        ("gpu_count", _u32),
        ("instance_count", _u32),
        ("compute_count", _u32),
        ("process_count", _u32),
        ("fault_count", _u32),
        ("clock_slot", _u32),
        ("driver_version", ctypes.c_char * 32),
        ("nvml_version", ctypes.c_char * 32),
        ("cuda_version", _u32),
        ("spare", _u32),
        ("clocks", Clock * 2),
        ("gpus", Gpu * CONSTANTS["MAX_GPUS"]),
        ("instances", Instance * CONSTANTS["MAX_INSTANCES"]),
        ("computes", Compute * CONSTANTS["MAX_COMPUTES"]),
        ("processes", Process * CONSTANTS["MAX_PROCESSES"]),
        ("faults", Fault * CONSTANTS["MAX_FAULTS"]),
    ]


def _magic() -> int:
    records = (Clock, Gpu, Instance, Compute, Point, Process, Fault, State)
    # Not the types' own texts: an array type belongs to whoever made it first, here or in the bindings.
    fields = [[(name, kind.__name__, ctypes.sizeof(kind)) for name, kind in record._fields_] for record in records]
    text = repr(fields) + repr(CONSTANTS)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


# Begins the file; another layout has another number.
MAGIC = _magic()
