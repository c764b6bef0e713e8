"""The runner of everything: it goes on where it was, and what it keeps is of the sources it ran."""

import json
import subprocess

import pytest
from tests.full import parts
from tests.full.__main__ import run_all
from tests.full.evidence import Evidence, EvidenceError, sources_digest

PARTS = ["a", "b", "c"]


class Runner:
    """Counts what it is asked to run; some parts fail, and one ends the process in the middle."""

    def __init__(self, *, failing=(), killed_at=None):
        self.ran = []
        self._failing, self._killed_at = failing, killed_at

    def __call__(self, name):
        if name == self._killed_at:
            raise KeyboardInterrupt
        self.ran.append(name)
        return name not in self._failing, {"tests": 3}


def go(path, runner, *, sources="s1", digest=None):
    return run_all(PARTS, Evidence(path, sources=sources), runner, digest or (lambda: sources))


def test_an_ended_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "evidence" / "tests.json"
    with pytest.raises(KeyboardInterrupt):
        go(path, Runner(killed_at="b"))
    second = Runner()
    assert go(path, second) == []
    assert second.ran == ["b", "c"]
    kept = json.loads(path.read_text())["parts"]
    assert [(name, part["passed"], part["tests"]) for name, part in kept.items()] == [(n, True, 3) for n in PARTS]


def test_what_failed_and_what_other_sources_showed_is_run_again(tmp_path):
    path = tmp_path / "tests.json"
    assert go(path, Runner(failing={"b"})) == ["b"]
    again = Runner()
    assert go(path, again) == []
    assert again.ran == ["b"]
    changed = Runner()
    go(path, changed, sources="s2")
    assert changed.ran == PARTS


def test_sources_that_change_meanwhile_show_nothing(tmp_path):
    path = tmp_path / "tests.json"
    with pytest.raises(EvidenceError, match="while a ran"):
        go(path, Runner(), digest=lambda: "s2")
    assert not path.exists()


def test_parts_that_are_gone_are_dropped(tmp_path):
    path = tmp_path / "tests.json"
    go(path, Runner())
    evidence = Evidence(path, sources="s1")
    evidence.keep("b", passed=True, shown={}, among=["b", "c"])
    assert list(json.loads(path.read_text())["parts"]) == ["b", "c"]


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_evidence_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "tests.json").write_text(text)
    with pytest.raises(EvidenceError, match="delete it to begin anew"):
        Evidence(tmp_path / "tests.json", sources="s1")


def test_the_digest_is_of_all_sources_but_the_evidence(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name, text in ((".gitignore", "built\n"), ("a.py", "1\n"), ("docs/evidence/tests.json", "{}"), ("built", "x")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    first = sources_digest(tmp_path)
    (tmp_path / "docs/evidence/tests.json").write_text("[]")
    (tmp_path / "built").write_text("y")
    assert sources_digest(tmp_path) == first
    (tmp_path / "new.py").write_text("")
    second = sources_digest(tmp_path)
    (tmp_path / "new.py").rename(tmp_path / "other.py")
    assert len({first, second, sources_digest(tmp_path)}) == 3


def test_no_checkout_no_evidence(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(EvidenceError, match="no git checkout"):
        sources_digest(tmp_path)


def test_every_test_and_benchmark_is_a_part(tmp_path):
    for name in ("integration/agent/test_a.py", "e2e/nvml/test_b.py", "e2e/product.py", "perf/focus/bench.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    assert parts.test_parts(tmp_path) == ["tests/unit", "tests/integration/agent/test_a.py", "tests/e2e/nvml/test_b.py"]
    assert parts.bench_parts(tmp_path) == ["focus"]


def test_figures_are_found_among_other_lines():
    lines = ["building …", "mig-100.gap 0 GPUs <=0 ok", "x 1.5e-07 s - baseline", "ledger_hour 5.25 s 4 missed"]
    found = [(each["name"], each["value"], each["state"]) for each in parts.figures_in(lines)]
    assert found == [("mig-100.gap", 0.0, "ok"), ("x", 1.5e-07, "baseline"), ("ledger_hour", 5.25, "missed")]
