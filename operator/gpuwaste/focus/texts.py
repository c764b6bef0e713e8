"""Text columns, a whole column at a time: JSON, resource ids and plain decimal numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["ascii_text", "decimal_texts", "join", "json_object", "json_texts", "map_distinct", "uri_texts"]


def map_distinct(values: pa.Array, function: Callable[[str], str]) -> pa.Array:
    """Apply a function of text once to each distinct value of a column; null stays null."""
    coded = pc.dictionary_encode(values)
    mapped = pa.array([function(value) for value in coded.dictionary.to_pylist()], pa.string())
    return mapped.take(coded.indices)


def ascii_text(text: str) -> str:
    """The text with every character that is not printable ASCII percent-encoded in UTF-8, as URIs do."""
    return "".join(char if " " <= char <= "~" else quote(char) for char in text)


def uri_texts(values: pa.Array) -> pa.Array:
    """Each text as one segment of a URI's path."""
    return map_distinct(values, lambda text: quote(text, safe=""))


def json_texts(values: pa.Array) -> pa.Array:
    """Each text as a JSON string in ASCII: other characters are escaped, so that nothing is lost."""
    return map_distinct(values, json.dumps)


def join(*pieces: pa.Array | str) -> pa.Array:
    """Columns and constants set one behind the other; null where any piece is null."""
    return pc.binary_join_element_wise(*(pa.scalar(p) if isinstance(p, str) else p for p in pieces), "")


def decimal_texts(units: NDArray[np.int64], decimals: int) -> pa.Array:
    """Non-negative units of 10⁻ᵈ as plain numbers: no exponent, no trailing zeros."""
    whole, fraction = np.divmod(units, 10**decimals)
    padded = pc.utf8_lpad(pa.array(fraction).cast(pa.string()), width=decimals, padding="0")
    return pc.utf8_rtrim(pc.utf8_rtrim(join(pa.array(whole).cast(pa.string()), ".", padded), "0"), ".")


def json_object(pairs: list[tuple[str, pa.Array]], *, rows: int) -> pa.Array:
    """One JSON object a row from columns of JSON values; a pair whose value is null is left out of its row."""
    text = pa.array([""]).take(pa.array(np.zeros(rows, np.int8)))
    for key, values in pairs:
        text = join(text, pc.fill_null(join(f",{json.dumps(key)}:", values), ""))
    return join("{", pc.utf8_slice_codeunits(text, 1), "}")
