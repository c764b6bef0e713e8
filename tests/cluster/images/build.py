"""Build the agent's and the operator's image: a Debian base, wheels fetched beforehand, buildah without a daemon."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.errors import ClusterError, MissingToolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["AGENT_IMAGE", "OPERATOR_IMAGE", "ImageArchives", "product_images", "sources"]

# The name has a host that cannot exist, so nothing ever tries to pull them.
REGISTRY = "images.invalid"
TAG = "local"
AGENT_IMAGE = f"{REGISTRY}/gpuwaste/agent:{TAG}"
OPERATOR_IMAGE = f"{REGISTRY}/gpuwaste/operator:{TAG}"

_ROOT = Path(__file__).parents[3]
_IMAGES = {"agent": AGENT_IMAGE, "operator": OPERATOR_IMAGE}
_PACKAGES = ("python3", "python3-venv", "ca-certificates")
_UNUSED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
_PROGRAMS = ("buildah", "mmdebstrap", "unshare")
_BASE_SECONDS = 900.0
_BUILD_SECONDS = 1200.0
_KEPT_ARCHIVES = 2
_MOST_LAYERS = 60  # then buildah's store is emptied: it keeps the layers of every build


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageArchives:
    """Docker archives of the two images, for containerd to import."""

    agent: Path
    operator: Path


def product_images(*, environment: Mapping[str, str], report: Callable[[str], None] = print) -> ImageArchives:
    """The archives of both images as the sources are now, built where that has not been done yet.

    Raises:
        MissingToolsError: this machine cannot build images; the message says why.
        ClusterError: a build failed; the message holds the end of what it said.
    """
    _check_machine()
    cache = cache_folder(environment)
    target = cache / f"images-{digest_of(sources(), *_names())}"
    if not target.is_dir():
        base = _base(cache, environment, report)
        wheels = _wheels(cache, environment, report)
        made_once(target, lambda draft: _build(draft, cache, base, wheels, environment, report))
        _forget_older(cache, target)
    return ImageArchives(agent=target / "agent.tar", operator=target / "operator.tar")


def sources() -> list[Path]:
    """Every file that an image is made of."""
    return sorted(_ROOT / name for name in _source_names())


def _names() -> list[str]:
    """The same files by their place, so that a moved file makes another image."""
    return sorted(_source_names())


def _source_names() -> Iterator[str]:
    yield from ("pyproject.toml", "README.md", "LICENSE")
    for folder in ("agent", "operator", "images"):
        for path in (_ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield str(path.relative_to(_ROOT))


def _check_machine() -> None:
    if platform.system() != "Linux" or os.geteuid() != 0:
        raise MissingToolsError("images are built here as root on Linux only: run as root")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise MissingToolsError(f"building images needs {', '.join(missing)}: run `make deps`, or see tests/apt.txt")


def _base(cache: Path, environment: Mapping[str, str], report: Callable[[str], None]) -> Path:
    """A root file system with the Python of this machine's Debian, as that is what the wheels are fetched for."""
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if not suite:
        raise MissingToolsError("the base of images needs Debian or a relative of it: /etc/os-release names no suite")

    def make(draft: Path) -> None:
        report("making the base of the images once, about a minute …")
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
        argv += [f"--dpkgopt=path-exclude={path}" for path in _UNUSED]
        _run([*argv, suite, draft / "base.tar"], environment, _BASE_SECONDS)

    return made_once(cache / f"image-base-{suite}-{digest_of([], *_PACKAGES, *_UNUSED)}", make)


def _wheels(cache: Path, environment: Mapping[str, str], report: Callable[[str], None]) -> Path:
    """The wheels of both images and of what builds the project's own, checked against their hashes."""
    listed = [
        _ROOT / "images" / name for name in ("build-requirements.txt", *(f"{i}/requirements.txt" for i in _IMAGES))
    ]

    def make(draft: Path) -> None:
        report("fetching the wheels of the images once …")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        for file in listed:
            _run([*pip, "--require-hashes", "--only-binary=:all:", "-r", file, "-d", draft], environment, _BASE_SECONDS)

    return made_once(cache / f"image-wheels-{digest_of(listed, platform.python_version())}", make)


def _build(
    draft: Path,
    cache: Path,
    base: Path,
    wheels: Path,
    environment: Mapping[str, str],
    report: Callable[[str], None],
) -> None:
    report("building the images of agent and operator, up to two minutes …")
    context = draft / "context"
    for name in _names():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, context / name)
    storage = cache / "buildah"

    def buildah(*args: str | Path) -> str:
        store = ["--root", storage, "--runroot", storage / "run"]
        # What a killed build has mounted goes with its namespace.
        argv: list[str | Path] = ["unshare", "--mount", "--propagation", "private", "buildah", *store, *args]
        return _run(argv, environment, _BUILD_SECONDS)

    if storage.is_dir() and len(buildah("images", "--all", "--quiet").split()) > _MOST_LAYERS:
        shutil.rmtree(storage)
    name = f"localhost/{base.name}"
    if name not in buildah("images", "--format", "{{.Name}}").split():
        container = buildah("from", "scratch").strip()
        buildah("add", "--quiet", container, base / "base.tar", "/")
        buildah("commit", "--quiet", "--rm", container, name)
    for kind, image in _IMAGES.items():
        buildah(
            *("bud", "--quiet", "--isolation", "chroot", "--layers", "--pull-never", "--tag", image),
            *("--volume", f"{wheels}:/wheels:ro", "--build-arg", f"BASE={name}"),
            *("--build-arg", "PIP_OPTIONS=--no-index --find-links=/wheels"),
            *("--file", context / "images" / kind / "Dockerfile", context),
        )
        buildah("push", "--quiet", image, f"docker-archive:{draft / kind}.tar:{image}")
    shutil.rmtree(context)


def _forget_older(cache: Path, newest: Path) -> None:
    """Drop the archives of older sources: each is most of a gigabyte."""
    built = [path for path in cache.glob("images-*") if path.is_dir() and path != newest]
    for path in sorted(built, key=lambda path: path.stat().st_mtime)[: -(_KEPT_ARCHIVES - 1)]:
        shutil.rmtree(path)
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def _run(argv: list[str | Path], environment: Mapping[str, str], seconds: float) -> str:
    words = " ".join(map(str, argv[:8]))
    try:
        done = subprocess.run(
            list(map(str, argv)),
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{words} … took over {seconds:.0f} s") from None
    if done.returncode != 0:
        end = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-20:])
        raise ClusterError(f"{words} … failed:\n{end}")
    return done.stdout
