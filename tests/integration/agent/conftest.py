"""Fixtures of the agent on a node."""

from __future__ import annotations

import os

import pytest
from tests.integration.agent.real_node import standing_node
from tests.sim.nvml.build import BuildError, built


@pytest.fixture(scope="module")
def library():
    try:
        return built() / "libnvidia-ml.so.1"
    except BuildError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"the simulated driver cannot be built here: {error}")


@pytest.fixture
def node(library, tmp_path):
    """Everything a node has but the agent: flags, environment, the driver's state, the scenario, the kubelet."""
    with standing_node(library, tmp_path) as standing:
        yield standing
