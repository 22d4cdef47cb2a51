"""``runs``, ``show``, ``graph`` and ``report``: list, prune, print and draw recorded runs."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcompiler.cli import completion
from llmcompiler.cli.errors import say
from llmcompiler.cli.options import (
    JsonOption,
    RunArgument,
    StoreOption,
    ToolsOption,
    load_named_tools,
    open_store,
)
from llmcompiler.cli.sources import (
    check_parsed_plan,
    is_plan,
    parse_plan_source,
    read_text,
    require_valid_plan,
)
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.history.state import RunState


def list_runs(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="How many, latest first.")
    ] = 20,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest runs; with prune, drop old ones.

    Example: llmcompiler runs -n 5

    Example: llmcompiler runs prune --keep 100
    """
    if context.invoked_subcommand is not None:
        return
    import dataclasses

    from llmcompiler.cli.output import print_json
    from llmcompiler.view.text import one_line, seconds_text

    summaries = open_store(store).runs(limit)
    if as_json:
        print_json({"runs": [dataclasses.asdict(run) for run in summaries]})
        return
    if not summaries:
        typer.echo("no runs yet", err=True)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("run", "began", "status", "tasks", "took"):
        table.add_column(title, no_wrap=True)
    table.add_column("question", no_wrap=True, overflow="ellipsis")
    for run in summaries:
        table.add_row(
            run.run,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(run.wall)),
            run.status,
            str(run.tasks),
            "" if run.seconds is None else seconds_text(run.seconds),
            Text(
                (one_line(run.question) if run.question else "(a saved plan)")
                + (f" (fork of {run.parent})" if run.parent else "")
            ),
        )
    # A file or pipe gets every line whole.
    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False).print(
        table, soft_wrap=False
    )


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Drop runs that began longer ago: 30d, 12h, 90m.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="N", help="Keep the N latest.", show_default=False),
    ] = None,
    max_mb: Annotated[
        int | None,
        typer.Option(
            "--max-mb", metavar="N", help="Drop the oldest beyond N megabytes.", show_default=False
        ),
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(
            "--values",
            metavar="DIR",
            help="Also delete files of large values there that no run of this store refers to.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Drop runs, and values that no other run refers to. A run in progress is never dropped.

    Example: llmcompiler runs prune --older-than 30d
    """
    from llmcompiler.log.retention import prune_runs
    from llmcompiler.view.text import count_text

    report = prune_runs(
        open_store(store),
        older_than=None if older_than is None else _parse_age(older_than),
        keep=keep,
        max_bytes=None if max_mb is None else max_mb * 10**6,
        directory=values,
    )
    freed = (report.bytes_before - report.bytes_after) / 1e6
    typer.echo(
        f"dropped {count_text(len(report.runs), 'run')} and {count_text(report.values, 'value')}, "
        f"{freed:.1f} MB",
        err=True,
    )
    if values is not None:
        size = f"{report.file_bytes / 1e6:.1f} MB"
        typer.echo(f"deleted {count_text(report.files, 'file')} in {values}, {size}", err=True)
    for run in report.owned_runs:
        typer.echo(f"kept {run}: it is in progress", err=True)
    if report.kept_because:
        typer.echo(f"the file was not made smaller: {report.kept_because}", err=True)


_SECONDS = {"d": 86_400, "h": 3_600, "m": 60}


def _parse_age(text: str) -> float:
    """The age in seconds."""
    number, unit = text[:-1], text[-1:]
    if unit not in _SECONDS or not number.isdecimal():
        raise UsageError(f"{text!r} is no age", hint="for example 30d, 12h or 90m")
    return int(number) * float(_SECONDS[unit])


def show(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Show a run from question to answer.

    The plan, every task with its arguments and result, model calls, the answer. Long values are
    cut; --json prints them whole.

    Example: llmcompiler show last
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.view.data import run_to_json
    from llmcompiler.view.report import report_lines

    state = _load_state(run, store)
    if as_json:
        print_json(run_to_json(state))
        return
    for line in report_lines(state, shutil.get_terminal_size().columns):
        typer.echo(line)


def graph(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|PLAN",
            help="A run, a plan's file or text, or - for stdin.",
            autocompletion=completion.runs,
        ),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="mermaid, dot or svg.",
            autocompletion=completion.formats,
        ),
    ] = "mermaid",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the drawing there."),
    ] = None,
    tools: ToolsOption = None,
    store: StoreOption = None,
) -> None:
    """Draw the DAG of a run or of a plan.

    A program needs its tools, which tell what in it is a task.

    Example: llmcompiler graph last --format svg -o run.svg
    """
    from llmcompiler.cli.output import write_text
    from llmcompiler.view.graph import FORMATS, draw_plan, draw_run

    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", hint=f"one of {', '.join(FORMATS)}")
    text = read_text(what)
    if is_plan(text, what):
        parsed = parse_plan_source(text, what)
        if parsed.plan.program is not None:
            parsed = check_parsed_plan(parsed, load_named_tools(tools))
        drawing = draw_plan(require_valid_plan(parsed))
    else:
        drawing = draw_run(_load_state(text, store))
    picture = FORMATS[form](drawing)
    if output is None:
        sys.stdout.write(picture)
        return
    write_text(output, picture)
    say("written", str(output))


def report(
    run: RunArgument,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE.html", help="Write the page there."),
    ] = Path("run.html"),
    store: StoreOption = None,
) -> None:
    """Write a run as a web page: one file that needs no network.

    The answer, the plan beside its graph, a timeline with the critical path, every task with its
    arguments and result, prompts, tokens and cost. The run that it was forked from, and its own
    forks, are tabs of the page.

    Example: llmcompiler report last -o run.html
    """
    from llmcompiler.cli.output import write_text
    from llmcompiler.view.page import report_page
    from llmcompiler.view.report_data import related_runs, run_report
    from llmcompiler.view.text import one_line

    run_store = open_store(store)
    run_id = run_store.find(run)
    ids = (run_id, *related_runs(run_store, run_id))
    reports = [run_report(run_store.events(related)) for related in ids]
    title = one_line(reports[0]["question"] or f"run {run_id}", 80)
    write_text(output, report_page(reports, title))
    say("written", str(output))


def _load_state(run: str, store: Path | None) -> RunState:
    from llmcompiler.history.state import fold

    run_store = open_store(store)
    return fold(run_store.events(run_store.find(run)))
