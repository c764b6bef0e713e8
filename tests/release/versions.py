"""One version, everywhere the same."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["differing_versions", "project_version"]

_PACKAGES = ("operator/gpuwaste", "agent/gpuwaste_agent")
_CHARTS = ("charts/gpuwaste", "charts/gpuwaste-crds")
_ASSIGNED = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


def project_version(root: Path) -> str:
    """The version in pyproject.toml, which is the one that all others have to be."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def differing_versions(root: Path) -> list[str]:
    """One line for each place with another version, and one if the changelog says nothing of this one."""
    version = project_version(root)
    found = {}
    for package in _PACKAGES:
        match = _ASSIGNED.search((root / package / "__init__.py").read_text())
        found[f"{package}/__init__.py: __version__"] = match[1] if match else None
    for chart in _CHARTS:
        content = yaml.safe_load((root / chart / "Chart.yaml").read_text())
        for field in ("version", "appVersion"):
            found[f"{chart}/Chart.yaml: {field}"] = content[field]
        for wanted in content.get("dependencies", ()):
            found[f"{chart}/Chart.yaml: dependency {wanted['name']}"] = wanted["version"]
    lines = [f"{place} is {value}, not {version}" for place, value in found.items() if value != version]
    headings = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    if not any(heading == "Unreleased" or heading.startswith(version) for heading in headings):
        lines.append(f"CHANGELOG.md has neither `## Unreleased` nor `## {version}`")
    return lines
