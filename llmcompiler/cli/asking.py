"""``run`` and ``plan``: the commands that ask a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcompiler.cli.errors import report_failure, say
from llmcompiler.cli.options import (
    BaseUrlOption,
    JsonOption,
    LimitOption,
    ModelOption,
    PlannerOption,
    StoreOption,
    ToolsOption,
    json_values,
    pairs,
    tools_of,
)
from llmcompiler.cli.sources import check, is_plan, read_plan, read_text, sound_plan
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.plan import Plan
    from llmcompiler.run import RunResult
    from llmcompiler.view.live import LiveView
    from llmcompiler.view.plain import PlainView


def run(
    what: Annotated[
        str,
        typer.Argument(
            metavar="QUESTION|PLAN",
            help="A question, a file with a question or a saved plan, or - for stdin.",
            show_default=False,
        ),
    ],
    tools: ToolsOption = None,
    model: ModelOption = "local",
    planner: PlannerOption = "text",
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="K=V",
            help="A value for an input of a saved plan: JSON, else a string. May be repeated.",
            show_default=False,
        ),
    ] = None,
    limits: LimitOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show nothing but the answer and errors.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, or run a saved plan.

    The answer goes to stdout, the course of the run to stderr, and all of it into the log.

    Example: llmcompiler run "Which is more densely populated, Japan or Germany?"

    Example: llmcompiler run density.plan --input first=Peru --input second=Chile
    """
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import log_to_stderr, open_view, print_json
    from llmcompiler.view.data import run_to_json

    log_to_stderr()
    text = read_text(what)
    saved = sound_plan(check(read_plan(text), tools_of(tools))) if is_plan(text) else None
    given = json_values(pairs(inputs, "--input"))
    if given and saved is None:
        raise UsageError("a question takes no inputs", hint="--input is for saved plans")
    asks_model = saved is None or saved.question is not None
    asked = _open_model(model, base_url) if asks_model else None
    compiler = _compiler(tools, asked, planner, limits, store)
    with open_view(quiet) as view:

        def goodbye() -> None:
            view.close()
            _say_interrupted(view.state.run)

        result = run_interruptible(_run(compiler, asked, saved, text.strip(), given, view), goodbye)
    if as_json:
        print_json(run_to_json(view.state))
    elif result.answer is not None:
        typer.echo(result.answer)
    if result.failure is not None:
        report_failure(result.failure)
        raise typer.Exit(1)


def plan(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="A question, a file, or - for stdin.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the plan there."),
    ] = None,
    tools: ToolsOption = None,
    model: ModelOption = "local",
    planner: PlannerOption = "text",
    limits: LimitOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a question and run nothing.

    The plan is text that `run` takes; with --json it is the plan's JSON form.

    Example: llmcompiler plan "How dense is Japan?" -o density.plan
    """
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import log_to_stderr, stderr_console
    from llmcompiler.language import print_plan

    log_to_stderr()
    text = read_text(question)
    asked = _open_model(model, base_url)
    compiler = _compiler(tools, asked, planner, limits, ":memory:")
    status = stderr_console().status(f"{asked.name} plans …")

    async def work() -> Plan:
        try:
            return await compiler.plan(text)
        finally:
            await asked.aclose()
            await compiler.aclose()

    def goodbye() -> None:
        status.stop()
        say("interrupted", "there is no plan")

    with status:
        made = run_interruptible(work(), goodbye)
    printed = made.model_dump_json(indent=2) + "\n" if as_json else print_plan(made)
    if output is None:
        sys.stdout.write(printed)
    else:
        _write(output, printed)
        say("written", str(output))


async def _run(
    compiler: LLMCompiler,
    model: ChatModel | None,
    saved: Plan | None,
    question: str,
    inputs: dict[str, Any],
    view: LiveView | PlainView,
) -> RunResult:
    try:
        if saved is not None:
            return await compiler.execute(saved, inputs, on_event=view)
        return await compiler.run(question, on_event=view)
    finally:
        if model is not None:
            await model.aclose()
        await compiler.aclose()


def _open_model(spec: str, base_url: str | None) -> ChatModel:
    from llmcompiler.cli.progress import download_progress
    from llmcompiler.llm.models import open_model

    with download_progress() as progress:
        return open_model(spec, base_url=base_url, progress=progress)


def _compiler(
    tools: list[str] | None,
    model: ChatModel | None,
    planner: str,
    limits: list[str] | None,
    store: Path | str | None,
) -> LLMCompiler:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.limits import Limits
    from llmcompiler.tools.loading import DEFAULT_TOOLS

    return LLMCompiler(
        tools or DEFAULT_TOOLS,
        model or "local",
        planner=planner,
        limits=Limits.parse(pairs(limits, "--limit")),
        store=store,
    )


def _say_interrupted(run: str) -> None:
    if run:
        say(
            "interrupted",
            f"the log of run {run} is intact, as far as the run went",
            f"llmcompiler show {run}",
        )
    else:
        say("interrupted", "nothing had begun")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
