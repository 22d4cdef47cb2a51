"""Shell completion: runs, strategies, planners, sets of tools, formats of drawings.

A word is completed while the user types, so errors are silent and no endpoint is called.
"""

from __future__ import annotations

from collections.abc import Iterator

import typer

from llmcompiler.errors import LLMCompilerError

_LATEST = 30


def runs(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The latest runs of the store, each with its question."""
    from llmcompiler.log.store import RunStore
    from llmcompiler.view.text import one_line

    try:
        store = RunStore(ctx.params.get("store"))
        latest = store.runs(_LATEST)
        store.close()
    except LLMCompilerError:
        return
    if "last".startswith(incomplete):
        yield "last", "the latest run"
    for run in latest:
        if run.run.startswith(incomplete):
            yield run.run, one_line(run.question or "a saved plan", 60)


def strategies(incomplete: str) -> Iterator[str]:
    """Reasoning strategies."""
    from llmcompiler.reasoning.registry import strategy_names

    yield from (name for name in strategy_names() if name.startswith(incomplete))


def planners(incomplete: str) -> Iterator[str]:
    """Planners of the package."""
    from llmcompiler.planners.registry import PLANNERS

    yield from (name for name in PLANNERS if name.startswith(incomplete))


def tools(incomplete: str) -> Iterator[str]:
    """Built-in sets of tools. The shell completes names of files."""
    from llmcompiler.tools.loading import BUILT_IN

    yield from (name for name in (*BUILT_IN, "mcp:") if name.startswith(incomplete))


def formats(incomplete: str) -> Iterator[str]:
    """Formats of drawings."""
    from llmcompiler.view.graph import FORMATS

    yield from (name for name in FORMATS if name.startswith(incomplete))
