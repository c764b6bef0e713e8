"""Stored inputs: deduplicated usage windows and time-ranged facts, an hour a folder.

A batch is acknowledged only after its file is durable, and the cursor of an agent is what these files hold:
there is no other state, so a kill at any moment loses nothing and repeats nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.store import Store, hour_folder, parse_hour_folder
from gpuwaste.model.errors import InputError
from gpuwaste.model.facts import Fact, merge_facts, parse_fact
from gpuwaste.model.units import NS_PER_HOUR, from_unix_ns
from gpuwaste.model.windows import WINDOW_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = [
    "TEAM_RULES_NAME",
    "HourInputs",
    "InputStore",
    "Ranges",
    "clusters_in",
    "deduplicate",
    "team_rules_file",
    "window_ranges",
]

TEAM_RULES_NAME = "team-rules.json"
_RANGES_KEY = b"gpuwaste_ranges"
_COMPACT_ABOVE_FILES = 12
Range = tuple[int, int]


class Digest(Protocol):
    """What `hashlib` gives."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        ...


class Ranges:
    """Which sequence numbers of each journal are stored: sorted, disjoint, inclusive ranges."""

    def __init__(self) -> None:
        self._of: dict[str, list[Range]] = {}

    def add(self, ranges: Mapping[str, Iterable[Range]]) -> None:
        """Take in more ranges; overlaps and neighbours are joined."""
        for journal, more in ranges.items():
            joined: list[Range] = []
            for first, last in sorted([*self._of.get(journal, []), *more]):
                if joined and first <= joined[-1][1] + 1:
                    joined[-1] = (joined[-1][0], max(joined[-1][1], last))
                else:
                    joined.append((first, last))
            self._of[journal] = joined

    def cursor(self, journal_id: str) -> int:
        """The highest sequence number up to which nothing is missing; 0 for a journal never seen.

        Where retention removed the oldest records, the first range starts above 1 and still counts: batches are
        stored in the order of their sequence numbers, so nothing before a stored record is yet to come.
        """
        ranges = self._of.get(journal_id)
        return ranges[0][1] if ranges else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HourInputs:
    """All that one ledger hour is computed from."""

    cluster: str
    hour: datetime
    windows: pa.Table
    facts: tuple[Fact, ...]

    def input_hash(self) -> str:
        """SHA-256 over the content, whatever files and batches it came in and however it lies in memory."""
        digest = hashlib.sha256()
        for field_, column in zip(self.windows.schema, self.windows.combine_chunks().columns, strict=True):
            digest.update(field_.name.encode())
            _hash_column(digest, column.combine_chunks())
        for fact in self.facts:
            digest.update(fact.to_json().encode())
        return digest.hexdigest()


def _hash_column(digest: Digest, column: pa.Array) -> None:
    """Values, lengths and validity; what lies in memory under a null, before an offset or as padding is left out."""
    digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(column.type):
        digest.update(pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).tobytes())
        _hash_column(digest, column.flatten())
    elif pa.types.is_string(column.type):
        digest.update(pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).tobytes())
        digest.update("".join(column.drop_null().to_pylist()).encode())
    else:
        digest.update(pc.fill_null(column, 0).to_numpy(zero_copy_only=False).tobytes())


def deduplicate(windows: pa.Table) -> pa.Table:
    """One row an identity, in the order of identities: equal content gives an equal table."""
    windows = windows.combine_chunks()
    if windows.num_rows <= 1:
        return windows
    journal = windows["journal_id"].combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(journal.dictionary.to_pylist())))
    codes, seq = rank[np.asarray(journal.indices)], windows["seq"].to_numpy()
    if _rises(codes, seq).all():  # what one agent sent, or one file holds: nothing to do
        return windows
    order = np.lexsort((seq, codes))
    codes, seq = codes[order], seq[order]
    return windows.take(pa.array(order[np.r_[True, _rises(codes, seq)]])).combine_chunks()


def _rises(codes: np.ndarray[Any, Any], seq: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whether each row's identity lies above that of the row before; bool[n − 1]."""
    above: np.ndarray[Any, Any] = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (seq[1:] > seq[:-1]))
    return above


def window_ranges(windows: pa.Table) -> dict[str, list[Range]]:
    """The runs of consecutive sequence numbers of each journal; a gap row counts for all it stands for."""
    ranges: dict[str, list[Range]] = {}
    rows = windows.select(["journal_id", "seq", "kind", "body_json"])
    for journal in pc.unique(rows["journal_id"]).to_pylist():
        mine = rows.filter(pc.equal(rows["journal_id"], journal))
        seq = np.sort(mine["seq"].to_numpy())
        breaks = np.flatnonzero(np.diff(seq) > 1)
        firsts, lasts = seq[np.r_[0, breaks + 1]], seq[np.r_[breaks, len(seq) - 1]]
        ranges[journal] = [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]
        for gap in mine.filter(pc.equal(mine["kind"], "gap")).to_pylist():
            lost = int(json.loads(gap["body_json"]).get("lost_records", 0))
            if lost:
                ranges[journal].append((gap["seq"], gap["seq"] + lost - 1))
    return ranges


@dataclass(slots=True)
class InputStore:
    """Windows and facts of one cluster below `inputs/`."""

    store: Store
    cluster: str
    ranges: Ranges = field(default_factory=Ranges)

    @classmethod
    def open(cls, store: Store, cluster: str) -> InputStore:
        """Open a store and read from the files' footers what it holds."""
        inputs = cls(store, cluster)
        for name in store.files(f"inputs/cluster={cluster}"):
            if name.endswith(".parquet"):
                inputs.ranges.add(inputs._ranges_of(name))
        return inputs

    def _ranges_of(self, name: str) -> dict[str, list[Range]]:
        metadata = self.store.table_metadata(name)
        if _RANGES_KEY not in metadata:
            return window_ranges(self.store.read_table(name))
        return {journal: [(r[0], r[1]) for r in found] for journal, found in json.loads(metadata[_RANGES_KEY]).items()}

    def append_windows(self, windows: pa.Table) -> set[datetime]:
        """Store windows, each in the folder of its hour, and count them in the cursors afterwards.

        Returns:
            The hours that changed.
        """
        windows = deduplicate(windows)
        hours = pc.divide(windows["window_start_ns"], NS_PER_HOUR)
        changed = set()
        for number in sorted(pc.unique(hours).to_pylist()):  # in time order, which is the order of sequence numbers
            part = windows.filter(pc.equal(hours, number))
            hour = from_unix_ns(number * NS_PER_HOUR)
            self._write(hour_folder("inputs", self.cluster, hour), part)
            changed.add(hour)
        self.ranges.add(window_ranges(windows))
        return changed

    def _write(self, folder: str, part: pa.Table) -> None:
        existing = [n for n in self.store.files(folder) if n.endswith(".parquet")]
        merged: list[str] = []
        if len(existing) >= _COMPACT_ABOVE_FILES:
            merged = existing
            part = deduplicate(pa.concat_tables([part, *(self.read_windows(name) for name in merged)]))
        ranges = json.dumps(window_ranges(part), sort_keys=True).encode()
        identity = hashlib.sha256(ranges).hexdigest()[:16]
        name = f"{folder}/windows-{identity}.parquet"
        self.store.write_table(name, part.replace_schema_metadata({_RANGES_KEY: ranges}))
        for old in merged:  # their rows are durable in the new file; a kill here only leaves duplicates
            if old != name:
                self.store.delete(old)

    def read_windows(self, name: str) -> pa.Table:
        """Read one file of windows, checking that it has the columns of WINDOW_SCHEMA."""
        table = self.store.read_table(name).replace_schema_metadata(None)
        if table.schema != WINDOW_SCHEMA:
            missing = sorted(set(WINDOW_SCHEMA.names) - set(table.schema.names))
            what = f"columns {', '.join(missing)} are missing" if missing else "its columns are not those of windows"
            raise InputError(what, where=f"{self.store.root}/{name}", fix="was it written by another version?")
        return table

    def write_facts(self, hour: datetime, facts: Iterable[Fact]) -> bool:
        """Merge facts that hold in the hour into its file. Returns whether the file changed."""
        name = f"{hour_folder('inputs', self.cluster, hour)}/facts.jsonl"
        stored = self.read_facts(hour)
        merged = merge_facts(stored, list(facts))
        if merged == stored:
            return False
        self.store.write(name, "".join(f"{fact.to_json()}\n" for fact in merged).encode())
        return True

    def read_facts(self, hour: datetime) -> list[Fact]:
        """The facts of an hour, sorted by key."""
        name = f"{hour_folder('inputs', self.cluster, hour)}/facts.jsonl"
        data = self.store.read_or_none(name)
        lines = [] if data is None else data.decode().splitlines()
        where = f"{self.store.root}/{name}"
        return [parse_fact(line, where=f"{where}, line {i}") for i, line in enumerate(lines, start=1) if line.strip()]

    def node_facts(self, hour: datetime) -> pa.Table:
        """Only the rows in which agents describe their nodes, each identity once."""
        folder = hour_folder("inputs", self.cluster, hour)
        columns = ["journal_id", "seq", "kind", "node", "node_uid", "window_start_ns", "body_json"]
        tables = [
            self.store.read_table(name, columns=columns)
            for name in self.store.files(folder)
            if name.endswith(".parquet")
        ]
        described = [
            table.filter(pc.equal(table["kind"], "node_facts")).replace_schema_metadata(None) for table in tables
        ]
        if not described:
            return WINDOW_SCHEMA.empty_table().select(columns)
        return deduplicate(pa.concat_tables(described))

    def nodes(self, hour: datetime) -> set[str]:
        """Names of the nodes whose agents sent windows of the hour."""
        folder = hour_folder("inputs", self.cluster, hour)
        found: set[str] = set()
        for name in self.store.files(folder):
            if name.endswith(".parquet"):
                found.update(pc.unique(self.store.read_table(name, columns=["node"])["node"]).to_pylist())
        return found

    def hours(self) -> list[datetime]:
        """All hours for which anything is stored, oldest first."""
        found = (parse_hour_folder(name) for name in self.store.files(f"inputs/cluster={self.cluster}"))
        return sorted({hour for _, hour in filter(None, found)})

    def load(self, hour: datetime) -> HourInputs:
        """Everything stored for one hour, deduplicated and in canonical order."""
        folder = hour_folder("inputs", self.cluster, hour)
        tables = [self.read_windows(name) for name in self.store.files(folder) if name.endswith(".parquet")]
        windows = deduplicate(pa.concat_tables(tables)) if tables else WINDOW_SCHEMA.empty_table()
        return HourInputs(cluster=self.cluster, hour=hour, windows=windows, facts=tuple(self.read_facts(hour)))


def team_rules_file(cluster: str) -> str:
    """Where the rules that named the teams lie beside the inputs, so that a replay names them alike."""
    return f"inputs/cluster={cluster}/{TEAM_RULES_NAME}"


def clusters_in(store: Store, kind: str) -> dict[str, list[datetime]]:
    """Every cluster below `inputs` or `ledger` with its hours, oldest first."""
    found: dict[str, set[datetime]] = defaultdict(set)
    for name in store.files(kind):
        parsed = parse_hour_folder(name)
        if parsed:
            found[parsed[0]].add(parsed[1])
    return {cluster: sorted(hours) for cluster, hours in sorted(found.items())}
