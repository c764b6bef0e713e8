"""A store that cannot be read says where and why, in one line, as the right kind of error."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from pyarrow import fs

from gpuwaste.ledger.store import Store, open_store
from gpuwaste.model.errors import GpuwasteError, InputError, UnreachableError


@pytest.fixture
def closed_store():
    """An object store at a port of this machine on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        filesystem = fs.S3FileSystem(
            access_key="a",
            secret_key="b",
            region="us-east-1",
            endpoint_override=f"127.0.0.1:{bound.getsockname()[1]}",
            scheme="http",
            connect_timeout=0.2,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        )
        yield Store(filesystem, "bucket/folder")


READS = {
    "list": lambda store: store.files(""),
    "read": lambda store: store.read("x"),
    "read or none": lambda store: store.read_or_none("x"),
    "table": lambda store: store.read_table("x"),
    "footer": lambda store: store.table_metadata("x"),
    "write": lambda store: store.write("x", b"1"),
}


@pytest.mark.parametrize("operation", READS)
def test_a_store_that_does_not_answer_is_unreachable(closed_store, operation):
    with pytest.raises(UnreachableError) as caught:
        READS[operation](closed_store)
    assert str(caught.value).startswith("s3://bucket/folder")
    assert "\n" not in str(caught.value)
    assert "Details:" not in str(caught.value)


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


@pytest.mark.parametrize("url", ["foo://x", "hdfs://127.0.0.1/x", "s3://", "file://relative/x"])
def test_a_url_of_no_store_is_bad_input(url):
    with pytest.raises(GpuwasteError) as caught:
        open_store(url)
    assert isinstance(caught.value, InputError)
    assert str(caught.value).startswith(url)


def test_a_bucket_whose_region_cannot_be_asked_for_is_unreachable(monkeypatch):
    def from_uri(_):
        raise OSError("When resolving region for bucket 'b': AWS Error NETWORK_CONNECTION; Details: none")

    monkeypatch.setattr(fs, "FileSystem", SimpleNamespace(from_uri=from_uri))  # the real one asks over the network
    with pytest.raises(UnreachableError, match=r"^s3://b/x: cannot be reached: When resolving .* NETWORK_CONNECTION$"):
        open_store("s3://b/x")
