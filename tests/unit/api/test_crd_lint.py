"""Rules of the Kubernetes API conventions over the committed CRDs, exceptions written down."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gpuwaste.api import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

CRDS = Path(__file__).parents[3] / "crds"
MANIFESTS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CRDS.glob("*.yaml"))}

ALLOWED_BOOLEANS = {"spec.allowIrreversible"}
"""The design names this field and its value `true`; leave to do what cannot be undone has no third state."""
ALLOWED_ENUM_VALUES = {"True", "False", "Unknown"}
AGAINST_CONVENTIONS = re.compile(r"(Timestamp|Duration|Period|Deadline)$")
CAMEL = re.compile(r"[A-Z][A-Za-z0-9]*")
JSON_NAME = re.compile(r"[a-z][A-Za-z0-9]*")
LIST_TYPES = {"atomic", "set", "map"}
STRUCTURAL_KEYS = {
    "type", "format", "description", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems",
    "maxItems", "default", "required", "properties", "items", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
}  # fmt: skip

Node = tuple[str, str, dict[str, Any]]


def version(kind: str) -> dict[str, Any]:
    return MANIFESTS[kind]["spec"]["versions"][0]


def walk(path: str, name: str, schema: dict[str, Any]) -> Iterator[Node]:
    yield path, name, schema
    for key, inner in schema.get("properties", {}).items():
        yield from walk(f"{path}.{key}", key, inner)
    if "items" in schema:
        yield from walk(f"{path}[]", name, schema["items"])


def nodes(kind: str) -> list[Node]:
    properties = version(kind)["schema"]["openAPIV3Schema"]["properties"]
    return [node for part in ("spec", "status") for node in walk(part, part, properties[part])]


def faults_of(path: str, name: str, schema: dict[str, Any]) -> list[str]:
    """What is wrong with one node of a schema."""
    kind = schema["type"]
    bounded = "enum" in schema or schema.get("format") == "date-time" or "maxLength" in schema
    numbered = {"minimum", "maximum", "format"} <= set(schema)
    listed = "maxItems" in schema and schema.get("x-kubernetes-list-type") in LIST_TYPES
    exact = -(2**53) < schema.get("minimum", 0) <= schema.get("maximum", 0) < 2**53
    faults = {
        "a key that is not structural": not set(schema) <= STRUCTURAL_KEYS,
        "a float": kind == "number",
        "a boolean where an enum leaves room for more": kind == "boolean" and path not in ALLOWED_BOOLEANS,
        "a string without end": kind == "string" and not bounded,
        "a number without bounds or format": kind == "integer" and not numbered,
        "a number that JavaScript would round": kind == "integer" and not exact,
        "a list without end or type": kind == "array" and not listed,
        "a map; use a list of named objects": "additionalProperties" in schema,
        "a phase; use conditions": "phase" in name.lower(),
        "a name against the conventions": not JSON_NAME.fullmatch(name) or bool(AGAINST_CONVENTIONS.search(name)),
        "an enum value that is not CamelCase": any(not CAMEL.fullmatch(value) for value in schema.get("enum", ())),
        "a default of null": schema.get("default", 0) is None,
    }
    return [fault for fault, found in faults.items() if found]


@pytest.mark.parametrize("kind", MANIFESTS)
def test_every_field_keeps_the_conventions(kind: str) -> None:
    assert [(path, faults) for path, name, schema in nodes(kind) if (faults := faults_of(path, name, schema))] == []


FAULTY = {
    "float": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int32"},
    "huge integer": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**63 - 1},
    "list without type": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3}},
    "list without end": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "nullable": {"type": "string", "maxLength": 3, "nullable": True},
    "enum": {"type": "string", "enum": ["lower-case"]},
}


@pytest.mark.parametrize("schema", FAULTY.values(), ids=FAULTY.keys())
def test_the_lint_finds_what_it_looks_for(schema: dict[str, Any]) -> None:
    assert faults_of("spec.x", "x", schema)


@pytest.mark.parametrize("name", ["phase", "currentPhase", "start_time", "creationTimestamp", "watchDuration"])
def test_the_lint_finds_names_against_the_conventions(name: str) -> None:
    assert faults_of(f"spec.{name}", name, {"type": "string", "maxLength": 3})


@pytest.mark.parametrize("kind", MANIFESTS)
def test_descriptions_begin_with_the_name_and_end_as_sentences(kind: str) -> None:
    for path, name, schema in nodes(kind):
        said = schema.get("description", "")
        if path.endswith("[]") and schema["type"] != "object":
            continue  # an item of a list of scalars is described by its list
        assert said.endswith("."), path
        assert said.startswith(f"{name} ") or path.endswith("[]"), (path, said)


@pytest.mark.parametrize("kind", MANIFESTS)
def test_conditions_are_a_bounded_map_with_generations(kind: str) -> None:
    status = version(kind)["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert next(iter(status)) == "conditions"
    assert status["observedGeneration"]["format"] == "int64"
    conditions = status["conditions"]
    assert conditions["maxItems"] <= 16
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) == {
        "type", "status", "observedGeneration", "lastTransitionTime", "reason", "message",
    }  # fmt: skip
    assert set(conditions["items"]["properties"]["status"]["enum"]) == ALLOWED_ENUM_VALUES


@pytest.mark.parametrize("kind", MANIFESTS)
def test_rules_speak_to_people(kind: str) -> None:
    for path, _, schema in nodes(kind):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert re.search(r"\b(must|must not|may not)\b", rule["message"]), path
            assert "`" in rule["message"], f"{path}: field names stand in back-quotes"
            assert not re.search(r"[<>=]=|&&", rule["message"]), f"{path}: words, not symbols"


@pytest.mark.parametrize("kind", MANIFESTS)
def test_columns_are_few_and_end_with_age(kind: str) -> None:
    columns = version(kind)["additionalPrinterColumns"]
    assert columns[-1] == {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    narrow = [column for column in columns if "priority" not in column]
    assert len(narrow) <= 8
    paths = {path for path, _, _ in nodes(kind)}
    for column in columns[:-1]:
        plain = re.sub(r"\[\?\(@\.type==\"\w+\"\)\]", "[]", column["jsonPath"]).removeprefix(".")
        assert plain in paths, f"{column['name']} reads a field that is not there"


@pytest.mark.parametrize("kind", MANIFESTS)
def test_the_whole_is_as_a_crd_must_be(kind: str) -> None:
    spec = MANIFESTS[kind]["spec"]
    assert [(one["name"], one["served"], one["storage"]) for one in spec["versions"]] == [("v1alpha1", True, True)]
    assert version(kind)["subresources"] == {"status": {}}
    assert spec["names"]["categories"] == ["gpu-rightsizing"]
    schema = version(kind)["schema"]["openAPIV3Schema"]
    assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert schema["required"] == ["spec"]
    assert schema["properties"]["metadata"] == {"type": "object"}


def test_there_is_a_crd_a_kind_and_no_other() -> None:
    assert set(MANIFESTS) == {info.plural for info in KINDS.values()}
    namespaced = {kind for kind, manifest in MANIFESTS.items() if manifest["spec"]["scope"] == "Namespaced"}
    assert namespaced == {"gpuwastes", "rightsizingpolicies"}
