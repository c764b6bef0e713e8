"""`python docs/check_links.py [FILE …]`: every relative link and anchor in Markdown files leads somewhere.

Without files, all tracked and new Markdown files are checked. Links to other hosts are not followed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^\s*(```|~~~)")
_CODE = re.compile(r"(`+)(.+?)\1")
_INLINE = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$")
_HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"", re.IGNORECASE)
_ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def prose(text: str) -> list[tuple[int, str]]:
    """Lines outside of fenced code, with their numbers from 1."""
    lines, fenced = [], False
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            lines.append((number, line))
    return lines


def slug(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    kept = re.sub(r"[^\w\- ]", "", plain.strip().lower())
    return kept.replace(" ", "-")


def anchors(text: str) -> set[str]:
    """All anchors of a page; a heading that comes again gets -1, -2 and so on."""
    found: set[str] = set()
    times: Counter[str] = Counter()
    for _, line in prose(text):
        found.update(_ANCHOR.findall(line))
        heading = _HEADING.match(line)
        if heading:
            name = slug(heading.group(1))
            found.add(f"{name}-{times[name]}" if times[name] else name)
            times[name] += 1
    return found


def links(text: str) -> list[tuple[int, str]]:
    """Targets of all links and images outside of code, with their line numbers."""
    found = []
    for number, line in prose(text):
        shown = _CODE.sub("", line)
        for pattern in (_INLINE, _REFERENCE, _HTML):
            found += [(number, target) for target in pattern.findall(shown)]
    return found


@cache
def _anchors_of(path: Path) -> frozenset[str]:
    return frozenset(anchors(path.read_text(encoding="utf-8")))


def broken(page: Path) -> list[str]:
    """One line a link of the page that leads nowhere: `FILE:LINE: TARGET why`."""
    lines = []
    for number, target in links(page.read_text(encoding="utf-8")):
        if _SCHEME.match(target):
            continue
        path, _, fragment = unquote(target).partition("#")
        goal = (page.parent / path).resolve() if path else page
        why = ""
        if path.startswith("/"):
            why = "is absolute; links here are relative"
        elif not goal.exists():
            why = "does not exist"
        elif fragment and goal.suffix == ".md" and fragment not in _anchors_of(goal):
            why = "has no such heading"
        if why:
            shown = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
            lines.append(f"{shown}:{number}: {target} {why}")
    return lines


def markdown_files() -> list[Path]:
    """Markdown files that git tracks, or would if they were added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def main(arguments: list[str]) -> int:
    """Print what is broken; 1 where anything is."""
    pages = [Path(name).resolve() for name in arguments] or markdown_files()
    lines = [line for page in pages for line in broken(page)]
    for line in lines:
        print(line, file=sys.stderr)
    print(f"{len(pages)} pages, {len(lines)} broken links")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
