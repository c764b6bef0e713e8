"""Answers of range queries read at once are those that a JSON decoder reads."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwaste.ingest.prometheus.matrix import LabelSets, read_matrix, series_of

texts = st.text(max_size=12) | st.sampled_from(['"', "\\", '},"values":[[', "]]}", '{"metric":', "Ω", "a,b", "[1]"])
numbers = st.floats() | st.sampled_from([0.0, 1.0, 0.1, 1e-320])
points = st.lists(st.tuples(st.integers(0, 2**33) | st.floats(0, 2e9).map(lambda t: round(t, 3)), numbers), min_size=1)
series = st.tuples(st.dictionaries(texts, texts, max_size=4), points)


def go_float(value):
    """As Go prints it."""
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(repr(value), repr(value))


def written(found):
    result = [{"metric": labels, "values": [[t, go_float(v)] for t, v in values]} for labels, values in found]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


@given(st.lists(series, max_size=5))
def test_the_same_series_as_a_json_decoder_reads(found):
    body = written(found)
    read = read_matrix(body, LabelSets())
    expected = [series_of(raw) for raw in json.loads(body)["data"]["result"]]
    assert read is not None
    assert [one.labels for one in read] == [one.labels for one in expected]
    for one, other in zip(read, expected, strict=True):
        assert one.times_s.tolist() == other.times_s.tolist()
        np.testing.assert_array_equal(one.values, other.values)


def test_labels_of_several_answers_are_one_object():
    known = LabelSets()
    body = written([({"UUID": "GPU-1"}, [(1, 2.0)])])
    (first,), (second,) = read_matrix(body, known), read_matrix(body, known)
    assert first.labels is second.labels


WHOLE = written([({"a": "b"}, [(1, 2.0), (2, 3.0)])])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        WHOLE[:-12],
        WHOLE[:-2],
        WHOLE.replace(b",", b", "),
        WHOLE.replace(b'"values"', b'"histograms"'),
        WHOLE.replace(b"}]}}", b',"histograms":[[1,{"count":"1"}]]}]}}'),
        WHOLE.replace(b'"metric":{"a":"b"},', b'"metric":{"a":"b"},"more":1,'),
        WHOLE.replace(b'"2.0"', b'"two"'),
        WHOLE.replace(b'"2.0"', b'""'),
        WHOLE.replace(b'"2.0"', b'"2","3"'),
        WHOLE.replace(b'{"a":"b"}', b"null"),
        WHOLE.replace(b"matrix", b"vector"),
    ],
)
def test_any_other_form_is_left_to_the_json_decoder(body):
    assert read_matrix(body, LabelSets()) is None
