"""Scales and blanks of dcgm-exporter's values."""

import numpy as np
import pytest

from gpuwaste.ingest.prometheus.metrics import Scale, blank, decide_scales

RATIO, PERCENT = Scale.RATIO, Scale.PERCENT


@pytest.mark.parametrize(
    ("largest", "usual", "scales"),
    [
        ({"a": 97.0, "b": 3.0}, PERCENT, {"a": PERCENT, "b": PERCENT}),
        ({"a": 0.97}, PERCENT, {"a": RATIO}),  # whole per cents are never between 0 and 1
        ({"a": 0.0, "b": 1.0}, PERCENT, {"a": PERCENT, "b": PERCENT}),
        ({"a": 0.97, "b": 1.0, "c": 0.0}, PERCENT, {"a": RATIO, "b": None, "c": PERCENT}),
        ({"a": 0.97, "b": 0.5}, RATIO, {"a": RATIO, "b": RATIO}),
        ({"a": 1.2}, RATIO, {"a": RATIO}),  # MIG instances show a little more than all
        ({"a": 83.0, "b": 0.4, "c": 0.0}, RATIO, {"a": PERCENT, "b": None, "c": RATIO}),
        ({}, RATIO, {}),
    ],
)
def test_the_scale_is_recognised_and_never_assumed(largest, usual, scales):
    assert decide_scales(largest, usual=usual) == scales


def test_blanks_are_no_readings():
    values = np.array([0.0, 42.0, 100.0, -1.0, np.nan, 2147483632.0, 9223372036854775794.0, 3e8])
    assert blank(values, activity=True).tolist() == [False, False, False, True, True, True, True, True]
    memory = np.array([0.0, 141_000.0, 2147483632.0, 9.2e18])
    assert blank(memory, activity=False).tolist() == [False, False, True, True]
