"""The worked examples that the design hands to every implementation of its accounting."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpuwaste.ledger.accounting import Holders, Parents, split_parents

EXAMPLES = Path(__file__).parents[3] / ".." / "shared" / "facts" / "accounting-examples.json"


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the shared folder with the worked examples is not here")
def test_worked_examples_to_the_nanosecond():
    for case in json.loads(EXAMPLES.read_text()):
        capacity, gross, rows = case["capacity_ns"], case["free_gross"], case["holders_in"]

        def column(value):
            return np.array([value], np.int64)

        n = case["replicas"]
        held = [(k + 1) * capacity // n - k * capacity // n for k in range(len(rows))]
        split = split_parents(
            Parents(
                capacity=column(capacity),
                unattributed=column(case["unattributed_in"]),
                free_unhealthy=column(gross["unhealthy"]),
                free_stranded=column(gross["stranded"]),
                unhealthy=column(capacity if case["bad_device"] else 0),
            ),
            Holders(
                parent=np.zeros(len(rows), np.int64),
                held=np.array(held, np.int64),
                duty=np.array([row["duty"] for row in rows], np.int64),
                effective=np.array([row["effective"] or 0 for row in rows], np.int64),
                measured=np.array([row["effective"] is not None for row in rows], bool),
                starting_limit=np.array(
                    [h if row["starting"] else 0 for h, row in zip(held, rows, strict=True)], np.int64
                ),
            ),
        )
        assert {name: int(values[0]) for name, values in split.free.items()} == case["free_net"], case["name"]
        assert int(split.unattributed[0]) == case["unattributed"], case["name"]
        got = [
            {name: int(values[i]) for name, values in split.holder.items()}
            | {
                "held": held[i],
                "effective": int(split.effective[i]) if row["effective"] is not None else None,
                "borrowed": int(split.borrowed[i]),
                "lent": int(split.holder_lent[i]),
            }
            for i, row in enumerate(rows)
        ]
        assert got == case["holders_net"], case["name"]
        assert int(split.holder_lent.sum() + split.free_lent.sum()) == case["lent_total"], case["name"]
