"""What was shown of which sources: one JSON file, written anew after every part."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FOLDER", "Evidence", "EvidenceError", "sources_digest"]

FOLDER = "docs/evidence"


class EvidenceError(Exception):
    """The evidence cannot be read or made; the message says why."""


def sources_digest(root: Path) -> str:
    """Sixteen hex digits that change with any file of the checkout that git does not ignore, the evidence apart.

    Raises:
        EvidenceError: this is no checkout.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        raise EvidenceError(f"{root} is no git checkout: which sources are tried cannot be said")
    digest = hashlib.sha256()
    for name in sorted(set(listed.stdout.split("\0"))):
        path = root / name
        if name and not name.startswith(f"{FOLDER}/") and path.is_file():
            content = path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


class Evidence:
    """The parts that are done, by name.

    A part counts for the sources it was done with: with others it is to be done again.

    Args:
        path: the file; it need not exist.
        sources: digest of the sources as they are now.

    Attributes:
        sources: the same.
    """

    def __init__(self, path: Path, *, sources: str) -> None:
        self._path = path
        self.sources = sources
        self._parts: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                self._parts = json.loads(path.read_text())["parts"]
            except (ValueError, KeyError, TypeError) as error:
                raise EvidenceError(f"{path} cannot be read ({error!r}): delete it to begin anew") from None

    def known(self, name: str) -> dict[str, Any] | None:
        """What a part showed of the sources as they are now, if it was done and passed."""
        part = self._parts.get(name)
        return part if part and part["sources"] == self.sources and part["passed"] else None

    def keep(self, name: str, *, passed: bool, shown: dict[str, Any], among: list[str]) -> None:
        """Add a part and write the file; parts that are not `among` those there are now are dropped."""
        parts = {**self._parts, name: {"sources": self.sources, "passed": passed, **shown}}
        self._parts = {each: parts[each] for each in among if each in parts}
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps({"machine": machine, "parts": self._parts}, indent=1) + "\n")
        draft.replace(self._path)
