"""What tokens cost, by provider, model and kind; which providers stand in a bill, and which run in the cluster."""

from __future__ import annotations

from datetime import date
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gpuwaste.focus.token_table import KINDS
from gpuwaste.model.errors import InputError
from gpuwaste.model.money import PRICE_DECIMALS
from gpuwaste.pricing.pricelist import Price
from gpuwaste.settings.yaml_files import FileModel, read_yaml

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

__all__ = ["ModelPrices", "Provider", "TokenPrices", "load_token_prices"]

_IN_CLUSTER: Final = ("*.svc", "*.svc.cluster.local")


Ascii = Annotated[str, Field(pattern=r"^[ -~]*$")]
Day = Annotated[Ascii, BeforeValidator(lambda day: day.isoformat() if isinstance(day, date) else day)]
"""A day as text; YAML reads a bare 2026-11-01 as a date."""
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class ModelPrices(FileModel):
    """Prices of 1,000,000 tokens of a model, in the provider's pricing currency, and its SKUs in a bill."""

    input: Price | None = None
    cached: Price | None = None
    cache_write: Price | None = None
    output: Price | None = None
    skus: dict[Ascii, tuple[Ascii, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_kinds(self) -> ModelPrices:
        unknown = [kind for kind in self.skus if kind not in KINDS]
        if unknown:
            raise ValueError(f"skus: {unknown[0]!r} is no kind of tokens; use {', '.join(KINDS)}")
        return self

    def price(self, kind: str) -> Decimal | None:
        """The list price of a kind, None where it is not known."""
        price: Decimal | None = getattr(self, kind)
        return price


class Prepaid(FileModel):
    """Credits that were bought ahead; they are the currency in which the provider counts."""

    unit: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 ]{0,48}$")]
    price: Price


class Provider(FileModel):
    """A seller of tokens.

    Attributes:
        name: as it stands in ServiceProviderName.
        service: as it stands in ServiceName; empty for the name with ` API` behind.
        account_id: the account that is charged; empty for the name.
        currency: of the prices; nothing where they are in prepaid credits.
        date: the day the prices are of.
        prepaid: what a credit cost in the billing currency.
        billed: whether its usage stands in a bill that is imported; then calls make no rows of their own, and only
            divide those of the bill whose SkuId a model names.
        in_cluster: whether it runs in the cluster; its cost is that of the GPUs.
    """

    name: Ascii = ""
    service: Ascii = ""
    account_id: Ascii = ""
    currency: Currency | None = None
    date: Day = ""
    prepaid: Prepaid | None = None
    billed: bool = False
    in_cluster: bool = False
    models: dict[str, ModelPrices] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> Provider:
        if self.in_cluster and (self.billed or self.models):
            raise ValueError("what runs in the cluster has no prices and no bill of its own: its cost is the GPU's")
        if not self.in_cluster and not self.name:
            raise ValueError("name is missing: who sells these tokens?")
        if not self.in_cluster and not self.billed and (self.currency is None) == (self.prepaid is None):
            raise ValueError("give either currency, or prepaid for credits that were bought ahead")
        return self


class TokenPrices(FileModel):
    """Everything that turns counted tokens into charges.

    Attributes:
        billing_currency: what prepaid credits were paid in; other providers bill in the currency of their prices.
        cluster: so that a team has the AllocatedResourceId here that it has in the rows of its GPUs.
        teams: names of teams, by what the gateway calls them.
        endpoints_in_cluster: host names, with `*`, of endpoints whose cost is the GPU's.
        providers: by what the gateway calls them.
    """

    billing_currency: Currency | None = None
    cluster: str = ""
    teams: dict[str, str] = Field(default_factory=dict)
    endpoints_in_cluster: tuple[str, ...] = _IN_CLUSTER
    providers: dict[str, Provider]

    def runs_in_cluster(self, provider: str, endpoint: str) -> bool:
        """Whether a route leads to an endpoint in the cluster."""
        known = self.providers.get(provider)
        if known is not None and known.in_cluster:
            return True
        host = (urlsplit(endpoint).hostname or "") if "//" in endpoint else endpoint.partition(":")[0].lower()
        return any(fnmatchcase(host, pattern.lower()) for pattern in self.endpoints_in_cluster)

    @model_validator(mode="after")
    def _exact(self) -> TokenPrices:
        for name, provider in self.providers.items():
            if provider.prepaid is None:
                continue
            if self.billing_currency is None:
                raise ValueError(f"billingCurrency is missing: what were the credits of {name} paid in?")
            for model, prices in provider.models.items():
                _check_product(f"providers.{name}.models.{model}", prices, _decimals(provider.prepaid.price))
        return self


def _check_product(where: str, prices: ModelPrices, credit_decimals: int) -> None:
    for kind in KINDS:
        price = prices.price(kind)
        if price is not None and _decimals(price) + credit_decimals > PRICE_DECIMALS:
            raise ValueError(f"{where}.{kind}: price times credit has more than {PRICE_DECIMALS} decimals")


def _decimals(price: Decimal) -> int:
    return max(-int(price.normalize().as_tuple().exponent), 0)


def load_token_prices(path: Path) -> TokenPrices:
    """Read a token price file.

    Raises:
        InputError: it cannot be read, or breaks a rule; names file and field.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise InputError("must be a mapping with `providers`", where=str(path))
    try:
        return TokenPrices.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"field `{field}`: {message}" if field else message, where=str(path)) from None
