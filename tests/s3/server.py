"""A server that speaks the S3 protocol, in a process of its own, for tests of what is written to an object store.

It is moto's, installed once into a virtual environment in the user's cache. It keeps objects in memory and checks no
signatures; requests, multipart uploads and listings are those of the real protocol.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyarrow import fs
from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.ports import free_port
from tests.cluster.pytest_support import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["S3Server", "s3_server"]

_REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_START_SECONDS = 60
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class S3Server:
    """A running server, and a bucket in it."""

    port: int
    bucket: str

    def url(self, folder: str) -> str:
        """What a user would give for a folder in the bucket."""
        return f"s3://{self.bucket}/{folder}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"


def _installed() -> Path:
    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, "--require-hashes", "-r", str(_REQUIREMENTS)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            skip_or_fail(f"the S3 server cannot be installed: {done.stderr.strip()[-500:]}")

    return made_once(cache_folder(os.environ) / f"s3-{digest_of([_REQUIREMENTS], sys.version)}", make)


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """A server for as long as the block runs, with credentials for it in the environment."""
    folder = _installed()
    packages = next(folder.glob("lib/python*/site-packages"))
    port = free_port()
    start = f"import sys; sys.path.insert(0, {str(packages)!r}); from moto.server import main; main()"
    with pytest.MonkeyPatch.context() as patch, log.open("w") as output:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        command = [str(folder / "bin/python"), "-c", start, "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _wait(process, port, log)
            filesystem = fs.S3FileSystem(
                endpoint_override=f"127.0.0.1:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
            )
            filesystem.create_dir("bills")
            yield S3Server(port=port, bucket="bills")
        finally:
            process.kill()
            process.wait(timeout=10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the S3 server did not start:\n{log.read_text()[-2000:]}", pytrace=False)
