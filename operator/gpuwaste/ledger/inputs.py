"""Stored inputs: deduplicated usage windows and time-ranged facts, an hour a folder.

A batch is acknowledged only after its file is durable, and the cursor of an agent is what these files hold:
there is no other state, so a kill at any moment loses nothing and repeats nothing.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpuwaste.ledger.columns import COMPUTED_FROM, coded
from gpuwaste.ledger.sources import SOURCE_COLUMNS, prefer_agents
from gpuwaste.ledger.store import Store, hour_folder, parse_hour_folder
from gpuwaste.model.errors import InputError
from gpuwaste.model.facts import Fact, merge_facts, parse_fact
from gpuwaste.model.units import NS_PER_HOUR, from_unix_ns
from gpuwaste.model.windows import WINDOW_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

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
    """Which sequence numbers of each journal are stored: sorted, disjoint, inclusive ranges. Threads may share it."""

    def __init__(self) -> None:
        self._of: dict[str, list[Range]] = {}
        self._lock = threading.Lock()

    def add(self, ranges: Mapping[str, Iterable[Range]]) -> None:
        """Take in more ranges; overlaps and neighbours are joined."""
        with self._lock:
            for journal, more in ranges.items():
                self._of[journal] = _joined([*self._of.get(journal, []), *more])

    def holds(self, journal_id: str, seq: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these sequence numbers of a journal, int64[n], are stored; bool[n]."""
        ranges = np.array(self._of.get(journal_id, []), np.int64).reshape(-1, 2)
        place = np.searchsorted(ranges[:, 0], seq, side="right")
        held: NDArray[np.bool_] = seq <= np.r_[-1, ranges[:, 1]][place]
        return held

    def cursor(self, journal_id: str) -> int:
        """The highest sequence number up to which nothing is missing; 0 for a journal never seen.

        Where retention removed the oldest records, the first range starts above 1 and still counts: batches are
        stored in the order of their sequence numbers, so nothing before a stored record is yet to come.
        """
        ranges = self._of.get(journal_id)
        return ranges[0][1] if ranges else 0


def _joined(ranges: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class HourInputs:
    """All that one ledger hour is computed from."""

    cluster: str
    hour: datetime
    windows: pa.Table
    facts: tuple[Fact, ...]

    def input_hash(self) -> str:
        """SHA-256 over all that the hour is computed from, whatever files and batches it came in."""
        digest = hashlib.sha256(f"{self.windows.num_rows}".encode())
        for name in COMPUTED_FROM:
            digest.update(name.encode())
            _hash_column(digest, self.windows[name])
        for fact in self.facts:
            digest.update(fact.to_json().encode())
        return digest.hexdigest()


def _hash_column(digest: Digest, column: pa.ChunkedArray) -> None:
    """Values and validity; what lies in memory under a null, before an offset or as padding is left out.

    Texts count as their distinct values in order and the place of each row's text among them.
    """
    if column.null_count == len(column):
        return
    digest.update(np.packbits(column.is_valid().to_numpy()).tobytes())
    if pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
        texts = coded(column)
        present = np.unique(texts.codes)
        digest.update(json.dumps(texts.names[present].tolist()).encode())
        place = np.searchsorted(present, texts.codes) if len(present) < len(texts.names) else texts.codes
        digest.update(place.astype("<i4").tobytes())
    else:
        digest.update(pc.fill_null(column, 0).to_numpy().tobytes())


def deduplicate(windows: pa.Table) -> pa.Table:
    """One row an identity, in the order of identities: equal content gives an equal table."""
    return _in_order([windows])


def _in_order(tables: list[pa.Table]) -> pa.Table:
    """All rows, each identity once, in the order of identities. Takes the tables out of the list."""
    whole = pa.concat_tables(tables).unify_dictionaries()
    tables.clear()
    codes, seq = coded(whole["journal_id"]).codes, whole["seq"].to_numpy()
    if _rises(codes, seq).all():  # what one agent sent, or one file holds: nothing to do
        return whole.combine_chunks()
    order = np.lexsort((seq, codes))
    codes, seq = codes[order], seq[order]
    place = pa.array(order[np.r_[True, _rises(codes, seq)]])
    schema, columns = whole.schema, whole.columns
    del whole
    for number in range(len(columns)):  # one by one, so that no more than one column lies in memory twice
        column, columns[number] = columns[number].combine_chunks(), None
        columns[number] = column.take(place)
    return pa.table(columns, schema=schema)


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

    def append_windows(self, windows: pa.Table, *, compact: bool = True) -> set[datetime]:
        """Store windows, each in the folder of its hour, and count them in the cursors afterwards.

        Args:
            windows: rows of WINDOW_SCHEMA.
            compact: join the files of an hour that has many. It removes files, so only the one that also reads hours
                may do it; others only add, at any time.

        Returns:
            The hours that changed.
        """
        windows = deduplicate(windows)
        hours = pc.divide(windows["window_start_ns"], NS_PER_HOUR)
        changed = set()
        for number in sorted(pc.unique(hours).to_pylist()):  # in time order, which is the order of sequence numbers
            part = windows.filter(pc.equal(hours, number))
            hour = from_unix_ns(number * NS_PER_HOUR)
            self._write(hour_folder("inputs", self.cluster, hour), part, compact=compact)
            changed.add(hour)
        self.ranges.add(window_ranges(windows))
        return changed

    def _write(self, folder: str, part: pa.Table, *, compact: bool) -> None:
        existing = [n for n in self.store.files(folder) if n.endswith(".parquet")] if compact else []
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

    def read_windows(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one file of windows, or some of its columns, checking that it has those of WINDOW_SCHEMA."""
        texts = [c for c in columns or () if pa.types.is_string(WINDOW_SCHEMA.field(c).type)]
        table, schema = self.store.read_columns(name, columns, dictionaries=texts)
        if schema != WINDOW_SCHEMA:
            missing = sorted(set(WINDOW_SCHEMA.names) - set(schema.names))
            what = f"columns {', '.join(missing)} are missing" if missing else "its columns are not those of windows"
            raise InputError(what, where=f"{self.store.root}/{name}", fix="was it written by another version?")
        return table.replace_schema_metadata(None)

    def write_facts(self, hour: datetime, facts: Iterable[Fact]) -> bool:
        """Merge facts that hold in the hour into its file. Returns whether the file changed."""
        return self.replace_facts(hour, merge_facts(self.read_facts(hour), list(facts)))

    def replace_facts(self, hour: datetime, facts: Sequence[Fact]) -> bool:
        """Let the facts of an hour be these, sorted by key. Returns whether the file changed."""
        name = f"{hour_folder('inputs', self.cluster, hour)}/facts.jsonl"
        text = "".join(f"{fact.to_json()}\n" for fact in facts).encode()
        if text == (self.store.read_or_none(name) or b""):
            return False
        self.store.write(name, text)
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
        tables = [self.read_windows(name, columns) for name in self.store.files(folder) if name.endswith(".parquet")]
        described = [table.filter(pc.equal(table["kind"], "node_facts")) for table in tables]
        return _in_order(described) if described else WINDOW_SCHEMA.empty_table().select(columns)

    def journals(self, hour: datetime) -> set[str]:
        """Journals of which records of the hour are stored, by the files' footers."""
        folder = hour_folder("inputs", self.cluster, hour)
        names = [name for name in self.store.files(folder) if name.endswith(".parquet")]
        return set().union(*(self._ranges_of(name) for name in names))

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

    def load(self, hour: datetime, *, columns: Sequence[str] | None = None) -> HourInputs:
        """What is stored for one hour, deduplicated, each time of a node from one source, and in canonical order.

        Args:
            hour: start of the hour.
            columns: columns of the windows, `journal_id` and `seq` among them; None for all. Texts of chosen columns
                stay encoded as dictionaries, which for a large hour is a quarter of the memory.
        """
        folder = hour_folder("inputs", self.cluster, hour)
        wanted = None if columns is None else [*columns, *(name for name in SOURCE_COLUMNS if name not in columns)]
        tables = [self.read_windows(name, wanted) for name in self.store.files(folder) if name.endswith(".parquet")]
        windows = prefer_agents(_in_order(tables)) if tables else WINDOW_SCHEMA.empty_table()
        windows = windows.select(columns or WINDOW_SCHEMA.names)
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
