"""MIG modes and instances: placement rules, errors of things in use, and NVIDIA's published counts of layouts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.e2e.nvml.nodes import Refused, a_gpu, a_node, a_process, gpu_uuid, mig_uuid

from gpuwaste_agent.products import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.nvml.nodes import Node

IN_USE, FULL, INVALID = Refused(19), Refused(23), Refused(2)


def maximal(layouts: list[list[str]]) -> set[tuple[str, ...]]:
    """Those that are part of no other."""
    counted = [(tuple(layout), Counter(layout)) for layout in layouts]
    return {layout for layout, count in counted if not any(count < other for _, other in counted)}


@pytest.mark.parametrize(
    ("product", "without", "layouts", "most"),
    [
        pytest.param("A100-40GB", ("+me", "1g.10gb"), 37, 12, id="A100-40 plain"),
        pytest.param("H100-80GB", ("+me", "1g.20gb"), 37, 12, id="H100 plain"),
        pytest.param("A100-80GB", ("+me",), 77, 28, id="A100-80 with double memory"),
        pytest.param("H200-141GB", ("+me",), 77, 28, id="H200 with double memory"),
        pytest.param("GB200-186GB", ("+me",), 77, 28, id="GB200 with double memory"),
        pytest.param("H100-80GB", (), 127, 44, id="H100 with media extensions"),
    ],
)
def test_as_many_layouts_as_published(
    node_of: Callable[..., Node], product: str, without: tuple[str, ...], layouts: int, most: int
):
    program = node_of(a_node([a_gpu(0, product, on=True)])).program()
    found = program.ask(f"layouts(0, *{without!r})")
    assert (len(found), len(maximal(found))) == (layouts, most)


def test_layouts_of_an_a30(node_of: Callable[..., Node]):
    program = node_of(a_node([a_gpu(0, "A30-24GB", on=True)])).program()
    one, two, four = "1g.6gb", "2g.12gb", "4g.24gb"
    assert maximal(program.ask("layouts(0, '+me')")) == {(four,), (two, two), (one, one, two), (one,) * 4}


def test_free_but_split_memory_hosts_no_2g(node_of: Callable[..., Node]):
    """On the twelve units of an RTX PRO 6000, 0-2 and 9-11 are free, and six in a row are not."""
    program = node_of(a_node([a_gpu(0, "RTX-PRO-6000-96GB", ("1g.24gb", 3), ("1g.24gb", 6))])).program()
    assert program.ask("make(0, 5)") == FULL
    assert program.ask("nvmlDeviceGetGpuInstanceRemainingCapacity(gpu(0), 14)") == 2


def profile_gigabytes(total_bytes: int, memory_mib: int) -> int:
    """Gigabytes as tools compute them for a profile's name: eighths of the GPU, rounded up, of its whole gigabytes."""
    eighths = -(-memory_mib * (1 << 20) * 8 // total_bytes)
    return int(eighths / 8 * -(-total_bytes // (1 << 30)) + 0.5)


@pytest.mark.parametrize("product", [name for name, facts in PRODUCTS.items() if facts.mig_capable])
def test_every_profile_as_the_product_table_has_it(node_of: Callable[..., Node], product: str):
    program = node_of(a_node([a_gpu(0, product, on=True)])).program()
    total = program.ask("nvmlDeviceGetMemoryInfo(gpu(0)).total")
    for profile in PRODUCTS[product].profiles:
        info = program.ask(f"nvmlDeviceGetGpuInstanceProfileInfoById(gpu(0), {profile.gi_profile_id})")
        placements = program.ask(f"places(nvmlDeviceGetGpuInstancePossiblePlacements, gpu(0), {profile.gi_profile_id})")
        assert info["name"] == f"MIG {profile.name}"
        assert (info["sliceCount"], info["instanceCount"]) == (profile.compute_slices, profile.max_count)
        assert placements == [[start, profile.memory_units] for start in profile.starts]
        named = int(profile.name.split(".")[1].split("gb")[0])
        assert profile_gigabytes(total, info["memorySizeMB"]) == named, profile.name
        assert info["multiprocessorCount"] * 10 >= PRODUCTS[product].sm_count * profile.compute_slices


def test_create_and_destroy(node_of: Callable[..., Node]):
    program = node_of(a_node([a_gpu(0, "H100-80GB", on=True)])).program()
    assert program.ask("kept.update(gi=make(0, 9)) or nvmlGpuInstanceGetInfo(kept['gi']).placement")["start"] == 4
    assert program.ask("mig(0, 0)") == Refused(6)  # not before it has a compute instance
    assert program.ask("kept.update(ci=nvmlGpuInstanceCreateComputeInstance(kept['gi'], 2))") is None
    assert program.ask("nvmlDeviceGetName(mig(0, 0))").endswith("MIG 3g.40gb")
    uuid = program.ask("nvmlDeviceGetUUID(mig(0, 0))")
    assert program.ask(f"nvmlDeviceGetGpuInstanceId(nvmlDeviceGetHandleByUUID('{uuid}'))") == 2
    assert program.ask("nvmlGpuInstanceDestroy(kept['gi'])") == IN_USE
    assert program.ask("nvmlComputeInstanceDestroy(kept['ci'])") == 0
    assert program.ask("nvmlComputeInstanceDestroy(kept['ci'])") == INVALID
    assert program.ask("nvmlGpuInstanceDestroy(kept['gi'])") == 0
    assert program.ask("nvmlGpuInstanceGetInfo(kept['gi'])") == INVALID
    assert program.ask(f"nvmlDeviceGetHandleByUUID('{uuid}')") == Refused(6)


def test_compute_instances_share_a_gpu_instance(node_of: Callable[..., Node]):
    program = node_of(a_node([a_gpu(0, "A100-40GB", on=True)])).program()
    program.ask("kept.update(gi=make(0, 5))")
    for profile, expected in ((1, None), (0, None), (0, None), (0, FULL)):
        kept = program.ask(f"kept.update(ci=nvmlGpuInstanceCreateComputeInstance(kept['gi'], {profile}))")
        assert kept == expected
    names = program.ask("[nvmlDeviceGetName(mig(0, i)).split('MIG ')[1] for i in range(3)]")
    assert names == ["2c.4g.20gb", "1c.4g.20gb", "1c.4g.20gb"]
    assert program.ask("[nvmlDeviceGetAttributes(mig(0, i)).multiprocessorCount for i in range(3)]") == [28, 14, 14]
    assert program.ask("[nvmlDeviceGetComputeInstanceId(mig(0, i)) for i in range(3)]") == [0, 1, 2]


def test_compute_instances_where_they_are_wanted(node_of: Callable[..., Node]):
    program = node_of(a_node([a_gpu(0, "A100-40GB", on=True)])).program()
    program.ask("kept.update(gi=make(0, 0))")
    create = "kept.update(ci=make_compute(kept['gi'], {}, {}, {}))"
    assert program.ask(create.format(1, 4, 2)) is None
    assert program.ask("nvmlComputeInstanceGetInfo(kept['ci']).placement") == {"start": 4, "size": 2}
    assert program.ask(create.format(1, 4, 2)) == FULL
    assert program.ask(create.format(1, 3, 2)) == INVALID  # no legal start
    assert program.ask(create.format(1, 2, 3)) == INVALID  # no size of that profile
    assert program.ask(create.format(7, 0, 1)) == Refused(3)
    assert program.ask("nvmlGpuInstanceGetComputeInstanceRemainingCapacity(kept['gi'], 0)") == 5


def test_illegal_placements(node_of: Callable[..., Node]):
    program = node_of(a_node([a_gpu(0, "A100-40GB", ("2g.10gb", 2))])).program()
    assert program.ask("make(0, 14, 1)") == INVALID  # no legal start
    assert program.ask("make(0, 14, 2)") == FULL  # taken
    assert program.ask("make(0, 99)") == INVALID
    assert program.ask("make(0, 0)") == FULL
    assert program.ask("[bool(make(0, 20)), 1]") == [True, 1]
    assert program.ask("make(0, 20)") == FULL  # one media extension a GPU


def test_what_runs_keeps_its_instance(node_of: Callable[..., Node]):
    load = a_process(50, mig_uuid(0), (0, 0.5, 0.5, 100), until_s=20)
    node = node_of(a_node([a_gpu(0, "H100-80GB", ("1g.10gb", 0))], [load]))
    program = node.program()
    destroy = "nvmlComputeInstanceDestroy(compute(0, 7, 0))"
    assert program.ask(destroy) == IN_USE
    node.at(20)
    assert program.ask(destroy) == 0


def test_mig_mode_needs_the_gpu_for_itself(node_of: Callable[..., Node]):
    load = a_process(50, gpu_uuid(1), (0, 0.5, 0.5, 100), until_s=20)
    node = node_of(a_node([a_gpu(0, "A100-40GB"), a_gpu(1, "A100-40GB")], [load]))
    program, other = node.program(), node.program()
    assert program.ask("nvmlDeviceSetMigMode(gpu(0), 1)") == IN_USE.number
    assert program.ask("nvmlDeviceGetMigMode(gpu(0))") == [0, 1]
    assert other.ask("nvmlShutdown()") is None
    assert program.ask("nvmlDeviceSetMigMode(gpu(0), 1)") == 0
    assert program.ask("nvmlDeviceGetMigMode(gpu(0))") == [1, 1]
    assert program.ask("nvmlDeviceSetMigMode(gpu(1), 1)") == IN_USE.number  # a process runs on it
    node.at(20)
    assert program.ask("nvmlDeviceSetMigMode(gpu(1), 1)") == 0
    program.ask("kept.update(gi=make(0, 19))")
    assert program.ask("nvmlDeviceSetMigMode(gpu(0), 0)") == IN_USE.number


def test_a_killed_client_holds_nothing(node_of: Callable[..., Node]):
    node = node_of(a_node([a_gpu(0, "A100-40GB")]))
    program, other = node.program(), node.program()
    other.child.kill()
    other.child.wait()
    assert program.ask("nvmlDeviceSetMigMode(gpu(0), 1)") == 0


UNPRIVILEGED = [
    "nvmlDeviceGetMemoryInfo(gpu(0))",
    "nvmlDeviceGetComputeRunningProcesses(gpu(0))",
    "sample(gpu(0))",
    "sample(gpu(0), 7)",
    "instance(0, 7)",
    "nvmlDeviceSetMigMode(gpu(0), 0)",
    "make(0, 19)",
    "places(nvmlDeviceGetGpuInstancePossiblePlacements, gpu(0), 19)",
    "nvmlDeviceGetGpuInstanceRemainingCapacity(gpu(0), 19)",
    "nvmlDeviceSetComputeMode(gpu(1), 3)",
    "nvmlDeviceSetAccountingMode(gpu(1), 1)",
]


def test_the_unprivileged_see_only_their_own(node_of: Callable[..., Node]):
    gpus = [a_gpu(0, "H100-80GB", ("1g.10gb", 0)), a_gpu(1, "H100-80GB")]
    node = node_of(a_node(gpus, [a_process(50, mig_uuid(0), (0, 0.5, 0.5, 100))]))
    plain = node.program(under=("setpriv", "--bounding-set=-sys_admin"))
    asked = {expression: plain.ask(expression) for expression in UNPRIVILEGED}
    assert asked == dict.fromkeys(UNPRIVILEGED, Refused(4))
    # What is whole, and what is one's own instance, they may ask.
    assert plain.ask("nvmlDeviceGetMemoryInfo(gpu(1)).total") == 81559 << 20
    assert plain.ask("nvmlDeviceGetComputeRunningProcesses(mig(0, 0))[0].pid") == 50
    privileged = node.program()
    refused = {expression: privileged.ask(expression) for expression in UNPRIVILEGED}
    assert Refused(4) not in refused.values()


def test_two_programs_create_at_once(node_of: Callable[..., Node]):
    """Seven places, two programs that both want seven: each place is given once."""
    node = node_of(a_node([a_gpu(0, "A100-40GB", on=True)]))
    programs = [node.program() for _ in range(2)]
    for program in programs:
        program.tell("fill(0, 19)")
    made = [program.answer() for program in programs]
    every = "listed(nvmlDeviceGetGpuInstances, gpu(0), 19, c_nvmlGpuInstance_t)"
    starts = programs[0].ask(f"[nvmlGpuInstanceGetInfo(h).placement.start for h in {every}]")
    assert sum(made) == 7
    assert sorted(starts) == list(range(7))
