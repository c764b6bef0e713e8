"""The same answers from a library built with the address and the undefined-behaviour sanitizer."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.e2e.nvml.nodes import a_gpu, a_node, make_node
from tests.e2e.nvml.test_answers import NODE, TABLE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.nvml.nodes import Node


def sanitized(folder: Path, library: Path, scenario: object, *, at: float = 10.0) -> Node:
    """A node whose programs abort at the first bad access; Python itself leaks, so leaks are not looked for."""
    asan = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        "LD_PRELOAD": asan.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "PYTHONMALLOC": "malloc",  # or it would hand out parts of larger blocks, unseen by the sanitizer
    }
    return make_node(folder, library, scenario, at=at, **environment)


def test_every_answer(sanitized_library: Path, tmp_path: Path):
    node = sanitized(tmp_path, sanitized_library, NODE)
    try:
        program = node.program()
        wrong = {name: found for name, ask, expected in TABLE if (found := program.ask(ask)) != expected}
    finally:
        node.close()
    assert wrong == {}


def test_every_layout_and_full_tables(sanitized_library: Path, tmp_path: Path):
    node = sanitized(tmp_path, sanitized_library, a_node([a_gpu(0, "A100-40GB", on=True)]))
    try:
        program = node.program()
        assert len(program.ask("layouts(0)")) == 127
        assert program.ask("fill(0, 19)") == 7
        assert program.ask("kept.update(sets=[event_set(0) for _ in range(100)])") is None
        assert program.ask("[nvmlEventSetFree(made) for made in kept['sets']] and 1") == 1
    finally:
        node.close()


def test_the_sanitizer_is_at_work(sanitized_library: Path, tmp_path: Path):
    """An array smaller than the caller says makes the library write past it: that must not go unseen."""
    node = sanitized(tmp_path, sanitized_library, NODE)
    try:
        program = node.program()
        lie = "c_uint(2), (c_nvmlProcessInfo_v2_t * 1)()"
        call = "_nvmlGetFunctionPointer('nvmlDeviceGetComputeRunningProcesses_v3')(gpu(0), byref(a), b)"
        program.tell(f"[{call} for a, b in [({lie})]]")
        assert program.child.wait(timeout=20) != 0
    finally:
        node.close()
