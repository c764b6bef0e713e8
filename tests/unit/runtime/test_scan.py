"""A scan's ledger: what lies in memory at once and what is read in pieces tell the same."""

import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.helpers import facts as make
from tests.unit.ingest.prometheus.fakes import START, FakeStore

from gpuwaste.ingest.prometheus.source import PrometheusSource
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.store import open_store
from gpuwaste.model.facts import merge_facts
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.facts import PriceSources
from gpuwaste.report.summary import SUMMARY_COLUMNS, summarize
from gpuwaste.runtime import scan
from gpuwaste.runtime.scan_findings import find
from gpuwaste.settings.teams import TeamRules
from gpuwaste.waste.workloads import WORKLOAD_COLUMNS

HOURS = 26
EVERY_S = 1800
GPUS = 4


@pytest.fixture
def ledger(tmp_path):
    """A day of four GPUs: one pod that ends early, one that begins half an hour before the end, one all the time."""
    end = START + HOURS * HOUR
    lives = [(START, START + 3 * HOUR), (end - timedelta(minutes=30), None), (START, None)]
    facts = [make.node(gpus=GPUS)]
    facts += [make.pod(f"pod-{n}", start=life[0], end=life[1]) for n, life in enumerate(lives)]
    store = FakeStore()
    for gpu in range(GPUS):
        labels = {"UUID": f"GPU-{gpu}", "gpu": str(gpu), "Hostname": "node-a", "modelName": "NVIDIA H100 80GB HBM3"}
        labels |= {"namespace": "team-a", "pod": f"pod-{gpu}", "container": "main"} if gpu < len(lives) else {}
        store.gauge("DCGM_FI_DEV_GPU_UTIL", labels, [10 * gpu] * 2 * HOURS, every=EVERY_S)
        for name in ("DCGM_FI_DEV_ENC_UTIL", "DCGM_FI_DEV_DEC_UTIL"):
            store.gauge(name, labels, [0] * 2 * HOURS, every=EVERY_S)
    source = PrometheusSource(store=store, cluster="test", step_seconds=EVERY_S)
    return scan.read_hours(
        source,
        source.look(end),
        merge_facts(facts),
        start=START,
        end=end,
        rules=HourRules(teams=TeamRules()),
        prices=PriceSources(),
        store=open_store(str(tmp_path)),
        keep_inputs=False,
        progress=lambda *_: None,
    )


def test_pieces_hold_whole_workloads_and_every_row_once(ledger):
    (whole,) = ledger.holders(WORKLOAD_COLUMNS)
    pieces = list(ledger.holders(WORKLOAD_COLUMNS, most_rows=1))
    names = [set(piece["workload_name"].to_pylist()) for piece in pieces]
    assert names == [{"pod-0"}, {"pod-1"}, {"pod-2"}]
    assert sum(piece.num_rows for piece in pieces) == whole.num_rows


def test_findings_and_sums_do_not_depend_on_what_lies_in_memory(ledger, monkeypatch):
    found, sums = find(ledger), summarize(ledger.rows(SUMMARY_COLUMNS))
    monkeypatch.setattr(scan, "_ROWS_AT_ONCE", 1)
    assert find(ledger) == found
    assert summarize(ledger.rows(SUMMARY_COLUMNS)) == sums


def test_what_ended_frees_nothing(ledger, monkeypatch):
    monkeypatch.setattr(scan, "_ROWS_AT_ONCE", 1)  # also where its own rows are all that is looked at
    by_name = {one.name: one for one in find(ledger).findings}
    assert by_name["pod-0"].waste_gpu_hours == 3
    assert not by_name["pod-0"].frees_gpus
    assert by_name["pod-0"].advice == "Holds no GPU now"
    assert by_name["pod-2"].frees_gpus == Decimal("0.5")


def test_arrow_does_without_pandas_and_others_may_have_it():
    program = (
        "import sys; from gpuwaste.model.lean_arrow import lean_arrow; lean_arrow(); import pyarrow as pa; "
        "pa.array([1]); import pyarrow.parquet; assert 'pandas' not in sys.modules; "
        "import importlib.util; assert importlib.util.find_spec('pandas')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
