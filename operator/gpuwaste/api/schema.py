"""From a pydantic model to a structural schema that an API server accepts; what it cannot say is refused."""

import ast
import inspect
import itertools
import sys
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gpuwaste.api.markers import RULES_KEY
from gpuwaste.model.errors import GpuwasteError

__all__ = ["SchemaError", "structural_schema"]

_REF_PREFIX = DEFAULT_REF_TEMPLATE.format(model="")
_LIST_TYPE = "x-kubernetes-list-type"
_LIST_KEYS = "x-kubernetes-list-map-keys"
_ORDER = (
    "type",
    "format",
    "description",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    _LIST_TYPE,
    _LIST_KEYS,
    "default",
    "required",
    "properties",
    "items",
    RULES_KEY,
)
"""All keys that a schema of ours may have, in the order in which they are written."""
_RULE_ORDER = ("rule", "message", "fieldPath")
_DROPPED = frozenset({"title", "exclusiveMinimum", "exclusiveMaximum"})
_SCALARS = frozenset({"string", "integer", "boolean"})


class SchemaError(GpuwasteError):
    """A model says something that a CRD cannot, or leaves something unbounded."""


def structural_schema(model: type[BaseModel], *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The structural OpenAPI v3 schema of a model: inline, bounded, without null and titles.

    Args:
        model: what to describe.
        leave_out: properties of the model itself that have no place in its schema.

    Raises:
        SchemaError: names the model's field that a CRD cannot express, or that lacks a bound, a list
            type or a docstring.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions = raw.pop("$defs", {})
    for name in leave_out:
        del raw["properties"][name]
        raw["required"] = [one for one in raw.get("required", ()) if one != name]
    return _Lowering(definitions).lower(raw, model.__name__)


class _Generator(GenerateJsonSchema):
    """pydantic's JSON schema without what is illegal in a CRD, with docstrings as descriptions."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Absent is how the API says null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Only defaults that say something; those of an object are its fields' own."""
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        if default is None or default == ():
            return inner
        if isinstance(default, BaseModel):
            if default.model_fields_set:
                raise SchemaError(
                    f"{type(default).__name__}: a default must be the model's own, which a CRD calls {{}}"
                )
            return {**inner, "default": {}}
        return {**inner, "default": self.encode_default(default)}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Properties under the API's names, each described by the docstring below its field."""
        cls = schema["cls"]
        made = super().model_schema(schema)
        properties = made.get("properties", {})
        docs = _field_docs(cls)
        for name, field in cls.model_fields.items():
            alias = field.alias or name
            if name not in docs:
                raise SchemaError(f"{cls.__name__}.{name} must have a docstring: it becomes the description")
            properties[alias]["description"] = f"{alias} {docs[name]}"
        made.pop("additionalProperties", None)
        made["description"] = inspect.cleandoc(cls.__doc__ or "")
        return made

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """The values; what they mean stands at the field."""
        made = super().enum_schema(schema)
        made.pop("description", None)
        return made


def _field_docs(cls: type[BaseModel]) -> dict[str, str]:
    """The docstrings that stand below the fields of a class and of those it inherits from."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            docs |= _docs_of_module(base.__module__).get(base.__qualname__, {})
    return docs


@cache
def _docs_of_module(name: str) -> dict[str, dict[str, str]]:
    """The docstrings below the fields of every class of a module, by class and field."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {
        cls.name: {
            field.target.id: " ".join(str(below.value.value).split())
            for field, below in itertools.pairwise(cls.body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        }
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
    }


class _Lowering:
    """Puts definitions in place of references and refuses what a CRD cannot hold."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions

    def lower(self, schema: dict[str, Any], path: str, within: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The schema at `path`, lowered; `within` names the models that it lies in."""
        flat, within = self._resolve(schema, path, within)
        flat = _inclusive(flat)
        unknown = sorted(set(flat) - set(_ORDER) - _DROPPED)
        if unknown:
            raise SchemaError(f"{path}: a CRD cannot say {', '.join(unknown)}")
        if "properties" in flat:
            flat["properties"] = {
                name: self.lower(inner, f"{path}.{name}", within) for name, inner in flat["properties"].items()
            }
        if "items" in flat:
            flat["items"] = self.lower(flat["items"], f"{path}[]", within)
        _check(flat, path)
        if RULES_KEY in flat:
            flat[RULES_KEY] = [{key: rule[key] for key in _RULE_ORDER if key in rule} for rule in flat[RULES_KEY]]
        return {key: flat[key] for key in _ORDER if key in flat}

    def _resolve(
        self, schema: dict[str, Any], path: str, within: frozenset[str]
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """What a reference points to, under what stands beside it; the rules of both hold."""
        if "$ref" not in schema:
            return dict(schema), within
        name = schema["$ref"].removeprefix(_REF_PREFIX)
        if name in within:
            raise SchemaError(f"{path}: a CRD cannot hold a {name} within itself")
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        target, within = self._resolve(self._definitions[name], path, within | {name})
        rules = [*target.get(RULES_KEY, ()), *beside.get(RULES_KEY, ())]
        return {**target, **beside, **({RULES_KEY: rules} if rules else {})}, within


def _inclusive(schema: dict[str, Any]) -> dict[str, Any]:
    """Exclusive bounds of whole numbers as inclusive ones."""
    if schema.get("type") == "integer":
        if "exclusiveMinimum" in schema:
            schema["minimum"] = max(schema["exclusiveMinimum"] + 1, schema.get("minimum", -(2**63)))
        if "exclusiveMaximum" in schema:
            schema["maximum"] = min(schema["exclusiveMaximum"] - 1, schema.get("maximum", 2**63))
    return schema


def _check(schema: dict[str, Any], path: str) -> None:
    """Raise where a schema has no type, no bound or no list type, or is a float."""
    kind = schema.get("type")
    if kind == "string":
        _need("enum" in schema or schema.get("format") == "date-time" or "maxLength" in schema, path, "maxLength")
    elif kind == "integer":
        _need("minimum" in schema and "maximum" in schema, path, "minimum and maximum")
        _need("format" in schema, path, "format int32 or int64")
    elif kind == "array":
        _need("maxItems" in schema, path, "maxItems")
        _need(_LIST_TYPE in schema, path, "a list type")
        _check_list(schema, path)
    elif kind == "object":
        _need("properties" in schema, path, "properties")
    elif kind != "boolean":
        raise SchemaError(f"{path}: must be an object, a list, a string or a whole number, not {kind}")


def _check_list(schema: dict[str, Any], path: str) -> None:
    """Raise where the items do not fit the list's type."""
    items = schema["items"]
    if schema[_LIST_TYPE] == "set" and items["type"] not in _SCALARS:
        raise SchemaError(f"{path}: a set must hold scalars")
    if schema[_LIST_TYPE] == "map":
        for key in schema[_LIST_KEYS]:
            if key not in items.get("required", ()) or items["properties"][key]["type"] not in _SCALARS:
                raise SchemaError(f"{path}: the map's key {key} must be a required scalar of the items")


def _need(held: bool, path: str, what: str) -> None:  # noqa: FBT001 (a condition, not an option)
    if not held:
        raise SchemaError(f"{path}: must have {what}")
