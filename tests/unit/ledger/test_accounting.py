"""The accounting kernel: worked examples and the laws that must hold for any input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.ledger.accounting import Holders, Parents, split_parents
from gpuwaste.ledger.schema import FREE_CATEGORIES, HOLDER_CATEGORIES
from gpuwaste.model.apportion import apportion_groups, apportion_ratios, mul_div
from gpuwaste.model.errors import InvariantError

MINUTE = 60_000_000_000


def parents(capacity, *, unattributed=0, free_unhealthy=0, free_stranded=0, unhealthy=0):
    def column(value):
        return np.array([value], np.int64)

    return Parents(
        capacity=column(capacity),
        unattributed=column(unattributed),
        free_unhealthy=column(free_unhealthy),
        free_stranded=column(free_stranded),
        unhealthy=column(unhealthy),
    )


def holders(*rows):
    """Rows of (held, duty, effective or None, starting)."""
    held, duty, effective, starting = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Holders(
        parent=np.zeros(len(rows), np.int64),
        held=np.array(held, np.int64),
        duty=np.array(duty, np.int64),
        effective=np.array([e or 0 for e in effective], np.int64),
        measured=np.array([e is not None for e in effective], bool),
        starting_limit=np.array([h if s else 0 for h, s in zip(held, starting, strict=True)], np.int64),
    )


def replicas(capacity, count):
    return [(k + 1) * capacity // count - k * capacity // count for k in range(count)]


def examples():
    """Worked by hand from the rules; each is (name, parents, holders, what the holders and free parts become)."""
    s = 1_000_000_000
    return [
        pytest.param(
            parents(MINUTE),
            holders((MINUTE, 30 * s, 12 * s, False)),
            [{"effective": 12 * s, "idle": 30 * s, "underused": 18 * s}],
            {},
            id="whole GPU half busy at 40 % width",
        ),
        pytest.param(
            parents(MINUTE),
            holders((30 * s, 48 * s, 45 * s, False), (30 * s, 10 * s, 5 * s, False)),
            [{"borrowed": 15 * s}, {"lent": 15 * s, "idle": 5 * s, "underused": 5 * s}],
            {},
            id="a replica borrows its neighbour's idle time",
        ),
        pytest.param(
            parents(MINUTE, unattributed=6 * s, free_stranded=45 * s),
            holders((15 * s, 40 * s, 30 * s, False)),
            [{"borrowed": 15 * s}],
            {"stranded": 24 * s},
            id="stranded replicas lend to a borrower and a host process",
        ),
        pytest.param(
            parents(MINUTE),
            holders((30 * s, 50 * s, 40 * s, False), (30 * s, 0, None, False)),
            [{"borrowed": 10 * s}, {"lent": 10 * s, "unmeasured": 20 * s}],
            {},
            id="an unmeasured holder lends last of its kind",
        ),
        pytest.param(
            parents(MINUTE),
            holders((30 * s, MINUTE, MINUTE, False), (30 * s, MINUTE, 30 * s, False)),
            [{"effective": 40 * s, "borrowed": 10 * s}, {"effective": 20 * s, "lent": 10 * s}],
            {},
            id="activity above capacity is scaled to it",
        ),
        pytest.param(
            parents(MINUTE, unhealthy=MINUTE),
            holders((MINUTE, 12 * s, 6 * s, False)),
            [{"unhealthy": 54 * s, "idle": 0, "underused": 0}],
            {},
            id="a bad device wastes all that was not used",
        ),
        pytest.param(
            parents(MINUTE, free_unhealthy=MINUTE, unattributed=3 * s),
            holders(),
            [],
            {"unhealthy": 57 * s},
            id="a host process on a bad free device",
        ),
        pytest.param(
            parents(10),
            holders(
                *(
                    (h, *rest)
                    for h, rest in zip(replicas(10, 3), [(0, 0, True), (5, 5, False), (1, 0, False)], strict=True)
                )
            ),
            [{"starting": 3}, {"borrowed": 2}, {"lent": 2, "idle": 1, "underused": 1}],
            {},
            id="a capacity that three replicas do not divide, one starting",
        ),
    ]


@pytest.mark.parametrize(("p", "h", "want_holders", "want_free"), examples())
def test_worked_example(p, h, want_holders, want_free):
    split = split_parents(p, h)
    for index, want in enumerate(want_holders):
        got = {name: int(values[index]) for name, values in split.holder.items()}
        got |= {
            "effective": int(split.effective[index]),
            "borrowed": int(split.borrowed[index]),
            "lent": int(split.holder_lent[index]),
        }
        assert {name: got[name] for name in want} == want
    for name, value in want_free.items():
        assert int(split.free[name][0]) == value


def test_holding_more_than_the_capacity_is_refused():
    with pytest.raises(InvariantError, match="beyond its capacity"):
        split_parents(parents(10), holders((6, 0, 0, False), (5, 0, 0, False)))


amounts = st.integers(0, MINUTE)


@st.composite
def random_parents(draw):
    count = draw(st.integers(1, 4))
    columns = {name: [] for name in ("capacity", "unattributed", "free_unhealthy", "free_stranded", "unhealthy")}
    rows = []
    for index in range(count):
        capacity = draw(st.one_of(st.integers(1, 50), amounts.map(lambda v: v + 1)))
        n = draw(st.integers(1, 8))
        shares = replicas(min(capacity, MINUTE), n)
        columns["capacity"].append(min(capacity, MINUTE))
        for name in ("unattributed", "free_unhealthy", "free_stranded", "unhealthy"):
            columns[name].append(draw(st.integers(0, min(capacity, MINUTE))))
        for share in shares[: draw(st.integers(0, n))]:
            duty = draw(st.integers(0, min(capacity, MINUTE)))
            effective = draw(st.integers(0, duty))
            rows.append((index, share, duty, effective, draw(st.booleans()), draw(st.integers(0, share))))
    built = Parents(**{name: np.array(values, np.int64) for name, values in columns.items()})
    parent, held, duty, effective, measured, starting = zip(*rows, strict=True) if rows else ((),) * 6
    return built, Holders(
        parent=np.array(parent, np.int64),
        held=np.array(held, np.int64),
        duty=np.array(duty, np.int64),
        effective=np.array(effective, np.int64),
        measured=np.array(measured, bool),
        starting_limit=np.array(starting, np.int64),
    )


@settings(max_examples=150, deadline=None)
@given(random_parents())
def test_every_nanosecond_has_one_place(case):
    p, h = case
    split = split_parents(p, h)
    waste = sum(split.holder[name] for name in HOLDER_CATEGORIES)
    assert (h.held + split.borrowed == split.effective + waste + split.holder_lent).all()
    for index in range(len(p.capacity)):
        mine = h.parent == index
        lent = split.holder_lent[mine].sum() + split.free_lent[index]
        assert lent == split.borrowed[mine].sum() + split.unattributed[index]
        free = sum(split.free[name][index] for name in FREE_CATEGORIES)
        assert p.capacity[index] == split.effective[mine].sum() + split.unattributed[index] + waste[mine].sum() + free
        assert p.capacity[index] == h.held[mine].sum() + sum(split.free_gross[n][index] for n in FREE_CATEGORIES)
    for values in (*split.holder.values(), *split.free.values(), split.borrowed, split.holder_lent, split.free_lent):
        assert (values >= 0).all()


factors = st.tuples(amounts, amounts).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(max(min(pair), 1), 1 << 43))
)


hours = st.integers(0, (1 << 42) - 1)
long_factors = st.tuples(hours, hours).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(max(min(pair), 1), (1 << 48) - 1))
)


@given(st.lists(factors | long_factors, min_size=1))
def test_mul_div_equals_big_integers(rows):
    a, b, c = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    quotient, remainder = mul_div(a, b, c)
    for i, (x, y, z) in enumerate(rows):
        assert (int(quotient[i]), int(remainder[i])) == divmod(x * y, z)


@pytest.mark.parametrize(
    ("a", "b", "c", "message"),
    [(1 << 42, 1, 1, "below 2"), (-1, 1, 1, "no negative"), (1, 1, 0, "positive divisors"), (9, 9, 8, "below both")],
)
def test_mul_div_refuses_what_would_overflow(a, b, c, message):
    with pytest.raises(OverflowError, match=message):
        mul_div(np.array([a]), np.array([b]), np.array([c]))


@given(st.lists(st.tuples(st.integers(0, 3), amounts), max_size=20), st.lists(amounts, min_size=4, max_size=4))
def test_apportioned_groups_add_up(members, totals):
    group = np.array([g for g, _ in members], np.int64)
    weight = np.array([w for _, w in members], np.int64)
    amount = np.array(totals, np.int64)
    parts = apportion_groups(amount, weight, group)
    for g in range(4):
        expected = amount[g] if weight[group == g].sum() else 0
        assert parts[group == g].sum() == expected


@given(st.lists(st.integers(0, 10**30), min_size=1).filter(any), st.integers(0, 20))
def test_ratios_add_up_to_one(weights, scale):
    ratios = apportion_ratios(weights, scale=scale)
    assert sum(ratios) == 1
    assert all(0 <= ratio <= 1 for ratio in ratios)
