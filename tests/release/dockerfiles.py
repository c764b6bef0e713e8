"""Rules for the Dockerfiles of the project's own images."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Instruction", "instructions", "lint"]

_KNOWN = {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN"}
_KNOWN |= {"SHELL", "USER", "VOLUME", "WORKDIR"}
_NUMBERS = re.compile(r"\d+(:\d+)?$")


class Instruction(NamedTuple):
    """One instruction and the line it begins on; its arguments in one line."""

    line: int
    word: str
    arguments: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, continued lines joined and comments left out."""
    found: list[Instruction] = []
    begun, parts = 0, []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#") or (not line and not parts):
            continue
        begun = begun or number
        parts.append(line.removesuffix("\\").strip())
        if not line.endswith("\\"):
            word, _, arguments = " ".join(parts).partition(" ")
            found.append(Instruction(begun, word.upper(), arguments.strip()))
            begun, parts = 0, []
    return found


def lint(path: Path, *, root: Path) -> list[str]:
    """One line for each rule that a Dockerfile breaks, with file and line.

    The base can be chosen (an image of another registry); nothing is fetched but packages with hashes; what is
    copied is there; the last stage runs as a numbered user, starts its program without a shell, and holds no secret.

    Args:
        path: the Dockerfile.
        root: the folder it is built from.
    """
    found = instructions(path.read_text())
    lines = [f"{path}:{each.line}: {problem}" for each in found for problem in _problems(each, root)]
    bases = [each for each in found if each.word == "FROM"]
    if not bases:
        return [f"{path}: has no FROM"]
    last = [each for each in found if each.line > bases[-1].line]
    users = [each.arguments for each in last if each.word == "USER"]
    if not users or not _NUMBERS.match(users[-1]):
        lines.append(f"{path}: the last stage must name its USER by number, as Kubernetes checks that it is not root")
    starts = [each for each in last if each.word == "ENTRYPOINT"]
    if not starts or not _is_list(starts[-1].arguments):
        lines.append(
            f'{path}: the last stage must have an ENTRYPOINT of the form ["program"], so that signals reach it'
        )
    if not path.with_name(f"{path.name}.dockerignore").is_file():
        lines.append(f"{path}: needs a {path.name}.dockerignore, else the whole checkout is sent to the builder")
    return lines


def _problems(one: Instruction, root: Path) -> list[str]:
    problems = []
    if one.word not in _KNOWN:
        problems.append(f"{one.word} is no instruction")
    if one.word == "FROM" and not one.arguments.startswith("${"):
        problems.append("FROM must take its image from an ARG, so that people can bring their own base")
    if one.word == "ARG" and one.arguments.endswith(":latest"):
        problems.append("a base must not be `latest`")
    if one.word == "ADD":
        problems.append("ADD must not be used: it fetches and unpacks by itself; use COPY")
    if one.word == "COPY" and "--from=" not in one.arguments:
        *sources, _ = [word for word in one.arguments.split() if not word.startswith("--")]
        problems += [f"{source} is not there" for source in sources if not (root / source).exists()]
    if one.word == "RUN":
        installs = [part for part in one.arguments.split("&&") if re.search(r"\bpip\b.*\binstall\b", part)]
        if any("--require-hashes" not in part and "--no-index" not in part for part in installs):
            problems.append("pip install must have --require-hashes, or --no-index for what was built before")
        if re.search(r"\b(curl|wget|apt-get|git clone)\b", one.arguments):
            problems.append("nothing but packages with hashes may be fetched")
    if one.word in {"ENV", "ARG"} and re.search(r"(?i)(password|token|secret)\w*=", one.arguments):
        problems.append("a secret must not stand in an image")
    return problems


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False
