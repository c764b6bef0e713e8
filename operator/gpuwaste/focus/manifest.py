"""The manifest of a published period: which files it has, what they add up to, and whether they may still change."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, PlainSerializer, ValidationError

from gpuwaste.model.errors import InputError
from gpuwaste.model.money import exact
from gpuwaste.model.units import format_time
from gpuwaste.settings.yaml_files import FileModel

__all__ = [
    "FORMAT",
    "Adjustment",
    "FileEntry",
    "Manifest",
    "ReceiverTotal",
    "Series",
    "parse_manifest",
    "render_manifest",
    "totals_hash",
]

FORMAT = 1
"""Of the manifest; a reader refuses a higher one."""

Money = Annotated[Decimal, PlainSerializer(lambda amount: f"{amount:f}", return_type=str)]
Time = Annotated[AwareDatetime, PlainSerializer(format_time, return_type=str)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(FileModel):
    model_config = ConfigDict(serialize_by_alias=True)


class Series(_Part):
    """What every period of one archive has in common; two different series never share a folder."""

    length: Literal["hour", "day", "week", "month", "span"]
    focus_version: Literal["1.3", "1.4"]
    method: str
    grouping: Literal["namespace", "workload", "team"]
    grain: Literal["hour", "day"]
    formats: tuple[str, ...]
    source: Literal["ledger", "bill"]
    names: dict[str, str] = Field(default_factory=dict)


class FileEntry(_Part):
    """A file of a period; `name` is its path below the root of the archive."""

    name: str
    format: str
    size_bytes: int
    sha256: Sha256


class ReceiverTotal(_Part):
    """What one receiver, or one kind of remainder, is charged in a period; exact."""

    currency: str
    receiver_id: str | None = None
    receiver_name: str | None = None
    remainder_reason: str | None = None
    cluster: str | None = None
    namespace: str | None = None
    team: str | None = None
    workload_kind: str | None = None
    workload_name: str | None = None
    tags: str | None = None
    billed_cost: Money
    contracted_cost: Money
    effective_cost: Money
    list_cost: Money


class Adjustment(_Part):
    """The difference that a restatement made, carried by a later period."""

    period: str
    revision: int
    differences: tuple[ReceiverTotal, ...]


class Manifest(_Part):
    """A published period.

    Attributes:
        revision: 0 for what was published first, then the number of the restatement.
        state: `Open` until the files never change again.
        pending: what the files are being replaced by; set only while that happens, and after a kill in the middle
            of it. Each file is then wholly either the one in `files` or the one here.
        input_sha256: of the ledger hours (and the bill) that the files were made from.
        rules_sha256: of the team rules in force in those hours.
        closes_time: when the grace period is over.
        previous: name and SHA-256 of the manifest that was closed before this one in the series.
        restates: SHA-256 of the manifest that a restatement takes the place of.
        carried_in: the period that carries the difference of a restatement.
        metadata: the FOCUS metadata of the data file.
    """

    manifest_format: int = FORMAT
    generator_version: str
    series: Series
    period: str
    start: Time
    end: Time
    revision: int = 0
    state: Literal["Open", "Closed"]
    closes_time: Time
    closed_time: Time | None = None
    missing_hours: int = 0
    reason: str | None = None
    input_sha256: Sha256
    rules_sha256: Sha256
    rows: int
    charges: int
    files: tuple[FileEntry, ...]
    pending: tuple[FileEntry, ...] | None = None
    totals_sha256: Sha256
    totals: tuple[ReceiverTotal, ...]
    adjustments: tuple[Adjustment, ...] = ()
    findings: tuple[str, ...] = ()
    previous: dict[str, str] | None = None
    restates: Sha256 | None = None
    carried_in: str | None = None
    metadata: dict[str, Any]

    @property
    def closed(self) -> bool:
        """Whether its files never change again."""
        return self.state == "Closed"

    def total(self) -> dict[str, Decimal]:
        """EffectiveCost by currency, adjustments included."""
        sums: dict[str, Decimal] = {}
        with exact():
            for row in [*self.totals, *(row for one in self.adjustments for row in one.differences)]:
                sums[row.currency] = sums.get(row.currency, Decimal(0)) + row.effective_cost
            return {currency: cost.normalize() for currency, cost in sums.items()}


def totals_hash(totals: tuple[ReceiverTotal, ...], adjustments: tuple[Adjustment, ...]) -> str:
    """SHA-256 of what is charged to whom, independent of how the manifest is laid out."""
    rows = {
        "totals": [row.model_dump(mode="json") for row in totals],
        "adjustments": [row.model_dump(mode="json") for row in adjustments],
    }
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def render_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest; equal manifests give equal bytes."""
    text = json.dumps(manifest.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False)
    return f"{text}\n".encode()


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: it is none, is of a newer format, or its totals do not have the hash that it names.
    """
    try:
        raw = json.loads(data)
        newer = isinstance(raw, dict) and int(raw.get("manifestFormat", 0)) > FORMAT
        manifest = None if newer else Manifest.model_validate(raw)
    except (ValueError, TypeError, ValidationError) as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(f"is no manifest of published periods: {what}", where=where) from None
    if manifest is None:
        raise InputError("was written by a newer gpuwaste", where=where, fix="use that version, or a newer one")
    if totals_hash(manifest.totals, manifest.adjustments) != manifest.totals_sha256:
        raise InputError("its totals are not those that it was hashed with: it was changed", where=where)
    return manifest
