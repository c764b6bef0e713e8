"""`python -m gpuwaste.api.generate [--check]`: writes CRDs, the chart's templates and the reference page."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from gpuwaste.api.crd import crd_template, crd_yaml
from gpuwaste.api.reference import reference_page
from gpuwaste.api.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["drifted", "generated_files", "main", "write"]

_CRDS = Path("crds")
_TEMPLATES = Path("charts/gpuwaste-crds/templates")
_REFERENCE = Path("docs/reference/crds.md")


@cache
def generated_files() -> Mapping[Path, str]:
    """Every generated file: its path below the project's root, and its text."""
    files: dict[Path, str] = {}
    for model in MODELS.values():
        name = f"{model.info.plural}.yaml"
        files[_CRDS / name] = crd_yaml(model)
        files[_TEMPLATES / name] = crd_template(model)
    files[_REFERENCE] = reference_page(MODELS.values())
    return MappingProxyType(files)


def drifted(root: Path) -> list[str]:
    """One line for each file that is missing, differs, or is left over from a kind that is gone."""
    files = generated_files()
    lines = []
    for path, text in files.items():
        if not (root / path).is_file():
            lines.append(f"{path}: is missing")
        elif (root / path).read_text(encoding="utf-8") != text:
            lines.append(f"{path}: differs from the models")
    return lines + [f"{path}: is of no kind any more" for path in _left_over(root, files)]


def write(root: Path) -> list[Path]:
    """Write what differs, take away what is left over; returns the paths that changed."""
    files = generated_files()
    changed = []
    for path, text in files.items():
        target = root / path
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
        changed.append(path)
    for path in _left_over(root, files):
        (root / path).unlink()
        changed.append(path)
    return changed


def _left_over(root: Path, files: Mapping[Path, str]) -> list[Path]:
    found = (path.relative_to(root) for folder in (_CRDS, _TEMPLATES) for path in (root / folder).glob("*.yaml"))
    return sorted(path for path in found if path not in files)


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with `--check` name those that differ and return 1."""
    parser = argparse.ArgumentParser(prog="python -m gpuwaste.api.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is out of date")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the project's root (default: here)")
    options = parser.parse_args(arguments)
    root: Path = options.root
    if not (root / "operator" / "gpuwaste" / "api").is_dir():
        sys.stderr.write(f"{root}: is not the project's root; run this in it or give --root\n")
        return 1
    if options.check:
        lines = drifted(root)
        sys.stderr.writelines(f"{line}; run `make generate`\n" for line in lines)
        return 1 if lines else 0
    sys.stdout.writelines(f"{path}\n" for path in write(root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
