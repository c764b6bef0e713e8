"""How tests and people reach a local control plane."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.cluster.api import Api
from tests.cluster.errors import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.certificates import Authority

__all__ = ["CONTEXT", "ControlPlane", "kubeconfig"]

CONTEXT = "gpuwaste-local"

# With one of these a command would leave the cluster that this harness started.
_ELSEWHERE = ("--kubeconfig", "--server", "-s", "--context", "--cluster", "--kube-context", "--kube-apiserver")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """A running API server and the means to talk to it; every one of them belongs to it alone."""

    folder: Path
    kubeconfig: Path
    server: str
    token: str
    authority: Authority
    kubectl_program: Path
    helm_program: Path

    @property
    def certificate_authority(self) -> Path:
        """Certificate of the authority that signed the server's, PEM."""
        return self.authority.certificate

    def environment(self) -> dict[str, str]:
        """The environment for a program that shall talk to this control plane and to no other."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "HELM_"))}
        home = str(self.folder / "home")
        return {
            **kept,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": f"{home}/kube-cache",
            "HELM_CACHE_HOME": f"{home}/helm-cache",
            "HELM_CONFIG_HOME": f"{home}/helm-config",
            "HELM_DATA_HOME": f"{home}/helm-data",
        }

    def kubectl(self, *args: str, input: str | None = None, timeout_seconds: float = 30.0) -> str:  # noqa: A002
        """Run kubectl, give it `input` to read, and return what it prints.

        Raises:
            ClusterError: it failed or took longer than `timeout_seconds`; the message holds its words.
        """
        return self._run(self.kubectl_program, args, input, timeout_seconds)

    def helm(self, *args: str, input: str | None = None, timeout_seconds: float = 60.0) -> str:  # noqa: A002
        """Run helm; otherwise as `kubectl`."""
        return self._run(self.helm_program, args, input, timeout_seconds)

    def get(self, *args: str, timeout_seconds: float = 30.0) -> Any:
        """Run `kubectl get … -o json` and return what it prints as plain Python values."""
        return json.loads(self.kubectl("get", *args, "-o", "json", timeout_seconds=timeout_seconds))

    def api(self) -> Api:
        """Plain requests as the admin, much cheaper than a kubectl."""
        return Api(server=self.server, token=self.token, authority=self.certificate_authority.read_text())

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects by server-side apply."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(listed))

    def _run(self, program: Path, args: tuple[str, ...], text: str | None, timeout_seconds: float) -> str:
        own = args[: args.index("--")] if "--" in args else args
        for arg in own:
            if arg.split("=", 1)[0] in _ELSEWHERE:
                raise ClusterError(f"{program.name} is given {arg}, which may name another cluster: leave it out")
        try:
            done = subprocess.run(
                [program, *args],
                input=text,
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{program.name} {' '.join(args)} took over {timeout_seconds:.0f} s") from None
        if done.returncode != 0:
            raise ClusterError(f"{program.name} {' '.join(args)} failed: {done.stderr.strip() or done.stdout}")
        return done.stdout


def kubeconfig(
    *, server: str, certificate_authority: Path, token: str | None = None, client: tuple[Path, Path] | None = None
) -> str:
    """A kubeconfig, as JSON, which is YAML too, holding all it needs.

    Args:
        server: URL of the API server.
        certificate_authority: PEM file of the authority that signed the server's certificate.
        token: bearer token, or None to log in by `client`.
        client: files of the client's certificate and key.
    """
    user: dict[str, str] = {}
    if token is not None:
        user["token"] = token
    if client is not None:
        certificate, key = client
        user["client-certificate-data"] = _encoded(certificate)
        user["client-key-data"] = _encoded(key)
    cluster = {"server": server, "certificate-authority-data": _encoded(certificate_authority)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
    }
    return json.dumps(content, indent=1) + "\n"


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
