"""The pages: what they link to is there, what they show is code, and no number was written by hand."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from naiad.cli.demo.system import NAMES
from naiad.export import find_recipe
from naiad.loadtest import find_scenario

PAGES = Path(__file__).parents[2] / "docs" / "gallery"
ALL = sorted(PAGES.glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    """Files of the project, relative to the page."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_the_code_of_a_page_can_be_read(page):
    """Python compiles, TOML parses, commands name recipes and scenarios that there are."""
    for code in blocks(page, "python"):
        compile(code, page.name, "exec")
    for text in blocks(page, "toml"):
        tomllib.loads(text)
    for line in "\n".join(blocks(page, "console")).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True) if line.startswith("$ naiad ") else []
        if words[1:2] == ["export"]:
            find_recipe(words[2])
        if words[1:2] == ["loadtest"] and words[2].endswith(".toml"):
            find_scenario(words[2])


def test_the_index_has_every_system():
    """With a link to its page."""
    index = (PAGES / "README.md").read_text()
    assert [name for name in NAMES if f"[{name}]({name}.md)" not in index] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_of_a_page_are_those_of_its_command(demo_of, name):
    """Its table has the rows that the command prints, and was written by the script that runs it."""
    spec = importlib.util.spec_from_file_location("update_pages", PAGES / "update.py")
    assert spec is not None
    assert spec.loader is not None
    update = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(update)
    found = demo_of(name).found
    marked = re.search(
        r"<!-- naiad demo: what it found -->\n(.*?)<!-- end -->", (PAGES / f"{name}.md").read_text(), re.DOTALL
    )
    assert marked is not None
    written, now = (_labels(text) for text in (marked[1], update.summary(found)))
    assert written == now


def _labels(summary: str) -> list[str]:
    """The first cell of each row, the columns of each table, and the tables' titles."""
    lines = [line for line in summary.splitlines() if line.startswith(("|", "**"))]
    return [line.split("|")[1].strip() if line.startswith("|") else line for line in lines]
