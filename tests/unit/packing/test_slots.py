import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.packing.questions import make_instance

from gpuwaste.packing.columns import Filling
from gpuwaste.packing.shapes import group
from gpuwaste.packing.slots import Slots

NODES = [("a", 8000, 32, 4, "T4"), ("b", 8000, 32, 4, "A10"), ("c", 8000, 32, 4, "P100"), ("d", 8000, 32, 4, "T4")]
specs = st.sampled_from(["", "T4", "A10", "T4|A10", "P100"])


def problem_of(chosen):
    rows = [(f"p{i}", 1000, 4, 1, 1000, spec) for i, spec in enumerate(chosen)]
    return group(make_instance(rows, NODES), objective="cost")


def fill_in_turn(problem, turns):
    """Each pod on one of the nodes that may take it."""
    nodes = np.zeros((4, len(problem.demand)), dtype=np.int64)
    kinds = problem.type_of_node
    for shape, turn in zip(problem.shape_of_pod.tolist(), turns, strict=False):
        able = [n for n in range(4) if problem.fits[shape, kinds[n]] and nodes[n].sum() < 4]
        if able:
            nodes[able[turn % len(able)], shape] += 1
    return Filling.of_nodes(kinds, nodes)


@settings(max_examples=60, deadline=None)
@given(st.lists(specs, min_size=1, max_size=12), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_slots_come_back_as_the_same_pods_on_nodes_that_may_take_them(chosen, turns):
    problem = problem_of(chosen)
    slots = Slots.of(problem)
    filling = fill_in_turn(problem, turns)
    encoded, handed = slots.encode(filling)
    back = slots.decode(encoded, handed)
    assert np.array_equal(back.placed, filling.placed)
    assert sorted(np.repeat(back.kind, back.copies)) == sorted(np.repeat(filling.kind, filling.copies))
    for kind, pattern in zip(back.kind, back.pattern, strict=True):
        assert problem.fits[pattern > 0, kind].all()


def test_pods_of_one_size_share_a_slot_only_where_both_may_run():
    slots = Slots.of(problem_of(["", "T4", "A10"]))
    assert len(np.unique(slots.source)) == 2
    assert len(slots.source) == 4
    # Only the unconstrained pod may run on P100: it needs no slot there.
    assert slots.offered[:, slots.problem.fits.any(axis=0)].any(axis=0).all()


def test_sizes_of_their_own_have_no_slots():
    rows = [("p", 1000, 4, 1, 1000, "T4"), ("q", 2000, 4, 1, 1000, "A10")]
    slots = Slots.of(group(make_instance(rows, NODES), objective="cost"))
    assert len(slots.source) == 0


def test_a_slot_is_worth_its_dearest_taker():
    slots = Slots.of(problem_of(["", "T4", "A10"]))
    duals = np.zeros(len(slots.wanted))
    duals[: slots.shapes] = [1.0, 3.0, 2.0]
    worth = slots.worth(duals)
    assert (worth[slots.source] >= worth[slots.target]).all()


def test_nothing_decodes_to_nothing():
    slots = Slots.of(problem_of(["", "T4"]))
    none = np.zeros(0, dtype=np.int64)
    empty = Filling(kind=none, pattern=none.reshape(0, len(slots.wanted)), copies=none)
    assert slots.decode(empty, np.zeros(len(slots.source), dtype=np.int64)).pattern.shape == (0, slots.shapes)
