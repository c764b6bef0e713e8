"""What the operator is told: one YAML file, checked as a whole before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpuwaste.model.errors import InputError
from gpuwaste.settings.teams import TeamRules

__all__ = ["AgentSettings", "AgentTls", "OperatorSettings", "PlanSettings", "load_settings"]

AGENT_TLS_NAME = "agent.gpuwaste.internal"
"""The name in every agent's certificate; agents are dialled by pod IP and verified by it."""


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: "".join(w.title() if i else w for i, w in enumerate(name.split("_"))),
        populate_by_name=True,
    )


class AgentTls(_Settings):
    """Mutual TLS towards the agents."""

    ca: Path = Field(description="The release's CA, PEM.")
    certificate: Path = Field(description="The operator's certificate, PEM.")
    key: Path = Field(description="The operator's key, PEM.")
    server_name: str = Field(default=AGENT_TLS_NAME, description="The name that an agent's certificate must have.")


class AgentSettings(_Settings):
    """How agents are found and read."""

    namespace: str = Field(default="", description="Namespace of the agent pods; empty for all.")
    label_selector: str = Field(default="app.kubernetes.io/name=gpuwaste,app.kubernetes.io/component=agent")
    port: Annotated[int, Field(ge=1, le=65535)] = 9440
    endpoints: tuple[str, ...] = Field(default=(), description="Addresses to read instead of looking for pods.")
    tls: AgentTls | None = Field(default=None, description="Absent, only loopback addresses are read, without TLS.")
    pull_period_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 64
    batch_records: Annotated[int, Field(ge=1, le=100_000)] = 5_000


class PlanSettings(_Settings):
    """When and how long plans are made."""

    period_seconds: Annotated[float, Field(ge=1, le=86_400)] = 3_600.0
    time_limit_seconds: Annotated[float, Field(gt=0, le=600)] = 15.0


class OperatorSettings(_Settings):
    """All settings of the operator."""

    cluster_name: str = Field(default="", description="Default: the UID of the namespace kube-system.")
    store: str = Field(description="Folder or object-store URL for inputs, ledger and plans.")
    agents: AgentSettings = AgentSettings()
    price_list: Path | None = Field(default=None, description="YAML file of prices; else the built-in list.")
    team_rules: TeamRules = TeamRules()
    pool_label: str = Field(default="", description="Node label that names the pool before the well-known ones.")
    starting_limit_seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    decide_period_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    writes_per_second: Annotated[float, Field(gt=0, le=1000)] = 20.0
    plan: PlanSettings = PlanSettings()
    liveness_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8080, description="0 turns it off.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=9090, description="0 turns it off.")


def load_settings(path: Path) -> OperatorSettings:
    """Read the settings file.

    Raises:
        InputError: names file and field.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot be read: {' '.join(str(error).split())}", where=str(path)) from None
    try:
        return OperatorSettings.model_validate(raw or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"field `{field}`: {first['msg'].lower()}", where=str(path)) from None
