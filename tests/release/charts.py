"""The charts of a release, packed by helm, and rendered from what was packed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.release.packages import ReleaseError

__all__ = ["pack_charts"]

_CHARTS = ("gpuwaste", "gpuwaste-crds")
_HELM_SECONDS = 60


def pack_charts(root: Path, out: Path, *, helm: Path) -> tuple[list[Path], list[str]]:
    """Pack both charts into `out`; returns the files, and one line for each thing that is wrong with them.

    Raises:
        ReleaseError: helm cannot pack one.
    """
    made, lines = [], []
    for name in _CHARTS:
        folder = root / "charts" / name
        lint = _helm(helm, "lint", "--strict", "--quiet", str(folder))
        if lint.returncode:
            lines += [f"helm lint: {line}" for line in lint.stdout.splitlines() if line.strip()]
        packed = _helm(helm, "package", str(folder), "--destination", str(out))
        if packed.returncode:
            raise ReleaseError(f"helm package {name}: {packed.stderr.strip()}")
        file = Path(packed.stdout.strip().rpartition(": ")[2])
        made.append(file)
        # What is ignored or linked may be missing from the package only.
        if _rendered(helm, folder) != _rendered(helm, file):
            lines.append(f"{file.name} renders other objects than charts/{name}")
    return made, lines


def _rendered(helm: Path, chart: Path) -> str:
    # Certificates of one's own, as those that helm makes are other ones each time.
    own = ["--set", "tls.agentSecret=agent", "--set", "tls.operatorSecret=operator"]
    done = _helm(
        helm, "template", "release", str(chart), "--namespace", "here", *(own if "crds" not in chart.name else [])
    )
    if done.returncode:
        raise ReleaseError(f"helm template {chart.name}: {done.stderr.strip()}")
    return done.stdout


def _helm(helm: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *args], capture_output=True, text=True, timeout=_HELM_SECONDS, check=False)
