"""Check an archive against its own manifests: every file, every total, and the chain of what was closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuwaste.focus.archive import Archive
    from gpuwaste.focus.manifest import Manifest
    from gpuwaste.focus.periods import Period

__all__ = ["audit"]


def audit(archive: Archive) -> list[str]:
    """One line for everything that is not as it was published; no line means that nothing was changed.

    Raises:
        InputError: a manifest is damaged, or its totals are not those that it was hashed with.
    """
    found: list[str] = []
    names = {period.name: period for period in archive.periods()}
    for period in names.values():
        for manifest in archive.revisions(period):
            found += archive.damaged(manifest)
            found += _broken_links(archive, names, period, manifest)
    return found


def _broken_links(archive: Archive, names: dict[str, Period], period: Period, manifest: Manifest) -> list[str]:
    found = []
    if manifest.previous is not None:
        before = names.get(manifest.previous["period"])
        if before is None or archive.manifest_sha256(before) != manifest.previous["sha256"]:
            found.append(
                f"{period.name}: the manifest of {manifest.previous['period']} is not the one it was closed on"
            )
    if manifest.restates is not None and archive.manifest_sha256(period, manifest.revision - 1) != manifest.restates:
        found.append(f"{period.name}: restatement {manifest.revision} is of another manifest than the one before it")
    return found
