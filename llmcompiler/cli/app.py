"""The typer application: all commands, in the order of ``--help``."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from llmcompiler.cli import (
    config,
    doctor,
    history,
    mcp,
    models,
    plan,
    run,
    runs,
    think,
    tools,
    ui,
)
from llmcompiler.version import VERSION

_COLUMNS = shutil.get_terminal_size().columns

app = typer.Typer(
    name="llmcompiler",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Click's own minimum is 50 columns.
        "terminal_width": _COLUMNS - 1 if _COLUMNS < 52 else None,
    },
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"llmcompiler {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Plan a question as a DAG of tool calls, run it in parallel, and answer it.

    Try: llmcompiler run "Which is more densely populated, Japan or Germany?"
    """


app.command()(run.run)
app.command()(think.think)
app.command()(plan.plan)
app.command()(plan.check)
app.command()(plan.schema)
_runs = typer.Typer(rich_markup_mode=None)
_runs.callback(invoke_without_command=True)(runs.list_runs)
_runs.command()(runs.prune)
app.add_typer(_runs, name="runs")
app.command()(runs.show)
app.command()(history.replay)
app.command()(history.resume)
app.command()(history.fork)
app.command()(history.diff)
app.command()(history.save)
app.command()(history.export)
app.command("import")(history.import_)
app.command()(runs.graph)
app.command()(runs.report)
app.command()(ui.ui)
app.command("tools")(tools.list_tools)
app.command()(mcp.mcp)
app.add_typer(models.app, name="models")
app.command()(config.config)
app.command()(doctor.doctor)
