"""Finding the programs: assets, the cache, the wheel of kubectl and helm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from tests.cluster import programs
from tests.cluster.cache import digest_of
from tests.cluster.errors import ClusterError, MissingToolsError
from tests.cluster.programs import find_binaries, unpack_clients

if TYPE_CHECKING:
    from pathlib import Path

_DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")


def program(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def wheel(path: Path, *, inner: str = "package/lib/layer.zip") -> Path:
    """A wheel laid out as the package's: a zip in a gzipped tar in a zip."""
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as archive:
        archive.writestr("kubectl/kubectl", b"the kubectl")
        archive.writestr("helm/helm", b"the helm")
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w:gz") as archive:
        entry = tarfile.TarInfo(inner)
        entry.size = len(layer.getvalue())
        archive.addfile(entry, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/_jsii/layer@1.jsii.tgz", tarball.getvalue())
    return path


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with an own cache that holds kubectl and helm, and with nothing in PATH."""
    clients = tmp_path / "cache" / "gpuwaste" / f"clients-{digest_of([programs._CLIENTS])}"
    for name in ("kubectl", "helm"):
        program(clients / name)
        program(tmp_path / "path" / name)
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "path")}


def test_unpack_clients(tmp_path: Path) -> None:
    unpack_clients(wheel(tmp_path / "w.whl"), tmp_path)
    assert (tmp_path / "kubectl").read_bytes() == b"the kubectl"
    assert (tmp_path / "helm").read_bytes() == b"the helm"
    assert (tmp_path / "helm").stat().st_mode & 0o777 == 0o755


def test_unpack_clients_of_another_layout_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"w\.whl does not hold kubectl and helm"):
        unpack_clients(wheel(tmp_path / "w.whl", inner="elsewhere/layer.zip"), tmp_path)


def test_complete_assets_are_used(tmp_path: Path, environment: dict[str, str]) -> None:
    for name in ("etcd", "kube-apiserver"):
        program(tmp_path / "assets" / name)
    environment["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    found = find_binaries(controllers=False, environment=environment, report=pytest.fail)
    assert found.etcd == tmp_path / "assets" / "etcd"
    assert found.kube_apiserver == tmp_path / "assets" / "kube-apiserver"
    assert (found.kube_scheduler, found.kubelet) == (None, None)


def test_assets_without_what_is_needed_are_not_enough(tmp_path: Path, environment: dict[str, str]) -> None:
    for name in ("etcd", "kube-apiserver"):
        program(tmp_path / "assets" / name)
    environment["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")
    with pytest.raises(MissingToolsError, match=r"lacks some of .*kube-scheduler"):
        find_binaries(controllers=True, environment=environment, report=pytest.fail)


def test_without_go_and_assets_the_message_says_what_to_install(environment: dict[str, str]) -> None:
    with pytest.raises(MissingToolsError, match=r"needs Go 1\.26 or newer.* or KUBEBUILDER_ASSETS"):
        find_binaries(controllers=False, environment=environment, report=pytest.fail)


def test_a_build_in_the_cache_is_used_without_go(tmp_path: Path, environment: dict[str, str]) -> None:
    sources = [programs._MODULE / name for name in ("go.mod", "go.sum", "main.go")]
    key = digest_of(sources, programs._linker_flags())
    built = tmp_path / "cache" / "gpuwaste" / f"kubernetes-{programs.KUBERNETES_VERSION}-{key}"
    for name in _DAEMONS:
        program(built / name)
    found = find_binaries(controllers=True, nodes=True, environment=environment, report=pytest.fail)
    assert found.kubelet == built / "kubelet"


def test_a_failing_build_leaves_nothing_in_the_cache(tmp_path: Path, environment: dict[str, str]) -> None:
    program(tmp_path / "path" / "go")
    (tmp_path / "path" / "go").write_text("#!/bin/sh\necho no such module; exit 3\n")
    with pytest.raises(ClusterError, match=r"ended with status 3 .*\n.*no such module"):
        find_binaries(controllers=False, environment=environment, report=lambda _line: None)
    kept = [entry.name for entry in (tmp_path / "cache" / "gpuwaste").iterdir()]
    assert [name for name in kept if "kubernetes" in name and not name.endswith(".lock")] == []


def test_the_module_pins_one_version_of_kubernetes() -> None:
    lines = (programs._MODULE / "go.mod").read_text().splitlines()
    assert f"\tk8s.io/kubernetes {programs.KUBERNETES_VERSION}" in lines
    replaced = [line.split()[-1] for line in lines if "=>" in line]
    assert len(replaced) > 20
    assert set(replaced) == {programs.KUBERNETES_VERSION.replace("v1.", "v0.")}
