"""A provider's bill on this machine: read where it lies, or copied out of an object store for as long as it is read."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from gpuwaste.ledger.store import Store, open_store
from gpuwaste.model.errors import InputError, UnreachableError
from gpuwaste.pricing.bills import BILL_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["local_bill"]


@contextmanager
def local_bill(url: str) -> Iterator[Path]:
    """The file or folder of a bill.

    Args:
        url: a file, or a folder whose files together are the bill; of this machine, or in an object store.

    Raises:
        InputError: the URL is no store, or nothing of a bill lies there.
        UnreachableError: the store did not answer.
    """
    store = open_store(url)
    if store.is_local:
        yield Path(store.root)
        return
    with tempfile.TemporaryDirectory(prefix="gpuwaste-bill-") as folder:
        names = _copied(store, Path(folder), url)
        yield Path(folder) / names[0] if names == [Path(store.root).name] else Path(folder)


def _copied(store: Store, folder: Path, url: str) -> list[str]:
    """Copy the files of a bill; answers their names."""
    if store.root.lower().endswith(BILL_SUFFIXES):
        above, _, name = store.root.rpartition("/")
        store, names = Store(store.filesystem, above), [name]
    else:
        names = [name for name in store.files("") if name.lower().endswith(BILL_SUFFIXES)]
    if not names:
        raise InputError(f"holds no file that ends in {', '.join(BILL_SUFFIXES)}", where=url)
    local = fs.LocalFileSystem()
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            fs.copy_files(f"{store.root}/{name}", str(target), store.filesystem, local)
        except FileNotFoundError:
            raise InputError("there is no such file", where=url) from None
        except OSError as error:
            raise UnreachableError(f"{url}: {name} cannot be read: {' '.join(str(error).split())}") from error
    return names
