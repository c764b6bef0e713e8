"""A simulated day, once for all tests here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.cluster.errors import MissingToolsError
from tests.cluster.prometheus import running_prometheus
from tests.cluster.pytest_support import skip_or_fail
from tests.integration.prometheus.neighbours import with_neighbours
from tests.integration.prometheus.world import make_day
from tests.sim.exporters import ExporterStyle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.prometheus import Prometheus
    from tests.integration.prometheus.world import Day

TOLD_APART = frozenset({"serve-a10-02", "share-h100-10"})
"""Time-sliced nodes whose exporter tells pods apart; on serve-l4-04 it does not."""


@pytest.fixture(scope="session")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    style = ExporterStyle(virtual_gpus=TOLD_APART)
    try:
        return make_day(tmp_path_factory.mktemp("day"), nodes=12, seed=1, style=style, changed=with_neighbours)
    except MissingToolsError as error:
        skip_or_fail(str(error))


@pytest.fixture(scope="session")
def prometheus(day: Day) -> Iterator[Prometheus]:
    """Debian's Prometheus with the day in its store."""
    with running_prometheus(data=day.blocks) as running:
        yield running
