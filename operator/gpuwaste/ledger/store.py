"""Where inputs and ledger lie: a local folder or an object store, read and written through Arrow's filesystems."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from gpuwaste.model.errors import InputError, UnreachableError
from gpuwaste.model.units import format_time, hour_start, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

__all__ = ["Store", "hour_folder", "open_store", "parse_hour_folder"]

_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss")
_GCS_RETRY_SECONDS = 30
"""Its client would try for 15 minutes."""
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Store:
    """Whole files below one root. A file is there completely or not at all; a written file is durable."""

    filesystem: fs.FileSystem
    root: str

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @contextmanager
    def _reading(self, name: str, what: str) -> Iterator[None]:
        """Say where a read failed. On this machine the path is wrong; elsewhere the store may answer another time.

        Raises:
            FileNotFoundError: as it came: there is no such file.
            InputError: the path of a local folder or file cannot be read.
            UnreachableError: the store did not answer, or refused.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            path = self._path(name)
            if self.is_local:
                raise InputError(f"cannot be read: {_cause(error)}", where=path) from None
            raise UnreachableError(f"{self.filesystem.type_name}://{path}: {what}: {_cause(error)}") from error

    def used_share(self) -> float | None:
        """How full the volume of a local root is, from 0 to 1; None of an object store, which has no end."""
        if not self.is_local or not Path(self.root).exists():
            return None
        usage = shutil.disk_usage(self.root)
        return usage.used / (usage.used + usage.free)

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            InputError: it is a folder, or may not be read.
            UnreachableError: the store did not answer.
        """
        with self._reading(name, "cannot be read"), self.filesystem.open_input_file(self._path(name)) as stream:
            data: bytes = stream.read()
        return data

    def read_or_none(self, name: str) -> bytes | None:
        """The bytes of a file, or None where there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replace a file atomically. When this returns, the bytes outlast a crash of the machine."""
        if self.is_local:
            _write_durably(Path(self._path(name)), [data])
            return
        try:
            with self.filesystem.open_output_stream(self._path(name)) as stream:
                stream.write(data)
        except OSError as error:
            where = f"{self.filesystem.type_name}://{self._path(name)}"
            raise UnreachableError(f"{where}: the store did not take the file: {_cause(error)}") from error

    def write_file(self, name: str, source: Path) -> None:
        """Replace a file atomically by one of this machine, of any size, as `write` does with bytes.

        Raises:
            UnreachableError: the store did not take the whole file; the old one stands.
        """
        if self.is_local:
            with source.open("rb") as stream:
                _write_durably(Path(self._path(name)), iter(lambda: stream.read(_CHUNK_BYTES), b""))
            return
        where = f"{self.filesystem.type_name}://{self._path(name)}"
        try:
            # A store shows an object once all its parts are there: what is broken off is never seen.
            with source.open("rb") as stream, self.filesystem.open_output_stream(self._path(name)) as sink:
                shutil.copyfileobj(stream, sink, _CHUNK_BYTES)
            taken = self.filesystem.get_file_info(self._path(name)).size
        except OSError as error:
            raise UnreachableError(f"{where}: the store did not take the file: {_cause(error)}") from error
        if taken != source.stat().st_size:
            raise UnreachableError(f"{where}: the store took {taken} bytes of {source.stat().st_size}")

    def size(self, name: str) -> int | None:
        """The size of a file in bytes, or None where there is none."""
        with self._reading(name, "cannot be read"):
            info = self.filesystem.get_file_info(self._path(name))
        return info.size if info.type == fs.FileType.File else None

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            self.filesystem.delete_file(self._path(name))
        except FileNotFoundError:
            return

    def delete_folder(self, folder: str) -> None:
        """Remove a folder with all that is in it; one that is not there is no error.

        Raises:
            InputError: a local file in it may not be removed.
            UnreachableError: the store did not answer.
        """
        try:
            with self._reading(folder, "cannot be removed"):
                self.filesystem.delete_dir(self._path(folder))
        except FileNotFoundError:
            return

    def sweep(self, folder: str) -> None:
        """Remove what killed writes left half-written in a folder; only its one writer may ask for this."""
        if self.is_local:
            for left in Path(self._path(folder)).glob(".*.*"):
                left.unlink(missing_ok=True)

    def files(self, folder: str) -> list[str]:
        """Names of all files below a folder, relative to the root, sorted. Files half-written are not among them."""
        return sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file below a folder, by its name as `files` gives it."""
        path = self._path(folder)
        selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
        with self._reading(folder, "cannot be listed"):
            found = self.filesystem.get_file_info(selector)
        head, prefix = f"{folder}/" if folder else "", len(path) + 1
        return {
            head + info.path[prefix:]: info.size
            for info in found
            if info.type == fs.FileType.File and not info.base_name.startswith(".")
        }

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read one Parquet file.

        Raises:
            InputError: the file is no Parquet.
        """
        try:
            return pq.read_table(pa.BufferReader(self.read(name)), columns=columns)
        except pa.ArrowInvalid as error:
            raise InputError(f"not a readable Parquet file: {error}", where=self._path(name)) from None

    def read_columns(
        self, name: str, columns: Sequence[str] | None, *, dictionaries: Sequence[str] = (), threads: bool = True
    ) -> tuple[pa.Table, pa.Schema]:
        """Read some columns of a Parquet file, or all; and the schema of the whole file with what stands in its footer.

        Columns that the file does not have are left out.

        Args:
            name: the file.
            columns: which; None for all.
            dictionaries: columns of texts that stay encoded; the schema has them as texts.
            threads: whether columns are read side by side; not worth it where many files are.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: the file is no Parquet.
        """
        # Arrow asks its own buffers for bytes; a Python file would be called back for each piece of each column.
        data = pa.BufferReader(self.read(name))
        try:
            file = _opened(data, dictionaries)
            table = file.read(columns=None if columns is None else list(columns), use_threads=threads)
        except pa.ArrowInvalid as error:
            raise InputError(f"not a readable Parquet file: {error}", where=self._path(name)) from None
        plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in file.schema_arrow]
        return table, pa.schema(plain, metadata=_footer(file.metadata))

    def table_metadata(self, name: str) -> dict[bytes, bytes]:
        """What stands in the footer of a Parquet file; the rows are not read.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: the file is no Parquet.
        """
        try:
            with self._reading(name, "cannot be read"), self.filesystem.open_input_file(self._path(name)) as stream:
                return _footer(pq.read_metadata(stream))
        except pa.ArrowInvalid as error:
            raise InputError(f"not a readable Parquet file: {error}", where=self._path(name)) from None

    def row_count(self, name: str) -> int:
        """How many rows a Parquet file has, by its footer.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: the file is no Parquet.
        """
        try:
            with self._reading(name, "cannot be read"), self.filesystem.open_input_file(self._path(name)) as stream:
                return int(pq.read_metadata(stream).num_rows)
        except pa.ArrowInvalid as error:
            raise InputError(f"not a readable Parquet file: {error}", where=self._path(name)) from None

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write one Parquet file; the same table always gives the same bytes."""
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", version="2.6", store_schema=True)
        self.write(name, sink.getvalue())


def _footer(metadata: pq.FileMetaData) -> dict[bytes, bytes]:
    """What was written into a footer, without what Arrow adds for itself."""
    return {key: value for key, value in (metadata.metadata or {}).items() if key != b"ARROW:schema"}


def _opened(data: pa.BufferReader, dictionaries: Sequence[str]) -> pq.ParquetFile:
    """A Parquet file whose texts in these columns, as far as it has them, stay encoded."""
    try:
        return pq.ParquetFile(data, read_dictionary=list(dictionaries))
    except KeyError:
        data.seek(0)
        there = pq.ParquetFile(data).schema_arrow.names
        return pq.ParquetFile(data, read_dictionary=[name for name in dictionaries if name in there])


def _cause(error: OSError) -> str:
    """The reason of an error of Arrow, whose message names the path again and ends in notes about its network code."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    text = str(error).split(" Detail:")[0].split("; Details:")[0]
    return " ".join(text.split()).rstrip(".")


def _write_durably(path: Path, chunks: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as stream:
            stream.writelines(chunks)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_store(url: str) -> Store:
    """Open a folder (`/path`, `path`, `file://…`) or an object store (`s3://bucket/prefix`, `gs://…`, `abfs://…`).

    Raises:
        InputError: the URL names no known kind of store.
        UnreachableError: the store did not answer when its region was asked for.
    """
    if "://" not in url:
        return Store(fs.LocalFileSystem(), Path(url).absolute().as_posix().rstrip("/"))
    known = "use a folder, file://, s3://, gs:// or abfs://"
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise InputError(f"{scheme}:// is no kind of store", where=url, fix=known)
    full = url
    if scheme in ("gs", "gcs") and "retry_limit_seconds=" not in url:
        full += f"{'&' if '?' in url else '?'}retry_limit_seconds={_GCS_RETRY_SECONDS}"
    try:
        filesystem, root = fs.FileSystem.from_uri(full)
    except OSError as error:
        raise UnreachableError(f"{url}: cannot be reached: {_cause(error)}") from error
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"cannot be opened as a store: {error}", where=url, fix=known) from None
    if not root.strip("/") and not isinstance(filesystem, fs.LocalFileSystem):
        raise InputError("names no bucket", where=url, fix="write it like s3://bucket/folder")
    return Store(filesystem, root.rstrip("/"))


def hour_folder(kind: str, cluster: str, hour: datetime) -> str:
    """`<kind>/cluster=…/date=…/hour=…` for an hour in UTC."""
    start = format_time(hour_start(hour))
    return f"{kind}/cluster={cluster}/date={start[:10]}/hour={start[11:13]}"


def parse_hour_folder(path: str) -> tuple[str, datetime] | None:
    """Cluster and hour of a file below `hour_folder`, or None where the path is of another shape."""
    values = dict(part.split("=", 1) for part in PurePosixPath(path).parts if "=" in part)
    try:
        return values["cluster"], parse_time(f"{values['date']}T{values['hour']}:00:00Z")
    except (KeyError, ValueError):
        return None
