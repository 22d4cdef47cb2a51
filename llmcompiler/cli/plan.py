"""``plan``, ``check`` and ``schema``: plans that are not run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcompiler.cli import sources
from llmcompiler.cli.errors import say
from llmcompiler.cli.options import (
    BaseUrlOption,
    JsonOption,
    LimitOption,
    ModelOption,
    PlannerOption,
    ProfileOption,
    PromptsOption,
    ReasonOption,
    ToolsOption,
    configured,
    tools_of,
)
from llmcompiler.cli.run import (
    check_names,
    made_compiler,
    opened_model,
    read_prompts,
    saved_plan,
)

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.plan.model import Plan


def plan(
    what: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION|PLAN",
            help="A question, a file with a question or a saved plan, or - for stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the plan there."),
    ] = None,
    tools: ToolsOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    planner: PlannerOption = None,
    reason: ReasonOption = None,
    limits: LimitOption = None,
    prompts: PromptsOption = None,
    base_url: BaseUrlOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Improve the plan, and say what each pass did.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Plan a question, or read a saved plan, and run nothing.

    The plan is text that `run` takes; with --json it is the plan's JSON form.

    Example: llmcompiler plan "How dense is Japan?" -o density.plan

    Example: llmcompiler plan density.plan --explain
    """
    from llmcompiler.cli.output import log_to_stderr, write_text
    from llmcompiler.language import print_plan

    log_to_stderr()
    chosen = configured(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        reason=reason,
        limits=limits,
        prompts=prompts,
        store=Path(":memory:"),
        executor="local",
        base_url=base_url,
    )
    check_names(chosen)
    text = sources.read_text(what)
    texts = read_prompts(chosen)
    if sources.is_plan(text):
        written = saved_plan(text, chosen)
        compiler = made_compiler(chosen, {}, texts, False)
    else:
        asked = opened_model(chosen.settings.model, chosen)
        compiler = made_compiler(chosen, {"model": asked}, texts, False)
        written = _planned(text, compiler, asked)
    if explain:
        from llmcompiler.passes.pipeline import optimize
        from llmcompiler.reasoning.tool import with_think

        written, lines = optimize(written, with_think(compiler.tools, written))
        for line in lines:
            say("note", line)
    printed = written.model_dump_json(indent=2) + "\n" if as_json else print_plan(written)
    if output is None:
        sys.stdout.write(printed)
    else:
        write_text(output, printed)
        say("written", str(output))


def _planned(question: str, compiler: LLMCompiler, asked: ChatModel) -> Plan:
    """What the model plans, while the user sees that it does."""
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import stderr_console

    status = stderr_console().status(f"{asked.name} plans …")

    async def work() -> Plan:
        made = await compiler.plan(question)
        await asked.aclose()
        await compiler.aclose()
        return made

    def goodbye() -> None:
        status.stop()
        say("interrupted", "there is no plan")

    with status:
        return run_interruptible(work(), goodbye)


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
    from llmcompiler.plan.model import Plan

    print_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **Plan.model_json_schema(),
        }
    )
