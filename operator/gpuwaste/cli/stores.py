"""Where `--inputs` and `--ledger` point: the folder of that name, or the folder that holds it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from gpuwaste.ledger.catalog import find_hours, ledger_hours
from gpuwaste.ledger.inputs import clusters_in
from gpuwaste.ledger.store import Store, open_store
from gpuwaste.model.errors import InputError
from gpuwaste.model.units import HOUR, NS_PER_HOUR, format_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

__all__ = [
    "bytes_per_gpu_day",
    "clusters_of",
    "ledger_size",
    "load_ledger",
    "open_inputs",
    "open_ledger",
]

_RECENT_HOURS = 24
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _FolderStore(Store):
    """A store whose root is itself the `kind` folder, whatever the root is called."""

    kind: str = ""

    def _path(self, name: str) -> str:
        inner = name.removeprefix(self.kind).lstrip("/")
        return f"{self.root}/{inner}" if inner else self.root

    def sizes(self, folder: str) -> dict[str, int]:
        return Store.sizes(self, folder or self.kind)


def _open(url: str, kind: str) -> Store:
    store = open_store(url)
    parent, _, name = store.root.rpartition("/")
    if name == kind and parent:
        return Store(store.filesystem, parent)
    if clusters_in(store, "inputs") or ledger_hours(store):
        return store
    return _FolderStore(store.filesystem, store.root, kind)


def open_inputs(url: str) -> Store:
    """Open stored inputs: `url` is a folder with `cluster=…` folders, or one with an `inputs` folder.

    Raises:
        InputError: there are none.
    """
    store = _open(url, "inputs")
    if not clusters_in(store, "inputs"):
        raise InputError(
            "holds no stored inputs", where=url, fix="give the folder that has `cluster=…` folders, or its parent"
        )
    return store


def open_ledger(url: str, *, create: bool = False) -> Store:
    """Open a ledger: `url` is a folder with `cluster=…` folders, or one with a `ledger` folder.

    Args:
        url: folder or object store.
        create: whether an empty place is fine; the ledger is then written right below it, or
            into its folder `ledger` where it holds a folder `inputs`.

    Raises:
        InputError: there is no ledger, and `create` is false.
    """
    store = _open(url, "ledger")
    if not create and not ledger_hours(store):
        raise InputError(
            "holds no ledger", where=url, fix="give the folder that has `cluster=…` folders, or its parent"
        )
    return store


def ledger_size(store: Store, cluster: str) -> int:
    """Bytes of all ledger files of one cluster."""
    return sum(store.sizes(f"ledger/cluster={cluster}").values())


def bytes_per_gpu_day(store: Store, cluster: str, hours: Sequence[datetime]) -> int | None:
    """Bytes of the ledger that a GPU takes a day, rounded up; None where the hours hold no GPU.

    Args:
        store: where the ledger lies.
        cluster: the cluster.
        hours: its stored hours, oldest first; looked at are the newest 24, and what is in one file with them.

    Raises:
        InputError: a file of these hours is no ledger.
    """
    import pyarrow.compute as pc

    from gpuwaste.ledger.read import read_hours

    stored = find_hours(store, start=hours[0], end=hours[-1] + HOUR)[cluster]
    files = {stored[hour].name for hour in hours[-_RECENT_HOURS:]}
    places = [place for place in stored.values() if place.name in files]
    owned_ns = 0
    for _, rows in read_hours(store, places, columns=("resource", "row_kind", "owned"), resource="gpu"):
        there = pc.not_equal(rows["row_kind"], "unprovisioned")
        owned_ns += pc.sum(rows.filter(there)["owned"]).as_py() or 0
    size = sum(store.size(name) or 0 for name in files)
    return -(-size * 24 * NS_PER_HOUR // owned_ns) if owned_ns else None


def clusters_of(store: Store, kind: str, *, only: str | None) -> dict[str, list[datetime]]:
    """Every cluster below `inputs` or `ledger` with its hours, or the one named.

    Raises:
        InputError: there is no cluster of that name.
    """
    clusters = ledger_hours(store) if kind == "ledger" else clusters_in(store, kind)
    if only is None:
        return clusters
    if only not in clusters:
        raise InputError(f"holds no cluster {only!r}", where=store.root, fix=f"it holds {', '.join(clusters)}")
    return {only: clusters[only]}


def load_ledger(
    url: str,
    *,
    first: datetime | None = None,
    last: datetime | None = None,
    cluster: str | None = None,
    columns: Sequence[str] | None = None,
    resource: str = "",
) -> pa.Table:
    """Rows of LEDGER_SCHEMA, or some of its columns, from the start of the day `first` to the end of the day `last`.

    Raises:
        InputError: there is no ledger, or none of that cluster or period.
    """
    from gpuwaste.ledger.write import read_ledger

    if first is not None and last is not None and last < first:
        raise click.UsageError(f"--to {last:%Y-%m-%d} lies before --from {first:%Y-%m-%d}")
    store = open_ledger(url)
    clusters = clusters_of(store, "ledger", only=cluster)
    table = read_ledger(
        store,
        start=first or _BEGIN,
        end=_END if last is None else last + timedelta(days=1),
        clusters=clusters,
        columns=columns,
        resource=resource,
    )
    if not table.num_rows:
        hours = sorted(hour for found in clusters.values() for hour in found)
        raise InputError(
            "no hour of the ledger lies in the period",
            where=url,
            fix=f"it runs from {format_time(hours[0])} to {format_time(hours[-1])}",
        )
    return table
