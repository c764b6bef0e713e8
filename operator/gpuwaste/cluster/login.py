"""Who we are to the API server: kubeconfig or service account, read by the Kubernetes client alone.

Exec plugins, OIDC, proxies and custom certificate authorities work as that client makes them work. It is imported
inside the functions: it costs most of a second, which a command that needs no cluster must not pay.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

__all__ = ["Credentials", "connect", "login"]

_FIX = "give --kubeconfig FILE (and --context NAME), set KUBECONFIG, or run inside a cluster with a service account"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What another client (kopf) needs to speak to the same server as the same user."""

    server: str
    ca_path: str | None
    insecure: bool
    scheme: str | None
    token: str | None
    certificate_path: str | None
    private_key_path: str | None
    proxy_url: str | None


def _any_file(paths: str) -> bool:
    """Whether one of a KUBECONFIG's files exists."""
    return any(Path(part).expanduser().is_file() for part in paths.split(os.pathsep) if part)


async def _configuration(kubeconfig: Path | None, context: str | None) -> Any:
    """The client's configuration, loaded from where kubectl would look."""
    from kubernetes.aio import client, config  # noqa: PLC0415 (see the module's docstring)
    from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION  # noqa: PLC0415

    configuration = client.Configuration()
    configuration.host = ""
    where = str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION)
    load: Any = config  # the client types none of its loaders
    try:
        if _any_file(where):
            # Never persisted: refreshed tokens are the user's file's own business.
            await load.load_kube_config(
                config_file=where, context=context, client_configuration=configuration, persist_config=False
            )
        elif kubeconfig is not None:
            raise InputError("there is no such kubeconfig", where=where, fix=_FIX)
        else:
            load.load_incluster_config(client_configuration=configuration)
            where = "service account"
    except config.ConfigException as error:
        raise InputError(f"no usable credentials for a cluster: {error}", where=where, fix=_FIX) from error
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        # The client checks little of what it reads; a broken file shows as any of these.
        raise InputError(f"the kubeconfig cannot be used: {error}", where=where, fix=_FIX) from error
    if not configuration.host:
        raise InputError("the kubeconfig names no server for this context", where=where, fix=_FIX)
    return configuration


async def connect(*, component: str, kubeconfig: Path | None = None, context: str | None = None) -> ApiClient:
    """A client with credentials and TLS set up and the user agent `gpuwaste-<component>`; nothing is sent yet.

    Raises:
        InputError: there are no usable credentials.
    """
    from kubernetes.aio import client  # noqa: PLC0415 (see the module's docstring)

    configuration = await _configuration(kubeconfig, context)
    try:
        api_client = client.ApiClient(configuration=configuration)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(
            f"a certificate or key of the kubeconfig cannot be loaded: {error}", where=str(kubeconfig or ""), fix=_FIX
        ) from error
    api_client.user_agent = f"gpuwaste-{component}"
    return api_client


async def login(*, kubeconfig: Path | None = None, context: str | None = None) -> Credentials:
    """The same credentials as plain values; files named in them live until the process ends.

    Raises:
        InputError: there are no usable credentials.
    """
    configuration = await _configuration(kubeconfig, context)
    scheme, _, token = str(configuration.api_key.get("BearerToken") or "").partition(" ")
    return Credentials(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme.capitalize() or None,
        token=token.strip() or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )
