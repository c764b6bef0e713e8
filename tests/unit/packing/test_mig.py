import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import Ticker

from gpuwaste.cli.mig import mig
from gpuwaste.model.errors import InputError
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.packing.mig import fewest_gpus, legal_geometries, maximal

H100 = PRODUCTS["H100-80GB"]
CAPABLE = sorted(name for name, product in PRODUCTS.items() if product.mig_capable)


def without(product, *names):
    return replace(product, profiles=tuple(p for p in product.profiles if p.name not in names))


@pytest.mark.parametrize(
    ("leave_out", "legal", "most"),
    [
        pytest.param(("1g.20gb", "1g.10gb+me"), 37, 12, id="plain"),
        pytest.param(("1g.10gb+me",), 77, 28, id="with the wide 1g"),
        pytest.param((), 127, 44, id="with media engines too"),
    ],
)
def test_geometries_of_the_eight_slice_axis(leave_out, legal, most):
    geometries = legal_geometries(without(H100, *leave_out))
    assert (len(geometries), len(maximal(geometries))) == (legal, most)


def check_layout(product, instances):
    """The rules of a layout, written anew."""
    taken = list(
        itertools.chain.from_iterable(
            range(start, start + product.profile(name).memory_units) for name, start in instances
        )
    )
    assert len(taken) == len(set(taken))
    assert all(0 <= unit < product.axis_units for unit in taken)
    assert all(start in product.profile(name).starts for name, start in instances)
    assert sum(product.profile(name).compute_slices for name, _ in instances) <= product.compute_slices
    assert sum(product.profile(name).media for name, _ in instances) <= 1


@pytest.mark.parametrize("name", CAPABLE)
def test_every_geometry_of_every_product_is_legal(name):
    product = PRODUCTS[name]
    for counts, instances in legal_geometries(product).items():
        check_layout(product, instances)
        assert Counter(dict(zip([p.name for p in product.profiles], counts, strict=True))) == Counter(
            profile for profile, _ in instances
        ) | Counter({p.name: 0 for p in product.profiles})


demands = st.dictionaries(st.sampled_from([profile.name for profile in H100.profiles]), st.integers(1, 40), min_size=1)


@settings(deadline=None, max_examples=40)
@given(demands)
def test_the_demand_is_served_exactly_and_the_optimum_is_proved(demand):
    answer = fewest_gpus(H100, demand, time_limit_seconds=30, clock=Ticker())
    served = Counter()
    for layout in answer.layouts:
        check_layout(H100, layout.instances)
        for name, _ in layout.instances:
            served[name] += layout.count
    assert served == Counter(demand)
    assert sum(layout.count for layout in answer.layouts) == answer.gpus == answer.bound


@pytest.mark.parametrize(
    ("demand", "gpus"),
    [
        ({"7g.80gb": 5}, 5),
        ({"1g.10gb": 7}, 1),
        ({"1g.10gb": 8}, 2),
        ({"3g.40gb": 3}, 2),
        ({"4g.40gb": 2, "3g.40gb": 2}, 2),
        ({"1g.10gb+me": 3}, 3),
        ({"3g.40gb": 2, "1g.10gb": 1}, 2),
        ({"1g.10gb": 100_000}, 14_286),
    ],
)
def test_known_optima(demand, gpus):
    assert fewest_gpus(H100, demand, time_limit_seconds=30, clock=Ticker()).gpus == gpus


def test_without_time_the_answer_is_feasible_and_bounded():
    answer = fewest_gpus(H100, {"1g.10gb": 37, "3g.40gb": 11}, time_limit_seconds=0, clock=Ticker())
    assert 0 < answer.bound <= answer.gpus


def run(tmp_path, *arguments):
    return CliRunner().invoke(mig, [*arguments, "--out", str(tmp_path / "mig.json")])


def test_command_writes_the_layouts(tmp_path):
    result = run(tmp_path, "--gpu", "H100-80GB", "--demand", "1g.10gb=37,3g.40gb=11")
    assert result.exit_code == 0, result.output
    body = json.loads((tmp_path / "mig.json").read_text(encoding="utf-8"))
    assert body["gpus"] == body["bound"] == sum(layout["count"] for layout in body["layouts"])
    assert body["seconds"] >= 0
    assert set(body["layouts"][0]["instances"][0]) == {"profile", "start"}


def test_command_lists_products():
    result = CliRunner().invoke(mig, ["--list"])
    assert result.exit_code == 0
    assert "H100-80GB: 1g.10gb, 1g.10gb+me" in result.output
    assert "T4" not in result.output


@pytest.mark.parametrize(
    ("gpu", "demand", "part"),
    [
        pytest.param("H100-80GB", "1g.5gb=1", "1g.5gb", id="profile of another GPU"),
        pytest.param("H100-80GB", "1g.10gb=0", "--demand", id="none"),
        pytest.param("H100-80GB", "1g.10gb=-3", "--demand", id="negative"),
        pytest.param("H100-80GB", "1g.10gb", "--demand", id="no count"),
        pytest.param("H100-80GB", "1g.10gb=1,1g.10gb=2", "twice", id="twice"),
        pytest.param("H900-80GB", "1g.10gb=1", "H900-80GB", id="unknown GPU"),
        pytest.param("T4-16GB", "1g.10gb=1", "no MIG", id="GPU without MIG"),
    ],
)
def test_bad_input_is_refused(tmp_path, gpu, demand, part):
    result = run(tmp_path, "--gpu", gpu, "--demand", demand)
    assert isinstance(result.exception, InputError)
    assert part in str(result.exception)
    assert not (tmp_path / "mig.json").exists()


def test_missing_flags_are_a_usage_error(tmp_path):
    assert run(tmp_path, "--gpu", "H100-80GB").exit_code == 2
