"""The documentation is true: blocks run, pictures are drawn anew, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.draw_run import PICTURE, RUN, draw
from tests.support.docs import ROOT, CommandServer, Page, Step, scripted, steps

DOCS = ROOT / "docs"
# These pages show commands on clusters and endpoints of others.
APART = {"scale.md", "native.md"}
PAGES = sorted(page for page in (*DOCS.glob("*.md"), ROOT / "README.md") if page.name not in APART)

# Blocks that call programs or services of others, and the tests that use stand-ins for these.
ELSEWHERE = {
    "mcp.md": ("console", "python"),  # tests/tools/test_mcp_client.py
    "configuration.md": ("console",),  # tests/settings/test_settings.py
}


@pytest.fixture(scope="module")
def command_server() -> Iterator[CommandServer]:
    server = CommandServer()
    yield server
    server.close()


def runs(page: Path) -> bool:
    kinds = {step.kind for step in steps(page)} - set(ELSEWHERE.get(page.name, ()))
    return bool(kinds & {"console", "python", "plan", "toml", "json"})


# Imports of three frameworks, which take long; other tests use each by itself.
LONG = ("interop.md",)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.name in LONG else [], id=page.stem)
        for page in PAGES
        if runs(page)
    ],
)
def test_every_block_of_a_page_does_what_it_shows(
    page: Path, tmp_path: Path, command_server: CommandServer
) -> None:
    answers: list[Step] = []
    with scripted(answers) as endpoint:
        run = Page(tmp_path, endpoint, command_server)
        for step in steps(page):
            if step.kind == "model":
                answers.append(step)
            elif step.kind not in ELSEWHERE.get(page.name, ()):
                run.run_step(step)
        run.finish()


def test_every_block_says_what_it_is() -> None:
    """A block of another kind would not be run."""
    kinds = {"console", "python", "plan", "toml", "json", "text", "mermaid"}
    for page in PAGES:
        for step in steps(page):
            if step.kind not in ("model", "setup", "file"):
                assert step.kind in kinds, f"{page.name}: {step.text[:60]!r}"
        indented = re.findall(r"\n\n    (?:llmcompiler|pip|python) .*", page.read_text("utf-8"))
        assert indented == [], f"{page.name}: a command that no test sees"


def test_the_picture_of_the_readme_is_that_of_its_run() -> None:
    def words(picture: str) -> list[str]:
        return re.findall(r">([^<>]+)</text>", picture)

    assert words(draw(RUN)) == words(PICTURE.read_text(encoding="utf-8"))
    assert "url(" not in draw(RUN).replace("url(#", "")


def test_the_site_is_built_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=DOCS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial" / "index.html").exists()


def test_links_out_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target
