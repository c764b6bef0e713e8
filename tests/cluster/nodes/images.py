"""Container images without a registry: one static program, packed as an archive that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.errors import ClusterError
from tests.cluster.programs import find_go

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PAUSE_IMAGE", "archive", "pause_archive"]

# The name has a host that cannot exist, so nothing ever tries to pull it.
PAUSE_IMAGE = "images.invalid/gpuwaste/pause:1"

_SOURCES = Path(__file__).parents[2] / "sim" / "images"


def pause_archive(environment: Mapping[str, str]) -> Path:
    """The archive of an image that only waits to be ended, built once."""
    target = cache_folder(environment) / f"pause-{digest_of([_SOURCES / 'go.mod', _SOURCES / 'main.go'])}"
    return made_once(target, lambda draft: _build(draft, environment)) / "image.tar"


def _build(draft: Path, environment: Mapping[str, str]) -> None:
    go = find_go(environment, what="the image of test pods")
    argv = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(draft / "pause"), "."]
    done = subprocess.run(
        argv, cwd=_SOURCES, env={**environment, "CGO_ENABLED": "0"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ClusterError(f"go build of {_SOURCES} failed:\n{done.stderr}")
    archive(draft / "image.tar", image=PAUSE_IMAGE, program=draft / "pause")


def archive(target: Path, *, image: str, program: Path) -> None:
    """Write an image archive whose one layer holds `program` as `/<its name>`, which is also what it runs.

    The bytes depend on the program and the name alone.
    """
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = json.dumps(
        {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]).encode()
    target.write_bytes(_tar({"config.json": config, "layer.tar": layer, "manifest.json": manifest}, mode=0o644))


def _tar(files: dict[str, bytes], *, mode: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()
