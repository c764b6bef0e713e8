"""Options and checks of commands that speak to a cluster or a Prometheus."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpuwaste.model.errors import InputError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.settings.prometheus import PrometheusSettings

__all__ = [
    "check_credentials",
    "check_environment",
    "cluster_options",
    "prometheus_options",
    "prometheus_settings",
]

_FIX = "set it to a kubeconfig, or give --kubeconfig FILE"
_FILE = click.Path(path_type=Path, dir_okay=False)
_FLAVOURS = ("prometheus", "thanos", "mimir", "victoriametrics")
_Function = TypeVar("_Function", bound="Callable[..., Any]")


def _decorated(function: _Function, options: tuple[Callable[[_Function], _Function], ...]) -> _Function:
    for option in reversed(options):
        function = option(function)
    return function


def cluster_options(function: _Function) -> _Function:
    """Add `--kubeconfig` and `--context`."""
    return _decorated(
        function,
        (
            click.option("--kubeconfig", type=_FILE, help="Default: where kubectl looks."),
            click.option("--context", help="Context of the kubeconfig."),
        ),
    )


def prometheus_options(*, required: bool) -> Callable[[_Function], _Function]:
    """Add the options that name a Prometheus; `prometheus_settings` turns them into settings."""

    def decorate(function: _Function) -> _Function:
        return _decorated(
            function,
            (
                click.option(
                    "--prometheus",
                    metavar="URL",
                    required=required,
                    envvar="GPUWASTE_PROMETHEUS",
                    show_envvar=True,
                    help="Address of the query API, such as http://localhost:9090.",
                ),
                click.option(
                    "--flavour",
                    type=click.Choice(_FLAVOURS),
                    default="prometheus",
                    show_default=True,
                    help="What answers there.",
                ),
                click.option(
                    "--match",
                    metavar="MATCHERS",
                    default="",
                    help="Label matchers where the store holds several clusters, like 'cluster=\"a\"'.",
                ),
                click.option("--tenant", default="", help="Tenant of Mimir, Thanos or VictoriaMetrics."),
                click.option("--bearer-token-file", type=_FILE, help="File with a bearer token for it."),
                click.option("--username", default="", help="User for basic authentication."),
                click.option("--password-file", type=_FILE, help="File with the user's password."),
                click.option("--ca", type=_FILE, help="CA of its certificate, PEM."),
                click.option("--certificate", type=_FILE, help="Client certificate for mutual TLS, PEM."),
                click.option("--key", type=_FILE, help="Key of the client certificate, PEM."),
                click.option(
                    "--timeout",
                    "timeout_seconds",
                    type=click.FloatRange(0, 600, min_open=True),
                    default=60.0,
                    show_default=True,
                    help="Seconds that one query may take.",
                ),
            ),
        )

    return decorate


def prometheus_settings(options: dict[str, Any]) -> PrometheusSettings:
    """Settings from the options of `prometheus_options`, which are taken out of `options`.

    Raises:
        click.UsageError: an option is wrong, or two do not go together.
    """
    from pydantic import ValidationError

    from gpuwaste.settings.prometheus import PrometheusSettings

    values = {name: options.pop(name) for name in tuple(options) if name in _OPTION_OF}
    values["url"] = values.pop("prometheus")
    try:
        return PrometheusSettings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        name = str(first["loc"][0]) if first["loc"] else ""
        flag = {"url": "--prometheus", "timeout_seconds": "--timeout"}.get(name, f"--{name.replace('_', '-')}")
        for setting, spelled in _SPELLED.items():
            message = message.replace(f"`{setting}`", spelled)
        raise click.UsageError(f"{flag} {message}" if name else f"the options {message}") from None


_OPTION_OF = (
    "prometheus",
    "flavour",
    "match",
    "tenant",
    "bearer_token_file",
    "username",
    "password_file",
    "ca",
    "certificate",
    "key",
    "timeout_seconds",
)
_SPELLED = {
    "bearerTokenFile": "--bearer-token-file",
    "passwordFile": "--password-file",
    "username": "--username",
    "certificate": "--certificate",
    "key": "--key",
}


def check_environment() -> None:
    """Refuse a KUBECONFIG of which no file exists: the client would look for a service account and name that.

    Raises:
        UnreachableError: there is no such file.
    """
    named = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if named and not any(Path(part).expanduser().is_file() for part in named):
        raise UnreachableError(f"KUBECONFIG={os.pathsep.join(named)}: there is no such file; {_FIX}")


async def check_credentials(kubeconfig: Path | None, context: str | None) -> None:
    """Say before anything starts that there is no way to the cluster.

    Raises:
        UnreachableError: there are no usable credentials.
    """
    from gpuwaste.cluster.login import login

    try:
        await login(kubeconfig=kubeconfig, context=context)
    except InputError as error:
        what = str(InputError(error.what.rstrip("."), where=error.where, fix=error.fix))
        raise UnreachableError(what) from error
