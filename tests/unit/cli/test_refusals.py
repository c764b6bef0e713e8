"""What a plan leaves alone, in a few lines."""

import pytest

from gpuwaste.api import ObjectRef, Refusal
from gpuwaste.cli.refusals import refusal_lines

MIG = "GPUs in MIG mode, which a plan does not change yet"


def node(name, message=MIG):
    return Refusal(target=ObjectRef(api_version="v1", kind="Node", name=name), reason="MIGMode", message=message)


def pod(name, message):
    target = ObjectRef(api_version="v1", kind="Pod", namespace="ml", name=name)
    return Refusal(target=target, reason="NoOwner", message=message)


@pytest.mark.parametrize(
    ("refused", "lines"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([node("a")], [f"a: {MIG}"], id="one"),
        pytest.param([node("a"), node("b")], [f"a, b: {MIG}"], id="equal reasons in one line"),
        pytest.param([node(n) for n in "abcdef"], [f"a, b, c and 3 more: {MIG}"], id="many names"),
        pytest.param([node("a"), pod("web", "keeps node a")], [f"a: {MIG}", "ml/web: keeps node a"], id="two reasons"),
        pytest.param(
            [node(n, f"why {n}") for n in "abcd"],
            ["a: why a", "b: why b", "and 2 more reasons; see there"],
            id="more reasons than lines",
        ),
    ],
)
def test_lines(refused, lines):
    assert refusal_lines(refused, most=2, rest="see there") == lines
