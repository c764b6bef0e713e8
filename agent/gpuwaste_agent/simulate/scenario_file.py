"""Reads and writes scenario files; a mistake is named with its file and its place in the JSON."""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from gpuwaste_agent.products import PRODUCTS
from gpuwaste_agent.simulate.scenario import (
    FAULT_KINDS,
    FOREVER,
    STRATEGIES,
    VERSION,
    Scenario,
    ScenarioContainer,
    ScenarioError,
    ScenarioFault,
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["ScenarioError", "dump_scenario", "load_scenario", "parse_scenario"]

_LOAD_POINT = (4, 6, 8)  # numbers of a point: without tensor and dram, without enc and dec, all
_T = TypeVar("_T")


class _Reader:
    """One JSON object of the file, with its place for messages; every key must be asked for."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ScenarioError(f"{where} must be an object, not {_kind(value)}")
        self._value = value
        self._seen: set[str] = set()
        self.where = where

    def at(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def fail(self, key: str, problem: str) -> ScenarioError:
        return ScenarioError(f"{self.at(key)} {problem}")

    def take(self, key: str, default: Any = ...) -> Any:
        self._seen.add(key)
        value = self._value.get(key)
        if value is not None:
            return value
        if default is ...:
            raise self.fail(key, "is missing: add it")
        return default

    def text(self, key: str, default: Any = ...) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or (not value and default is ...):
            raise self.fail(key, f"must be a non-empty string, not {_kind(value)}")
        return value

    def number(self, key: str, default: Any = ...) -> float:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"must be a number, not {_kind(value)}")
        return float(value)

    def whole(self, key: str, default: Any = ..., least: int = 0) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(key, f"must be an integer of at least {least}, not `{value}`")
        return value

    def one_of(self, key: str, known: Sequence[str], default: Any = ...) -> str:
        value = self.text(key, default)
        if value not in known:
            raise self.fail(key, f"must be one of {', '.join(known)}, not `{value}`")
        return value

    def items(self, key: str, read: Callable[[Any, str], _T], default: Any = ()) -> tuple[_T, ...]:
        value = self.take(key, default)
        if not isinstance(value, list | tuple):
            raise self.fail(key, f"must be a list, not {_kind(value)}")
        return tuple(read(item, f"{self.at(key)}[{index}]") for index, item in enumerate(value))

    def times(self) -> tuple[float, float]:
        start, end = self.number("from_s", 0.0), self.number("until_s", FOREVER)
        if not start < end:
            raise self.fail("until_s", f"must be later than `from_s` ({start:g}), not {end:g}")
        return start, end

    def done(self) -> None:
        unknown = sorted(set(self._value) - self._seen)
        if unknown:
            raise self.fail(unknown[0], f"is not known here (known: {', '.join(sorted(self._seen))})")


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", str: f"`{value}`", list: "a list", dict: "an object"}
    return names.get(type(value), f"`{value}`")


def _text_item(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ScenarioError(f"{where} must be a non-empty string, not {_kind(value)}")
    return value


def _load_item(value: Any, where: str) -> ScenarioLoad:
    low, _, high = _LOAD_POINT
    numbers = isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    if not numbers or not low <= len(value) <= high:
        raise ScenarioError(
            f"{where} must be [offset_s, duty, sm_width, memory_mib, tensor?, dram?, enc?, dec?], all numbers"
        )
    point = ScenarioLoad(*(float(v) for v in value))
    for name in ("duty", "sm_width", "tensor", "dram", "enc", "dec"):
        if not 0 <= getattr(point, name) <= 1:
            raise ScenarioError(f"{where}: {name} must lie between 0 and 1, not {getattr(point, name):g}")
    if point.memory_mib < 0:
        raise ScenarioError(f"{where}: memory_mib must not be negative")
    return point


def _process(value: Any, where: str) -> ScenarioProcess:
    reader = _Reader(value, where)
    start, end = reader.times()
    process = ScenarioProcess(
        pid=reader.whole("pid", least=1),
        parent=reader.text("parent"),
        load=reader.items("load", _load_item, ...),
        from_s=start,
        until_s=end,
    )
    reader.done()
    offsets = [point.at_s for point in process.load]
    if not offsets or offsets[0] > start or any(a >= b for a, b in itertools.pairwise(offsets)):
        raise reader.fail("load", f"must begin at or before `from_s` ({start:g}) and its offsets must rise")
    return process


def _container(value: Any, where: str) -> ScenarioContainer:
    reader = _Reader(value, where)
    start, end = reader.times()
    container = ScenarioContainer(
        namespace=reader.text("namespace"),
        pod=reader.text("pod"),
        pod_uid=reader.text("pod_uid"),
        container=reader.text("container"),
        container_id=reader.text("container_id"),
        resource=reader.text("resource", ""),
        devices=reader.items("devices", _text_item),
        claim=reader.text("claim", ""),
        from_s=start,
        until_s=end,
        processes=reader.items("processes", _process),
    )
    reader.done()
    return container


def _gpu(value: Any, where: str) -> ScenarioGpu:
    reader = _Reader(value, where)
    product = reader.text("product")
    if product not in PRODUCTS:
        raise reader.fail("product", f"is unknown: `{product}` (known: {', '.join(PRODUCTS)})")
    mig = reader.take("mig", None)
    sharing = _Reader(reader.take("sharing", {}), reader.at("sharing"))
    strategy = sharing.one_of("strategy", tuple(STRATEGIES), "none")
    gpu = ScenarioGpu(
        uuid=reader.text("uuid"),
        product=product,
        mig=None if mig is None else reader.items("mig", _instance),
        strategy=strategy,
        replicas=sharing.whole("replicas", 1, least=1 if strategy == "none" else 2),
    )
    sharing.done()
    reader.done()
    if gpu.mig is not None:
        _check_layout(gpu, reader)
    return gpu


def _instance(value: Any, where: str) -> ScenarioInstance:
    reader = _Reader(value, where)
    instance = ScenarioInstance(uuid=reader.text("uuid"), profile=reader.text("profile"), start=reader.whole("start"))
    reader.done()
    return instance


def _check_layout(gpu: ScenarioGpu, reader: _Reader) -> None:
    taken: dict[int, int] = {}
    if not gpu.facts.mig_capable:
        raise reader.fail("mig", f"must be left out: {gpu.product} has no MIG")
    for index, instance in enumerate(gpu.mig or ()):
        place = f"mig[{index}]"
        try:
            profile = gpu.facts.profile(instance.profile)
        except KeyError as error:
            raise reader.fail(f"{place}.profile", f"is unknown: {error.args[0]}") from None
        if instance.start not in profile.starts:
            starts = ", ".join(map(str, profile.starts))
            raise reader.fail(f"{place}.start", f"must be one of {starts} for {profile.name}")
        for unit in range(instance.start, instance.start + profile.memory_units):
            if unit in taken:
                raise reader.fail(place, f"overlaps mig[{taken[unit]}] in memory unit {unit}")
            taken[unit] = index


def _fault(value: Any, where: str) -> ScenarioFault:
    reader = _Reader(value, where)
    start, end = reader.times()
    fault = ScenarioFault(
        kind=reader.one_of("kind", FAULT_KINDS),
        gpu=reader.text("gpu", ""),
        from_s=start,
        until_s=end,
        xid=reader.whole("xid", 0),
        step_s=reader.number("step_s", 0.0),
    )
    reader.done()
    if fault.kind not in ("clock-step", "driver-reload") and not fault.gpu:
        raise reader.fail("gpu", f"is missing: say which GPU the fault `{fault.kind}` hits")
    return fault


def _node(value: Any, where: str) -> ScenarioNode:
    reader = _Reader(value, where)
    node = ScenarioNode(
        name=reader.text("name"),
        uid=reader.text("uid"),
        gpus=reader.items("gpus", _gpu, ...),
        containers=reader.items("containers", _container),
        processes=reader.items("processes", _process),
        faults=reader.items("faults", _fault),
    )
    reader.done()
    _check_references(node, reader)
    return node


def _check_references(node: ScenarioNode, reader: _Reader) -> None:
    _check_devices(node, reader)
    parents = {parent for gpu in node.gpus for parent in gpu.parent_ids}
    gpus = {gpu.uuid for gpu in node.gpus}
    pids: dict[int, str] = {}
    for place, process in _processes(node):
        if process.parent not in parents:
            raise reader.fail(f"{place}.parent", f"`{process.parent}` is no parent of this node: {_some(parents)}")
        if process.pid in pids:
            raise reader.fail(f"{place}.pid", f"{process.pid} is already used by {pids[process.pid]}")
        pids[process.pid] = place
    for index, fault in enumerate(node.faults):
        if fault.gpu and fault.gpu not in gpus:
            raise reader.fail(f"faults[{index}].gpu", f"`{fault.gpu}` is no GPU of this node: {_some(gpus)}")


def _check_devices(node: ScenarioNode, reader: _Reader) -> None:
    """Every device is a slice of the node, in the hands of one container at a time unless shared by a claim."""
    slices = {slice_id for gpu in node.gpus for slice_id in gpu.slice_ids()}
    held: dict[str, list[ScenarioContainer]] = {}
    for index, container in enumerate(node.containers):
        for number, device in enumerate(container.devices):
            where = f"containers[{index}].devices[{number}]"
            if device not in slices:
                raise reader.fail(where, f"`{device}` is no slice of this node; slices: {_some(slices)}")
            others = held.setdefault(device, [])
            for other in others:
                overlap = other.from_s < container.until_s and container.from_s < other.until_s
                if overlap and not (container.claim and container.claim == other.claim):
                    name = f"{other.namespace}/{other.pod}"
                    raise reader.fail(where, f"`{device}` is held by {name} at the same time: move one of them")
            others.append(container)


def _processes(node: ScenarioNode) -> list[tuple[str, ScenarioProcess]]:
    found = [(f"processes[{i}]", process) for i, process in enumerate(node.processes)]
    for index, container in enumerate(node.containers):
        found += [(f"containers[{index}].processes[{i}]", p) for i, p in enumerate(container.processes)]
    return found


def _some(names: set[str]) -> str:
    ordered = sorted(names)
    most = 6
    return ", ".join(ordered[:most]) + (" …" if len(ordered) > most else "")


def parse_scenario(text: str, name: str) -> Scenario:
    """Read a scenario from JSON text; `name` is the file named in messages.

    Raises:
        ScenarioError: The text is no usable scenario; one line says where and what to do.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ScenarioError(f"{name}: line {error.lineno} is no JSON: {error.msg}") from None
    try:
        reader = _Reader(value, "")
        version = reader.whole("version", least=1)
        if version != VERSION:
            raise reader.fail("version", f"must be {VERSION}, not {version}: this program reads no other")
        start = reader.text("start", "")
        scenario = Scenario(nodes=reader.items("nodes", _node, ...), start=start)
        reader.done()
    except ScenarioError as error:
        raise ScenarioError(f"{name}: {re.sub('^ ', 'the file ', str(error))}") from None
    return scenario


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ScenarioError: The file cannot be read or is no usable scenario.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read ({error})") from None
    return parse_scenario(text, str(path))


def _put(target: dict[str, Any], **values: Any) -> dict[str, Any]:
    target.update({key: value for key, value in values.items() if value not in ("", (), [], 0.0, FOREVER)})
    return target


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 6)


def _dump_process(process: ScenarioProcess) -> dict[str, Any]:
    load = []
    for point in process.load:
        numbers = [_plain(v) for v in point]
        load.append(numbers[: next(length for length in _LOAD_POINT if not any(numbers[length:]))])
    return _put(
        {"pid": process.pid, "parent": process.parent},
        from_s=process.from_s,
        until_s=process.until_s,
        load=load,
    )


def _dump_gpu(gpu: ScenarioGpu) -> dict[str, Any]:
    value: dict[str, Any] = {"uuid": gpu.uuid, "product": gpu.product}
    if gpu.mig is not None:
        value["mig"] = [{"uuid": i.uuid, "profile": i.profile, "start": i.start} for i in gpu.mig]
    if gpu.strategy != "none":
        value["sharing"] = {"strategy": gpu.strategy, "replicas": gpu.replicas}
    return value


def _dump_node(node: ScenarioNode) -> dict[str, Any]:
    value: dict[str, Any] = {"name": node.name, "uid": node.uid, "gpus": [_dump_gpu(gpu) for gpu in node.gpus]}
    containers = []
    for c in node.containers:
        names = {key: getattr(c, key) for key in ("namespace", "pod", "pod_uid", "container", "container_id")}
        processes = [_dump_process(process) for process in c.processes]
        containers.append(
            _put(
                names,
                resource=c.resource,
                claim=c.claim,
                devices=list(c.devices),
                from_s=c.from_s,
                until_s=c.until_s,
                processes=processes,
            )
        )
    faults = [
        _put({"kind": f.kind}, gpu=f.gpu, from_s=f.from_s, until_s=f.until_s, xid=f.xid or "", step_s=f.step_s)
        for f in node.faults
    ]
    host = [_dump_process(process) for process in node.processes]
    return _put(value, containers=containers, processes=host, faults=faults)


def dump_scenario(scenario: Scenario) -> str:
    """Return the scenario as JSON text that `parse_scenario` reads back to the same value."""
    value = _put({"version": VERSION}, start=scenario.start)
    value["nodes"] = [_dump_node(node) for node in scenario.nodes]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
