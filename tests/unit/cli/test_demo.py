"""What the demo says before and after its stages."""

import io

import pytest
from rich.console import Console
from tests.helpers import facts as fact
from tests.helpers.windows import Journal
from tests.unit.ledger.test_hour import build, minutes

from gpuwaste.cli import demo_summary
from gpuwaste.cli.demo import _prepare
from gpuwaste.model.errors import InputError


class Rehearsal:
    """The objects of a rehearsal; the table needs no more."""

    def __init__(self, bodies):
        self.cluster = self
        self.bodies = bodies

    def objects(self, _):
        return self.bodies


def body(namespace, name, advice):
    summary = {
        "workload": f"Deployment/{name}",
        "gpus": "16",
        "heldGPUHours": "1,384.00",
        "effectiveGPUHours": "1,018.25",
        "wastePercent": "62",
        "costPerMonth": "123,650.45 USD",
        "advice": advice,
    }
    return {
        "metadata": {"namespace": namespace},
        "spec": {"workloadRef": {"kind": "Deployment", "name": name}},
        "status": {"summary": summary, "windows": [{"netWasteGPUHours": {"total": "5"}}]},
    }


def test_the_workloads_fit_100_columns_and_keep_their_names_whole():
    sink = io.StringIO()
    rehearsal = Rehearsal(
        [body("research", "pretrain-large-model-v2", "Check why it waits: a GPU is held, recommendation follows")]
    )
    demo_summary._print_workloads(Console(file=sink, width=100), rehearsal)
    text = sink.getvalue()
    assert "…" not in text
    assert "research/pretrain-large-model-v2 " in text
    assert "123,650 USD" in text
    assert ".45" not in text
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    for word in ["Check", "why", "it", "waits:", "a", "GPU", "is", "held,", "recommendation", "follows"]:
        assert f" {word} " in f" {words} "


def test_a_folder_of_an_earlier_demo_is_replaced_and_said(tmp_path):
    folder = tmp_path / "out"
    assert _prepare(folder) == (folder, False)
    assert _prepare(folder) == (folder, False)
    (folder / "report.html").write_text("old")
    assert _prepare(folder) == (folder, True)
    assert list(folder.iterdir()) == []


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        _prepare(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_the_teams_own_gpus_and_no_cpu():
    facts = [fact.node(cpu_milli=96_000, memory_bytes=2**40), fact.gpu("gpu-1"), fact.pod("web"), fact.price("2.00")]
    journal = Journal()
    for at in minutes():
        journal.device(at, "gpu-1").usage(at, "gpu-1", "web", duty=0.5, sm=0.25, first_activity=at)
    rows = build([journal], facts)
    assert set(rows["resource"].to_pylist()) == {"gpu", "cpu", "memory"}
    sink = io.StringIO()
    demo_summary._print_teams(
        Console(file=sink, width=120), demo_summary.summarise(demo_summary.gpu_rows(rows), ("team", "row_kind"))
    )
    (line,) = [line.split() for line in sink.getvalue().splitlines() if "team-a" in line]
    assert line[:5] == ["team-a", "1.00", "0.25", "0.75", "75"]
