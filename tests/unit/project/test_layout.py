"""What must hold of the tree itself: where modules lie, what no file names, and that generated files are fresh."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gpuwaste
import gpuwaste_agent
from gpuwaste.api.generate import drifted

ROOT = Path(__file__).parents[3]
SOURCE_ROOTS = ("operator", "agent")
PACKAGES = (ROOT / "operator" / "gpuwaste", ROOT / "agent" / "gpuwaste_agent")
LOCK = ROOT / "requirements" / "dev.txt"

# Written so that this file does not match itself.
REGISTRIES = re.compile(
    r"pypi[.]org|pythonhosted[.]org|docker[.]io|ghcr[.]io|quay[.]io|nvcr[.]io|\bgcr[.]io|registry[.]k8s|"
    r"proxy[.]golang|npmjs[.]|\bindex-url\s*[= ]\s*https?:"
)
MACHINE_PATHS = re.compile(r"(?<![\w}./-])/(?:root|work|home/[a-z][\w-]*)/")
THIRD_PARTY = {"LICENSE"}
GENERATED_PROTO = (
    ("proto", "gpuwaste/v1/usage.proto", "agent/gpuwaste_agent/wire"),
    ("proto", "kubelet/podresources.proto", "agent/gpuwaste_agent/kubelet"),
)


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files are committed is not known")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts():
    for path in tracked_files():
        data = path.read_bytes()
        if b"\0" not in data[:4096] and path.name not in THIRD_PARTY:
            yield path.relative_to(ROOT).as_posix(), data.decode("utf-8", errors="replace")


def lines_matching(pattern):
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def module_at(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("source_root", SOURCE_ROOTS)
def test_no_module_lies_directly_in_a_source_root(source_root):
    """`operator/x.py` on the path would be a top-level module, `operator/__init__.py` would shadow the stdlib's."""
    found = [path.name for path in (ROOT / source_root).iterdir() if path.suffix in {".py", ".pyi", ".so"}]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_says_in_one_docstring_what_it_is(package):
    wrong = []
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        init = folder / "__init__.py"
        if not init.is_file():
            wrong.append(f"{folder.relative_to(ROOT)}: no __init__.py")
        elif not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            wrong.append(f"{init.relative_to(ROOT)}: no docstring")
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_packages_are_typed(package):
    assert (package / "py.typed").is_file()


def test_the_standard_librarys_operator_is_the_one_that_is_imported():
    import operator

    assert not Path(operator.__file__).is_relative_to(ROOT)


def test_no_committed_text_names_a_registry():
    assert lines_matching(REGISTRIES) == []


def test_no_committed_text_names_a_path_of_a_machine():
    assert lines_matching(MACHINE_PATHS) == []


@pytest.mark.parametrize("folder", ["root", "work", "home/ada"])
@pytest.mark.parametrize("before", ["", "see ", "`", '"', "="], ids=["start", "word", "code", "quoted", "value"])
def test_the_search_for_machine_paths_finds_them(before, folder):
    assert MACHINE_PATHS.search(f"{before}/{folder}/x")


@pytest.mark.parametrize("text", ["/proc/1/root/usr", "https://example.org/work/", "a/root/b", "{pid}/root/etc"])
def test_the_search_for_machine_paths_leaves_others_alone(text):
    assert not MACHINE_PATHS.search(text)


def test_both_packages_and_the_project_have_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert gpuwaste.__version__ == gpuwaste_agent.__version__ == project["version"]


def test_the_lock_has_hashes_and_names_no_place():
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if re.match(r"[a-z0-9]", line, re.IGNORECASE)]
    unpinned = [line for line in pins if not re.match(r"[\w.\[\]-]+==[\w.+!-]+ (?:; .* )?\\$", line)]
    places = [
        line for line in lines if "://" in line or line.lstrip().startswith(("--index", "--extra", "--find", "-f"))
    ]
    unhashed = [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if line in pins and not following.lstrip().startswith("--hash=sha256:")
    ]
    assert pins
    assert (unpinned, places, unhashed) == ([], [], [])


def test_crds_their_chart_and_their_page_follow_from_the_models():
    assert drifted(ROOT) == []


def test_pages_that_follow_from_the_code_are_up_to_date():
    assert module_at(ROOT / "docs" / "generate.py").drifted() == []


def test_the_product_tables_follow_from_their_file():
    checked = subprocess.run(
        [sys.executable, ROOT / "proto" / "generate_products.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("include", "proto", "target"), GENERATED_PROTO, ids=lambda value: Path(value).stem)
def test_messages_are_what_the_compiler_writes(include, proto, target, tmp_path):
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / include}"]
    subprocess.run([*compiler, f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", proto], cwd=ROOT, check=True)
    for written in tmp_path.rglob("*_pb2.py*"):
        assert (ROOT / target / written.name).read_text(encoding="utf-8") == written.read_text(encoding="utf-8")
    assert list(tmp_path.rglob("*_pb2.py"))
