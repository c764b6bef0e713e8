"""From the layouts there are to a demand: fewest GPUs, fewest of them cut anew, none with a holder."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker

from gpuwaste.cli.mig import mig
from gpuwaste.model.errors import InputError
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.packing.mig import fewest_gpus, legal_geometries
from gpuwaste.packing.mig_current import CurrentGpu, change_layouts

H100 = PRODUCTS["H100-80GB"]
SEVEN = tuple(("1g.10gb", start) for start in range(7))
HALVES = (("3g.40gb", 0), ("3g.40gb", 4))
WHOLE = (("7g.80gb", 0),)


def gpu(name, instances=(), *, held=False):
    return CurrentGpu(name=name, instances=tuple(instances), held=held)


def change(demand, *current, **more):
    return change_layouts(H100, demand, current, time_limit_seconds=5, clock=Ticker(), **more)


@pytest.mark.parametrize(
    ("demand", "current", "kept", "reshaped"),
    [
        pytest.param({"1g.10gb": 7}, [gpu("a", SEVEN), gpu("b", HALVES)], ["a"], [], id="one that is right stays"),
        pytest.param({"1g.10gb": 5}, [gpu("a", SEVEN)], ["a"], [], id="surplus on a kept one is no harm"),
        pytest.param({"7g.80gb": 1, "1g.10gb": 7}, [gpu("a", SEVEN), gpu("b")], ["a"], ["b"], id="an empty one is cut"),
        pytest.param({"7g.80gb": 1}, [gpu("a", SEVEN), gpu("b")], [], ["b"], id="an empty one before a full one"),
        pytest.param({"7g.80gb": 1}, [gpu("a", SEVEN, held=True), gpu("b", HALVES)], ["a"], ["b"], id="holder stays"),
        pytest.param({"7g.80gb": 1}, [gpu("a", SEVEN, held=True)], ["a"], [], id="a GPU is added beside a holder"),
    ],
)
def test_what_stays_and_what_is_cut(demand, current, kept, reshaped):
    found = change(demand, *current)
    assert list(found.kept) == kept
    assert [name for name, _ in found.reshaped] == reshaped
    assert found.gpus == found.bound == len(kept) + found.disturbed


def test_a_holder_is_cut_only_where_it_is_allowed():
    current = [gpu("a", SEVEN, held=True)]
    assert change({"7g.80gb": 1}, *current).gpus == 2
    allowed = change({"7g.80gb": 1}, *current, allow_holders=True)
    assert (allowed.gpus, [name for name, _ in allowed.reshaped]) == (1, ["a"])
    both = change({"7g.80gb": 1}, *current, gpu("b", HALVES), allow_holders=True)
    assert [name for name, _ in both.reshaped] == ["b"]


PLACED = st.sampled_from([(), *legal_geometries(H100).values()])


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from([p.name for p in H100.profiles]), st.integers(1, 12), min_size=1),
    st.lists(st.tuples(PLACED, st.booleans()), max_size=8),
)
def test_laws_of_every_change(demand, gpus):
    current = [gpu(f"g{i}", placed, held=held) for i, (placed, held) in enumerate(gpus)]
    found = change(demand, *current)
    layouts = {one.name: one.instances for one in current}
    assert sorted([*found.kept, *found.freed, *(name for name, _ in found.reshaped)]) == sorted(layouts)
    assert {one.name for one in current if one.held} <= set(found.kept)
    have = Counter(name for gpu_name in found.kept for name, _ in layouts[gpu_name])
    have.update(name for _, instances in found.reshaped for name, _ in instances)
    for layout in found.added:
        have.update({name: layout.count * n for name, n in Counter(name for name, _ in layout.instances).items()})
    assert all(have[name] >= count for name, count in demand.items())
    assert found.gpus == len(found.kept) + found.disturbed == found.bound
    if not any(one.held for one in current):
        assert found.gpus == fewest_gpus(H100, demand, time_limit_seconds=5, clock=Ticker()).gpus


def run(tmp_path, body, *more):
    (tmp_path / "now.json").write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    arguments = ["--gpu", "H100-80GB", "--demand", "7g.80gb=1", "--current", str(tmp_path / "now.json"), *more]
    return CliRunner().invoke(mig, [*arguments, "--out", str(tmp_path / "mig.json")])


def test_command_says_what_changes(tmp_path):
    body = [
        {"gpu": "a", "held": True, "instances": [{"profile": "1g.10gb", "start": 3}]},
        {"gpu": "b", "instances": []},
    ]
    result = run(tmp_path, body)
    assert result.exit_code == 0, result.output
    answer = json.loads((tmp_path / "mig.json").read_text(encoding="utf-8"))
    assert answer["gpus"] == 2 == sum(layout["count"] for layout in answer["layouts"])
    assert answer["kept"] == ["a"]
    assert answer["reshaped"] == [{"gpu": "b", "instances": [{"profile": "7g.80gb", "start": 0}]}]
    assert answer["fewest_disturbed"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        pytest.param("nonsense", "no JSON", id="no JSON"),
        pytest.param({}, "no list", id="no list"),
        pytest.param([{"instances": []}], "no name", id="no name"),
        pytest.param([{"gpu": "a"}], "no list", id="no instances"),
        pytest.param([{"gpu": "a", "instances": [{"profile": "1g.10gb"}]}], "profile and start", id="no start"),
        pytest.param([{"gpu": "a", "held": "yes", "instances": []}], "true or false", id="held is a word"),
        pytest.param([{"gpu": "a", "instances": [{"profile": "9g", "start": 0}]}], "no profile 9g", id="unknown"),
        pytest.param([{"gpu": "a", "instances": [{"profile": "3g.40gb", "start": 1}]}], "cannot start", id="start"),
        pytest.param(
            [{"gpu": "a", "instances": [{"profile": p, "start": 0} for p in ("1g.10gb", "3g.40gb")]}],
            "overlaps",
            id="overlap",
        ),
        pytest.param([{"gpu": "a", "instances": []}] * 2, "stands twice", id="twice"),
        pytest.param(
            [{"gpu": "a", "instances": [{"profile": "1g.10gb+me", "start": s} for s in (0, 1)]}],
            "more than one GPU can",
            id="media twice",
        ),
    ],
)
def test_bad_layouts_are_refused(tmp_path, body, part):
    result = run(tmp_path, body)
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "mig.json").exists()
