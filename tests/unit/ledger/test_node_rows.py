"""CPU and memory of GPU nodes: every milli-core-millisecond and byte-second in one row, whoever asks for how much."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.unit.ledger.test_hour import RULES, Journal, build, rows

from gpuwaste.cli.conservation import check_rows
from gpuwaste.ledger.hour import build_hour
from gpuwaste.ledger.inputs import HourInputs
from gpuwaste.model.facts import ContainerRequest, Fact, PodData

GIB = 2**30
MS_PER_HOUR = 3_600_000


def pod(name, *, cpu=1000, memory=GIB, start=fact.BEFORE, end=None, init_cpu=0, on="node-a"):
    containers = [ContainerRequest(name="main", cpu_milli=cpu, memory_bytes=memory)]
    if init_cpu:
        containers.append(ContainerRequest(name="init", cpu_milli=init_cpu, init=True))
    data = PodData(namespace="team-a", name=name, node=on, containers=tuple(containers))
    return Fact(kind="pod", uid=f"uid-{name}", valid_from=start, valid_to=end, data=data)


def node(**more):
    return fact.node(cpu_milli=8000, memory_bytes=32 * GIB, **more)


def test_every_pod_of_a_gpu_node_holds_what_it_asks_for_gpu_or_not():
    table = build([Journal()], [node(), pod("web", cpu=2000), pod("helper", cpu=500, memory=3 * GIB)])
    held = {(row["pod"], row["resource"]): row for r in ("cpu", "memory") for row in rows(table, resource=r)}
    assert held["web", "cpu"]["held"] == 2000 * MS_PER_HOUR
    assert held["helper", "memory"]["held"] == 3 * GIB * 3600
    assert held["", "cpu"]["unallocated"] == 5500 * MS_PER_HOUR
    row = held["web", "cpu"]
    assert (row["effective"], row["duty"], row["unmeasured"]) == (None, None, row["held"])
    assert (row["team"], row["workload_kind"], row["pool"]) == ("team-a", "Pod", "H100-80GB/default")
    assert {row[name] for name in ("gpu_uuid", "parent_id", "slice_id", "container")} == {""}


def test_a_pod_and_a_node_count_for_as_long_as_they_were_there():
    half, quarter = HOUR + timedelta(minutes=30), HOUR + timedelta(minutes=15)
    table = build([Journal()], [node(end=half), pod("late", start=quarter), pod("early", end=quarter)])
    held = {row["pod"]: row["held"] for row in rows(table, resource="cpu", row_kind="holder")}
    assert held == {"late": 1000 * MS_PER_HOUR // 4, "early": 1000 * MS_PER_HOUR // 4}
    assert sum(row["owned"] for row in rows(table, resource="cpu")) == 8000 * MS_PER_HOUR // 2


def test_an_init_container_counts_where_it_is_the_larger():
    table = build([Journal()], [node(), pod("a", cpu=1000, init_cpu=3000)])
    (row,) = rows(table, resource="cpu", row_kind="holder")
    assert row["held"] == 3000 * MS_PER_HOUR


def test_nodes_without_gpus_have_no_rows():
    table = build([Journal()], [fact.node(gpus=0, cpu_milli=8000), pod("a")])
    assert table.num_rows == 0


def test_more_than_there_is_is_divided_and_noted():
    facts = (node(), pod("a", cpu=9000), pod("b", cpu=3000))
    hour = build_hour(HourInputs(cluster="test", hour=HOUR, windows=Journal().table(), facts=facts), RULES)
    held = {row["pod"]: row["held"] for row in rows(hour.table, resource="cpu")}
    assert held == {"a": 6000 * MS_PER_HOUR, "b": 2000 * MS_PER_HOUR}
    assert hour.findings == ("pods ask for more CPU or memory than there is on node-a (cpu)",)


minute = st.integers(-30, 90)


@given(
    pods=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 20 * GIB), minute, minute), max_size=6),
    there=st.tuples(minute, minute),
)
def test_conservation_of_cpu_and_memory(pods, there):
    def at(number):
        return HOUR + timedelta(minutes=number, microseconds=number * 7919)

    start, end = sorted(there)
    facts = [node(start=at(start), end=at(end))]
    for number, (cpu, memory, *ran) in enumerate(pods):
        facts.append(pod(f"p{number}", cpu=cpu, memory=memory, start=at(min(ran)), end=at(max(ran))))
    table = build([Journal()], facts)
    assert check_rows(table) == []
    seconds = max((min(at(end), HOUR + timedelta(hours=1)) - max(at(start), HOUR)).total_seconds(), 0)
    assert sum(row["owned"] for row in rows(table, resource="cpu")) == round(seconds * 1e6) * 8000 // 1000
    assert sum(row["owned"] for row in rows(table, resource="memory")) == round(seconds * 1e6) * 32 * GIB // 10**6
