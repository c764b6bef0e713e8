"""Start and stop etcd, kube-apiserver and, where wanted, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.cluster import ports
from tests.cluster.access import ControlPlane, kubeconfig
from tests.cluster.certificates import Authority, KeyPair
from tests.cluster.errors import ClusterError
from tests.cluster.folders import owned_folder
from tests.cluster.processes import Supervisor, wait_until
from tests.cluster.programs import Binaries, find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["SERVICE_ADDRESS", "running_control_plane", "wait_for_controllers"]

SERVICE_ADDRESS = "10.96.0.1"  # of the service `kubernetes`: the first address of _SERVICE_RANGE

_SERVICE_RANGE = "10.96.0.0/16"
_READY_SECONDS = 60.0
_PORT_ATTEMPTS = 5
_ISSUER = "https://kubernetes.default.svc.cluster.local"
# All they know is thrown away, so there is nothing to finish; asked kindly, an API server waits for its clients.
_END = signal.SIGKILL
_PORT_TAKEN = "address already in use"


@contextmanager
def running_control_plane(
    *,
    controllers: bool,
    address: str = "127.0.0.1",
    await_controllers: bool = True,
    report: Callable[[str], None] = print,
) -> Iterator[ControlPlane]:
    """A control plane of its own, ready to answer, gone without a trace at the end.

    Several may run at the same time.

    Args:
        controllers: run kube-controller-manager and kube-scheduler too. Without them the API server is ready
            sooner, pods need no service account, a namespace that is deleted stays `Terminating`, and nothing
            marks nodes without a kubelet as gone.
        address: the local address at which the API server listens.
        await_controllers: be ready only when the controllers are; else call `wait_for_controllers` later.
        report: is given a line where something takes long.

    Raises:
        MissingToolsError: a program is missing and cannot be made here.
        ClusterError: the control plane did not come up; the message holds the end of the log that says why.
    """
    binaries = find_binaries(controllers=controllers, environment=os.environ, report=report)
    with owned_folder() as folder:
        supervisor = Supervisor(logs=_made(folder / "logs"))
        try:
            access = _started(folder, supervisor, binaries, address=address, controllers=controllers)
            if controllers and await_controllers:
                wait_for_controllers(access, meanwhile=supervisor.check_alive)
            yield access
        finally:
            supervisor.stop()


def wait_for_controllers(access: ControlPlane, *, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Wait until pods can be made: until the controller-manager has made the first service account."""
    wait_until(
        partial(access.api().answers, "/api/v1/namespaces/default/serviceaccounts/default"),
        what="the controller-manager making the service account default/default",
        deadline_seconds=_READY_SECONDS,
        meanwhile=meanwhile,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What all parts of one control plane share."""

    folder: Path
    address: str
    controllers: bool
    authority: Authority
    serving: KeyPair
    kubelet_client: KeyPair
    signing: KeyPair
    token: str
    tokens: Path
    etcd_url: str


def _started(
    folder: Path, supervisor: Supervisor, binaries: Binaries, *, address: str, controllers: bool
) -> ControlPlane:
    plan = _planned(folder, address=address, controllers=controllers)
    _made(folder / "home")
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder / "home")}
    supervisor.start("etcd", [binaries.etcd, *_etcd_flags(plan)], environment=environment, folder=folder, end_by=_END)
    access = _start_apiserver(plan, supervisor, binaries, environment)
    _write_private(
        access.kubeconfig,
        kubeconfig(server=access.server, certificate_authority=access.certificate_authority, token=access.token),
    )
    if controllers:
        _start_controllers(plan, supervisor, binaries, environment, access)
    return access


def _planned(folder: Path, *, address: str, controllers: bool) -> _Plan:
    authority = Authority(folder / "certificates")
    token = secrets.token_urlsafe(32)
    tokens = folder / "tokens.csv"
    _write_private(tokens, f'{token},admin,admin,"system:masters"\n')
    names = ["localhost", "127.0.0.1", address, SERVICE_ADDRESS, "kubernetes", "kubernetes.default"]
    names += ["kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    return _Plan(
        folder=folder,
        address=address,
        controllers=controllers,
        authority=authority,
        serving=authority.issue("apiserver", common_name="kube-apiserver", hosts=list(dict.fromkeys(names))),
        kubelet_client=authority.issue("kubelet-client", common_name="kube-apiserver", group="system:masters"),
        signing=authority.issue("service-accounts", common_name="service-accounts"),
        token=token,
        tokens=tokens,
        # A socket file needs no port, and nobody else on the machine can reach it.
        etcd_url=f"unix://{folder}/etcd.sock",
    )


def _etcd_flags(plan: _Plan) -> list[str]:
    peer = f"unix://{plan.folder}/peer.sock"
    return [
        f"--data-dir={plan.folder}/etcd",
        f"--listen-client-urls={plan.etcd_url}",
        f"--advertise-client-urls={plan.etcd_url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # a crash of the machine may lose this store: it is thrown away anyway
        "--log-level=warn",
    ]


def _start_apiserver(
    plan: _Plan, supervisor: Supervisor, binaries: Binaries, environment: dict[str, str]
) -> ControlPlane:
    """Start the API server on a free port, wait until it is ready, and return the access to it."""
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        port = ports.free_port(plan.address)
        access = ControlPlane(
            folder=plan.folder,
            kubeconfig=plan.folder / "kubeconfig",
            server=f"https://{plan.address}:{port}",
            token=plan.token,
            authority=plan.authority,
            kubectl_program=binaries.kubectl,
            helm_program=binaries.helm,
        )
        child = supervisor.start(
            "kube-apiserver",
            [binaries.kube_apiserver, *_apiserver_flags(plan, port)],
            environment=environment,
            folder=plan.folder,
            end_by=_END,
        )
        try:
            wait_until(
                partial(access.api().answers, "/readyz"),
                what=f"the API server at {access.server} getting ready (logs in {plan.folder}/logs)",
                deadline_seconds=_READY_SECONDS,
                meanwhile=supervisor.check_alive,
            )
        except ClusterError:
            # Somebody took the port between the look and the start: another one, then.
            if child.process.poll() is None or _PORT_TAKEN not in child.log_tail() or attempt == _PORT_ATTEMPTS:
                raise
            supervisor.forget(child)
        else:
            return access
    raise AssertionError("the last attempt returns or raises")


def _apiserver_flags(plan: _Plan, port: int) -> list[str]:
    flags = [
        f"--etcd-servers={plan.etcd_url}",
        f"--bind-address={plan.address}",
        f"--advertise-address={plan.address}",
        f"--secure-port={port}",
        f"--tls-cert-file={plan.serving.certificate}",
        f"--tls-private-key-file={plan.serving.key}",
        f"--client-ca-file={plan.authority.certificate}",
        f"--token-auth-file={plan.tokens}",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={plan.signing.key}",
        f"--service-account-signing-key-file={plan.signing.key}",
        f"--service-cluster-ip-range={_SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        # Node names do not resolve here.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={plan.kubelet_client.certificate}",
        f"--kubelet-client-key={plan.kubelet_client.key}",
        # Nodes lead the address of the service `kubernetes` here themselves; loopback is refused as an endpoint.
        "--endpoint-reconciler-type=none",
    ]
    # Nothing makes service accounts then, and with the plugin every pod would wait for one.
    return flags if plan.controllers else [*flags, "--disable-admission-plugins=ServiceAccount"]


def _start_controllers(
    plan: _Plan, supervisor: Supervisor, binaries: Binaries, environment: dict[str, str], access: ControlPlane
) -> None:
    if binaries.kube_controller_manager is None or binaries.kube_scheduler is None:
        raise ClusterError("kube-controller-manager and kube-scheduler are missing")
    manager_flags = [
        "--use-service-account-credentials",
        f"--service-account-private-key-file={plan.signing.key}",
        f"--root-ca-file={plan.authority.certificate}",  # else pods cannot verify the API server
    ]
    for program, more in ((binaries.kube_controller_manager, manager_flags), (binaries.kube_scheduler, [])):
        name = program.name
        pair = plan.authority.issue(name, common_name=f"system:{name}")
        config = plan.folder / f"{name}.kubeconfig"
        client = (pair.certificate, pair.key)
        _write_private(
            config,
            kubeconfig(server=access.server, certificate_authority=access.certificate_authority, client=client),
        )
        common = [f"--{prefix}kubeconfig={config}" for prefix in ("", "authentication-", "authorization-")]
        # Nobody asks them anything, so they need no port.
        common += ["--leader-elect=false", "--secure-port=0"]
        argv: list[str | Path] = [program, *common, *more]
        supervisor.start(name, argv, environment=environment, folder=plan.folder, end_by=_END)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
