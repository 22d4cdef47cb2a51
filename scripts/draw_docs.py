"""Draw diagrams of docs/architecture.md and tables of docs/programs.md from tables in the code.

    python scripts/draw_docs.py

A comment with the diagram's name precedes each diagram in the page; the script replaces the diagram
there. A test fails if a diagram is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from llmcompiler.passes.optimize import PASSES  # noqa: E402
from llmcompiler.programs import subset  # noqa: E402
from llmcompiler.runtime.states import TRANSITIONS  # noqa: E402
from tests.project.test_imports import MAY_IMPORT  # noqa: E402

PAGE = ROOT / "docs" / "architecture.md"
LANGUAGE_PAGE = ROOT / "docs" / "programs.md"


def packages() -> Iterator[str]:
    """Arrows from each package to the packages it may import, without implied arrows."""
    graph = nx.transitive_reduction(
        nx.DiGraph([(name, target) for name, targets in MAY_IMPORT.items() for target in targets])
    )
    yield "flowchart TD"
    for name, target in sorted(graph.edges):
        yield f"  {name} --> {target}"


def states() -> Iterator[str]:
    """A task's states in the task fetching unit."""
    yield "stateDiagram-v2"
    yield "  [*] --> waiting"
    for state, next_states in TRANSITIONS.items():
        for next_state in next_states:
            yield f"  {state.value} --> {next_state.value}"
        if not next_states:
            yield f"  {state.value} --> [*]"


def passes() -> Iterator[str]:
    """The passes, in order."""
    yield "flowchart LR"
    yield "  " + " --> ".join(["checked([checked plan])", *PASSES, "plan([plan])"])


DIAGRAMS = {diagram.__name__: diagram for diagram in (packages, states, passes)}


def language() -> Iterator[str]:
    """What programs may use, from the table that the compiler reads."""
    yield "| what | names |"
    yield "|---|---|"
    yield f"| functions | {_code_names(subset.BUILTINS)} |"
    for kind, names in subset.METHODS.items():
        yield f"| methods of `{kind.__name__}` | {_code_names(names)} |"
    for kind, names in subset.FIELDS.items():
        yield f"| fields of `{kind.__name__}` | {_code_names(names)} |"
    for name, module in subset.MODULES.items():
        yield f"| module `{name}` | {_code_names([*module.functions, *module.constants])} |"
    yield ""
    yield "| instead of | write |"
    yield "|---|---|"
    for name, hint in subset.HINTS.items():
        yield f"| `{name}` | {hint} |"


def _code_names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def redraw_language(text: str) -> str:
    """Redraw the tables of the language in the text of docs/programs.md."""
    lines = "\n".join(language())
    return re.sub(
        r"(<!-- language -->\n).*?(\n<!-- end -->)",
        lambda match: f"{match[1]}\n{lines}\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


def redraw_page(text: str) -> str:
    """Redraw every diagram in the text of the page."""

    def redraw(match: re.Match[str]) -> str:
        lines = "\n".join(DIAGRAMS[match["name"]]())
        return f"<!-- drawn: {match['name']} -->\n```mermaid\n{lines}\n```"

    return re.sub(
        r"<!-- drawn: (?P<name>\w+) -->\n```mermaid\n.*?\n```", redraw, text, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(redraw_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")
    text = redraw_language(LANGUAGE_PAGE.read_text(encoding="utf-8"))
    LANGUAGE_PAGE.write_text(text, encoding="utf-8")
    print(f"written: {LANGUAGE_PAGE}")
