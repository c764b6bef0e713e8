"""Lowering of models to structural schemas: what comes out, and what is refused."""

from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import ConfigDict, Field

from gpuwaste.api.base import ApiModel, Money, Percent, Text, Time
from gpuwaste.api.markers import Cel, Format, ListMap, ListSet, rules
from gpuwaste.api.schema import SchemaError, structural_schema


class Colour(StrEnum):
    """Not to be seen."""

    RED = "Red"


class Inner(ApiModel):
    """A part."""

    model_config = ConfigDict(json_schema_extra=rules(Cel("self.name != 'x'", "`name` must not be 'x'")))
    name: Text
    """is its name."""
    more: Annotated[int, Field(gt=0, lt=10), Format("int32")] = 3
    """is more of it."""


class Outer(ApiModel):
    """A whole."""

    inner: Annotated[Inner, Cel("self == oldSelf", "`inner` must not change")]
    """is a part."""
    maybe: Inner | None = None
    """is a part that may be absent."""
    parts: Annotated[tuple[Inner, ...], Field(max_length=4), ListMap("name")] = ()
    """are parts."""
    colour: Colour = Colour.RED
    """is a colour."""
    from_time: Time | None = None
    """is a time."""
    price: Money | None = None
    """is a price."""


def test_a_model_becomes_a_structural_schema() -> None:
    name_rule = {"rule": "self.name != 'x'", "message": "`name` must not be 'x'"}
    inner = {
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "description": "name is its name.", "maxLength": 253},
            "more": {
                "type": "integer",
                "format": "int32",
                "description": "more is more of it.",
                "minimum": 1,
                "maximum": 9,
                "default": 3,
            },
        },
    }
    assert structural_schema(Outer) == {
        "type": "object",
        "description": "A whole.",
        "required": ["inner"],
        "properties": {
            "inner": {
                "type": "object",
                "description": "inner is a part.",
                **inner,
                "x-kubernetes-validations": [
                    name_rule,
                    {"rule": "self == oldSelf", "message": "`inner` must not change"},
                ],
            },
            "maybe": {
                "type": "object",
                "description": "maybe is a part that may be absent.",
                **inner,
                "x-kubernetes-validations": [name_rule],
            },
            "parts": {
                "type": "array",
                "description": "parts are parts.",
                "maxItems": 4,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "description": "A part.",
                    **inner,
                    "x-kubernetes-validations": [name_rule],
                },
            },
            "colour": {"type": "string", "description": "colour is a colour.", "enum": ["Red"], "default": "Red"},
            "fromTime": {"type": "string", "format": "date-time", "description": "fromTime is a time."},
            "price": {
                "type": "string",
                "description": "price is a price.",
                "pattern": r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$",
                "maxLength": 40,
            },
        },
    }


class WithFloat(ApiModel):
    """Bad."""

    x: float
    """is a float."""


class WithLongText(ApiModel):
    """Bad."""

    x: str
    """is a text without end."""


class WithLargeNumber(ApiModel):
    """Bad."""

    x: Annotated[int, Field(ge=0), Format("int32")]
    """is a number without end."""


class WithPlainNumber(ApiModel):
    """Bad."""

    x: Annotated[int, Field(ge=0, le=5)]
    """is a number without a format."""


class WithLongList(ApiModel):
    """Bad."""

    x: Annotated[tuple[Percent, ...], ListSet()]
    """is a list without end."""


class WithPlainList(ApiModel):
    """Bad."""

    x: Annotated[tuple[Percent, ...], Field(max_length=3)]
    """is a list of no type."""


class WithSetOfObjects(ApiModel):
    """Bad."""

    x: Annotated[tuple[Inner, ...], Field(max_length=3), ListSet()]
    """is a set of objects."""


class WithOptionalKey(ApiModel):
    """Bad."""

    x: Annotated[tuple[Inner, ...], Field(max_length=3), ListMap("more")]
    """is a map by what may be absent."""


class WithUnion(ApiModel):
    """Bad."""

    x: Inner | Percent
    """is one of two."""


class WithMap(ApiModel):
    """Bad."""

    x: dict[str, str]
    """is a map."""


class WithPair(ApiModel):
    """Bad."""

    x: Annotated[tuple[Percent, Percent], ListSet()]
    """is a pair."""


class WithAnything(ApiModel):
    """Bad."""

    x: Any
    """is anything."""


class WithoutDocs(ApiModel):
    """Bad."""

    x: Percent


class WithItself(ApiModel):
    """Bad."""

    x: "WithItself | None" = None
    """is the same again."""


class WithSpecialDefault(ApiModel):
    """Bad."""

    x: Inner = Inner(name="y")
    """is a part that is filled in."""


REFUSED = {
    WithFloat: r"WithFloat\.x: must be an object, a list, a string or a whole number, not number",
    WithLongText: r"WithLongText\.x: must have maxLength",
    WithLargeNumber: r"WithLargeNumber\.x: must have minimum and maximum",
    WithPlainNumber: r"WithPlainNumber\.x: must have format",
    WithLongList: r"WithLongList\.x: must have maxItems",
    WithPlainList: r"WithPlainList\.x: must have a list type",
    WithSetOfObjects: r"WithSetOfObjects\.x: a set must hold scalars",
    WithOptionalKey: r"WithOptionalKey\.x: the map's key more must be a required scalar",
    WithUnion: r"WithUnion\.x: a CRD cannot say anyOf",
    WithMap: r"WithMap\.x: a CRD cannot say additionalProperties",
    WithPair: r"WithPair\.x: a CRD cannot say prefixItems",
    WithAnything: r"WithAnything\.x: must be an object",
    WithoutDocs: r"WithoutDocs\.x must have a docstring",
    WithItself: r"a CRD cannot hold a WithItself within itself",
    WithSpecialDefault: r"Inner: a default must be the model's own",
}


@pytest.mark.parametrize(("model", "message"), REFUSED.items(), ids=[model.__name__ for model in REFUSED])
def test_what_a_crd_cannot_say_is_refused(model: type[ApiModel], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        structural_schema(model)
