"""The metadata of a FOCUS dataset: who made it, what its columns are, how recent and how complete it is."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from gpuwaste.focus.columns import DEPRECATED
from gpuwaste.focus.split import TAG_PREFIX
from gpuwaste.model.units import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["DataSetFacts", "TimeSector", "metadata_document", "with_history"]

_GENERATOR: Final = "gpuwaste"
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "focus.gpuwaste.dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSector:
    """A slice of time of the dataset; `complete` when no more rows are expected for it."""

    start: datetime
    end: datetime
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSetFacts:
    """What the metadata says besides the schema.

    Attributes:
        dataset: the FOCUS dataset, `CostAndUsage` or `ContractCommitment`.
        instance: a name that stays the same from export to export of one dataset.
        version: FOCUS version.
        generator_version: version of this program.
        created: when the file was made.
        sectors: slices of time, for a dataset that is a time series.
        data_file: name of the data file, beside the metadata.
    """

    dataset: str
    instance: str
    version: str
    generator_version: str
    created: datetime
    sectors: Sequence[TimeSector]
    data_file: str


def metadata_document(schema: pa.Schema, facts: DataSetFacts) -> dict[str, Any]:
    """DataGenerator, DatasetInstance, Schema with ColumnDefinition, and Recency, in FOCUS names.

    Ids are made from what they identify: the same instance and the same structure have the same id in every export,
    and another structure, FOCUS version or program version has another schema id.
    """
    columns = [_column(field) for field in schema]
    instance_id = str(uuid.uuid5(_NAMESPACE, f"{facts.dataset}/{facts.instance}"))
    structure = json.dumps([facts.version, facts.generator_version, columns])
    schema_id = str(uuid.uuid5(_NAMESPACE, f"{instance_id}/{structure}"))
    now = format_time(facts.created.replace(microsecond=0))
    return {
        "DataGenerator": {"DataGenerator": _GENERATOR},
        "DatasetInstance": [
            {
                "DatasetInstanceId": instance_id,
                "DatasetInstanceName": facts.instance,
                "FocusDatasetId": facts.dataset,
            }
        ],
        "Schema": [
            {
                "SchemaId": schema_id,
                "CreationDate": now,
                "FocusVersion": facts.version,
                "DatasetInstanceId": instance_id,
                "DataGeneratorVersion": facts.generator_version,
                "ColumnDefinition": columns,
            }
        ],
        "Recency": [_recency(instance_id, now, facts)],
        "x_Artifacts": [{"File": facts.data_file, "SchemaId": schema_id}],
    }


def with_history(document: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """The document with the schemas that the same dataset had before, oldest first, and the one in use last.

    A change of structure, of the FOCUS version or of this program's version so adds a Schema object beside the others;
    an export without such a change keeps the Schema object that there is.

    Args:
        document: as `metadata_document` answers.
        earlier: a document that stood in its place; one of another dataset, or of no dataset, adds nothing.
    """
    (instance,) = document["DatasetInstance"]
    identity = instance["DatasetInstanceId"]
    known = [
        schema
        for schema in earlier.get("Schema", [])
        if isinstance(schema, dict) and schema.get("DatasetInstanceId") == identity and "SchemaId" in schema
    ]
    mine = document["Schema"][-1]
    by_id: dict[str, dict[str, Any]] = {}
    for schema in sorted([*known, *document["Schema"]], key=lambda schema: str(schema.get("CreationDate"))):
        by_id.setdefault(schema["SchemaId"], schema)
    current = by_id.pop(mine["SchemaId"])
    return document | {"Schema": [*by_id.values(), current]}


def _recency(instance_id: str, now: str, facts: DataSetFacts) -> dict[str, Any]:
    recency: dict[str, Any] = {
        "DatasetInstanceId": instance_id,
        "DatasetInstanceLastUpdated": now,
        "RecencyLastUpdated": now,
    }
    if facts.dataset == "ContractCommitment":
        return recency | {"DatasetInstanceComplete": True}
    sectors = [
        {
            "TimeSectorStart": format_time(sector.start),
            "TimeSectorEnd": format_time(sector.end),
            "TimeSectorComplete": sector.complete,
            "TimeSectorLastUpdated": now,
        }
        for sector in facts.sectors
    ]
    return recency | {"TimeSectors": sectors}


def _column(field: pa.Field) -> dict[str, Any]:
    definition: dict[str, Any] = {"ColumnName": field.name}
    if pa.types.is_decimal(field.type):
        definition |= {"DataType": "DECIMAL", "NumericPrecision": field.type.precision, "NumberScale": field.type.scale}
    elif pa.types.is_timestamp(field.type):
        definition["DataType"] = "TIMESTAMP"
    else:
        definition |= {"DataType": "STRING", "StringEncoding": "UTF-8"}
    if field.name in DEPRECATED:
        definition["Deprecated"] = True
    if field.name == "Tags":
        definition["ProviderTagPrefixes"] = [TAG_PREFIX]
    return definition
