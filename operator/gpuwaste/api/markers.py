"""What a CRD schema can say and a Python type cannot, attached to fields by `Annotated[…]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["RULES_KEY", "Cel", "Format", "ListAtomic", "ListMap", "ListSet", "Marker", "rules"]

RULES_KEY = "x-kubernetes-validations"


class Marker:
    """Something that adds keys to the JSON schema of the field it annotates."""

    def keys(self) -> dict[str, Any]:
        """The keys that the marker adds."""
        raise NotImplementedError

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Merge the keys into what pydantic made; rules add up, everything else is set once."""
        schema = dict(handler(core_schema))
        for key, value in self.keys().items():
            schema[key] = [*schema.get(key, ()), *value] if key == RULES_KEY else value
        return schema


@dataclass(frozen=True, slots=True)
class ListAtomic(Marker):
    """A list that one writer replaces whole."""

    def keys(self) -> dict[str, Any]:
        """`x-kubernetes-list-type: atomic`."""
        return {"x-kubernetes-list-type": "atomic"}


@dataclass(frozen=True, slots=True)
class ListSet(Marker):
    """A list of unlike scalars."""

    def keys(self) -> dict[str, Any]:
        """`x-kubernetes-list-type: set`."""
        return {"x-kubernetes-list-type": "set"}


@dataclass(frozen=True, slots=True, init=False)
class ListMap(Marker):
    """A list of objects told apart by the fields `names`."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def keys(self) -> dict[str, Any]:
        """`x-kubernetes-list-type: map` and its keys."""
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.names)}


@dataclass(frozen=True, slots=True)
class Format(Marker):
    """An OpenAPI format such as `int32`."""

    name: str

    def keys(self) -> dict[str, Any]:
        """`format`."""
        return {"format": self.name}


@dataclass(frozen=True, slots=True)
class Cel(Marker):
    """A rule in CEL and the sentence a person reads when it is broken."""

    rule: str
    message: str
    field_path: str = ""

    def as_rule(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        entry = {"rule": self.rule, "message": self.message}
        if self.field_path:
            entry["fieldPath"] = self.field_path
        return entry

    def keys(self) -> dict[str, Any]:
        """One more entry in `x-kubernetes-validations`."""
        return {RULES_KEY: [self.as_rule()]}


def rules(*of: Cel) -> dict[str, Any]:
    """Rules over a whole model, for `model_config = ConfigDict(json_schema_extra=rules(…))`."""
    return {RULES_KEY: [rule.as_rule() for rule in of]}
