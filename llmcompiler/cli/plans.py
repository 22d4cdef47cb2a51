"""``check`` and ``schema``: what is said of a plan without running it."""

from __future__ import annotations

from typing import Annotated

import typer

from llmcompiler.cli import sources
from llmcompiler.cli.options import JsonOption, ToolsOption, tools_of


def check(
    what: Annotated[
        str, typer.Argument(metavar="PLAN", help="A plan's file, its text, or - for stdin.")
    ],
    tools: ToolsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a plan, and run nothing.

    Exit code 2 if there are errors; warnings alone are fine.

    Example: llmcompiler check density.plan --tools geo --tools calc
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.view.text import count_text

    read = sources.read_plan(sources.read_text(what))
    plan, found, _ = sources.check(read, tools_of(tools))
    errors = sum(one.severity == "error" for one in found)
    if as_json:
        diagnostics = [
            {
                "code": one.code,
                "severity": one.severity,
                "message": one.message,
                "line": one.line,
                "column": one.column,
                "hint": one.hint,
                "task": one.task,
            }
            for one in found
        ]
        data = {"ok": not errors, "diagnostics": diagnostics}
        print_json(data if errors else {**data, "plan": plan.model_dump(mode="json")})
    else:
        for one in found:
            typer.echo(one.render(), err=True)
        if errors:
            typer.echo(count_text(errors, "error"), err=True)
        else:
            inputs = f", {count_text(len(plan.inputs), 'input')}" if plan.inputs else ""
            typer.echo(f"the plan is sound: {count_text(len(plan.tasks), 'task')}{inputs}")
    if errors:
        raise typer.Exit(2)


def schema() -> None:
    """Print the JSON schema of plans.

    Example: llmcompiler schema > plan.schema.json
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.plan import Plan

    print_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **Plan.model_json_schema(),
        }
    )
