"""Where a Prometheus-compatible store is and how to log in to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gpuwaste.settings.yaml_files import FileModel

__all__ = ["FLAVOURS", "BackfillSettings", "Flavour", "PrometheusSettings"]

Flavour = Literal["prometheus", "thanos", "mimir", "victoriametrics"]
FLAVOURS: tuple[Flavour, ...] = ("prometheus", "thanos", "mimir", "victoriametrics")
_MATCHER = re.compile(r'\s*[a-zA-Z_]\w*\s*(=|!=|=~|!~)\s*"(?:[^"\\]|\\.)*"\s*')


class PrometheusSettings(FileModel):
    """A store that speaks Prometheus' query API, and the credentials for it; secrets are named by file."""

    url: str = Field(description="Address of the query API, without `/api/v1`.")
    flavour: Flavour = Field(
        default="prometheus", description="What answers there: `prometheus`, `thanos`, `mimir` or `victoriametrics`."
    )
    match: str = Field(
        default="", description='Label matchers of this cluster where a store holds several: `cluster="a"`.'
    )
    tenant: str = Field(default="", description="Tenant: the header `X-Scope-OrgID`, or part of VictoriaMetrics' path.")
    bearer_token_file: Path | None = Field(default=None, description="File with a bearer token; read at every start.")
    username: str = Field(default="", description="User for basic authentication.")
    password_file: Path | None = Field(default=None, description="File with the user's password.")
    ca: Path | None = Field(default=None, description="CA that the store's certificate is checked by, PEM.")
    certificate: Path | None = Field(default=None, description="Client certificate for mutual TLS, PEM.")
    key: Path | None = Field(default=None, description="Its key, PEM.")
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = Field(
        default=60.0, description="Seconds that one query may take."
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=3, description="How often a query that failed for a passing reason is sent again."
    )

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"must be an http or https URL with a host, not {value!r}")
        if parts.username or parts.password:
            raise ValueError("must not hold a password; use `username` and `passwordFile`")
        return value.rstrip("/").removesuffix("/api/v1")

    @field_validator("match")
    @classmethod
    def _is_matchers(cls, value: str) -> str:
        inner = value.strip().removeprefix("{").removesuffix("}").strip().rstrip(",")
        if inner and not re.fullmatch(f"{_MATCHER.pattern}(,{_MATCHER.pattern})*", inner):
            raise ValueError(f'must be label matchers like cluster="a",env=~"prod.*", not {value!r}')
        return inner

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        if self.bearer_token_file and self.username:
            raise ValueError("must not name both `bearerTokenFile` and `username`")
        if (self.password_file is not None) != bool(self.username):
            raise ValueError("must name `username` and `passwordFile` together")
        if (self.certificate is None) != (self.key is None):
            raise ValueError("must name `certificate` and `key` together")
        return self


class BackfillSettings(FileModel):
    """What is read from Prometheus at the operator's first start, so that the first report is not empty."""

    days: Annotated[int, Field(ge=0, le=30)] = Field(
        default=7, description="Days before the start that are read; 0 turns it off. Windows of agents are kept."
    )
