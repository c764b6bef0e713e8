"""What every model of the API shares: names in JSON, bounds, lenient reading, strict writing."""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from gpuwaste.api.kindinfo import KindInfo
from gpuwaste.api.markers import Format
from gpuwaste.api.names import API_VERSION
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import format_time

__all__ = [
    "ApiModel",
    "Count",
    "Currency",
    "DisplayText",
    "Generation",
    "Hours",
    "Message",
    "Money",
    "Name",
    "Number",
    "ObjectMeta",
    "Percent",
    "Probability",
    "Resource",
    "Seconds",
    "Text",
    "Time",
    "Url",
    "json_name",
]

_INITIALISMS = {"gpu": "GPU", "gpus": "GPUs", "url": "URL", "uid": "UID", "cpu": "CPU", "slo": "SLO", "id": "ID"}
_MAX_INT32 = 2**31 - 1


def json_name(attribute: str) -> str:
    """The name in JSON of a Python attribute: `free_gpu_hours` is `freeGPUHours`, `from_` is `from`."""
    first, *rest = attribute.rstrip("_").split("_")
    return first + "".join(_INITIALISMS.get(word, word[:1].upper() + word[1:]) for word in rest)


class ApiModel(BaseModel):
    """A frozen piece of an object.

    Written strictly, read leniently, with one class: building a model in code refuses names it does
    not know, and `Resource.parse` reads what a newer or older API server holds with `extra="ignore"`.
    A field's docstring is its description in the CRD, after the field's name.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=json_name,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the API's names and without what is not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True)
class DecimalText:
    """A Decimal that is a string in JSON and matches `pattern`; a binary float is refused."""

    pattern: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Read what pydantic reads as a Decimal, then hold it to the pattern."""
        exact = core_schema.no_info_before_validator_function(_refuse_float, handler(source))
        return core_schema.no_info_after_validator_function(
            self._fit,
            exact,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: f"{value:f}", return_schema=core_schema.str_schema()
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A patterned string."""
        del schema, handler
        return {"type": "string", "pattern": self.pattern, "maxLength": 40}

    def _fit(self, value: Decimal) -> Decimal:
        if not re.fullmatch(self.pattern, f"{value:f}"):
            raise ValueError(f"must be a decimal number that matches {self.pattern}, not {value}")
        return value


def _refuse_float(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("must be a decimal string such as '12.50', not a binary float")  # noqa: TRY004 (pydantic wants ValueError)
    return value


Money = Annotated[Decimal, DecimalText(r"^-?[0-9]{1,18}(\.[0-9]{1,18})?$")]
"""An amount of money; the currency stands beside it."""
Number = Money
"""A decimal number that may be negative and is no money."""
Hours = Annotated[Decimal, DecimalText(r"^[0-9]{1,15}(\.[0-9]{1,12})?$")]
"""GPU-hours, or a number of GPUs that may be shared: never negative."""
Probability = Annotated[Decimal, DecimalText(r"^(0(\.[0-9]{1,12})?|1(\.0{1,12})?)$")]
"""From 0 to 1."""

Time = Annotated[
    AwareDatetime,
    PlainSerializer(lambda time: format_time(time.replace(microsecond=0)), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Count = Annotated[int, Field(ge=0, le=_MAX_INT32), Format("int32")]
Percent = Annotated[int, Field(ge=0, le=100), Format("int32")]
Seconds = Annotated[int, Field(ge=0, le=10 * 366 * 86_400), Format("int32")]
Generation = Annotated[int, Field(ge=0, le=2**53 - 1), Format("int64")]
Name = Annotated[str, Field(min_length=1, max_length=253)]
Text = Annotated[str, Field(max_length=253)]
DisplayText = Annotated[str, Field(max_length=320)]
"""Text for a column; a kind, a slash and the longest name fit."""
Message = Annotated[str, Field(max_length=1024)]
Url = Annotated[str, Field(min_length=1, max_length=2048)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", min_length=3, max_length=3)]


class ObjectMeta(ApiModel):
    """The part of an object's metadata that is read or written here."""

    name: Name
    """is the object's name."""
    namespace: Text | None = None
    """is the namespace of a namespaced object."""
    labels: dict[str, str] | None = None
    """are the object's labels."""
    annotations: dict[str, str] | None = None
    """are the object's annotations."""
    uid: Text | None = None
    """is set by the API server."""
    generation: Generation | None = None
    """is set by the API server and rises with every change of the spec."""
    resource_version: Text | None = None
    """is set by the API server."""
    creation_timestamp: datetime | None = None
    """is set by the API server."""
    deletion_timestamp: datetime | None = None
    """is set by the API server once the object is to go."""


_WRITTEN_METADATA = ("name", "namespace", "labels", "annotations")


class Resource(ApiModel):
    """A whole object; each kind adds `spec` and `status`."""

    info: ClassVar[KindInfo]
    metadata: ObjectMeta
    """is the standard metadata."""

    @classmethod
    def parse(cls, obj: dict[str, Any]) -> Self:
        """Read an object as the API server or a file holds it; unknown fields are ignored.

        Raises:
            InputError: it is of another kind or version, or a field breaks a rule; names the first such field.
        """
        where = describe(obj)
        if obj.get("apiVersion") != API_VERSION or obj.get("kind") != cls.info.kind:
            given = f"{obj.get('apiVersion')} {obj.get('kind')}"
            raise InputError(f"must be {API_VERSION} {cls.info.kind}, not {given}", where=where)
        own = {key: obj[key] for key in ("metadata", "spec", "status") if key in obj}
        try:
            return cls.model_validate(own, extra="ignore")
        except ValidationError as error:
            raise InputError(first_error(error), where=where) from None

    def manifest(self) -> dict[str, Any]:
        """What server-side apply on the object itself sends: no status, no metadata of the server's."""
        whole = self.to_json()
        return self._envelope() | {key: value for key, value in whole.items() if key == "spec"}

    def status_manifest(self) -> dict[str, Any]:
        """What server-side apply on the `status` subresource sends."""
        whole = self.to_json()
        identity = {key: whole["metadata"][key] for key in ("name", "namespace") if key in whole["metadata"]}
        return self._envelope() | {"metadata": identity, "status": whole.get("status", {})}

    def _envelope(self) -> dict[str, Any]:
        meta = self.metadata.to_json()
        written = {key: meta[key] for key in _WRITTEN_METADATA if key in meta}
        return {"apiVersion": API_VERSION, "kind": self.info.kind, "metadata": written}


def describe(obj: dict[str, Any]) -> str:
    """`GPUPool/name` or `GPUWaste/namespace/name`, as far as the object says."""
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    parts = (obj.get("kind"), meta.get("namespace"), meta.get("name"))
    return "/".join(str(part) for part in parts if part)


def first_error(error: ValidationError) -> str:
    """The first thing wrong, as one line: `spec.count: must be …`."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    path = ".".join(str(part) for part in details[0]["loc"])
    message = details[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{path}: {message[:1].lower()}{message[1:]}{more}"
