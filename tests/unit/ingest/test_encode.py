"""Windows to JSON lines and back: the same table, whatever is set and whatever is not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwaste.ingest.decode import decode_batch, read_jsonl_lines
from gpuwaste.ingest.encode import write_jsonl_lines
from gpuwaste.model.units import NS_PER_MINUTE
from gpuwaste_agent.wire import usage_pb2 as wire

TIME = st.integers(0, NS_PER_MINUTE)
WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6)
START = 29_893_500 * NS_PER_MINUTE


@st.composite
def qualities(draw):
    bound = st.none() | st.floats(0, 1e12)
    return wire.Quality(
        origin=draw(st.sampled_from(wire.Origin.values())),
        coverage_ppm=draw(st.integers(0, 1_000_000)),
        resolution_ms=draw(st.integers(0, 60_000)),
        low=draw(bound),
        high=draw(bound),
    )


@st.composite
def figures(draw, *, quality=True):
    names = ("duty_ns", "sm_ns", "tensor_ns", "enc_ns", "pcie_bytes", "memory_peak_bytes", "energy_mj")
    found = wire.Figures(**{name: draw(st.none() | TIME) for name in names})
    if draw(st.booleans()):
        found.memory_byte_s = draw(st.floats(0, 1e15))
    if quality and draw(st.booleans()):
        found.histogram_ns.extend(draw(st.lists(TIME, min_size=21, max_size=21)))
    for name in ("duty_quality", "sm_quality", "memory_quality") if quality else ():
        if draw(st.booleans()):
            getattr(found, name).CopyFrom(draw(qualities()))
    return found


@st.composite
def bodies(draw):
    kind = draw(st.sampled_from(["device", "usage", "node_facts", "gap"]))
    if kind == "device":
        return {
            kind: wire.Device(
                gpu_uuid=draw(WORD),
                parent_id=draw(WORD),
                weight_num=draw(st.integers(1, 4)),
                weight_den=8,
                replicas=draw(st.integers(1, 10)),
                sharing=draw(st.sampled_from(wire.Sharing.values())),
                allocatable_ns=draw(TIME),
                unhealthy_ns=draw(TIME),
                xids=draw(st.lists(st.integers(0, 200), max_size=2)),
                figures=draw(figures()),
                unattributed=draw(figures(quality=False)),
                mig_profile=draw(st.sampled_from(["", "1g.10gb+me"])),
            )
        }
    if kind == "usage":
        return {
            kind: wire.Usage(
                gpu_uuid=draw(WORD),
                parent_id=draw(WORD),
                slice_id=draw(WORD),
                pod=draw(WORD),
                namespace=draw(WORD),
                pod_uid=draw(st.just("") | WORD),
                join=draw(st.sampled_from(wire.Join.values())),
                held_ns=draw(TIME),
                held_since_unix_ns=draw(st.integers(0, START)),
                first_activity_unix_ns=draw(st.none() | st.integers(0, START)),
                figures=draw(figures()),
                missed_processes=draw(st.integers(0, 9)),
            )
        }
    if kind == "node_facts":
        return {kind: wire.NodeFacts(driver_version=draw(WORD), gpus=[wire.Gpu(uuid=draw(WORD), index=1)])}
    return {kind: wire.Gap(from_unix_ns=draw(TIME), to_unix_ns=draw(TIME), reason=draw(WORD))}


@settings(max_examples=60, deadline=None)
@given(st.lists(bodies(), min_size=1, max_size=4), WORD)
def test_lines_read_back_to_the_same_table(found, name):
    batch = wire.Batch(journal_id=name, node=name, cluster=name, first_seq=1)
    for number, body in enumerate(found, start=1):
        batch.records.add(seq=number, window_start_unix_ns=START, window_ns=NS_PER_MINUTE, **body)
    table = decode_batch(batch.SerializeToString(), where="agent").windows
    lines = list(write_jsonl_lines(table))
    assert len(lines) == len(found)
    assert all(line.count("\n") == 1 for line in lines)
    assert read_jsonl_lines(lines, where="file").equals(table)


@pytest.mark.parametrize("kind", ["device", "usage"])
def test_lines_use_the_names_of_the_message(kind):
    body = {"gpu_uuid": "g", "parent_id": "g", **({"slice_id": "s", "pod": "p"} if kind == "usage" else {})}
    weights = {"weight_num": 1, "weight_den": 1, "replicas": 1} if kind == "device" else {}
    batch = wire.Batch(journal_id="j", node="n")
    message = {kind: getattr(wire, kind.capitalize())(**body, **weights)}
    batch.records.add(seq=1, window_start_unix_ns=START, window_ns=NS_PER_MINUTE, **message)
    (line,) = write_jsonl_lines(decode_batch(batch.SerializeToString(), where="agent").windows)
    record = json.loads(line)
    assert (record["journal_id"], record["node"], record["seq"]) == ("j", "n", "1")
    assert record[kind]["gpu_uuid"] == "g"
