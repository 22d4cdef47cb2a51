"""``runs``, ``show``, ``replay`` and ``graph``: what is kept of runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcompiler.cli.options import JsonOption, RunArgument, StoreOption, open_store
from llmcompiler.cli.sources import is_plan, read_plan, read_text, sound_plan
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.state import RunState


def list_runs(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many, latest first.")
    ] = 20,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest runs.

    Example: llmcompiler runs -n 5
    """
    import dataclasses

    from llmcompiler.cli.output import print_json
    from llmcompiler.view.text import one_line, seconds_text

    found = open_store(store).runs(limit)
    if as_json:
        print_json({"runs": [dataclasses.asdict(run) for run in found]})
        return
    if not found:
        typer.echo("no runs yet", err=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("run", "began", "status", "tasks", "took"):
        table.add_column(title, no_wrap=True)
    table.add_column("question", no_wrap=True, overflow="ellipsis")
    for run in found:
        table.add_row(
            run.run,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(run.wall)),
            run.status,
            str(run.tasks),
            "" if run.seconds is None else seconds_text(run.seconds),
            Text(one_line(run.question) if run.question else "(a saved plan)"),
        )
    # In a file or pipe nothing is cut off.
    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False).print(
        table, soft_wrap=False
    )


def show(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show a run from question to answer.

    The plan, every task with what it got and gave, model calls, the answer. Long values are cut;
    --json gives them whole.

    Example: llmcompiler show last
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.view.data import run_to_json
    from llmcompiler.view.report import report_lines

    state = _state(run, store)
    if as_json:
        print_json(run_to_json(state))
        return
    for line in report_lines(state):
        typer.echo(line)


def replay(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Derive a finished run again from its log.

    Nothing is called; every decision is made again and compared with the log. Exit code 1 if
    anything comes out differently; the error names the task and the field.

    Example: llmcompiler replay last
    """
    import asyncio
    import dataclasses

    from llmcompiler.cli.output import print_json
    from llmcompiler.replay import replay as derive_again
    from llmcompiler.view.text import count_text

    kept = open_store(store)
    report = asyncio.run(derive_again(kept, run))
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    typer.echo(
        f"run {report.run} came out the same: {count_text(report.tasks, 'task')}, "
        f"{count_text(report.model_calls, 'model call')}, {report.status}"
    )


def graph(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN|PLAN", help="A run, a plan's file or text, or - for stdin."),
    ],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="mermaid, dot or svg.")
    ] = "mermaid",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the drawing there."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Draw the DAG of a run or of a plan.

    Example: llmcompiler graph last --format svg -o run.svg
    """
    from llmcompiler.cli.output import write_text
    from llmcompiler.view.graph import FORMATS, draw_plan, draw_run

    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", hint=f"one of {', '.join(FORMATS)}")
    text = read_text(what)
    drawing = (
        draw_plan(sound_plan(read_plan(text))) if is_plan(text) else draw_run(_state(text, store))
    )
    drawn = FORMATS[form](drawing)
    if output is None:
        sys.stdout.write(drawn)
        return
    write_text(output, drawn)


def _state(run: str, store: Path | None) -> RunState:
    from llmcompiler.state import fold

    kept = open_store(store)
    return fold(kept.events(kept.find(run)))
