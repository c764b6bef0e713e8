"""Time-ranged facts: what was true of the cluster, and from when to when.

Facts are stored beside the usage windows before anything is computed from them, so that a ledger hour is a
pure function of stored input. Every `valid_from` comes from the object itself (status times), never from the
moment somebody looked: two operators that saw the same cluster store the same facts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from datetime import datetime  # noqa: TC003 (dataclass fields are inspected)
from typing import Any, Literal, get_args

from gpuwaste.model.errors import InputError
from gpuwaste.model.scheduling import PARTS, Scheduling, Selector, scheduling_of, selector_of
from gpuwaste.model.units import format_time, parse_time

__all__ = [
    "BudgetData",
    "ContainerRequest",
    "CordonData",
    "Fact",
    "FactKind",
    "GpuData",
    "MigInstanceData",
    "NamespaceData",
    "NodeData",
    "OwnerData",
    "OwnerRef",
    "PodData",
    "PriceData",
    "QuotaData",
    "ReadyData",
    "Requests",
    "ReservationData",
    "merge_facts",
    "parse_fact",
    "plain_data",
    "requested",
]

FactKind = Literal[
    "pod", "owner", "namespace", "node", "gpu", "reservation", "price", "pending", "quota", "ready", "budget", "cordon"
]
_KINDS: tuple[str, ...] = get_args(FactKind)


def _later(default: Any) -> Any:
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRef:
    """The controller reference of an object (the one with `controller: true`, else the first)."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRequest:
    """What one container asks for; extended resources by their full name, as whole counts."""

    name: str
    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: dict[str, int] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    init: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PodData:
    """A pod bound to a node, without anything that changes while it runs."""

    namespace: str
    name: str
    node: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    owner: OwnerRef | None = None
    containers: tuple[ContainerRequest, ...] = ()
    priority: int = 0
    scheduling: Scheduling | None = _later(None)  # noqa: RUF009 - frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetData:
    """A PodDisruptionBudget: how many of the pods it selects may be away now, by its status."""

    namespace: str
    name: str
    selector: Selector
    disruptions_allowed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonData:
    """A node that takes no further pods."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What the scheduler counts for a pod: CPU in milli-cores, memory in bytes, and GPU resources by name."""

    cpu_milli: int
    memory_bytes: int
    gpus: dict[str, int]


def requested(pod: PodData) -> Requests:
    """What a pod asks for as a whole.

    Init containers run before the others, one at a time: a pod needs the larger of their maximum and the
    sum of the rest, for each resource.
    """
    if len(pod.containers) == 1:  # most pods
        (only,) = pod.containers
        return Requests(cpu_milli=only.cpu_milli, memory_bytes=only.memory_bytes, gpus=dict(sorted(only.gpus.items())))
    running = [container for container in pod.containers if not container.init]
    starting = [container for container in pod.containers if container.init]

    def needed(of_running: list[int], of_starting: list[int]) -> int:
        return max(sum(of_running), max(of_starting, default=0))

    names = sorted({name for container in pod.containers for name in container.gpus})
    return Requests(
        cpu_milli=needed([c.cpu_milli for c in running], [c.cpu_milli for c in starting]),
        memory_bytes=needed([c.memory_bytes for c in running], [c.memory_bytes for c in starting]),
        gpus={n: needed([c.gpus.get(n, 0) for c in running], [c.gpus.get(n, 0) for c in starting]) for n in names},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerData:
    """An object that owns pods or other owners."""

    api_version: str
    kind: str
    namespace: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    owner: OwnerRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceData:
    """A namespace and what team rules read of it."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeData:
    """A node as prices, pools and packing need it; `extended`: places for pods, devices besides GPUs, hugepages."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    provider_id: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: dict[str, int] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    extended: dict[str, int] | None = _later(None)  # noqa: RUF009 - as for every later field


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstanceData:
    """One MIG instance of a GPU; `weight_num / weight_den` is its part of the GPU.

    `start` is its first memory unit; None where the driver did not tell it.
    """

    uuid: str
    profile: str
    start: int | None
    weight_num: int
    weight_den: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuData:
    """A physical GPU as its agent described it."""

    node: str
    node_uid: str
    product: str
    model: str
    memory_bytes: int
    index: int = 0
    mig_enabled: bool = False
    mig_instances: tuple[MigInstanceData, ...] = ()
    replicas: int = 1
    sharing: str = "EXCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationData:
    """Purchased capacity: `count` GPUs of `product` while the fact holds.

    `price` is of one GPU-hour, a sum for the term spread over it; `prepaid` says that it was such a sum, so that no
    hour is invoiced. `owned` is hardware of one's own.
    """

    name: str
    product: str
    count: int
    price: str | None = None
    currency: str | None = None
    owner_team: str = ""
    term_end: str = ""
    node_pool: str = _later("")
    owner_namespace: str = _later("")
    commitment_id: str = _later("")
    owned: bool = _later(default=False)
    prepaid: bool = _later(default=False)

    @property
    def identity(self) -> str:
        """What makes two clusters' statements the same purchase: the provider's name of it, else ours."""
        return self.commitment_id or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaData:
    """How many device slices may be asked for: a ResourceQuota of a namespace, or a queue of Kueue.

    `gpus` counts by resource; a LocalQueue has none, and leads by `queue` to the ClusterQueue that has. `borrowable` is
    what a ClusterQueue may have beyond that, at most, while the others of its cohort leave it unused; nothing where it
    may not borrow.
    """

    source: str
    name: str
    namespace: str = ""
    gpus: dict[str, int] = field(default_factory=dict)
    queue: str = ""
    borrowable: dict[str, int] | None = field(default=None, metadata={"later": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyData:
    """What a node's condition Ready has said since `valid_from`, until the next such fact of the node."""

    node: str
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceData:
    """Unit costs of one resource-hour on a node, as decimal strings; None where a figure is not known.

    The fact's uid is `<node uid>/<product>`: one price for all GPUs of that product on that node. The price of a
    core-hour (resource `cpu`) and of a GiB-hour (`memory`) have the resource in the product's place.
    """

    node_uid: str
    product: str
    currency: str
    source: str
    date: str
    list_unit_cost: str | None = None
    contracted_unit_cost: str | None = None
    billed_unit_cost: str | None = None
    effective_unit_cost: str | None = None
    resource: str = _later("gpu")


Data = (
    PodData
    | OwnerData
    | NamespaceData
    | NodeData
    | GpuData
    | ReservationData
    | PriceData
    | QuotaData
    | ReadyData
    | BudgetData
    | CordonData
)
_DATA_OF: dict[str, type[Any]] = {
    "pod": PodData,
    "owner": OwnerData,
    "namespace": NamespaceData,
    "node": NodeData,
    "gpu": GpuData,
    "reservation": ReservationData,
    "price": PriceData,
    "pending": PodData,
    "quota": QuotaData,
    "ready": ReadyData,
    "budget": BudgetData,
    "cordon": CordonData,
}


_write_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One line of `facts.jsonl`: `data` held for `uid` from `valid_from` to before `valid_to` (None: still)."""

    kind: FactKind
    uid: str
    valid_from: datetime
    valid_to: datetime | None
    data: Data

    @property
    def key(self) -> tuple[str, str, datetime]:
        """What makes two statements the same fact; the later statement wins."""
        return (self.kind, self.uid, self.valid_from)

    def overlaps(self, start: datetime, end: datetime) -> bool:
        """Whether the fact held at any moment of [start, end)."""
        return self.valid_from < end and (self.valid_to is None or self.valid_to > start)

    def to_json(self) -> str:
        """One canonical line: keys sorted, times in UTC with `Z`."""
        return _write_json(
            {
                "kind": self.kind,
                "uid": self.uid,
                "valid_from": format_time(self.valid_from),
                "valid_to": None if self.valid_to is None else format_time(self.valid_to),
                "data": plain_data(self.data),
            }
        )


def plain_data(value: Any) -> Any:
    """What JSON can hold of frozen data, without the copies that `asdict` makes of every text and mapping."""
    if isinstance(value, tuple):
        return [plain_data(item) for item in value]
    names = _NAMES_OF.get(type(value))
    if names is None:
        return value
    plain = {name: plain_data(getattr(value, name)) for name in names}
    for name, default in _LATER[type(value)]:
        if plain[name] == default:
            del plain[name]
    return plain


_PLAIN_KINDS: tuple[type[Any], ...] = (
    *_DATA_OF.values(),
    OwnerRef,
    ContainerRequest,
    MigInstanceData,
    *PARTS,
)
_NAMES_OF: dict[type[Any], tuple[str, ...]] = {kind: tuple(one.name for one in fields(kind)) for kind in _PLAIN_KINDS}
_LATER: dict[type[Any], tuple[tuple[str, Any], ...]] = {
    kind: tuple((one.name, one.default) for one in fields(kind) if one.metadata.get("later")) for kind in _PLAIN_KINDS
}
"""Fields that came after the first form of a fact are written only where they say something: what was stored before
reads, and hashes, as it did."""


def _owner(value: Any) -> OwnerRef | None:
    return None if value is None else OwnerRef(**value)


def _data(kind: str, raw: dict[str, Any]) -> Data:
    values = dict(raw)
    if kind in ("pod", "pending", "owner"):
        values["owner"] = _owner(values.get("owner"))
    if kind in ("pod", "pending"):
        values["containers"] = tuple(
            ContainerRequest(**{**c, "claims": tuple(c.get("claims", ()))}) for c in values.get("containers", ())
        )
        if values.get("scheduling") is not None:
            values["scheduling"] = scheduling_of(values["scheduling"])
    if kind == "budget":
        values["selector"] = selector_of(values["selector"])
    if kind == "node":
        values["taints"] = tuple(values.get("taints", ()))
    if kind == "gpu":
        values["mig_instances"] = tuple(MigInstanceData(**m) for m in values.get("mig_instances", ()))
    data: Data = _DATA_OF[kind](**values)
    return data


def parse_fact(line: str, *, where: str) -> Fact:
    """Read one line of `facts.jsonl`.

    Raises:
        InputError: the line is no fact; names `where` (file and line) and the field.
    """
    fix = 'a fact is one JSON object {"kind", "uid", "valid_from", "valid_to", "data"} on a line'
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at column {error.colno}", where=where, fix=fix) from None
    if not isinstance(raw, dict):
        raise InputError("not a JSON object", where=where, fix=fix)
    for name in ("kind", "uid", "valid_from", "data"):
        if name not in raw:
            raise InputError(f"field `{name}` is missing", where=where, fix=fix)
    kind = raw["kind"]
    if kind not in _KINDS:
        raise InputError(f"field `kind` must be one of {', '.join(_KINDS)}, not {kind!r}", where=where)
    try:
        valid_to = raw.get("valid_to")
        return Fact(
            kind=kind,
            uid=str(raw["uid"]),
            valid_from=parse_time(raw["valid_from"]),
            valid_to=None if valid_to is None else parse_time(valid_to),
            data=_data(kind, raw["data"]),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"field `data` or a time of this {kind} is wrong: {error}", where=where) from None


def merge_facts(*sources: list[Fact]) -> list[Fact]:
    """Union by key; later sources win. Sorted, so that equal knowledge gives equal files."""
    merged = {fact.key: fact for source in sources for fact in source}
    return [merged[key] for key in sorted(merged)]
