"""Profiles, instances and processes chosen for workloads: rates served, latency and memory kept, fewest GPUs."""

import csv
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.cli.mig import mig
from gpuwaste.model.errors import InputError
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.packing.mig import Layout, legal_geometries, maximal
from gpuwaste.packing.option_values import Chosen, Option, Workload
from gpuwaste.packing.options import best_profile, choose_options
from gpuwaste.packing.options_verifier import options_violations

TRACES = Path(__file__).resolve().parents[4] / "shared" / "traces"
A100, A100_40 = PRODUCTS["A100-80GB"], PRODUCTS["A100-40GB"]
PARVA = {1: "1g.10gb", 2: "2g.20gb", 3: "3g.40gb", 4: "4g.40gb", 7: "7g.80gb"}
MISO = {"1g": "1g.5gb", "2g": "2g.10gb", "3g": "3g.20gb", "4g": "4g.20gb", "7g": "7g.40gb"}
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no traces in {TRACES}")


def option(profile, throughput, **more):
    return Option(workload=more.pop("workload", "w"), profile=profile, throughput=throughput, **more)


def choose(workloads, options, **more):
    return choose_options(A100, workloads, options, time_limit_seconds=10, **more)


def test_the_option_with_most_for_a_gpu_is_taken():
    answer = choose([Workload(name="w", rate=100)], [option("1g.10gb", 10), option("7g.80gb", 60)])
    assert (answer.gpus, answer.bound) == (2, 2)
    assert options_violations(A100, [Workload(name="w", rate=100)], answer) == []


def test_processes_multiply_throughput_and_memory():
    one = option("2g.20gb", 10, processes=3, memory_gib=6.0)
    answer = choose([Workload(name="w", rate=30)], [one])
    assert answer.chosen == (Chosen(option=one, count=1),)
    tight = replace(one, memory_gib=6.5)
    refused = choose([Workload(name="w", rate=30)], [tight])
    assert refused.gpus == 0
    assert "21.00 GiB with contexts is more than the 20.00 GiB" in refused.refused[0][1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param([], "needs a trial", id="no option"),
        pytest.param([option("1g.10gb", None)], "throughput was not measured", id="not measured"),
        pytest.param([option("1g.10gb", 5)], "latency was not measured", id="no latency"),
        pytest.param([option("1g.10gb", 5, latency_seconds=0.3)], "above 0.2 s", id="too slow"),
        pytest.param([option("1g.5gb", 5, latency_seconds=0.1)], "has no profile 1g.5gb", id="profile of another GPU"),
    ],
)
def test_a_workload_that_cannot_be_served_is_refused_with_the_reason(options, why):
    answer = choose([Workload(name="w", rate=1, latency_seconds=0.2)], options)
    assert (answer.gpus, answer.layouts) == (0, ())
    assert why in answer.refused[0][1]


def test_one_profile_a_gpu_where_it_has_to_be():
    workloads = [Workload(name="a", rate=1), Workload(name="b", rate=1)]
    options = [option("3g.40gb", 1, workload="a"), option("4g.40gb", 1, workload="b")]
    assert choose(workloads, options).gpus == 1
    uniform = choose(workloads, options, uniform=True)
    assert uniform.gpus == uniform.bound == 2
    assert all(len({name for name, _ in layout.instances}) == 1 for layout in uniform.layouts)


def fewest_by_hand(rate, options, limit):
    """The fewest GPUs for one workload by trying every multiset of maximal layouts."""
    best = {one.profile: one.total_throughput for one in options}
    names = [profile.name for profile in A100.profiles]
    worth = sorted(
        {
            sum(count * best.get(name, 0) for name, count in zip(names, row, strict=True))
            for row in maximal(legal_geometries(A100))
        }
    )
    for gpus in range(1, limit):
        if gpus * worth[-1] >= rate - 1e-9:
            return gpus
    return math.inf


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.sampled_from(list(PARVA.values())), st.integers(1, 50), min_size=1), st.integers(1, 600))
def test_one_workload_needs_as_few_gpus_as_can_be(throughputs, rate):
    options = [option(profile, float(value)) for profile, value in throughputs.items()]
    answer = choose([Workload(name="w", rate=rate)], options)
    assert answer.gpus == answer.bound == fewest_by_hand(rate, options, 700)


def parva_options():
    for path in sorted((TRACES / "parvagpu").glob("*.csv")):
        if not path.stem.startswith("SLO"):
            for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
                yield Option(
                    workload=path.stem,
                    profile=PARVA[int(row["Mig instance"])],
                    processes=int(row["Workload Number"]),
                    batch=int(row["Batch size"]),
                    throughput=float(row["Throughput"]),
                    latency_seconds=float(row["Latency"]),
                )


def parva_scenario(number, names):
    def read(kind):
        lines = (TRACES / "parvagpu" / f"SLO_{kind}.csv").read_text(encoding="utf-8").split()
        return lines[number - 1].split(",")

    return [
        Workload(name=name, rate=float(rate), latency_seconds=float(latency) / 1000)
        for name, rate, latency in zip(names, read("req_rate"), read("latency"), strict=True)
        if rate != "N/A"
    ]


def published(number):
    lines = (TRACES / "parvagpu" / f"SLO{number}_ParvaGPU_deploy.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(lines))


@needs_traces
@pytest.mark.parametrize(("number", "gpus"), [(1, 2), (2, 3), (3, 4)])
def test_parvagpu_scenarios(number, gpus):
    options = list(parva_options())
    workloads = parva_scenario(number, sorted({one.workload for one in options}))
    answer = choose(workloads, options)
    rows = published(number)
    theirs = len({row["Num GPU"] for row in rows})
    slices = sum(int(one.option.profile[0]) * one.count for one in answer.chosen)
    their_slices = sum(int(row["Instance size"]) for row in rows)
    print(f"scenario {number}: {answer.gpus} GPUs and {slices} slices, published {theirs} and {their_slices}")
    assert options_violations(A100, workloads, answer) == []
    assert answer.refused == ()
    # Where the published number is not beaten it is proven that it cannot be.
    assert answer.gpus == answer.bound == gpus <= theirs
    assert slices <= their_slices


@needs_traces
def test_miso_pairs_get_their_best_profile():
    rows = list(csv.DictReader((TRACES / "miso" / "mig_step_seconds.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 32
    for row in rows:
        pair = Workload(name=f"{row['model']}-{row['batch']}", rate=1.0)
        options = [
            Option(workload=pair.name, profile=name, throughput=1 / float(row[short]) if row[short] else None)
            for short, name in MISO.items()
        ]
        most = {profile.name: profile.max_count for profile in A100_40.profiles}
        rates = {one.profile: most[one.profile] * one.throughput for one in options if one.throughput}
        best = best_profile(A100_40, pair, options)
        assert best is not None
        assert rates[best.profile] == max(rates.values())
        assert row["1g"] or best.profile != "1g.5gb"
        # And in a plan: no single profile, nor any mixture, serves three GPUs' worth of the best on two.
        wanted = replace(pair, rate=3 * max(rates.values()) * (1 - 1e-9))
        answer = choose_options(A100_40, [wanted], options, time_limit_seconds=10)
        assert answer.gpus == answer.bound <= 3
        assert answer.gpus <= min(math.ceil(wanted.rate / rate - 1e-9) for rate in rates.values())
        assert all(one.option.throughput for one in answer.chosen)
        assert len(answer.unusable) == sum(not row[short] for short in MISO)


def right():
    workloads = [Workload(name="w", rate=30, latency_seconds=1.0)]
    answer = choose(workloads, [option("3g.40gb", 10, latency_seconds=0.5, memory_gib=9)])
    return workloads, answer


def test_a_right_answer_is_accepted():
    assert options_violations(A100, *right()) == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param(lambda a: replace(a, chosen=()), "is served 0 of 30", id="nothing runs"),
        pytest.param(
            lambda a: replace(a, chosen=(replace(a.chosen[0], option=option("3g.40gb", 10, workload="x")),)),
            "not asked for",
            id="unknown workload",
        ),
        pytest.param(
            lambda a: replace(a, chosen=(replace(a.chosen[0], option=option("3g.40gb", 10, latency_seconds=2.0)),)),
            "cannot be used: latency",
            id="too slow",
        ),
        pytest.param(
            lambda a: replace(a, chosen=(replace(a.chosen[0], option=replace(a.chosen[0].option, memory_gib=44.0)),)),
            "cannot be used: peak memory",
            id="no memory",
        ),
        pytest.param(lambda a: replace(a, layouts=()), "the layouts hold", id="no layouts"),
        pytest.param(lambda a: replace(a, gpus=7), "7 GPUs are told of", id="wrong number"),
        pytest.param(lambda a: replace(a, bound=7), "the bound 7 is above", id="bound too high"),
        pytest.param(
            lambda a: replace(a, layouts=(Layout(count=3, instances=(("3g.40gb", 1),)),)), "cannot start", id="start"
        ),
        pytest.param(
            lambda a: replace(a, layouts=(Layout(count=1, instances=(("3g.40gb", 0),) * 3),)), "no legal", id="overlap"
        ),
    ],
)
def test_every_way_to_be_wrong_is_found(change, part):
    workloads, answer = right()
    assert any(part in one for one in options_violations(A100, workloads, change(answer)))


WORKLOADS = "workload,rate,slo_s\nw,30,1\nv,2,\n"
OPTIONS = (
    "workload,profile,processes,batch,throughput,latency_s,memory_gib\n"
    "w,3g.40gb,2,8,10,0.5,9\nv,1g.10gb,,,3,,\nv,2g.20gb,,,,,\n"
)


def run(tmp_path, workloads=WORKLOADS, options=OPTIONS, *more):
    (tmp_path / "w.csv").write_text(workloads, encoding="utf-8")
    (tmp_path / "o.csv").write_text(options, encoding="utf-8")
    files = ["--workloads", str(tmp_path / "w.csv"), "--options", str(tmp_path / "o.csv")]
    return CliRunner().invoke(mig, ["--gpu", "A100-80GB", *files, "--out", str(tmp_path / "mig.json"), *more])


def test_command_serves_workloads(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    body = json.loads((tmp_path / "mig.json").read_text(encoding="utf-8"))
    assert body["gpus"] == body["bound"] == 2 == sum(layout["count"] for layout in body["layouts"])
    chosen = {one["workload"]: one for one in body["workloads"]}
    assert (chosen["w"]["instances"], chosen["w"]["throughput"]) == (2, 40)
    assert not chosen["v"]["memory_measured"]
    assert body["unusable"] == [{"workload": "v", "profile": "2g.20gb", "why": "throughput was not measured"}]


@pytest.mark.parametrize(
    ("workloads", "options", "part"),
    [
        pytest.param("workload,rate\nw,1\n", OPTIONS, "slo_s", id="no column"),
        pytest.param("workload,rate,slo_s\n", OPTIONS, "has no workload", id="no workload"),
        pytest.param("workload,rate,slo_s\nw,0,\n", OPTIONS, "not above 0", id="no rate"),
        pytest.param("workload,rate,slo_s\nw,1,\nw,2,\n", OPTIONS, "stands twice", id="twice"),
        pytest.param("workload,rate,slo_s\n,1,\n", OPTIONS, "is empty", id="no name"),
        pytest.param(WORKLOADS, OPTIONS.replace(",2,8,", ",0,8,"), "below 1", id="no process"),
        pytest.param(WORKLOADS, OPTIONS.replace("0.5", "-1"), "negative", id="negative latency"),
        pytest.param(WORKLOADS, OPTIONS.replace("3g.40gb", ""), "is empty", id="no profile"),
        pytest.param(WORKLOADS, OPTIONS.replace("10,0.5", "nan,0.5"), "not a number", id="NaN"),
    ],
)
def test_bad_files_are_refused(tmp_path, workloads, options, part):
    result = run(tmp_path, workloads, options)
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "mig.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--demand", "1g.10gb=1", "--workloads", "w.csv"],
        [],
        ["--workloads", "w.csv"],
        ["--current", "x", "--workloads", "w.csv", "--options", "o.csv"],
    ],
)
def test_senseless_flags(tmp_path, arguments):
    result = CliRunner().invoke(mig, ["--gpu", "A100-80GB", "--out", str(tmp_path / "x"), *arguments])
    assert result.exit_code == 2


def test_instances_may_be_mixed_within_one_workload():
    rates = [("3g.40gb", 5.0), ("4g.40gb", 7.0)]
    answer = choose([Workload(name="w", rate=12)], [option(*one) for one in rates])
    assert answer.gpus == 1
    assert sorted(one.option.profile for one in answer.chosen) == ["3g.40gb", "4g.40gb"]
    assert all(count == 1 for count, _ in itertools.groupby(one.count for one in answer.chosen))
