"""``diff``, ``save``, ``export`` and ``import``: what is done with recorded runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llmcompiler.cli.options import JsonOption, RunArgument, StoreOption, open_store
from llmcompiler.cli.output import write_text

OutputOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write it there.", show_default=False),
]


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A run, as for show.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: plans, values, times, tokens, money, answers.

    Example: llmcompiler diff 3f2a last
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.history.diff import diff_runs

    found = diff_runs(open_store(store), before, after)
    if as_json:
        print_json(found.to_json())
        return
    from llmcompiler.view.diff import print_diff

    print_diff(found)


def save(
    run: RunArgument,
    output: OutputOption = None,
    parameterise: Annotated[
        bool,
        typer.Option(
            "--parameterise",
            help="Make inputs of the constants that came from the question; they are its defaults.",
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a plan of a finished run, to be run again.

    As JSON (--json, or a file that ends with .json) it also holds what its tools took and gave,
    and a run of it says what has changed since.

    Example: llmcompiler save last --parameterise -o density.plan
    """
    from llmcompiler.history.save import save_run
    from llmcompiler.language import print_plan

    plan = save_run(open_store(store), run, parameterise=parameterise)
    as_json = as_json or (output is not None and output.suffix == ".json")
    text = plan.model_dump_json(indent=2) + "\n" if as_json else print_plan(plan)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text(output, text)
        typer.echo(f"written: {output}", err=True)


def export(
    run: RunArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The file, FILE.jsonl.gz.")
    ],
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave values out, but for their type and size.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write a run to one file.

    For a bug report, or for tests of your own.

    Example: llmcompiler export last --redact -o report.jsonl.gz
    """
    from llmcompiler.log.export import export_run

    export_run(open_store(store), run, output, redact=redact)
    typer.echo(f"written: {output}", err=True)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that export wrote.")],
    store: StoreOption = None,
) -> None:
    """Take a run from a file into the store.

    Example: llmcompiler import report.jsonl.gz
    """
    from llmcompiler.log.export import import_run
    from llmcompiler.log.store import RunStore

    typer.echo(import_run(RunStore(store), file).run)
