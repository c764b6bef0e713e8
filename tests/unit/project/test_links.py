"""The link checker of the docs, and the docs under it."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def load():
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs" / "check_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_links = load()


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Usage windows", "usage-windows"),
        ("`gpuwaste pack`", "gpuwaste-pack"),
        ("What, then?", "what-then"),
        ("See [this](that.md) now", "see-this-now"),
        ("snake_case & more", "snake_case--more"),
    ],
)
def test_headings_get_the_anchors_that_readers_see(heading, anchor):
    assert check_links.slug(heading) == anchor


def test_a_heading_that_comes_again_is_numbered():
    assert check_links.anchors("# A\n## B\n## B\n## B\n") == {"a", "b", "b-1", "b-2"}


def test_what_is_code_is_no_link():
    text = "`[a](gone.md)`\n\n```text\n[b](gone.md)\n# No heading\n```\n[c](there.md)\n"
    assert check_links.links(text) == [(7, "there.md")]
    assert check_links.anchors(text) == set()


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("[x](gone.md)", "does not exist"),
        ("[x](other.md#nowhere)", "has no such heading"),
        ("[x](#nowhere)", "has no such heading"),
        ("![x](gone.png)", "does not exist"),
        ('<img src="gone.svg">', "does not exist"),
        ("[x](/other.md)", "is absolute; links here are relative"),
        ("[x]: gone.md", "does not exist"),
    ],
)
def test_a_broken_link_is_named_with_its_line(tmp_path, link, why):
    (tmp_path / "other.md").write_text("# There\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n{link}\n")
    lines = check_links.broken(page)
    assert len(lines) == 1
    assert lines[0].startswith(f"{page}:3: ")
    assert lines[0].endswith(why)


def test_links_that_lead_somewhere_and_those_to_other_hosts_pass(tmp_path):
    (tmp_path / "other.md").write_text("# There\n")
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](other.md#there) [b](#here) [c](https://example.org/x) [d](other.md) <b>\n")
    assert check_links.broken(page) == []


def test_every_link_in_the_projects_docs_leads_somewhere():
    pages = check_links.markdown_files()
    assert ROOT / "README.md" in pages
    assert [line for page in pages for line in check_links.broken(page)] == []
