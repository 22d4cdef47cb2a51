"""``plan``, ``check`` and ``schema``: commands about plans that run nothing."""

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
    load_named_tools,
    read_configuration,
)
from llmcompiler.cli.run import (
    check_before_model,
    create_compiler,
    load_model,
    load_saved_plan,
    read_prompts,
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
        bool, typer.Option("--explain", help="Optimise the plan, and print what each pass did.")
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
    configuration = read_configuration(
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
    text = sources.read_text(what)
    texts = read_prompts(configuration)
    saved = sources.is_plan(text, what)
    check_before_model(configuration, None if saved else text)
    if saved:
        result = load_saved_plan(text, configuration, what)
        compiler = create_compiler(configuration, {}, texts, False)
    else:
        chat_model = load_model(configuration.settings.model, configuration)
        compiler = create_compiler(configuration, {"model": chat_model}, texts, False)
        result = _plan_question(text, compiler, chat_model)
    if explain and result.program is not None:
        say("note", "the passes are for numbered plans; a program is run as it is written")
    elif explain:
        from llmcompiler.passes.optimize import optimize
        from llmcompiler.reasoning.tool import with_think

        result, lines = optimize(result, with_think(compiler.tools, result))
        for line in lines:
            say("note", line)
    printed = result.model_dump_json(indent=2) + "\n" if as_json else print_plan(result)
    if output is None:
        sys.stdout.write(printed)
    else:
        write_text(output, printed)
        say("written", str(output))


def _plan_question(question: str, compiler: LLMCompiler, model: ChatModel) -> Plan:
    """Plan a question under a status line, and close the compiler and the model."""
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import stderr_console

    status = stderr_console().status(f"{model.name} plans …")

    async def work() -> Plan:
        plan = await compiler.plan(question)
        await model.aclose()
        await compiler.aclose()
        return plan

    def on_interrupt() -> None:
        status.stop()
        say("interrupted", "there is no plan")

    with status:
        return run_interruptible(work(), on_interrupt)


def check(
    what: Annotated[
        str, typer.Argument(metavar="PLAN", help="A plan's file, its text, or - for stdin.")
    ],
    tools: ToolsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what is wrong with a plan, and run nothing.

    Exit code 2 if there are errors; warnings alone are fine.

    Example: llmcompiler check density.plan --tools geo --tools calc
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.view.text import count_text

    parsed = sources.parse_plan_source(sources.read_text(what), what)
    plan, diagnostics, _ = sources.check_parsed_plan(parsed, load_named_tools(tools))
    errors = sum(diagnostic.severity == "error" for diagnostic in diagnostics)
    if as_json:
        fields = ("code", "severity", "message", "line", "column", "hint", "task")
        data = {
            "ok": not errors,
            "diagnostics": [
                {name: getattr(diagnostic, name) for name in fields} for diagnostic in diagnostics
            ],
        }
        print_json(data if errors else {**data, "plan": plan.model_dump(mode="json")})
    else:
        for diagnostic in diagnostics:
            typer.echo(diagnostic.render(), err=True)
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
