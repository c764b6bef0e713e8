"""Labels and annotations as KAI and HAMi write them, read; and hours in which their pods share GPUs."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal
from tests.unit.ledger.test_hour import assert_conserved, build, minutes, rows

from gpuwaste.cluster.records import RecordRules, pod_record
from gpuwaste.ledger.schedulers import (
    WHOLE,
    HamiDevice,
    KaiRequest,
    hami_devices,
    kai_groups,
    kai_request,
    kai_reserved,
    part_of,
)
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE

GIB = 1024
GROUP = "6f1d0a3e-0001"


def pod(**more):
    return fact.pod("p", gpus=0, **more).data


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ({"gpu-fraction": "0.5"}, KaiRequest(container="main", fraction=WHOLE // 2)),
        ({"gpu-fraction": " 0.333 "}, KaiRequest(container="main", fraction=333_000_000)),
        ({"gpu-fraction": "7"}, KaiRequest(container="main", fraction=WHOLE)),
        ({"gpu-memory": "2000"}, KaiRequest(container="main", memory_mib=2000)),
        ({"gpu-fraction": "much", "gpu-memory": "20"}, KaiRequest(container="main", memory_mib=20)),
        ({"gpu-fraction": "NaN"}, KaiRequest(container="main")),
        ({"gpu-fraction": "-1", "gpu-memory": "0"}, KaiRequest(container="main")),
        ({}, KaiRequest(container="main")),
        (
            {"gpu-fraction": "0.25", "gpu-fraction-container-name": "start"},
            KaiRequest(container="start", fraction=WHOLE // 4),
        ),
        (
            {"gpu-fraction": "0.25", "gpu-fraction-container-name": "nobody"},
            KaiRequest(container="main", fraction=WHOLE // 4),
        ),
    ],
)
def test_what_a_tenant_of_kai_asks_for(annotations, wanted):
    containers = (fact.container("start", init=True), fact.container("main"), fact.container("side"))
    assert kai_request(pod(annotations=annotations, containers=containers)) == wanted


def test_groups_of_one_gpu_and_of_several():
    assert kai_groups(pod(labels={"runai-gpu-group": "a", "app": "x"})) == ("a",)
    assert kai_groups(pod(labels={"runai-gpu-group/b": "b", "runai-gpu-group/a": "a"})) == ("a", "b")
    assert kai_groups(pod(labels={"runai-gpu-groups": "a", "runai-gpu-group": ""})) == ()


def test_a_reservation_pod_is_known_by_its_annotation_and_before_that_by_its_name():
    labels = {"runai-gpu-group": "a"}
    assert kai_reserved(pod(labels=labels, annotations={"run.ai/reserve_for_gpu_index": "GPU-a"})) == "GPU-a"
    assert kai_reserved(pod(labels=labels)) is None
    assert kai_reserved(pod(annotations={"run.ai/reserve_for_gpu_index": "GPU-a"})) is None
    named = fact.pod("gpu-reservation-node-a-x1y2z", labels=labels).data
    assert kai_reserved(named) == ""


def test_devices_of_hami_by_container():
    said = "GPU-a,NVIDIA,20480,30:GPU-b,NVIDIA,8192,0:;;GPU-c,NVIDIA,81920,100:;"
    containers = tuple(fact.container(name, init=name == "i") for name in ("i", "x", "y"))
    found = hami_devices(pod(annotations={"hami.io/vgpu-devices-allocated": said}, containers=containers))
    assert found == {
        "i": (HamiDevice(gpu="GPU-a", memory_mib=20480, cores=30), HamiDevice(gpu="GPU-b", memory_mib=8192, cores=0)),
        "y": (HamiDevice(gpu="GPU-c", memory_mib=81920, cores=100),),
    }
    # Older releases list no init containers.
    older = hami_devices(
        pod(annotations={"hami.io/vgpu-devices-allocated": ";GPU-c,NVIDIA,1,1:;"}, containers=containers)
    )
    assert list(older) == ["y"]


def test_instances_of_hami():
    instances = [
        {"containerIndex": 0, "deviceIndex": 0, "gpuUUID": "GPU-a", "profile": "1g.10gb", "migUUID": "MIG-a"},
        {"containerIndex": 0, "deviceIndex": 1, "gpuUUID": "GPU-a", "profile": "1g.10gb"},
    ]
    annotations = {
        "hami.io/vgpu-devices-allocated": "GPU-a,NVIDIA,9728,0:GPU-a,NVIDIA,9728,0:GPU-b[1-0],NVIDIA,9728,0:;",
        "hami.io/vgpu-mig-allocations": json.dumps(instances),
    }
    found = hami_devices(pod(annotations=annotations))["main"]
    assert [(one.gpu, one.parent) for one in found] == [("GPU-a", "MIG-a"), ("GPU-a", ""), ("GPU-b", "")]
    assert found[0].part(0) == WHOLE
    assert hami_devices(pod(annotations={**annotations, "hami.io/vgpu-mig-allocations": "{"}))["main"]


@pytest.mark.parametrize(
    "said", ["GPU-a", "GPU-a,NVIDIA,x,1:;", "GPU-a,NVIDIA,1:;", ",NVIDIA,1,1:;", ";;;GPU-a,NVIDIA,1,1:;", "", ";"]
)
def test_what_is_no_list_of_devices_says_nothing(said):
    assert hami_devices(pod(annotations={"hami.io/vgpu-devices-allocated": said})) == {}


def test_parts_of_a_gpu():
    memory = 80 << 30
    assert part_of(20 * GIB, memory) == WHOLE // 4
    assert part_of(100 * GIB, memory) == WHOLE
    assert part_of(0, memory) is None
    assert part_of(1, 0) is None
    device = HamiDevice(gpu="g", memory_mib=20 * GIB, cores=30)
    assert device.part(memory) == WHOLE * 3 // 10
    assert device.part(0) == WHOLE * 3 // 10
    assert HamiDevice(gpu="g", memory_mib=20 * GIB, cores=0).part(memory) == WHOLE // 4
    assert HamiDevice(gpu="g", memory_mib=20 * GIB, cores=0).part(0) is None


def test_what_schedulers_write_is_kept_of_a_pod_and_nothing_else():
    kept = {
        "run.ai/reserve_for_gpu_index": "GPU-a",
        "gpu-fraction": "0.5",
        "gpu-fraction-container-name": "main",
        "gpu-memory": "2000",
        "hami.io/vgpu-devices-allocated": "GPU-a,NVIDIA,1,1:;",
    }
    metadata = {"uid": "u", "namespace": "n", "name": "p", "annotations": {**kept, "run.ai/secret": "x", "note": "y"}}
    assert pod_record({"metadata": metadata}, RecordRules()).data.annotations == kept


# --- hours


def reservation(gpu="gpu-1", *, group=GROUP, name="gpu-reservation-node-a-x1y2z", **more):
    return fact.pod(
        name,
        namespace="kai-resource-reservation",
        labels={"runai-gpu-group": group},
        annotations={"run.ai/reserve_for_gpu_index": gpu} if gpu else {},
        containers=(fact.container("resource-reservation", gpus=1),),
        **more,
    )


def tenant(name, fraction=None, *, group=GROUP, **more):
    annotations = {} if fraction is None else {"gpu-fraction": str(fraction)}
    return fact.pod(name, gpus=0, labels={"runai-gpu-group": group}, annotations=annotations, **more)


def reserved(journal, at, gpu="gpu-1", name="gpu-reservation-node-a-x1y2z", **figures):
    figures = figures or {"duty": 0.0, "sm": 0.0}
    return journal.device(at, gpu).usage(
        at, gpu, name, namespace="kai-resource-reservation", container="resource-reservation", **figures
    )


def used(journal, at, name, sm, *, gpu="gpu-1", container=""):
    """What an agent tells of a process of a pod that holds nothing there: its UID, and no names."""
    journal.usage(
        at, gpu, "", namespace="", container=container, slice_id="", held=0.0, duty=sm, sm=sm, pod_uid=f"uid-{name}"
    )


def holders(table):
    return {row["pod"]: row for row in rows(table, row_kind="holder")}


def test_what_a_reservation_pod_holds_goes_to_its_tenants():
    journal = Journal()
    for at in minutes():
        reserved(journal, at)
        used(journal, at, "a", 0.5)
        used(journal, at, "b", 0.1, container="main")
    pods = [reservation(), tenant("a", 0.5), tenant("b", 0.25), fact.pod("other", gpus=0)]
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), *pods, fact.price()])
    found = holders(table)
    assert set(found) == {"a", "b"}
    assert {name: row["held"] for name, row in found.items()} == {"a": NS_PER_HOUR // 2, "b": NS_PER_HOUR // 4}
    assert found["a"]["effective"] == NS_PER_HOUR // 2
    assert found["a"]["borrowed"] == found["b"]["borrowed"] == 0
    assert found["b"]["effective"] == NS_PER_HOUR // 10
    assert (found["a"]["namespace"], found["a"]["container"], found["a"]["origin"]) == ("team-a", "main", "gpm")
    assert sum(row["unallocated"] for row in rows(table, row_kind="free")) == NS_PER_HOUR // 4
    assert_conserved(table)


def test_four_quarters_are_one_gpu():
    journal = Journal()
    for at in minutes():
        reserved(journal, at)
    names = ["a", "b", "c", "d"]
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), reservation(), *(tenant(n, 0.25) for n in names)])
    found = {name: (row["held"], row["idle"] + row["starting"]) for name, row in holders(table).items()}
    assert found == dict.fromkeys(names, (NS_PER_HOUR // 4, NS_PER_HOUR // 4))
    assert_conserved(table)


def test_tenants_come_and_go_and_without_any_the_reservation_holds():
    journal = Journal()
    for at in minutes():
        reserved(journal, at)
    at_20, at_30 = (HOUR + timedelta(minutes=m, seconds=s) for m, s in ((20, 30), (30, 0)))
    pods = [reservation(), tenant("a", 0.5, start=at_20, end=at_30), tenant("b", 0.5, start=at_30)]
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), *pods])
    found = {name: row["held"] for name, row in holders(table).items()}
    assert found == {
        "a": NS_PER_MINUTE * 19 // 4,
        "b": NS_PER_MINUTE * 15,
        "gpu-reservation-node-a-x1y2z": NS_PER_MINUTE * 20,
    }
    assert_conserved(table)


def test_tenants_that_say_no_part_divide_what_is_left_to_the_last_nanosecond():
    journal = Journal()
    for at in minutes():
        reserved(journal, at)
    memory = fact.pod("m", gpus=0, labels={"runai-gpu-group": GROUP}, annotations={"gpu-memory": str(40 * GIB)})
    pods = [reservation(), memory, *(tenant(name) for name in ("a", "b", "c"))]
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), *pods])
    found = {name: row["held"] for name, row in holders(table).items()}
    assert found.pop("m") == NS_PER_HOUR // 2
    assert sum(found.values()) == NS_PER_HOUR // 2
    assert max(found.values()) - min(found.values()) <= 60 * 60
    assert_conserved(table)


def test_a_tenant_alone_did_what_the_reservation_is_said_to_have_done():
    """Without attribution by process the kubelet's only holder has all of the GPU's work."""
    journal = Journal()
    for at in minutes():
        reserved(journal, at, duty=0.5, sm=0.5)
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), reservation(), tenant("a", 0.5)])
    (row,) = holders(table).values()
    assert (row["pod"], row["held"], row["effective"], row["borrowed"]) == ("a", NS_PER_HOUR // 2, NS_PER_HOUR // 2, 0)
    assert_conserved(table)


def test_of_several_tenants_nobody_is_said_to_have_done_it():
    journal = Journal()
    for at in minutes():
        reserved(journal, at, duty=0.5, sm=0.5)
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), reservation(), tenant("a", 0.5), tenant("b", 0.5)])
    found = holders(table)
    assert found["gpu-reservation-node-a-x1y2z"]["effective"] == NS_PER_HOUR // 2
    assert found["gpu-reservation-node-a-x1y2z"]["held"] == 0
    assert found["a"]["held"] == found["b"]["held"] == NS_PER_HOUR // 2
    assert_conserved(table)


def test_unmeasured_use_of_a_tenant_is_no_measured_zero():
    journal = Journal()
    for at in minutes():
        reserved(journal, at)
        used(journal, at, "a", None)
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), reservation(), tenant("a", 0.5), tenant("b", 0.5)])
    found = holders(table)
    assert (found["a"]["effective"], found["a"]["unmeasured"]) == (None, NS_PER_HOUR // 2)
    assert (found["b"]["effective"], found["b"]["unmeasured"]) == (0, 0)
    assert_conserved(table)


def test_the_reservation_of_another_gpu_than_the_kubelet_says():
    journal = Journal()
    for at in minutes():
        reserved(journal, at)
        journal.device(at, "gpu-2")
        used(journal, at, "a", 0.25, gpu="gpu-2")
    pods = [reservation("gpu-2"), tenant("a", 1)]
    table = build([journal], [fact.node(gpus=2), fact.gpu("gpu-1"), fact.gpu("gpu-2"), *pods])
    (row,) = holders(table).values()
    assert (row["gpu_uuid"], row["held"], row["effective"]) == ("gpu-2", NS_PER_HOUR, NS_PER_HOUR // 4)
    assert_conserved(table)


def test_tenants_hold_by_record_where_there_is_no_window():
    journal = Journal()
    for at in minutes(30):
        reserved(journal, at)
    facts = [fact.node(), fact.gpu("gpu-1"), reservation(), tenant("a", 0.5), tenant("b", 0.25)]
    for journals, minutes_seen in (([journal], 30), ([Journal()], 0)):
        table = build(journals, facts)
        found = holders(table)
        assert {name: row["held"] for name, row in found.items()} == {"a": NS_PER_HOUR // 2, "b": NS_PER_HOUR // 4}
        assert found["a"]["unmeasured"] == (60 - minutes_seen) * NS_PER_MINUTE // 2
        assert_conserved(table)


def hami_pod(name, *devices, containers=None, **more):
    text = "".join(f"{gpu},NVIDIA,{mib},{cores}:" for gpu, mib, cores in devices)
    return fact.pod(name, annotations={"hami.io/vgpu-devices-allocated": f"{text};"}, **more)


def test_a_pod_of_hami_holds_the_gpu_of_its_annotation():
    """The kubelet chose a replica of gpu-1; HAMi gave the container gpu-2, where its processes are."""
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1", replicas=10).device(at, "gpu-2", replicas=10)
        journal.usage(at, "gpu-1", "a", slice_id="gpu-1-3", duty=0.0, sm=0.0)
        used(journal, at, "a", 0.4, gpu="gpu-2")
        journal.usage(at, "gpu-1", "b", slice_id="gpu-1-4", duty=0.1, sm=0.1)
        journal.usage(at, "gpu-2", "c", slice_id="gpu-2-0", duty=0.0, sm=0.0)
    pods = [
        hami_pod("a", ("gpu-2", 40 * GIB, 0)),
        hami_pod("b", ("gpu-1", 20 * GIB, 30)),
        hami_pod("c", ("gpu-1", 20 * GIB, 0)),
    ]
    facts = [fact.node(gpus=2), fact.gpu("gpu-1", replicas=10), fact.gpu("gpu-2", replicas=10), *pods]
    table = build([journal], facts)
    found = {name: (row["gpu_uuid"], row["held"], row["effective"]) for name, row in holders(table).items()}
    assert found == {
        "a": ("gpu-2", NS_PER_HOUR // 2, NS_PER_HOUR * 2 // 5),
        "b": ("gpu-1", NS_PER_HOUR * 3 // 10, NS_PER_HOUR // 10),
        "c": ("gpu-1", NS_PER_HOUR // 4, 0),
    }
    assert_conserved(table)


def test_parts_that_pass_the_gpu_are_scaled_to_it():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1", replicas=10)
        for number, name in enumerate("abc"):
            journal.usage(at, "gpu-1", name, slice_id=f"gpu-1-{number}", duty=0.0, sm=0.0)
    pods = [hami_pod(name, ("gpu-1", 80 * GIB, 0)) for name in "abc"]
    table = build([journal], [fact.node(), fact.gpu("gpu-1", replicas=10), *pods])
    assert sum(row["held"] for row in holders(table).values()) == NS_PER_HOUR
    assert_conserved(table)


def test_an_annotation_of_a_gpu_that_is_not_there_changes_nothing():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1", replicas=4).usage(at, "gpu-1", "a", slice_id="gpu-1-0", duty=0.0, sm=0.0)
    table = build([journal], [fact.node(), fact.gpu("gpu-1", replicas=4), hami_pod("a", ("gpu-9", 1, 0))])
    (row,) = holders(table).values()
    assert (row["gpu_uuid"], row["held"]) == ("gpu-1", NS_PER_HOUR // 4)


def test_what_was_measured_on_the_kubelets_gpu_stays_there():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1", replicas=2).device(at, "gpu-2", replicas=2)
        journal.usage(at, "gpu-1", "a", slice_id="gpu-1-0", duty=0.5, sm=0.5)
    pods = [hami_pod("a", ("gpu-2", 40 * GIB, 0))]
    table = build([journal], [fact.node(gpus=2), fact.gpu("gpu-1"), fact.gpu("gpu-2"), *pods])
    found = {row["gpu_uuid"]: (row["held"], row["effective"]) for row in rows(table, row_kind="holder")}
    assert found == {"gpu-1": (0, NS_PER_HOUR // 2), "gpu-2": (NS_PER_HOUR // 2, 0)}
    assert_conserved(table)


def test_a_pod_of_hami_holds_by_record_where_there_is_no_window():
    pods = [hami_pod("a", ("gpu-2", 20 * GIB, 0)), hami_pod("b", ("gpu-2", 40 * GIB, 0))]
    facts = [fact.node(gpus=2), fact.gpu("gpu-1", replicas=10), fact.gpu("gpu-2", replicas=10), *pods]
    found = {name: (row["gpu_uuid"], row["held"]) for name, row in holders(build([Journal()], facts)).items()}
    assert found == {"a": ("gpu-2", NS_PER_HOUR // 4), "b": ("gpu-2", NS_PER_HOUR // 2)}


def test_two_devices_in_a_container():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1", replicas=4).device(at, "gpu-2", replicas=4)
        # The kubelet gave two replicas of one GPU.
        for number in (0, 1):
            journal.usage(at, "gpu-1", "a", slice_id=f"gpu-1-{number}", duty=0.0, sm=0.0)
    pods = [hami_pod("a", ("gpu-1", 40 * GIB, 0), ("gpu-2", 20 * GIB, 0))]
    table = build([journal], [fact.node(gpus=2), fact.gpu("gpu-1", replicas=4), fact.gpu("gpu-2", replicas=4), *pods])
    found = {row["gpu_uuid"]: row["held"] for row in rows(table, row_kind="holder")}
    assert found == {"gpu-1": NS_PER_HOUR // 2, "gpu-2": NS_PER_HOUR // 4}
    assert_conserved(table)


PARTS = st.sampled_from([None, 0.1, 0.25, 1 / 3, 0.5, 0.75, 1, 3])
TIMES = st.sampled_from([None, *(HOUR + timedelta(minutes=m, seconds=s) for m, s in ((0, 7), (1, 0), (1, 59)))])
FIGURES = st.sampled_from([None, 0.0, 0.2, 1.0])
MEMORY = st.sampled_from([0, 1, 40 * GIB])


@st.composite
def sharing(draw):
    """Facts and a journal of two GPUs whose holders, users and annotations agree or do not."""
    gpus = ["gpu-1", "gpu-2"]
    facts = [fact.node(gpus=2), *(fact.gpu(gpu, replicas=10) for gpu in gpus)]
    facts.append(reservation(draw(st.sampled_from(["", "gpu-2", "0", "gpu-9"])), end=draw(TIMES)))
    for name in "abc":
        if draw(st.booleans()):
            facts.append(tenant(name, draw(PARTS), end=draw(TIMES)))
        else:
            chosen = draw(st.lists(st.sampled_from([*gpus, "gpu-9", "gpu-1[0-1]"]), min_size=1, max_size=2))
            facts.append(hami_pod(name, *((gpu, draw(MEMORY), 30) for gpu in chosen)))
    journal = Journal()
    for at in minutes(2):
        for gpu in gpus:
            journal.device(at, gpu, replicas=draw(st.sampled_from([1, 10])), unattributed=draw(FIGURES))
            if gpu == "gpu-1":
                _reserving(journal, at, draw(FIGURES), draw(st.sampled_from([0.3, 1.0])))
            for number, name in enumerate("abc"):
                sm = draw(FIGURES)
                if draw(st.booleans()):
                    journal.usage(at, gpu, name, slice_id=f"{gpu}-{number}", sm=sm, duty=sm)
                else:
                    used(journal, at, name, sm, gpu=gpu, container=draw(st.sampled_from(["", "main"])))
    return facts, journal


def _reserving(journal, at, did, held):
    name, container = "gpu-reservation-node-a-x1y2z", "resource-reservation"
    journal.usage(
        at, "gpu-1", name, namespace="kai-resource-reservation", container=container, held=held, sm=did, duty=did
    )


@settings(max_examples=30, deadline=None)
@given(sharing())
def test_owned_time_splits_exactly_whatever_the_annotations_say(case):
    """Every nanosecond of every GPU is in one part, and what is effective is what was measured, up to the device."""
    facts, journal = case
    table = build([journal], facts)
    assert_conserved(table)
    done = {}
    for record in journal.batch.records:
        if record.WhichOneof("body") == "usage":
            key = (record.usage.gpu_uuid, record.window_start_unix_ns)
            done[key] = done.get(key, 0) + record.usage.figures.sm_ns
    effective = sum(row["effective"] or 0 for row in rows(table, row_kind="holder"))
    assert effective == sum(min(sm, NS_PER_MINUTE) for sm in done.values())
