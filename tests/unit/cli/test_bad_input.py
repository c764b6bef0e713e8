"""Every command with input that is missing, empty or of the wrong type: one clear line, nothing half-written."""

import pytest

from .stored import files, run

DAY = ("--from", "2026-11-01", "--to", "2026-11-01")
MIG = ("mig", "--gpu", "H100-80GB", "--demand", "1g.10gb=2")
COMMANDS = {
    "report": ("report", "--ledger", "{bad}"),
    "top": ("top", "--ledger", "{bad}"),
    "ledger ls": ("ledger", "ls", "--ledger", "{bad}"),
    "ledger show": ("ledger", "show", "--ledger", "{bad}"),
    "ledger verify": ("ledger", "verify", "--ledger", "{bad}"),
    "ledger export-inputs": ("ledger", "export-inputs", "--inputs", "{bad}", "--out", "{out}"),
    "plan": ("plan", "--inputs", "{bad}", "--out", "{out}"),
    "replay inputs": ("replay", "--inputs", "{bad}", "--ledger", "{out}"),
    "replay files": ("replay", "--windows", "{bad}", "--facts", "{bad}", "--ledger", "{out}"),
    "pack": ("pack", "--nodes", "{bad}", "--pods", "{bad}", "--out", "{out}"),
    "drain": (
        *("drain", "--nodes", "{bad}", "--pods", "{bad}", "--current", "{bad}"),
        *("--max-moves", "5", "--out", "{out}"),
    ),
    "share": ("share", "--series", "{bad}", "--out", "{out}"),
    "slowdown": ("slowdown", "--pairs", "{bad}", "--out", "{out}"),
    "focus export": ("focus", "export", "--ledger", "{bad}", *DAY, "--out", "{out}"),
    "focus verify": ("focus", "verify", "{bad}"),
    "focus tokens": ("focus", "tokens", "--usage", "{bad}", "--prices", "{bad}", "--out", "{out}"),
    "focus publish": ("focus", "publish", "--ledger", "{bad}", *DAY, "--archive", "{out}"),
    "focus restate": ("focus", "restate", "--ledger", "{bad}", "--period", "2026-11-01", "--archive", "{bad}"),
    "focus periods": ("focus", "periods", "--archive", "{bad}"),
    "operator": ("operator", "--config", "{bad}"),
    "mig below it": (*MIG, "--out", "{bad}/no/folder"),
}


@pytest.mark.parametrize("kind", ["missing", "empty", "folder", "wrong type", "unknown scheme"])
@pytest.mark.parametrize("name", COMMANDS)
def test_one_clear_line(tmp_path, name, kind):
    bad = {"unknown scheme": "nothing://here/x"}.get(kind, str(tmp_path / kind))
    (tmp_path / "empty").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "wrong type").write_text("a line of prose\n")
    before = files(tmp_path)
    result = run(*(part.format(bad=bad, out=tmp_path / "out") for part in COMMANDS[name]))
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code in {1, 2}
    if result.exit_code == 1:
        assert result.stderr.startswith("gpuwaste: ")
        assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    assert files(tmp_path) == before
