"""Every product answers what it is, and refuses what it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.nvml.nodes import Refused, a_gpu, a_node, a_process, gpu_uuid, make_node

from gpuwaste_agent.products import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.e2e.nvml.nodes import Program

    from gpuwaste_agent.products import GpuProduct

NOT_SUPPORTED = Refused(3)
MOST_GPUS = 16  # of one node
NAMES = list(PRODUCTS)
BEFORE_VOLTA = {"pascal"}


@pytest.fixture(scope="module")
def program_of(
    library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Program, str]]]:
    """A program on the node of a product, and how it writes the handle of its GPU."""
    nodes, programs = [], []
    for first in range(0, len(NAMES), MOST_GPUS):
        names = NAMES[first : first + MOST_GPUS]
        gpus = [a_gpu(index, name) for index, name in enumerate(names)]
        loads = [a_process(100 + index, gpu_uuid(index), (0, 0.5, 0.5, 100)) for index in range(len(names))]
        nodes.append(make_node(tmp_path_factory.mktemp("node"), library, a_node(gpus, loads)))
        programs.append(nodes[-1].program())

    def find(name: str) -> tuple[Program, str]:
        number = NAMES.index(name)
        return programs[number // MOST_GPUS], f"gpu({number % MOST_GPUS})"

    yield find
    for node in nodes:
        node.close()


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=lambda product: product.name)
def test_product(program_of: Callable[[str], tuple[Program, str]], product: GpuProduct):
    program, gpu = program_of(product.name)
    major, _, minor = product.compute_capability.partition(".")
    assert program.ask(f"nvmlDeviceGetName({gpu})") == product.nvml_names[0]
    assert program.ask(f"nvmlDeviceGetMemoryInfo({gpu}).total") == product.memory_mib << 20
    assert program.ask(f"nvmlDeviceGetCudaComputeCapability({gpu})") == [int(major), int(minor)]
    assert program.ask(f"nvmlDeviceGetPowerManagementLimit({gpu})") == product.max_watts * 1000
    # MIG mode is off, where there is one.
    assert program.ask(f"nvmlDeviceGetMigMode({gpu})") == ([0, 0] if product.mig_capable else NOT_SUPPORTED)
    assert program.ask(f"nvmlDeviceGetMaxMigDeviceCount({gpu})") == 0
    # GPM from Hopper on; utilization by sampling everywhere, as none is in MIG mode.
    assert program.ask(f"nvmlGpmQueryDeviceSupport({gpu}).isSupportedDevice") == int(product.gpm)
    sampled = program.ask(f"sample({gpu}) is not None")
    assert sampled == (True if product.gpm else NOT_SUPPORTED)
    assert program.ask(f"nvmlDeviceGetUtilizationRates({gpu}).gpu") == 50
    assert program.ask(f"[u.smUtil for u in nvmlDeviceGetProcessUtilization({gpu}, 0)]") == [50]
    energy = program.ask(f"nvmlDeviceGetTotalEnergyConsumption({gpu})")
    assert energy == NOT_SUPPORTED if product.architecture in BEFORE_VOLTA else energy > 0


def test_the_products_that_people_have_are_there():
    wanted = "T4 A10 A30 A100-40GB A100-80GB L4 L40S H100-80GB H200 B200 GB200 RTX-PRO-6000"
    assert [name for name in wanted.split() if not any(known.startswith(name) for known in NAMES)] == []
