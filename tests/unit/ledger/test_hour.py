"""A ledger hour: every nanosecond of every GPU in one row, whatever is missing or late."""

from datetime import timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR
from tests.helpers.windows import Journal

from gpuwaste.ledger.hour import HourRules, build_hour
from gpuwaste.ledger.inputs import HourInputs, deduplicate
from gpuwaste.ledger.schema import WASTE_CATEGORIES
from gpuwaste.ledger.stranded import mig_remainder_stranded
from gpuwaste.model.facts import GpuData, MigInstanceData, merge_facts
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE
from gpuwaste.settings.teams import TeamRules

RULES = HourRules(teams=TeamRules())


def minutes(count=60, *, start=0):
    return [HOUR + timedelta(minutes=start + i) for i in range(count)]


def build(journals, facts, **more):
    windows = deduplicate(pa.concat_tables([journal.table() for journal in journals]))
    inputs = HourInputs(cluster="test", hour=HOUR, windows=windows, facts=tuple(merge_facts(list(facts))))
    return build_hour(inputs, RULES, **more).table


def rows(table, *, resource="gpu", **want):
    want["resource"] = resource
    return [row for row in table.to_pylist() if all(row[k] == v for k, v in want.items())]


def parts(row):
    return (row["effective"] or 0) + sum(row[name] for name in WASTE_CATEGORIES)


def assert_conserved(table, *, per_gpu=NS_PER_HOUR):
    by_gpu = {}
    for row in rows(table):
        owned, split = by_gpu.get(row["gpu_uuid"], (0, 0))
        by_gpu[row["gpu_uuid"]] = (owned + row["owned"], split + parts(row))
        assert row["owned"] + row["borrowed"] == parts(row) + row["lent"], row
    for gpu, (owned, split) in by_gpu.items():
        assert owned == split, gpu
        if per_gpu is not None:
            assert owned == per_gpu, gpu


def test_a_whole_gpu_for_an_hour():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.5, sm=0.2, first_activity=at)
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), fact.pod("web"), fact.price()])
    (row,) = rows(table, row_kind="holder")
    assert row["held"] == NS_PER_HOUR
    assert row["effective"] == NS_PER_HOUR // 5
    assert row["idle"] == NS_PER_HOUR // 2
    assert row["underused"] == NS_PER_HOUR * 3 // 10
    assert (row["workload_kind"], row["workload_name"], row["team"]) == ("Pod", "web", "team-a")
    assert (row["pool"], row["gpu_model"]) == ("H100-80GB/default", "H100-80GB")
    assert str(row["effective_unit_cost"]).startswith("3.2")
    assert (row["origin"], row["coverage_ppm"]) == ("gpm", 1_000_000)
    assert_conserved(table)


def test_the_workload_is_the_top_owner():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web-abc-1", duty=0.0, sm=0.0)
    replicaset = fact.owner("ReplicaSet", "web-abc", above=fact.owned_by("Deployment", "web"))
    pod = fact.pod("web-abc-1", owner=fact.owned_by("ReplicaSet", "web-abc"))
    (row,) = rows(build([journal], [fact.node(), fact.gpu("gpu-1"), pod, replicaset]), row_kind="holder")
    assert (row["workload_kind"], row["workload_name"]) == ("Deployment", "web")


def test_unmeasured_is_not_zero():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "quiet")
        journal.device(at, "gpu-2").usage(at, "gpu-2", "silent", duty=0.0, sm=0.0, first_activity=fact.BEFORE)
    table = build([journal], [fact.node(), fact.pod("quiet"), fact.pod("silent")])
    (quiet,), (silent,) = rows(table, pod="quiet"), rows(table, pod="silent")
    assert (quiet["effective"], quiet["unmeasured"], quiet["idle"]) == (None, NS_PER_HOUR, 0)
    assert (silent["effective"], silent["unmeasured"], silent["idle"]) == (0, 0, NS_PER_HOUR)
    assert quiet["effective_unit_cost"] is None
    assert_conserved(table)


def test_missing_windows_are_held_as_the_api_says_and_unmeasured():
    journal = Journal()
    for at in minutes(30):
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=1.0, sm=1.0)
    stopped = fact.pod("web", end=HOUR + timedelta(minutes=45))
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), stopped])
    (row,) = rows(table, row_kind="holder")
    assert row["held"] == 45 * NS_PER_MINUTE
    assert row["effective"] == 30 * NS_PER_MINUTE
    assert row["unmeasured"] == 15 * NS_PER_MINUTE
    (free,) = rows(table, row_kind="free")
    assert free["unallocated"] == 15 * NS_PER_MINUTE
    assert_conserved(table)


def test_a_gpu_node_without_an_agent_is_still_held_and_paid():
    table = build([Journal()], [fact.node(gpus=2), fact.pod("web"), fact.price()])
    (row,) = rows(table, row_kind="holder")
    assert (row["held"], row["effective"], row["unmeasured"]) == (NS_PER_HOUR, None, NS_PER_HOUR)
    assert sum(r["owned"] for r in rows(table)) == 2 * NS_PER_HOUR


def test_a_known_gpu_without_any_window_in_the_hour_is_held_as_the_api_says():
    pods = [fact.pod("a"), fact.pod("b", end=HOUR + timedelta(minutes=30))]
    table = build([Journal()], [fact.node(), fact.gpu("gpu-1", replicas=4), *pods, fact.price()])
    held = {row["pod"]: row["held"] for row in rows(table, row_kind="holder")}
    assert held == {"a": NS_PER_HOUR // 4, "b": NS_PER_HOUR // 8}
    assert_conserved(table)


def test_a_process_that_holds_nothing_uses_but_is_not_held_elsewhere():
    journal = Journal()
    for at in minutes(30):
        journal.device(at, "gpu-1").usage(at, "gpu-1", "guest", duty=0.5, sm=0.5, held=0.0)
        journal.batch.records[-1].usage.slice_id = ""
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), fact.pod("guest", gpus=0)])
    (row,) = rows(table, row_kind="holder")
    assert (row["held"], row["borrowed"], row["effective"]) == (0, 15 * NS_PER_MINUTE, 15 * NS_PER_MINUTE)
    assert_conserved(table)


def test_gpus_without_a_description_keep_the_layout_their_windows_show():
    journal = Journal()
    for at in minutes(30):
        journal.device(at, "gpu-1", parent="mig-1", weight=(4, 8)).usage(at, "gpu-1", "half", parent="mig-1", sm=1.0)
    table = build([journal], [fact.node(), fact.pod("half")])
    (row,) = rows(table, row_kind="holder")
    assert (row["held"], row["unmeasured"]) == (NS_PER_HOUR // 2, NS_PER_HOUR // 4)
    assert_conserved(table)


def test_a_node_that_joined_within_the_hour_is_owned_from_then():
    journal = Journal()
    for at in minutes(30, start=30):
        journal.device(at, "gpu-1")
    table = build([journal], [fact.node(start=HOUR + timedelta(minutes=30)), fact.gpu("gpu-1")])
    (row,) = rows(table)
    assert (row["row_kind"], row["owned"], row["unallocated"]) == ("free", 30 * NS_PER_MINUTE, 30 * NS_PER_MINUTE)


def test_the_running_hour_counts_no_time_that_is_still_to_come():
    journal = Journal()
    for at in minutes(10):
        journal.device(at, "gpu-1")
    table = build([journal], [fact.node(), fact.gpu("gpu-1")], through=HOUR + timedelta(minutes=10))
    assert sum(row["owned"] for row in rows(table)) == 10 * NS_PER_MINUTE


def test_mig_instances_and_the_part_that_no_profile_fits():
    instances = [
        MigInstanceData(uuid=f"mig-{i}", profile="3g.40gb", start=4 * i, weight_num=4, weight_den=8) for i in range(2)
    ]
    one = [MigInstanceData(uuid="mig-x", profile="4g.40gb", start=0, weight_num=4, weight_den=8)]
    seven = [
        MigInstanceData(uuid=f"mig-s{i}", profile="1g.10gb", start=i, weight_num=1, weight_den=8) for i in range(7)
    ]
    journal = Journal()
    for at in minutes():
        for i in range(2):
            journal.device(at, "gpu-1", parent=f"mig-{i}", weight=(4, 8))
        journal.usage(at, "gpu-1", "half", parent="mig-0", duty=1.0, sm=1.0)
        journal.device(at, "gpu-2", parent="mig-x", weight=(4, 8))
        for i in range(7):
            journal.device(at, "gpu-3", parent=f"mig-s{i}", weight=(1, 8))
    gpus = [fact.gpu("gpu-1", mig=instances), fact.gpu("gpu-2", mig=one), fact.gpu("gpu-3", mig=seven)]
    table = build([journal], [fact.node(gpus=3), *gpus, fact.pod("half")])
    (half,) = rows(table, pod="half")
    assert (half["held"], half["effective"]) == (NS_PER_HOUR // 2, NS_PER_HOUR // 2)
    (left,) = rows(table, gpu_uuid="gpu-2", parent_id="gpu-2")
    assert (left["unallocated"], left["stranded"]) == (NS_PER_HOUR // 2, 0)
    (lost,) = rows(table, gpu_uuid="gpu-3", parent_id="gpu-3")
    assert (lost["unallocated"], lost["stranded"]) == (0, NS_PER_HOUR // 8)
    assert_conserved(table)


@pytest.mark.parametrize(("profile", "units", "count", "lost"), [("3g.40gb", 4, 2, True), ("3g.40gb", 4, 1, False)])
def test_instances_of_unknown_place_take_units_alone(profile, units, count, lost):
    mig = [
        MigInstanceData(uuid=f"mig-{i}", profile=profile, start=None, weight_num=units, weight_den=8)
        for i in range(count)
    ]
    gpu = fact.gpu("gpu-1", mig=mig).data
    assert isinstance(gpu, GpuData)
    assert mig_remainder_stranded(gpu) is lost


def test_two_pods_of_one_name_are_told_apart_by_time():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.1, sm=0.1, pod_uid="")
    change = HOUR + timedelta(minutes=20)
    pods = [fact.pod("web", uid="first", end=change), fact.pod("web", uid="second", start=change)]
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), *pods])
    held = {row["pod_uid"]: row["held"] for row in rows(table, row_kind="holder")}
    assert held == {"first": 20 * NS_PER_MINUTE, "second": 40 * NS_PER_MINUTE}


def test_a_window_with_the_end_of_one_pod_and_the_start_of_the_next_of_its_name():
    """A StatefulSet's pod is made anew under its name; the window in between begins while neither runs."""
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web-0", duty=0.1, sm=0.1, pod_uid="")
    ended, began = HOUR + timedelta(minutes=19, seconds=55), HOUR + timedelta(minutes=20, seconds=10)
    set_of = fact.owned_by("StatefulSet", "web")
    pods = [
        fact.pod("web-0", uid="first", end=ended, owner=set_of),
        fact.pod("web-0", uid="second", start=began, owner=set_of),
    ]
    table = build([journal], [fact.node(), fact.gpu("gpu-1"), *pods])
    found = rows(table, row_kind="holder")
    assert {row["pod_uid"]: row["held"] for row in found} == {
        "first": 20 * NS_PER_MINUTE,
        "second": 40 * NS_PER_MINUTE,
    }
    assert {row["workload_name"] for row in found} == {"web"}


def test_free_gpus_without_cpu_for_any_pod_are_stranded():
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.1, sm=0.1).device(at, "gpu-2")
    full = fact.node(gpus=2, cpu_milli=1500, memory_bytes=2**34)
    table = build([journal], [full, fact.gpu("gpu-1"), fact.gpu("gpu-2"), fact.pod("web")])
    (free,) = rows(table, row_kind="free")
    assert (free["stranded"], free["unallocated"]) == (NS_PER_HOUR, 0)


@st.composite
def random_hours(draw):
    """A node with a shared GPU, windows dropped at random, holders that come and go."""
    replicas = draw(st.integers(1, 4))
    journal = Journal()
    kept = draw(st.sets(st.integers(0, 59), max_size=12))
    for minute in sorted(kept):
        at = HOUR + timedelta(minutes=minute)
        journal.device(
            at,
            "gpu-1",
            replicas=replicas,
            unattributed=draw(st.sampled_from([None, 0.0, 0.3, 1.0])),
            unhealthy_ns=draw(st.sampled_from([0, 0, NS_PER_MINUTE // 3, NS_PER_MINUTE])),
        )
        for k in range(draw(st.integers(0, replicas))):
            duty = draw(st.sampled_from([None, 0.0, 0.123456789, 0.9, 1.0]))
            sm = None if duty is None or draw(st.booleans()) else duty * draw(st.sampled_from([0.0, 0.337, 1.0]))
            held = draw(st.sampled_from([0.0, 1 / 3, 1.0]))
            slice_id = f"gpu-1::{k}" if replicas > 1 else "gpu-1"
            journal.usage(at, "gpu-1", f"pod-{k}", slice_id=slice_id, duty=duty, sm=sm, held=held)
    ends = draw(st.sampled_from([None, HOUR + timedelta(minutes=17, seconds=3)]))
    known = [fact.node(), fact.gpu("gpu-1", replicas=replicas)]
    return journal, known + [fact.pod(f"pod-{k}", end=ends) for k in range(replicas)]


@settings(max_examples=60, deadline=None)
@given(random_hours())
def test_conservation_for_any_hour(case):
    journal, known = case
    assert_conserved(build([journal], known))


@settings(max_examples=20, deadline=None)
@given(random_hours(), st.randoms(use_true_random=False))
def test_rows_do_not_depend_on_order_or_repetition(case, random):
    journal, known = case
    table = journal.table()
    indices = list(range(table.num_rows)) * 2
    random.shuffle(indices)
    facts = tuple(merge_facts(known))
    once = HourInputs(cluster="test", hour=HOUR, windows=deduplicate(table), facts=facts)
    mixed = HourInputs(
        cluster="test", hour=HOUR, windows=deduplicate(table.take(pa.array(indices, pa.int64()))), facts=facts
    )
    assert once.input_hash() == mixed.input_hash()
    assert build_hour(once, RULES).table.equals(build_hour(mixed, RULES).table)


def test_usage_of_an_unknown_device_is_reported():
    journal = Journal().usage(HOUR, "gpu-9", "web", duty=1.0)
    inputs = HourInputs(cluster="test", hour=HOUR, windows=journal.table(), facts=())
    assert build_hour(inputs, RULES).findings == (
        "1 usage records name a device that has no device record in their window",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: setattr(r, "window_ns", 0), "`window_ns` must be above 0"),
        (lambda r: setattr(r, "seq", 0), "`seq` must be 1 or more"),
        (lambda r: setattr(r, "window_start_unix_ns", r.window_start_unix_ns + 1), "must be a multiple"),
        (lambda r: setattr(r.device, "weight_num", 2), "`weight_num` / `weight_den`"),
        (lambda r: setattr(r.device, "parent_id", ""), "`parent_id` must not be empty"),
        (lambda r: setattr(r.device.figures, "sm_ns", 2 * NS_PER_MINUTE), "`sm_ns` must not be below 0 or above"),
        (lambda r: r.device.figures.histogram_ns.extend([1, 2]), "21 entries or none"),
        (lambda r: setattr(r.device, "gpu_uuid", ""), "`gpu_uuid` must not be empty"),
        (lambda r: r.ClearField("device"), "must hold one of"),
        (lambda r: setattr(r.device.figures, "memory_byte_s", float("nan")), "finite"),
        (
            lambda r: setattr(r.device.figures.sm_quality, "coverage_ppm", 1_000_001),
            "`sm_quality.coverage_ppm` must be at",
        ),
    ],
)
def test_malformed_windows_are_refused_by_field(change, message):
    from gpuwaste.ingest.decode import decode_batch
    from gpuwaste.model.errors import InputError

    journal = Journal().device(HOUR, "gpu-1")
    change(journal.batch.records[0])
    with pytest.raises(InputError, match=message.replace("|", "\\|")) as caught:
        decode_batch(journal.batch.SerializeToString(), where="agent node-a")
    assert "agent node-a: record" in str(caught.value)
