import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.cli.share import share as command
from gpuwaste.model.errors import InputError
from gpuwaste.packing.headroom import Series, share
from gpuwaste.packing.series_file import read_series

HOUR = 60


def make_series(rows, memory=None, step=60.0):
    duty = np.array(rows, dtype=np.float32)
    return Series(
        pods=[f"p{i}" for i in range(len(rows))],
        duty_pct=duty,
        peak_memory_gib=np.array(memory or [10.0] * len(rows)),
        step_seconds=step,
    )


def grouped(series, **options):
    given_ = {"memory_gib": 80.0, "promise": 0.01, "min_hours": 6.0, "random": np.random.default_rng(1)} | options
    return share(series, **given_)


def flat(level, hours=12):
    return [float(level)] * (hours * HOUR)


def test_quiet_pods_share_one_gpu():
    answer = grouped(make_series([flat(10)] * 6))
    assert answer.gpus == 1
    assert answer.groups[0].predicted_overload == 0.0


def test_memory_is_a_hard_limit():
    answer = grouped(make_series([flat(1)] * 4, memory=[41.0, 41.0, 39.0, 39.0]))
    assert answer.gpus == 2
    assert all(group.peak_memory_gib <= 80 for group in answer.groups)


def test_pods_busy_at_the_same_time_do_not_share_and_others_do():
    by_day = flat(5, 6) + flat(70, 6)
    by_night = flat(60, 6) + flat(5, 6)
    assert grouped(make_series([by_day, by_day])).gpus == 2
    assert grouped(make_series([by_day, by_night])).gpus == 1


def test_a_rare_overload_is_told_with_its_uncertainty():
    base = np.full(12 * HOUR, 20.0)
    spiky = base.copy()
    spiky[5] = 95.0
    answer = grouped(make_series([base, spiky]), promise=0.05)
    group = answer.groups[0]
    assert len(group.pods) == 2
    assert group.observed_overload == pytest.approx(1 / 720)
    assert group.observed_overload <= group.predicted_overload <= 0.01


@pytest.mark.parametrize(
    ("row", "memory", "why"),
    [
        pytest.param(flat(1, 3) + [np.nan] * 9 * HOUR, 1, "3.0 h of samples", id="too short"),
        pytest.param(([1.0, np.nan] * (6 * HOUR)), 1, "missing", id="gaps"),
        pytest.param(flat(1), 81, "peak memory", id="too much memory"),
        pytest.param([np.nan] * (12 * HOUR), 1, "0.0 h of samples", id="never seen"),
    ],
)
def test_what_is_not_known_well_keeps_its_gpu(row, memory, why):
    answer = grouped(make_series([row, flat(1)], memory=[memory, 1.0]), min_hours=5.9)
    assert [refused.pod for refused in answer.refused] == ["p0"]
    assert why in answer.refused[0].why
    assert answer.gpus == 2


def test_absent_samples_count_at_the_maximum():
    half_there = [*flat(80, 6)[:-1], 80.0] + [np.nan] * 6 * HOUR
    late = [np.nan] * 6 * HOUR + flat(30, 6)
    assert grouped(make_series([half_there, late])).gpus == 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_every_pod_is_somewhere_once_and_no_group_breaks_its_rules(seed, pods):
    random = np.random.default_rng(seed)
    rows = random.choice([0.0, 5.0, 40.0, 90.0], size=(pods, 7 * HOUR), p=[0.6, 0.3, 0.08, 0.02])
    memory = random.uniform(1, 60, pods).tolist()
    answer = grouped(make_series(rows, memory=memory))
    names = [pod for group in answer.groups for pod in group.pods] + [refused.pod for refused in answer.refused]
    assert sorted(names) == sorted(f"p{i}" for i in range(pods))
    for group in answer.groups:
        members = [int(pod[1:]) for pod in group.pods]
        assert sum(memory[i] for i in members) <= 80 + 1e-6
        if len(members) > 1:
            assert group.predicted_overload <= 0.002
            assert np.percentile(rows[members], 99, axis=1).sum() <= 130 + 1e-3


def test_a_margin_is_left_until_a_week_was_seen():
    pair = [[47.0] * 168, [48.0] * 168]
    assert grouped(make_series(pair, step=3600.0)).gpus == 1
    short = grouped(make_series([row[:100] for row in pair], step=3600.0))
    assert (short.gpus, short.margin_pct) == (2, 10.0)


def test_the_risk_is_counted():
    base = np.full(12 * HOUR, 20.0)
    spiky = base.copy()
    spiky[5] = 95.0
    group = grouped(make_series([base, spiky]), promise=0.05).groups[0]
    assert group.windows_over == 1
    assert group.lost_work == pytest.approx(15 / (base.sum() + spiky.sum()))


GENTD = Path(__file__).resolve().parents[4] / "shared" / "traces" / "genai2026" / "gentd26_gpu_series_part.csv.gz"
SPLITS = {
    "first half": lambda hour, busy: hour < 8,
    "second half": lambda hour, busy: hour >= 8,
    "even hours": lambda hour, busy: hour % 2 == 0,
    "odd hours": lambda hour, busy: hour % 2 == 1,
    "quiet hours": lambda hour, busy: np.isin(hour, busy[:8]),
    "busy hours": lambda hour, busy: np.isin(hour, busy[8:]),
}


@pytest.fixture(scope="module")
def gentd(tmp_path_factory):
    path = tmp_path_factory.mktemp("gentd") / "series.csv"
    path.write_bytes(gzip.decompress(GENTD.read_bytes()))
    return read_series(path)


@pytest.mark.skipif(not GENTD.is_file(), reason=f"no trace {GENTD}")
@pytest.mark.parametrize("split", SPLITS)
def test_the_promise_holds_on_hours_that_were_not_seen(gentd, split):
    hour = (np.arange(gentd.duty_pct.shape[1]) * gentd.step_seconds // 3600).astype(int)
    load = np.nansum(gentd.duty_pct, axis=0)
    busy = np.argsort([load[hour == one].mean() for one in range(16)])
    fit = SPLITS[split](hour, busy)
    answer = grouped(replace(gentd, duty_pct=gentd.duty_pct[:, fit]), min_hours=4.0)
    row = {pod: index for index, pod in enumerate(gentd.pods)}
    judged = [
        float((np.nansum(gentd.duty_pct[[row[pod] for pod in group.pods]][:, ~fit], axis=0) > 100).mean())
        for group in answer.groups
        if len(group.pods) > 1
    ]
    assert len(judged) >= 15
    assert answer.gpus <= 45 < len(gentd.pods)
    assert max(judged) <= 0.01


def test_seven_days_make_high_confidence():
    assert grouped(make_series([flat(1)])).confidence == "Low"
    assert grouped(make_series([flat(1, 24)])).confidence == "Medium"
    assert grouped(make_series([[1.0] * 168], step=3600.0)).confidence == "High"


def write_series(folder, text):
    path = folder / "series.csv"
    path.write_text(text, encoding="utf-8")
    return path


def run(folder, text, *more):
    path = write_series(folder, text)
    return CliRunner().invoke(command, ["--series", str(path), "--out", str(folder / "groups.json"), *more])


HEADER = "t_s,pod,gpu_duty_pct,gpu_mem_gib\n"


def test_command_reads_simultaneous_samples_and_gaps(tmp_path):
    lines = [f"{t * 60},{pod},{'' if t % 50 == 7 else 12.5},3" for t in range(400) for pod in ("a", "b")]
    result = run(tmp_path, HEADER + "\n".join(lines) + "\n")
    assert result.exit_code == 0, result.output
    body = json.loads((tmp_path / "groups.json").read_text(encoding="utf-8"))
    assert body["gpus"] == 1
    assert sorted(body["groups"][0]["pods"]) == ["a", "b"]
    assert body["refused"] == []


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("t_s,pod,gpu_duty_pct\n", "gpu_mem_gib", id="missing column"),
        pytest.param(HEADER + "0,a,101,1\n", "more than 100", id="over 100 %"),
        pytest.param(HEADER + "0,a,-1,1\n", "negative", id="negative"),
        pytest.param(HEADER + "0,,1,1\n", "empty", id="no pod"),
        pytest.param(HEADER + "x,a,1,1\n", "t_s", id="time no number"),
    ],
)
def test_bad_series_are_refused(tmp_path, text, part):
    result = run(tmp_path, text)
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "groups.json").exists()


def test_no_samples_give_no_groups(tmp_path):
    assert run(tmp_path, HEADER).exit_code == 0
    assert json.loads((tmp_path / "groups.json").read_text(encoding="utf-8"))["gpus"] == 0


@pytest.mark.parametrize("flags", [("--promise", "0"), ("--promise", "1.5"), ("--memory-gib", "-1")])
def test_senseless_flags(tmp_path, flags):
    assert run(tmp_path, HEADER, *flags).exit_code == 2
