"""Objects from JSON lines, and clear words where a line is none."""

from __future__ import annotations

import json

import pytest
from tests.builders import make_node

from gpuwaste.cluster.files import load_objects
from gpuwaste.model.errors import InputError


def test_objects_come_in_order_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "objects.jsonl"
    path.write_text("\n".join([json.dumps(make_node("a").obj()), "", json.dumps(make_node("b").obj())]))
    assert [o["metadata"]["name"] for o in load_objects(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"objects\.jsonl:2: not JSON: .* at column 2"),
        ("[]", r"objects\.jsonl:2: not a JSON object but list"),
        ('{"apiVersion":"v1","metadata":{"name":"a"}}', r"objects\.jsonl:2: field `kind` is missing"),
        ('{"apiVersion":"v1","kind":"Node","metadata":{}}', r"objects\.jsonl:2: field `metadata\.name` is missing"),
        ('{"apiVersion":"v1","kind":"Node"}', r"objects\.jsonl:2: field `metadata\.name` is missing"),
    ],
    ids=["broken", "list", "no kind", "no name", "no metadata"],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "objects.jsonl"
    path.write_text(f"{json.dumps(make_node('a').obj())}\n{line}\n")
    with pytest.raises(InputError, match=message):
        load_objects(path)


def test_a_missing_file_and_a_binary_one_are_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.jsonl: cannot be read: No such file"):
        load_objects(tmp_path / "absent.jsonl")
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"b\.jsonl: is not UTF-8"):
        load_objects(binary)
