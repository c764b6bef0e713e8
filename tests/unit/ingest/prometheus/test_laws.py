"""Whatever a store says, its windows satisfy the laws of the accounting."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import facts as make
from tests.unit.ingest.prometheus.fakes import START, FakeStore

from gpuwaste.ingest.prometheus.source import PrometheusSource
from gpuwaste.ledger.hour import HourRules, build_hour
from gpuwaste.ledger.inputs import HourInputs
from gpuwaste.ledger.schema import WASTE_CATEGORIES
from gpuwaste.model.units import NS_PER_MINUTE
from gpuwaste.settings.teams import TeamRules

MINUTES = 4
readings = st.lists(st.none() | st.sampled_from([0, 1, 37, 100]), min_size=MINUTES, max_size=MINUTES)
pods = st.lists(st.tuples(readings, st.integers(-30, 200), st.none() | st.integers(30, 240)), min_size=1, max_size=4)


def device(gpu, **more):
    name = "NVIDIA H100 80GB HBM3"
    return {"UUID": f"GPU-{gpu}", "gpu": str(gpu), "Hostname": "node-a", "modelName": name, **more}


@settings(max_examples=15)
@given(
    gpus=st.integers(1, 2),
    replicas=st.sampled_from([1, 2, 4]),
    told_apart=st.booleans(),
    labelled=st.booleans(),
    sm=st.lists(readings, min_size=2, max_size=2),
    util=st.lists(readings, min_size=2, max_size=2),
    held=pods,
)
def test_windows_of_any_readings_add_up(gpus, replicas, told_apart, labelled, sm, util, held):
    store = FakeStore()
    for gpu in range(gpus):
        store.gauge("DCGM_FI_DEV_GPU_UTIL", device(gpu), util[gpu], every=60)
        store.gauge("DCGM_FI_PROF_SM_ACTIVE", device(gpu), [None if v is None else v / 100 for v in sm[gpu]], every=60)
    facts = [make.node(gpus=gpus * replicas, labels={"nvidia.com/gpu.sharing-strategy": "time-slicing"})]
    for number, (values, since, until) in enumerate(held):
        name, end = f"pod-{number}", None if until is None else START + timedelta(seconds=max(until, since + 1))
        facts.append(make.pod(name, start=START + timedelta(seconds=since), end=end))
        if labelled:
            holder = {"namespace": "team-a", "pod": name, "container": "main"}
            holder |= {"vgpu": str(number)} if told_apart and replicas > 1 else {}
            store.gauge("DCGM_FI_DEV_GPU_UTIL", device(number % gpus, **holder), values, every=60)
    source = PrometheusSource(store=store, cluster="test")
    end = START + timedelta(minutes=MINUTES)
    (hour,) = source.read(START, end, facts=facts, looked=source.look(end))
    for row in hour.windows.to_pylist():
        if row["kind"] == "usage":
            assert 0 <= row["held_ns"] <= NS_PER_MINUTE
            if row["sm_ns"] is not None and row["sm_low"] is not None:
                assert row["sm_low"] - 1 <= row["sm_ns"] <= row["sm_high"] + 1
    inputs = HourInputs(cluster="test", hour=START, windows=hour.windows, facts=tuple(facts))
    built = build_hour(inputs, HourRules(teams=TeamRules()), through=end)  # checks the laws itself
    rows = [row for row in built.table.to_pylist() if row["resource"] == "gpu"]
    seen = {row["gpu_uuid"] for row in hour.windows.to_pylist() if row["kind"] == "device"}
    for gpu in seen:
        mine = [row for row in rows if row["gpu_uuid"] == gpu]
        owned = sum(row["owned"] for row in mine)
        assert 0 < owned <= MINUTES * NS_PER_MINUTE
        assert owned == sum((row["effective"] or 0) + sum(row[name] for name in WASTE_CATEGORIES) for row in mine)
