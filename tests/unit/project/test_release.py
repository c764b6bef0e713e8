"""What a release must be like: rules for Dockerfiles, and one version everywhere."""

import shutil
from pathlib import Path

import pytest
from tests.release.dockerfiles import instructions, lint
from tests.release.versions import differing_versions, project_version

ROOT = Path(__file__).parents[3]
GOOD = """\
# A comment.
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
COPY agent agent
RUN pip install --require-hashes \\
    # a comment between
    -r requirements.txt \\
 && pip install --no-index dist/one.whl

FROM ${BASE}
COPY --from=build /opt/x /opt/x
USER 0:0
ENTRYPOINT ["x"]
"""


@pytest.mark.parametrize("path", sorted((ROOT / "images").glob("*/Dockerfile")), ids=lambda path: path.parent.name)
def test_the_images_keep_the_rules(path):
    assert lint(path, root=ROOT) == []


def linted(tmp_path, text):
    (tmp_path / "agent").mkdir()
    (tmp_path / "Dockerfile").write_text(text)
    (tmp_path / "Dockerfile.dockerignore").write_text("*")
    return [line.removeprefix(f"{tmp_path / 'Dockerfile'}:") for line in lint(tmp_path / "Dockerfile", root=tmp_path)]


def test_a_good_one_breaks_no_rule(tmp_path):
    assert linted(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("FROM ${BASE}\n", "FROM python:3.13\n", "10: FROM must take its image from an ARG"),
        ("python:3.13-slim", "python:latest", "2: a base must not be `latest`"),
        ("COPY agent agent", "COPY agent other agent", "4: other is not there"),
        ("COPY agent agent", "ADD agent agent", "4: ADD must not be used"),
        ("--require-hashes", "-q", "5: pip install must have --require-hashes"),
        ("--no-index dist/one.whl", "gpuwaste", "5: pip install must have --require-hashes"),
        ("USER 0:0", "USER root", "the last stage must name its USER by number"),
        ("USER 0:0\n", "", "the last stage must name its USER by number"),
        ('["x"]', "x", "the last stage must have an ENTRYPOINT of the form"),
        ("USER 0:0", "RUN curl https://example.com\nUSER 0:0", "12: nothing but packages with hashes may be fetched"),
        ("USER 0:0", "ENV API_TOKEN=1\nUSER 0:0", "12: a secret must not stand in an image"),
        ("USER 0:0", "USSER 0:0\nUSER 0:0", "12: USSER is no instruction"),
    ],
)
def test_each_rule(tmp_path, old, new, problem):
    assert old in GOOD
    (line,) = linted(tmp_path, GOOD.replace(old, new))
    assert line.strip().startswith(problem)


def test_a_dockerfile_without_ignored_files_or_a_base(tmp_path):
    (tmp_path / "Dockerfile").write_text("USER 0\n")
    assert lint(tmp_path / "Dockerfile", root=tmp_path) == [f"{tmp_path / 'Dockerfile'}: has no FROM"]


def test_continued_lines_are_one_instruction():
    found = instructions(GOOD)
    assert [(each.line, each.word) for each in found][:4] == [(2, "ARG"), (3, "FROM"), (4, "COPY"), (5, "RUN")]
    assert found[3].arguments.endswith("-r requirements.txt && pip install --no-index dist/one.whl")


def test_the_version_is_the_same_everywhere():
    assert differing_versions(ROOT) == []


VERSION = project_version(ROOT)


@pytest.mark.parametrize(
    ("file", "old", "new", "place"),
    [
        ("operator/gpuwaste/__init__.py", f'"{VERSION}"', '"9"', "operator/gpuwaste/__init__.py: __version__ is 9"),
        ("agent/gpuwaste_agent/__init__.py", "__version__", "version", "__init__.py: __version__ is None"),
        ("charts/gpuwaste/Chart.yaml", f'appVersion: "{VERSION}"', 'appVersion: "9"', "Chart.yaml: appVersion is 9"),
        (
            "charts/gpuwaste/Chart.yaml",
            f"    version: {VERSION}",
            "    version: 9.0.0",
            "dependency gpuwaste-crds is 9",
        ),
        ("CHANGELOG.md", "## Unreleased", "## 0.0.1", "CHANGELOG.md has neither"),
    ],
)
def test_a_place_that_was_forgotten_is_named(tmp_path, file, old, new, place):
    names = ["pyproject.toml", "CHANGELOG.md", "operator/gpuwaste/__init__.py", "agent/gpuwaste_agent/__init__.py"]
    for name in (*names, "charts/gpuwaste/Chart.yaml", "charts/gpuwaste-crds/Chart.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    (line,) = differing_versions(tmp_path)
    assert place in line
