"""Kubernetes quantities, exactly: `100m`, `1.5Gi`, `2e3`."""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["cpu_milli", "memory_bytes", "parse_quantity", "whole_count"]

_FORM = re.compile(
    r"^(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))(?:[eE](?P<exponent>[+-]?\d+)|(?P<suffix>[KMGTPE]i|[numkMGTPE]))?$"
)
_SCALE = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "k": Fraction(10**3),
    **{letter: Fraction(1000**power) for power, letter in enumerate("MGTPE", start=2)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)},
}
_LARGEST_EXPONENT = 30  # beyond any quantity; keeps a hostile "1e999999999" from filling the memory


def parse_quantity(text: str | float) -> Fraction:
    """The exact value of a quantity; the forms are those of apimachinery's resource.Quantity.

    Raises:
        ValueError: it is no quantity.
    """
    found = _FORM.match(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no Kubernetes quantity like 100m, 1.5Gi or 2")
    number = Fraction(found["number"])
    if found["exponent"] is not None:
        exponent = int(found["exponent"])
        if abs(exponent) > _LARGEST_EXPONENT:
            raise ValueError(f"{text!r} is out of range")
        return number * Fraction(10) ** exponent
    return number * _SCALE.get(found["suffix"], Fraction(1))


def _up(value: Fraction) -> int:
    # As Kubernetes does: what is asked for is never rounded away.
    return -(-value.numerator // value.denominator)


def cpu_milli(text: str | float) -> int:
    """CPU in thousandths of a core, rounded up."""
    return _up(parse_quantity(text) * 1000)


def memory_bytes(text: str | float) -> int:
    """Memory in bytes, rounded up."""
    return _up(parse_quantity(text))


def whole_count(text: str | float) -> int:
    """A count of an extended resource; they are whole by the API server's own rule."""
    return _up(parse_quantity(text))
