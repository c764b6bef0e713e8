"""Names of objects."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.api import KINDS, MAX_NAME_LENGTH, object_name
from gpuwaste.api.base import json_name

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@given(parts=st.lists(st.text(max_size=300), min_size=2, max_size=5))
def test_any_words_make_a_dns_label(parts: list[str]) -> None:
    name = object_name(*parts)
    assert len(name) <= MAX_NAME_LENGTH
    assert DNS_LABEL.fullmatch(name)
    assert name == object_name(*parts)


@given(
    first=st.lists(st.text(max_size=20), min_size=2, max_size=4),
    second=st.lists(st.text(max_size=20), min_size=2, max_size=4),
)
def test_other_words_make_another_name(first: list[str], second: list[str]) -> None:
    assert (object_name(*first) == object_name(*second)) == (first == second)


def test_a_name_reads_as_kind_and_name() -> None:
    assert re.fullmatch(r"deployment-my-model-v2-[0-9a-f]{8}", object_name("Deployment", "my-model.v2", "apps"))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "bc"), ("ab", "c")),
        (("Job", "x"), ("job", "x")),
        (("Job", "x.y"), ("Job", "x-y")),
        (("Job", "x", "batch"), ("Job", "x")),
        (("Job", "n" * 80 + "1"), ("Job", "n" * 80 + "2")),
    ],
    ids=["moved letter", "case", "replaced character", "key", "cut end"],
)
def test_names_that_look_alike_stay_apart(left: tuple[str, ...], right: tuple[str, ...]) -> None:
    assert object_name(*left) != object_name(*right)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("capacity_freed_gpu_hours", "capacityFreedGPUHours"),
        ("plan_url", "planURL"),
        ("from_", "from"),
        ("gpus", "gpus"),
        ("held_gpus", "heldGPUs"),
        ("cash_at_renewal", "cashAtRenewal"),
        ("commitment_id", "commitmentID"),
    ],
)
def test_names_in_json(attribute: str, expected: str) -> None:
    assert json_name(attribute) == expected


def test_kubectl_get_gpuwaste_means_the_kind_and_no_category() -> None:
    assert KINDS["GPUWaste"].singular == "gpuwaste"
    assert KINDS["GPUWaste"].short_names == ("gpuw",)
    taken = [name for info in KINDS.values() for name in (info.singular, info.plural, *info.short_names)]
    assert len(taken) == len(set(taken))
    assert not {"gw", "all", "gpu-rightsizing"} & set(taken)
