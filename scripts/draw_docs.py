"""Draw the diagrams of the design notes from the tables that the code itself goes by.

    python scripts/draw_docs.py

Each stands in docs/architecture.md behind a comment with its name, and is replaced there. A test
says when one is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from llmcompiler.passes.pipeline import PASSES  # noqa: E402
from llmcompiler.schedule import TRANSITIONS  # noqa: E402
from tests.test_imports import LAYERS  # noqa: E402

PAGE = ROOT / "docs" / "architecture.md"


def layers() -> Iterator[str]:
    """What may import what: each layer itself and those under it."""
    yield "flowchart TD"
    for number, parts in reversed(list(enumerate(LAYERS))):
        words = [", ".join(sorted(parts)[at : at + 6]) for at in range(0, len(parts), 6)]
        yield f'  layer{number}["{"<br/>".join(words)}"]'
    for number in reversed(range(1, len(LAYERS))):
        yield f"  layer{number} --> layer{number - 1}"


def states() -> Iterator[str]:
    """A task's states in the task fetching unit."""
    yield "stateDiagram-v2"
    yield "  [*] --> waiting"
    for state, following in TRANSITIONS.items():
        for after in following:
            yield f"  {state.value} --> {after.value}"
        if not following:
            yield f"  {state.value} --> [*]"


def passes() -> Iterator[str]:
    """The passes in their order."""
    yield "flowchart LR"
    names = [one.__name__ for one in PASSES]
    yield "  " + " --> ".join(["checked([checked plan])", *names, "plan([plan])"])


DIAGRAMS = {each.__name__: each for each in (layers, states, passes)}


def drawn(text: str) -> str:
    """The page with every diagram as it is today."""

    def draw(found: re.Match[str]) -> str:
        lines = "\n".join(DIAGRAMS[found["name"]]())
        return f"<!-- drawn: {found['name']} -->\n```mermaid\n{lines}\n```"

    return re.sub(
        r"<!-- drawn: (?P<name>\w+) -->\n```mermaid\n.*?\n```", draw, text, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")
