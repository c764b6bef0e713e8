"""The rules of AllocatedMethodDetails: one text by itself, and a million of them that differ only in their digits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation, localcontext
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DetailsCheck", "check_details", "details_problems"]

_RULE: Final = "CAU-AllocatedMethodDetailsObject-O"
_RATIO_TYPE: Final = pa.decimal128(38, 28)
_FOCUS_KEYS: Final = ("AllocatedRatio", "UsageUnit", "UsageQuantity")
_UNIT: Final = re.compile(r"(\d+ )?[A-Z][A-Za-z0-9]*( [A-Z][A-Za-z0-9]*)*([-/][A-Z][A-Za-z]*)?")
_RATIO_TEXT: Final = re.compile(rb'"AllocatedRatio":\s*(\d+)(?:\.(\d+))?(?=[,}\s])')
_MAX_TEMPLATES: Final = 64
_MAX_DIGITS: Final = 18
_ZERO: Final = ord("0")
_SKELETON: Final = np.arange(256, dtype=np.uint8)
_SKELETON[_ZERO : _ZERO + 10] = _ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailsCheck:
    """What a column of details says.

    Attributes:
        ratio: decimal128(38,28)[n], the sum of AllocatedRatio over the elements; null where there is none.
        problems: (row, rule id, why), in no order.
    """

    ratio: pa.Array
    problems: list[tuple[int, str, str]]


def details_problems(text: str) -> tuple[Decimal | None, list[tuple[str, str]]]:
    """The ratio of one text, and each rule of the object that it breaks with the reason."""
    try:
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=_unique)
    except (ValueError, InvalidOperation) as error:
        return None, [(f"{_RULE}-001-M", f"AllocatedMethodDetails is no JSON object: {error}")]
    elements = document.get("Elements") if isinstance(document, dict) else None
    if not isinstance(elements, list) or not elements:
        return None, [(f"{_RULE}-001-M", "AllocatedMethodDetails must hold a filled array Elements")]
    if not all(isinstance(element, dict) for element in elements):
        return None, [(f"{_RULE}-002-M", "each item of Elements must be an object")]
    problems: list[tuple[str, str]] = []
    for element in elements:
        problems += _element_problems(element)
    ratios = [element.get("AllocatedRatio") for element in elements]
    if all(isinstance(ratio, Decimal) for ratio in ratios):
        return sum(ratios, Decimal(0)), problems
    return None, problems


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _element_problems(element: dict[str, Any]) -> list[tuple[str, str]]:
    problems = []
    if any(isinstance(value, (dict, list)) for value in element.values()):
        problems.append((f"{_RULE}-003-M", "an element must be flat"))
    unknown = [key for key in element if key not in _FOCUS_KEYS and not key.startswith("x_")]
    if unknown:
        problems.append((f"{_RULE}-009-C", f"key {unknown[0]!r} must begin with x_"))
    if "AllocatedRatio" not in element:
        problems.append((f"{_RULE}-012-M", "each element must hold an AllocatedRatio"))
    elif not isinstance(element["AllocatedRatio"], Decimal):
        problems.append((f"{_RULE}-013-M", "AllocatedRatio must be a number"))
    quantity = element.get("UsageQuantity")
    if quantity is not None and not isinstance(quantity, Decimal):
        problems.append((f"{_RULE}-021-M", "UsageQuantity must be a number"))
    unit = element.get("UsageUnit")
    if quantity is not None and unit is None:
        problems.append((f"{_RULE}-016-C", "UsageUnit must stand beside UsageQuantity"))
    if unit is not None and not (isinstance(unit, str) and _UNIT.fullmatch(unit)):
        problems.append((f"{_RULE}-018-O", f"UsageUnit {unit!r} must be a unit like GPU-Hours"))
    return problems


def check_details(column: pa.Array) -> DetailsCheck:
    """Check every text of a column.

    Texts that have the same characters but for their digits have the same structure: one of them is read as JSON, and
    of the others only the digits of the ratio. Texts of which there are few alike are read one by one.
    """
    ratios = np.zeros(len(column), object)
    ratios[:] = None
    problems: list[tuple[int, str, str]] = []
    texts = column.cast(pa.large_string())
    present = pc.is_valid(texts).to_numpy(zero_copy_only=False)
    units = np.zeros(len(column), np.int64)
    scale = np.full(len(column), -1, np.int64)
    slow = present.copy()
    for rows, matrix in _by_length(texts, present):
        slow[_read_alike(rows, matrix, units, scale, problems)] = False
    for row in np.flatnonzero(slow).tolist():
        ratio, found = details_problems(texts[row].as_py())
        ratios[row] = ratio
        problems += [(row, rule, why) for rule, why in found]
    return DetailsCheck(ratio=_ratio_column(ratios, units, scale), problems=problems)


def _by_length(texts: pa.Array, present: NDArray[np.bool_]) -> list[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """The texts of each common length as rows of bytes."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    length = np.diff(offsets)
    found = []
    lengths, counts = np.unique(length[present], return_counts=True)
    for size in lengths[np.argsort(-counts)][:_MAX_TEMPLATES].tolist():
        rows = np.flatnonzero(present & (length == size))
        if len(rows) * size == int(offsets[rows[-1]]) + size - int(offsets[rows[0]]):
            matrix = data[offsets[rows[0]] : offsets[rows[0]] + len(rows) * size].reshape(len(rows), size)
        else:
            matrix = data[offsets[rows][:, None] + np.arange(size)]
        found.append((rows, matrix))
    return found


def _read_alike(
    rows: NDArray[np.int64],
    matrix: NDArray[np.uint8],
    units: NDArray[np.int64],
    scale: NDArray[np.int64],
    problems: list[tuple[int, str, str]],
) -> NDArray[np.int64]:
    """Fill `units` and `scale` for texts that share a structure, and answer which rows were read."""
    # Most bytes are the same in all texts: only those that differ somewhere tell structures apart.
    varying = np.flatnonzero((matrix != matrix[0]).any(axis=0))
    skeleton = _SKELETON[matrix[:, varying]]
    left = np.arange(len(rows))
    done = []
    for _ in range(_MAX_TEMPLATES):
        if not len(left):
            break
        same = (skeleton == skeleton[left[0]]).all(axis=1)
        alike, left = left[same[left]], left[~same[left]]
        text = matrix[alike[0]].tobytes()
        # Digits with a zero in front are no JSON number: such texts are read one by one.
        starts = [run.start() for run in re.finditer(rb"(?<![0-9.])[0-9]{2,}", text)]
        if starts:
            alike = alike[(matrix[np.ix_(alike, starts)] != _ZERO).all(axis=1)]
        if not len(alike):
            continue
        ratio, found = details_problems(matrix[alike[0]].tobytes().decode("utf-8", "replace"))
        read = _ratio_units(matrix if len(alike) == len(matrix) else matrix[alike], text)
        if ratio is None or read is None:
            continue
        units[rows[alike]], scale[rows[alike]] = read
        problems += [(row, rule, why) for rule, why in found for row in rows[alike].tolist()]
        done.append(rows[alike])
    return np.concatenate(done) if done else np.zeros(0, np.int64)


def _ratio_units(matrix: NDArray[np.uint8], text: bytes) -> tuple[NDArray[np.int64], int] | None:
    """The sum of the ratios in units of 10⁻ᵈ, and d; None where they are not plain numbers of at most 18 digits."""
    found = list(_RATIO_TEXT.finditer(text))
    if len(found) != text.count(b'"AllocatedRatio"') or not found:
        return None
    decimals = max(len(match.group(2) or b"") for match in found)
    if any(len(match.group(1)) + decimals > _MAX_DIGITS for match in found):
        return None
    total = np.zeros(len(matrix), np.int64)
    for match in found:
        value = np.zeros(len(matrix), np.int64)
        for group in (1, 2):
            for place in range(match.start(group), match.end(group)) if match.group(group) else ():
                value = value * 10 + (matrix[:, place] - _ZERO)
        total += value * 10 ** (decimals - len(match.group(2) or b""))
    return total, decimals


def _ratio_column(ratios: NDArray[np.object_], units: NDArray[np.int64], scale: NDArray[np.int64]) -> pa.Array:
    from_units = pa.nulls(len(units), _RATIO_TYPE)
    for decimals in np.unique(scale[scale >= 0]).tolist():
        whole = pa.array(units).cast(pa.decimal128(19, 0))
        scaled = pa.Array.from_buffers(pa.decimal128(38, decimals), len(whole), whole.buffers())
        here = pa.array(scale == decimals)
        from_units = pc.if_else(here, pc.if_else(here, scaled, None).cast(_RATIO_TYPE), from_units)
    if not any(ratio is not None for ratio in ratios[scale < 0].tolist()):
        return from_units
    read = pa.array([None if ratio is None else _fitted(ratio) for ratio in ratios], _RATIO_TYPE)
    return pc.coalesce(from_units, read)


def _fitted(ratio: Decimal) -> Decimal | None:
    """A ratio at the scale of the column; one of ten or more cannot be right, and is none."""
    if abs(ratio) >= 10:  # noqa: PLR2004 - what DECIMAL(38,28) leaves before the point
        return None
    with localcontext(prec=60):
        return ratio.quantize(Decimal(1).scaleb(-_RATIO_TYPE.scale))
