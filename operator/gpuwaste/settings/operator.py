"""What the operator is told: one YAML file, checked as a whole before anything starts."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from gpuwaste.model.errors import InputError
from gpuwaste.settings.errors import SettingsError
from gpuwaste.settings.problems import problems
from gpuwaste.settings.prometheus import BackfillSettings, PrometheusSettings
from gpuwaste.settings.teams import TeamRules
from gpuwaste.settings.yaml_files import FileModel, read_yaml

__all__ = [
    "AgentSettings",
    "AgentTls",
    "ChargebackSettings",
    "OperatorSettings",
    "PlanSettings",
    "PriceWeights",
    "PricingSettings",
    "RetentionSettings",
    "load_settings",
]

AGENT_TLS_NAME = "agent.gpuwaste.internal"
"""The name in every agent's certificate; agents are dialled by pod IP and verified by it."""


class AgentTls(FileModel):
    """Mutual TLS towards the agents."""

    ca: Path = Field(description="The release's CA, PEM.")
    certificate: Path = Field(description="The operator's certificate, PEM.")
    key: Path = Field(description="The operator's key, PEM.")
    server_name: str = Field(default=AGENT_TLS_NAME, description="The name that an agent's certificate must have.")

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes when a file was replaced, as those of a rotated Secret are.

        Raises:
            OSError: a file is missing.
        """
        files = (path.stat() for path in (self.certificate, self.key, self.ca))
        return tuple((file.st_mtime_ns, file.st_ino) for file in files)


class AgentSettings(FileModel):
    """How agents are found and read."""

    namespace: str = Field(default="", description="Namespace of the agent pods; empty for all.")
    label_selector: str = Field(
        default="app.kubernetes.io/name=gpuwaste,app.kubernetes.io/component=agent",
        description="Labels by which the agent pods are found.",
    )
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=9440, description="Port on which agents serve.")
    endpoints: tuple[str, ...] = Field(default=(), description="Addresses to read instead of looking for pods.")
    tls: AgentTls | None = Field(default=None, description="Absent, only loopback addresses are read, without TLS.")
    pull_period_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=60.0, description="Seconds from one reading of all agents to the next."
    )
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="Agents that are read at the same time."
    )
    batch_records: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=5_000, description="Records that are asked of an agent at once."
    )


class PlanSettings(FileModel):
    """When and how long plans are made."""

    period_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=3_600.0, description="Seconds from one plan to the next."
    )
    time_limit_seconds: Annotated[float, Field(gt=0, le=600)] = Field(
        default=15.0, description="Seconds that the solver may take for a plan."
    )


class ChargebackSettings(FileModel):
    """How ChargebackReport objects are followed."""

    look_period_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=60.0, description="Seconds from one look at the reports to the next."
    )


class RetentionSettings(FileModel):
    """How long inputs and ledger are kept, and when hours of the ledger are put together by day."""

    inputs_days: Annotated[int, Field(ge=31, le=3_660)] = Field(
        default=35,
        description="Days that usage windows and facts are kept, and longer while a bill's period is open."
        " An hour of the ledger can change that long.",
    )
    ledger_days: Annotated[int, Field(ge=31, le=36_600)] | None = Field(
        default=None,
        description="Days that the ledger is kept, at least as long as its inputs, and longer while a bill's period is"
        " open or can be restated; absent, it is kept for good.",
    )
    compact_after_days: Annotated[int, Field(ge=1, le=3_660)] = Field(
        default=3, description="Days after its end from which a day's hours of the ledger are one file."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ledger_days is not None and self.ledger_days < self.inputs_days:
            raise ValueError(f"`ledgerDays` must be at least `inputsDays`, which is {self.inputs_days}")
        return self


Weight = Annotated[Decimal, Field(ge=0, le=1)]


class PriceWeights(FileModel):
    """Which parts of a node's price its GPUs, its CPU and its memory carry."""

    gpu: Weight = Field(default=Decimal(1), description="Part of the GPUs; 1 is the fully loaded GPU-hour.")
    cpu: Weight = Field(default=Decimal(0), description="Part of the CPU.")
    memory: Weight = Field(default=Decimal(0), description="Part of the memory.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.gpu + self.cpu + self.memory != 1:
            raise ValueError(f"`gpu`, `cpu` and `memory` must add up to 1, not {self.gpu + self.cpu + self.memory}")
        return self


class PricingSettings(FileModel):
    """What prices come from besides the price list, and how a node's price is divided."""

    bills: tuple[str, ...] = Field(
        default=(),
        description="FOCUS exports of your provider: files, or folders of Parquet or CSV files, of a volume or of an"
        " object store, like `s3://bucket/focus`.",
    )
    currency: str = Field(
        default="",
        pattern=r"^([A-Z]{3})?$",
        description="Currency that prices and bills are turned into; empty takes theirs.",
    )
    exchange_rates: dict[str, Annotated[Decimal, Field(gt=0)]] = Field(
        default_factory=dict, description="What one unit of another currency is in `currency`."
    )
    node_price_weights: PriceWeights = Field(
        default=PriceWeights(), description="Which parts of a node's price its GPUs, CPU and memory carry."
    )

    @model_validator(mode="after")
    def _rates_lead_somewhere(self) -> Self:
        wrong = sorted(code for code in self.exchange_rates if not re.fullmatch("[A-Z]{3}", code))
        if wrong:
            raise ValueError(f"`exchangeRates` names currencies by three letters such as EUR, not {wrong[0]!r}")
        if self.exchange_rates and not self.currency:
            raise ValueError("`exchangeRates` says what others are in `currency`, which is not set")
        if self.exchange_rates.get(self.currency, 1) != 1:
            raise ValueError(f"`exchangeRates.{self.currency}` can only be 1: it is `currency` itself")
        return self


class OperatorSettings(FileModel):
    """All settings of the operator."""

    cluster_name: str = Field(default="", description="Default: the UID of the namespace kube-system.")
    store: str = Field(description="Folder or object-store URL for inputs, ledger and plans.")
    agents: AgentSettings = Field(default=AgentSettings(), description="How agents are found and read.")
    price_list: Path | None = Field(default=None, description="YAML file of prices; else the built-in list.")
    pricing: PricingSettings = Field(default=PricingSettings(), description="Bills, currencies, parts of a price.")
    team_rules: TeamRules = Field(default=TeamRules(), description="Who owns the cost of a workload.")
    pool_label: str = Field(default="", description="Node label that names the pool before the well-known ones.")
    starting_limit_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=900, description="Seconds before its first activity in which a holder counts as starting, not idle."
    )
    prometheus: PrometheusSettings | None = Field(
        default=None, description="A store with metrics of dcgm-exporter, read for what agents did not see."
    )
    backfill: BackfillSettings = Field(
        default=BackfillSettings(), description="What is read from Prometheus when the operator starts."
    )
    decide_period_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=10.0, description="Least seconds from one look at ledger and objects to the next."
    )
    writes_per_second: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=20.0, description="Most objects that are written to the API server in a second."
    )
    plan: PlanSettings = Field(default=PlanSettings(), description="When and how long plans are made.")
    chargeback: ChargebackSettings = Field(
        default=ChargebackSettings(), description="How ChargebackReport objects are followed."
    )
    retention: RetentionSettings = Field(
        default=RetentionSettings(), description="How long inputs and ledger are kept."
    )
    liveness_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8080, description="0 turns it off.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(default=9090, description="0 turns it off.")
    receive_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=9443,
        description="Takes what leaving agents hand over, with the files of `agents.tls`; without them, or at 0, off.",
    )


def load_settings(path: Path) -> OperatorSettings:
    """Read the settings file.

    Raises:
        InputError: the file cannot be read, or is no YAML mapping.
        SettingsError: names every field that is wrong.
    """
    raw = read_yaml(path)
    if raw is not None and not isinstance(raw, dict):
        raise InputError("must be a mapping of settings", where=str(path), fix="write `store: /var/lib/gpuwaste`")
    try:
        # A file has one spelling of each name, the one that is documented; code has Python's.
        return OperatorSettings.model_validate(raw or {}, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SettingsError(problems(error, OperatorSettings), where=str(path)) from None
