"""A store that cannot be read says where and why, in one line, as the right kind of error."""

from __future__ import annotations

import socket

import pytest

from gpuwaste.ledger.store import open_store
from gpuwaste.model.errors import GpuwasteError, InputError, UnreachableError


@pytest.fixture
def closed_port(monkeypatch):
    """A port of this machine on which nobody listens, and credentials that never leave it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


READS = {
    "list": lambda store: store.files(""),
    "read": lambda store: store.read("x"),
    "read or none": lambda store: store.read_or_none("x"),
    "table": lambda store: store.read_table("x"),
    "footer": lambda store: store.table_metadata("x"),
    "write": lambda store: store.write("x", b"1"),
}


@pytest.mark.parametrize("operation", READS)
def test_a_store_that_does_not_answer_is_unreachable(closed_port, operation):
    options = f"endpoint_override=127.0.0.1:{closed_port}&scheme=http&region=us-east-1"
    options += "&connect_timeout=0.2&request_timeout=0.2&allow_bucket_creation=false"
    store = open_store(f"s3://bucket/folder?{options}")
    with pytest.raises(UnreachableError) as caught:
        READS[operation](store)
    assert str(caught.value).startswith("s3://bucket/folder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("operation", ["read", "read or none", "table", "footer"])
@pytest.mark.parametrize("name", ["folder", "below a file"])
def test_a_local_path_of_the_wrong_type_is_bad_input(tmp_path, operation, name):
    (tmp_path / "folder" / "x").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    store = open_store(str(tmp_path / ("folder" if name == "folder" else "file")))
    with pytest.raises(InputError, match=r"cannot be read: ") as caught:
        READS[operation](store)
    assert str(caught.value).startswith(str(tmp_path))


def test_a_file_in_place_of_a_folder_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be read: Not a directory"):
        open_store(str(tmp_path / "file")).files("")


@pytest.mark.parametrize("operation", ["table", "footer"])
def test_an_empty_file_is_no_parquet(tmp_path, operation):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        READS[operation](open_store(str(tmp_path)))


@pytest.mark.parametrize("operation", ["read", "table", "footer"])
def test_a_missing_file_stays_a_missing_file(tmp_path, operation):
    with pytest.raises(FileNotFoundError):
        READS[operation](open_store(str(tmp_path)))


@pytest.mark.parametrize("url", ["foo://x", "s3://", "file://relative/x"])
def test_a_url_of_no_store_is_bad_input(url):
    with pytest.raises(GpuwasteError) as caught:
        open_store(url)
    assert isinstance(caught.value, InputError)
    assert str(caught.value).startswith(url)
