"""Hours computed one after the other have the rows that each has by itself, whatever changes between them."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import facts as make
from tests.unit.ingest.prometheus.fakes import START, FakeStore
from tests.unit.pricing.test_reservations import reservation

from gpuwaste.ingest.prometheus.source import PrometheusSource
from gpuwaste.ledger.columns import COMPUTED_FROM
from gpuwaste.ledger.hour import HourBuilder, HourRules, build_hour
from gpuwaste.ledger.inputs import HourInputs
from gpuwaste.model.facts import merge_facts
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.facts import PriceSources
from gpuwaste.runtime.scan import _Facts
from gpuwaste.settings.teams import TeamRules

RULES = HourRules(teams=TeamRules())
HOURS = 3
EVERY_S = 900
times = st.integers(0, 4 * HOURS).map(lambda quarter: START + timedelta(minutes=15 * quarter))
ends = st.none() | times
lives = st.tuples(times, ends).map(lambda life: (life[0], None if life[1] is None or life[1] <= life[0] else life[1]))


def hours_of(readings, facts):
    """What a store of two GPUs, each labelled with a pod while its reading is not None, has of three hours."""
    store = FakeStore()
    for gpu, values in enumerate(readings):
        labels = {"UUID": f"GPU-{gpu}", "gpu": str(gpu), "Hostname": "node-a", "modelName": "NVIDIA H100 80GB HBM3"}
        labels |= {"namespace": "team-a", "pod": f"pod-{gpu}", "container": "main"}
        store.gauge("DCGM_FI_DEV_GPU_UTIL", labels, values, every=EVERY_S)
    source = PrometheusSource(store=store, cluster="test", step_seconds=EVERY_S)
    end = START + HOURS * HOUR
    return [hour for hour in source.read(START, end, facts=facts, looked=source.look(end)) if hour.windows.num_rows]


@settings(max_examples=15)
@given(
    readings=st.lists(
        st.lists(st.sampled_from([None, 0, 40, 100]), min_size=4 * HOURS, max_size=4 * HOURS), min_size=2, max_size=2
    ),
    pods=st.lists(lives, min_size=2, max_size=5),
    node=lives,
    cpu=st.sampled_from([0, 500, 64_000]),
    bought=st.none() | lives,
)
def test_rows_are_those_of_each_hour_alone(readings, pods, node, cpu, bought):
    start = min(node[0], START + HOUR)
    facts = [make.node(start=start, end=node[1] if node[1] and node[1] > start else None, gpus=2, cpu_milli=cpu)]
    facts += [make.pod(f"pod-{n}", start=life[0], end=life[1], uid=f"uid-{n}") for n, life in enumerate(pods)]
    if bought is not None:
        facts.append(replace(reservation(count=1, start=bought[0]), valid_to=bought[1]))
    facts = merge_facts(facts)
    builder, around = HourBuilder(RULES), _Facts(facts, PriceSources())
    for hour in hours_of(readings, facts):
        known = tuple(around.of(hour))
        assert known == tuple(_Facts(facts, PriceSources()).of(hour))
        windows = hour.windows.select(list(COMPUTED_FROM))
        inputs = HourInputs(cluster="test", hour=hour.hour, windows=windows, facts=known)
        one, alone = builder.build(inputs), build_hour(inputs, RULES)
        assert one.table.equals(alone.table)
        assert one.findings == alone.findings


def test_facts_that_stay_are_indexed_once():
    facts = merge_facts([make.node(gpus=2), make.pod("pod-0"), make.pod("pod-1")])
    builder, around = HourBuilder(RULES), _Facts(facts, PriceSources())
    indexes = []
    for hour in hours_of([[50] * 4 * HOURS] * 2, facts):
        inputs = HourInputs(cluster="test", hour=hour.hour, windows=hour.windows, facts=tuple(around.of(hour)))
        builder.build(inputs)
        indexes.append(builder._before.index)
    assert len(indexes) == HOURS
    assert all(index is indexes[0] for index in indexes)
