"""The committed CRDs, chart templates and reference page are those of the models."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from gpuwaste.api import KINDS
from gpuwaste.api.generate import drifted, generated_files, main, write

ROOT = Path(__file__).parents[3]
POOLS = Path("crds/gpupools.yaml")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's root with nothing generated in it yet."""
    (tmp_path / "operator/gpuwaste/api").mkdir(parents=True)
    return tmp_path


def test_the_committed_files_are_of_the_models() -> None:
    assert drifted(ROOT) == []


def test_writing_makes_every_file_and_then_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--root", str(root)]) == 1
    assert f"{POOLS}: is missing; run `make generate`" in capsys.readouterr().err
    assert main(["--root", str(root)]) == 0
    assert set(capsys.readouterr().out.split()) == {str(path) for path in generated_files()}
    assert main(["--check", "--root", str(root)]) == 0
    assert write(root) == []
    assert not list(root.rglob("*.tmp"))


def test_a_changed_and_a_left_over_file_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root)
    (root / POOLS).write_text("changed\n")
    shutil.copy(root / POOLS, root / "crds/gone.yaml")
    assert main(["--check", "--root", str(root)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{POOLS}: differs from the models; run `make generate`",
        "crds/gone.yaml: is of no kind any more; run `make generate`",
    ]
    assert sorted(write(root)) == sorted([POOLS, Path("crds/gone.yaml")])
    assert not (root / "crds/gone.yaml").exists()


def test_another_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 1
    assert "is not the project's root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_crd_and_a_template_a_kind_and_no_yaml_anchors() -> None:
    files = generated_files()
    assert len(files) == 2 * len(KINDS) + 1
    for path, text in files.items():
        if path.parent == Path("crds"):
            manifest = yaml.safe_load(text)
            assert manifest["metadata"]["name"] == f"{path.stem}.gpuwaste.dev"
            assert "&id" not in text
            # `kubectl apply` without --server-side keeps a copy in an annotation, of 256 KiB at most.
            assert len(text) < 200_000


def test_the_reference_page_names_every_kind_and_field() -> None:
    page = generated_files()[Path("docs/reference/crds.md")]
    for info in KINDS.values():
        assert f"\n## {info.kind}\n" in page
    for field in ("spec.workloadRef.name", "status.windows[].netWasteGPUHours.idle", "spec.actions[].savings.cashNow"):
        assert f"| `{field}` |" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}, "four cells a row"
