"""Price lists: a user's own, and the built-in list of public on-demand prices."""

from __future__ import annotations

from datetime import date as Date  # noqa: N812 (a pydantic field)
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from gpuwaste.model.errors import InputError
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.money import parse_price
from gpuwaste.model.resources import named_product
from gpuwaste.pricing.capacity import Capacity
from gpuwaste.settings.yaml_files import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "EarlierPriceList",
    "Owned",
    "Price",
    "PriceList",
    "UnitCosts",
    "builtin_prices",
    "load_price_list",
    "parse_price_list",
]


def _price(value: Any) -> Decimal:
    if isinstance(value, float):  # YAML reads 2.50 as a float; its shortest text is what was written
        value = repr(value)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(f"must be a number such as 2.50, not {value!r}")  # noqa: TRY004 (pydantic wants ValueError)
    return parse_price(value, what="price")


Price = Annotated[Decimal, BeforeValidator(_price)]
"""A price in a file: never negative, at most 12 decimals, and never rounded by way of a binary number."""


class UnitCosts(BaseModel):
    """The four unit costs of FOCUS, of one hour. What is not given is the list price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    list: Price
    contracted: Price | None = None
    billed: Price | None = None
    effective: Price | None = None
    spot: Price | None = Field(default=None, description="What an hour costs on a spot node.")

    def of(self, capacity: Capacity) -> tuple[Decimal, Decimal | None, Decimal | None, Decimal | None]:
        """List, contracted, billed and effective cost of an hour as the node is bought.

        A list price says nothing of what a spot node costs: without `spot` only the list price is known of it.
        """
        if capacity is Capacity.SPOT:
            return self.list, self.spot, self.spot, self.spot
        return (
            self.list,
            self.list if self.contracted is None else self.contracted,
            self.list if self.billed is None else self.billed,
            self.list if self.effective is None else self.effective,
        )


class Owned(BaseModel):
    """Hardware of one's own: what was paid for it, over how many years, and what it takes to run it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    purchase_price: Price = Field(alias="purchasePrice", description="What was paid.")
    life_years: Annotated[Decimal, BeforeValidator(_price), Field(gt=0, le=30)] = Field(alias="lifeYears")
    watts: Annotated[Decimal, BeforeValidator(_price)] = Field(default=Decimal(0), description="Mean power drawn.")
    pue: Annotated[Decimal, BeforeValidator(_price), Field(ge=1, le=5)] = Field(
        default=Decimal(1), description="Power of the data centre for each unit of power of the machine."
    )
    price_per_kwh: Price = Field(default=Decimal(0), alias="pricePerKWh")
    upkeep_per_year: Price = Field(default=Decimal(0), alias="upkeepPerYear", description="Space, support, people.")

    def of(self, capacity: Capacity) -> tuple[Decimal | None, Decimal, Decimal, Decimal]:
        """No list price; contracted and effective with the purchase spread over its life; billed is what running costs.

        As FOCUS has it, billed cost leaves out what was paid in advance.
        """
        del capacity  # what one owns is bought in one way
        running = self.watts / 1000 * self.pue * self.price_per_kwh + self.upkeep_per_year / _HOURS_PER_YEAR
        whole = self.purchase_price / (self.life_years * _HOURS_PER_YEAR) + running
        return None, whole, running, whole


_HOURS_PER_YEAR = 8760


def _costs(value: Any) -> Any:
    if not isinstance(value, dict):
        return UnitCosts(list=value)
    return Owned.model_validate(value) if "purchasePrice" in value else UnitCosts.model_validate(value)


Costs = Annotated[UnitCosts | Owned, BeforeValidator(_costs)]


class EarlierPriceList(BaseModel):
    """Prices of an hour: of a whole instance by type, and of one GPU by product."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")
    date: Date = Field(description="The day the prices are of.")
    instance_types: dict[str, Costs] = Field(default_factory=dict, alias="instanceTypes")
    gpus: dict[str, Costs] = Field(default_factory=dict)

    @field_validator("gpus")
    @classmethod
    def _known_products(cls, prices: dict[str, UnitCosts | Owned]) -> dict[str, UnitCosts | Owned]:
        named = {}
        for name, price in prices.items():
            product = named_product(name)
            if product is None:
                near = get_close_matches(name, PRODUCTS, n=3, cutoff=0.3)
                raise ValueError(
                    f"`{name}` is no GPU product known here; did you mean {' or '.join(near) or 'another'}? One that we"
                    " do not know goes by the name that its driver or its node's label has, such as NVIDIA-A40"
                )
            if product in named:
                raise ValueError(f"`{name}` and another entry are both of {product}; keep one of them")
            named[product] = price
        return named


class PriceList(EarlierPriceList):
    """The prices in force since `date`, and those before them.

    A list without earlier ones holds for all time: its date says what day its prices were read.
    """

    earlier: tuple[EarlierPriceList, ...] = Field(
        default=(), description="Lists that were in force before this one, each from its own date on."
    )

    @field_validator("earlier")
    @classmethod
    def _in_turn(cls, earlier: tuple[EarlierPriceList, ...], info: ValidationInfo) -> tuple[EarlierPriceList, ...]:
        dates = [one.date for one in earlier]
        if len(set(dates)) < len(dates):
            raise ValueError(f"two lists are of {max(d for d in dates if dates.count(d) > 1)}; each needs its own date")
        newest = info.data.get("date")
        if newest is not None and dates and max(dates) >= newest:
            raise ValueError(f"the list of {max(dates)} is not earlier than {newest}")
        return tuple(sorted(earlier, key=lambda one: one.date, reverse=True))

    def at(self, day: Date) -> EarlierPriceList:
        """The list in force on a day: the newest that is not of a later date, else the oldest there is."""
        lists = (self, *self.earlier)
        return next((one for one in lists if one.date <= day), lists[-1])


def parse_price_list(text: str, *, where: str) -> PriceList:
    """Read a price list in YAML.

    Raises:
        InputError: names the file and the field.
    """
    raw = parse_yaml(text, where=where)
    if not isinstance(raw, dict):
        raise InputError("must be a mapping with `currency`, `date`, `gpus` and `instanceTypes`", where=where)
    try:
        return PriceList.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"field `{path}`: {message}", where=where) from None


def load_price_list(path: Path) -> PriceList:
    """Read a price list file.

    Raises:
        InputError: the file cannot be read, or breaks a rule; names file and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    return parse_price_list(text, where=str(path))


@cache
def builtin_prices() -> PriceList:
    """The list that comes with gpuwaste; its file says where each price is from."""
    text = resources.files("gpuwaste.pricing").joinpath("builtin.yaml").read_text(encoding="utf-8")
    return parse_price_list(text, where="the built-in price list")
