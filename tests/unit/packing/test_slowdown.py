import csv

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.cli.slowdown import slowdown as command
from gpuwaste.model.errors import InputError
from gpuwaste.packing.slowdown import Pairs, predict

percent = st.floats(0, 100)
HEADER = "job,a_duty_pct,a_dram_pct,a_mem_gib,b_duty_pct,b_dram_pct,b_mem_gib\n"


def make_pairs(*rows):
    columns = np.array(rows, dtype=np.float64).T
    names = ("a_duty_pct", "a_dram_pct", "a_memory_gib", "b_duty_pct", "b_dram_pct", "b_memory_gib")
    return Pairs(**dict(zip(names, columns, strict=True)))


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [(5, 5, 0.0, 0.05), (32, 33, 0.08, 0.14), (45, 45, 0.14, 0.2), (55, 55, 0.27, 0.35), (90, 85, 0.8, 0.9)],
)
def test_probability_follows_the_measured_shares(a, b, low, high):
    answer = predict(make_pairs((a, 0, 1, b, 0, 1)), memory_gib=80)
    assert low <= answer.a_p_slow[0] <= high
    assert low <= answer.b_p_slow[0] <= high


@given(percent, percent, percent, percent, st.floats(0, 30))
def test_more_load_is_never_less_likely_slow(a, a_dram, b, b_dram, more):
    least = predict(make_pairs((a, a_dram, 1, b, b_dram, 1)), memory_gib=80)
    most = predict(make_pairs((a, a_dram, 1, min(b + more, 100), b_dram, 1)), memory_gib=80)
    assert most.a_p_slow[0] >= least.a_p_slow[0]
    assert 0 <= least.a_p_slow[0] <= 1
    assert not (most.safe[0] and not least.safe[0])


def test_sides_change_places():
    one = predict(make_pairs((10, 5, 1, 60, 20, 1)), memory_gib=80)
    other = predict(make_pairs((60, 20, 1, 10, 5, 1)), memory_gib=80)
    assert one.a_p_slow[0] == other.b_p_slow[0]
    assert one.a_p_slow[0] > one.b_p_slow[0]


@pytest.mark.parametrize(
    ("row", "safe"),
    [
        pytest.param((10, 5, 30, 20, 5, 30), True, id="light"),
        pytest.param((10, 5, 50, 20, 5, 31), False, id="memory does not fit"),
        pytest.param((50, 5, 10, 50, 5, 10), False, id="busy"),
        pytest.param((10, 60, 10, 10, 60, 10), False, id="bandwidth"),
    ],
)
def test_safe_pairs(row, safe):
    assert predict(make_pairs(row), memory_gib=80).safe[0] == safe


def run(folder, text, *more):
    (folder / "pairs.csv").write_text(text, encoding="utf-8")
    return CliRunner().invoke(command, ["--pairs", str(folder / "pairs.csv"), "--out", str(folder / "out.csv"), *more])


def test_command_keeps_the_columns_and_adds_three(tmp_path):
    assert run(tmp_path, HEADER + "x,10,5,3,20,5,3\ny,90,5,3,90,5,3\n").exit_code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["job"] for row in rows] == ["x", "y"]
    assert [row["safe"] for row in rows] == ["true", "false"]
    assert float(rows[0]["a_p_slow"]) < float(rows[1]["a_p_slow"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param(HEADER.replace("b_mem_gib", "b_mem"), "b_mem_gib", id="missing column"),
        pytest.param(HEADER + "x,10,5,3,120,5,3\n", "more than 100", id="over 100 %"),
        pytest.param(HEADER + "x,10,5,3,-1,5,3\n", "negative", id="negative"),
        pytest.param(HEADER + "x,10,5,3,,5,3\n", "b_duty_pct", id="not measured"),
    ],
)
def test_bad_pairs_are_refused(tmp_path, text, part):
    result = run(tmp_path, text)
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "out.csv").exists()
