"""Published bills in the forms that other cost tools document for import. `docs/tools` says what was tried of each.

A layout is made from the archive alone and can be made again at any time; equal archives give equal bytes. It shows
what was charged: every period as first published, with the adjustments that it carries.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from gpuwaste.focus.layout_rows import charged_rows
from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from decimal import Decimal

    from gpuwaste.focus.archive import Archive
    from gpuwaste.focus.periods import Period

__all__ = ["LAYOUTS", "write_layout"]

Row = dict[str, Any]

_VANTAGE_ROWS: Final = 10_000
_CLOUDZERO_ROWS: Final = 1_000_000
_CLOUDZERO_VERSION: Final = "1.0.0"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a layout, by its name below the layout's folder."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How one tool wants a month.

    Attributes:
        make: the files of a month, those that point to others last.
        only_closed: whether the tool cannot take back what it was given.
        folder: the prefix of a month's files; what lies there and is not among them is removed.
    """

    make: Callable[[Period, Sequence[Row]], list[_File]]
    only_closed: bool
    folder: Callable[[Period], str]


def write_layout(archive: Archive, layout: str, months: Iterable[Period]) -> list[str]:
    """Write a layout of some months below `layouts/<layout>` of an archive.

    Files that are there with these bytes are not written again. A tool that reads while this runs meets the old or the
    new of each file; where one file points to others it is replaced last.

    Returns:
        Names of the files that were written, relative to the root.

    Raises:
        InputError: there is no such layout, or the tool cannot take these charges.
        UnreachableError: the store did not answer.
    """
    if layout not in LAYOUTS:
        raise InputError(f"{layout!r} is no layout", where="layout", fix=f"use one of {', '.join(LAYOUTS)}")
    chosen = LAYOUTS[layout]
    written = []
    for month in sorted(set(months)):
        rows = charged_rows(archive, month, only_closed=chosen.only_closed)
        files = chosen.make(month, rows) if rows else []
        root = f"layouts/{layout}"
        for file in files:
            name = f"{root}/{file.name}"
            if archive.store.read_or_none(name) != file.data:
                archive.store.write(name, file.data)
                written.append(name)
        wanted = {f"{root}/{file.name}" for file in files}
        for name in archive.store.files(f"{root}/{chosen.folder(month)}"):
            if name not in wanted:
                archive.store.delete(name)
    return written


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return sink.getvalue().encode()


def _plain(amount: Decimal) -> str:
    """Without an exponent and trailing zeros."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _batches(rows: Sequence[Row], size: int) -> Iterable[Sequence[Row]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _days(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    for day, of_day in groupby(rows, key=lambda row: str(row["day"])):
        yield day, list(of_day)


def _next_day(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


# --- Vantage, custom provider: CSV in a subset of FOCUS

_VANTAGE: Final = (
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ChargeCategory",
    "BilledCost",
    "EffectiveCost",
    "BillingCurrency",
    "ResourceId",
    "ResourceType",
    "RegionId",
    "ServiceCategory",
    "ServiceName",
    "Tags",
)


def _vantage(month: Period, rows: Sequence[Row]) -> list[_File]:
    """A file a day, and several of a day with more rows than one upload may have."""
    files = []
    for day, of_day in _days(rows):
        for number, part in enumerate(_batches(of_day, _VANTAGE_ROWS), start=1):
            data = _csv(_VANTAGE, (_vantage_row(row) for row in part))
            files.append(_File(f"{month.name}/{day}-{number}.csv", data))
    return files


def _vantage_row(row: Row) -> Sequence[Any]:
    category = row["category"]
    if category not in {"Usage", "Tax", "Credit"}:  # it knows no purchases and adjustments
        category = "Credit" if row["billed_cost"] < 0 else "Usage"
    return (
        row["day"],
        _next_day(row["day"]),
        category,
        _plain(row["billed_cost"]),
        _plain(row["effective_cost"]),
        row["currency"],
        row["resource_id"],
        row["resource_type"],
        row["region"],
        row["service_category"],
        row["service"],
        row["tags"],
    )


# --- CloudZero, AnyCost bucket: drops of whole months in the Common Bill Format

_CBF: Final = (
    "lineitem/type",
    "lineitem/description",
    "time/usage_start",
    "time/usage_end",
    "resource/id",
    "resource/service",
    "resource/account",
    "resource/region",
    "resource/usage_family",
    "usage/amount",
    "usage/units",
    "cost/cost",
    "cost/amortized_cost",
    "cost/on_demand_cost",
    "bill/invoice_id",
)


def _cloudzero(month: Period, rows: Sequence[Row]) -> list[_File]:
    """A drop with the whole month, and the manifest that points to it."""
    folder = _cloudzero_folder(month)
    keys = sorted({key for row in rows for key in json.loads(row["tags"])})
    header = (*_CBF, *(f"resource/tag:{key}" for key in keys))
    parts = [_gzipped(_csv(header, (_cbf_row(row, keys) for row in part))) for part in _batches(rows, _CLOUDZERO_ROWS)]
    drop = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    files = [_File(f"{folder}/{drop}/cost_data_{n}.csv.gz", data) for n, data in enumerate(parts, start=1)]
    manifest = {"version": _CLOUDZERO_VERSION, "current_drop_id": drop}
    return [*files, _File(f"{folder}/manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())]


def _cloudzero_folder(month: Period) -> str:
    return f"{month.start:%Y%m%d}-{month.end:%Y%m%d}"


def _cbf_row(row: Row, keys: Sequence[str]) -> Sequence[Any]:
    tags = json.loads(row["tags"])
    return (
        _cbf_type(row),
        f"{row['category']}: {row['resource_name'] or row['service']}",
        f"{row['day']}T00:00:00Z",
        f"{_next_day(row['day'])}T00:00:00Z",
        row["resource_id"],
        row["service"],
        row["account"],
        row["region"],
        row["gpu_model"],
        _plain(row["quantity"]),
        row["unit"],
        _plain(row["billed_cost"]),
        _plain(row["effective_cost"]),
        _plain(row["list_cost"]),
        row["invoice"],
        *(tags.get(key) for key in keys),
    )


def _cbf_type(row: Row) -> str:
    """Of its documented types those that are certain: what lowers a bill is a Discount there."""
    if row["category"] in {"Usage", "Tax"}:
        return str(row["category"])
    return "Discount" if row["billed_cost"] < 0 else "Usage"


def _gzipped(data: bytes) -> bytes:
    # The time in a gzip header would make equal data unequal bytes.
    return gzip.compress(data, mtime=0)


# --- Finout, custom cost center: a CSV file a day, in USD

_FINOUT: Final = {
    "ChargeCategory": "category",
    "Provider": "provider",
    "ServiceName": "service",
    "Cluster": "cluster",
    "Team": "team",
    "Namespace": "namespace",
    "WorkloadKind": "workload_kind",
    "Workload": "workload_name",
    "GpuModel": "gpu_model",
    "Remainder": "remainder",
    "ResourceId": "resource_id",
    "SubAccountId": "sub_account",
    "RegionId": "region",
}


def _finout(month: Period, rows: Sequence[Row]) -> list[_File]:
    foreign = sorted({str(row["currency"]) for row in rows} - {"USD"})
    if foreign:
        raise InputError(f"Finout takes costs in USD, and these are in {', '.join(foreign)}", where="layout finout")
    header = ("UsageDate", "Cost", "BilledCost", *_FINOUT)
    return [
        _File(f"{month.name}/{day}.csv", _csv(header, (_finout_row(row) for row in of_day)))
        for day, of_day in _days(rows)
    ]


def _finout_row(row: Row) -> Sequence[Any]:
    costs = (_plain(row["effective_cost"]), _plain(row["billed_cost"]))
    return (row["day"], *costs, *(row[name] for name in _FINOUT.values()))


# --- OpenCost, custom costs: the answer of a plugin, as JSON of its message


def _opencost(month: Period, rows: Sequence[Row]) -> list[_File]:
    """A file a day with one `CustomCostResponse` a currency."""
    files = []
    for day, of_day in _days(rows):
        ordered = sorted(of_day, key=lambda row: str(row["currency"]))
        answers = [
            _opencost_answer(month, day, currency, list(several))
            for currency, several in groupby(ordered, key=lambda row: str(row["currency"]))
        ]
        files.append(_File(f"{month.name}/{day}.json", (json.dumps(answers, indent=1) + "\n").encode()))
    return files


def _opencost_answer(month: Period, day: str, currency: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "metadata": {"layout": "custom costs by day"},
        "costSource": "gpu",
        "domain": "gpuwaste",
        "version": "v1",
        "currency": currency,
        "start": f"{day}T00:00:00Z",
        "end": f"{_next_day(day)}T00:00:00Z",
        "costs": [_opencost_cost(month, day, number, row) for number, row in enumerate(rows, start=1)],
        "errors": [],
    }


def _opencost_cost(month: Period, day: str, number: int, row: Row) -> dict[str, Any]:
    extended = {
        "billingPeriodStart": f"{month.start:%Y-%m-%dT%H:%M:%SZ}",
        "billingPeriodEnd": f"{month.end:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": row["account"],
        "effectiveCost": float(row["effective_cost"]),
        "provider": row["provider"],
        "serviceCategory": row["service_category"],
        "serviceName": row["service"],
        "subAccountId": row["sub_account"],
        "pricingQuantity": float(row["quantity"]),
        "pricingUnit": row["unit"],
    }
    cost = {
        "zone": row["region"],
        "accountName": row["account"],
        "chargeCategory": row["category"],
        "description": row["gpu_model"],
        "resourceName": row["resource_name"],
        "resourceType": row["resource_type"],
        "id": f"{day}/{number}",
        "providerId": row["resource_id"],
        "billedCost": float(row["billed_cost"]),
        "listCost": float(row["list_cost"]),
        "usageQuantity": float(row["quantity"]),
        "usageUnit": row["unit"],
        "labels": {key: str(value) for key, value in json.loads(row["tags"]).items()},
        "extendedAttributes": {key: value for key, value in extended.items() if value is not None},
    }
    return {key: value for key, value in cost.items() if value is not None}


def _by_name(month: Period) -> str:
    return month.name


LAYOUTS: Final = {
    "vantage": _Layout(make=_vantage, only_closed=True, folder=_by_name),
    "cloudzero": _Layout(make=_cloudzero, only_closed=False, folder=_cloudzero_folder),
    "finout": _Layout(make=_finout, only_closed=False, folder=_by_name),
    "opencost": _Layout(make=_opencost, only_closed=False, folder=_by_name),
}
