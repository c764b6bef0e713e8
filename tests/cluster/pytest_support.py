"""What the fixtures of integration and end-to-end tests share."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.cluster.control_plane import running_control_plane
from tests.cluster.errors import MissingToolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane

__all__ = ["control_plane_or_skip", "no_other_cluster", "reporter", "skip_or_fail"]


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test because this machine lacks something; under `CI=true` fail it."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{reason} (missing on CI is a failure)", pytrace=False)
    pytest.skip(reason)


def reporter(config: pytest.Config) -> Callable[[str], None]:
    """A function that prints a line past pytest's capturing, for things that take minutes."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        if capture is None:
            print(line, flush=True)
            return
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    return report


@contextmanager
def control_plane_or_skip(config: pytest.Config, *, controllers: bool) -> Iterator[ControlPlane]:
    """A control plane for as long as the block runs; where it cannot be had, the test is skipped."""
    with ExitStack() as stack:
        try:
            access = stack.enter_context(running_control_plane(controllers=controllers, report=reporter(config)))
        except MissingToolsError as error:
            skip_or_fail(str(error))
        yield access


@contextmanager
def no_other_cluster() -> Iterator[None]:
    """Hide every cluster that the user's environment names, so that no test can reach one by mistake."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("KUBERNETES_SERVICE_")]:
            patch.delenv(name)
        # Unset would mean ~/.kube/config.
        patch.setenv("KUBECONFIG", os.devnull)
        yield
