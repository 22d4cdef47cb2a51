"""``run``: questions and saved plans."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcompiler.cli.errors import report_failure, say
from llmcompiler.cli.options import (
    AcceptOption,
    BaseUrlOption,
    CacheExplainOption,
    CacheOption,
    ExecutorOption,
    JoinReducerOption,
    JsonOption,
    LimitOption,
    ModelOption,
    PlannerOption,
    ProfileOption,
    PromptsOption,
    QuietOption,
    ReasonOption,
    StoreOption,
    ToolsOption,
    configured,
    executor_of,
    json_values,
    pairs,
)
from llmcompiler.cli.sources import check, is_plan, read_plan, read_text, sound_plan
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.plan.model import Plan
    from llmcompiler.prompting.prompts import Prompts
    from llmcompiler.run.run import RunResult
    from llmcompiler.settings.reading import Configuration
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
    profile: ProfileOption = None,
    model: ModelOption = None,
    planner: PlannerOption = None,
    reason: ReasonOption = None,
    join_reducer: JoinReducerOption = None,
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
    prompts: PromptsOption = None,
    executor: ExecutorOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    accept: AcceptOption = False,
    cache: CacheOption = None,
    explain: CacheExplainOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a question, or run a saved plan.

    The answer goes to stdout, the course of the run to stderr, and all of it into the log.

    Example: llmcompiler run "Which is more densely populated, Japan or Germany?"

    Example: llmcompiler run density.plan --input first=Peru --input second=Chile
    """
    from llmcompiler.cli.cache_report import CacheReport
    from llmcompiler.cli.output import log_to_stderr

    log_to_stderr()
    if explain and cache is None:
        raise UsageError("--cache-explain needs a cache", hint="--cache results.sqlite")
    chosen = configured(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        reason=reason,
        join_reducer=join_reducer,
        limits=limits,
        prompts=prompts,
        store=store,
        executor=executor,
        base_url=base_url,
    )
    text = read_text(what)
    saved = saved_plan(text, chosen) if is_plan(text) else None
    said = pairs(inputs, "--input")
    if said and saved is None:
        raise UsageError("a question takes no inputs", hint="--input is for saved plans")
    given = json_values(said)
    for declared in saved.inputs if saved is not None else ():
        # A postal code is digits, and text nevertheless.
        if declared.type == "string" and not isinstance(given.get(declared.name, ""), str):
            given[declared.name] = said[declared.name]
    asks_model = (
        saved is None
        or saved.question is not None
        or any(task.tool == "think" for task in saved.tasks)
    )
    texts = read_prompts(chosen)
    if asks_model:
        check_names(chosen)
    asked = {"model": opened_model(chosen.settings.model, chosen)} if asks_model else {}
    compiler = made_compiler(chosen, asked, texts, accept, cache=cache)
    report = CacheReport() if explain else None

    def work(view: LiveView | PlainView) -> Awaitable[RunResult]:
        listener = view if report is None else report.beside(view)
        if saved is None:
            return compiler.run(text.strip(), on_event=listener)
        return compiler.execute(saved, given, on_event=listener)

    try:
        carry_out(compiler, asked.values(), work, quiet, as_json)
    finally:
        for line in report.lines() if report is not None else ():
            say("cache", line)


def check_names(chosen: Configuration) -> None:
    """Refuse what there is not before weights are loaded for nothing."""
    from llmcompiler.joiners.reduced import JoinReducer
    from llmcompiler.reasoning.registry import strategy_class

    if chosen.settings.reason is not None:
        strategy_class(chosen.settings.reason)
    if chosen.settings.join_reducer is not None:
        JoinReducer.parse(chosen.settings.join_reducer)


def saved_plan(text: str, chosen: Configuration) -> Plan:
    """The plan, checked; what has changed about its tools since it was saved is told."""
    from llmcompiler.passes.drift import schema_drift
    from llmcompiler.settings.servers import load_tools

    at_hand = load_tools(chosen.settings.tools)
    read = read_plan(text)
    for change in schema_drift(read.plan, at_hand):
        say("warning", change)
    return sound_plan(check(read, at_hand))


def carry_out(
    compiler: LLMCompiler,
    models: Iterable[ChatModel],
    work: Callable[[LiveView | PlainView], Awaitable[RunResult]],
    quiet: bool,
    as_json: bool,
) -> None:
    """Do a run before the user's eyes: its course to stderr, its answer to stdout."""
    from llmcompiler.cli.approval import TerminalApprover, attended
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import open_view, print_json
    from llmcompiler.view.data import run_to_json

    async def run(view: LiveView | PlainView) -> RunResult:
        # Nothing is closed after a Ctrl-C: the process ends, and stopping a busy model takes long.
        result = await work(view)
        for model in models:
            await model.aclose()
        await compiler.aclose()
        return result

    with open_view(quiet) as view:

        def goodbye() -> None:
            view.close()
            say_interrupted(view.state.run)

        if attended():
            compiler.approve_with(TerminalApprover(compiler.tools, view))
        result = run_interruptible(run(view), goodbye)
    if as_json:
        print_json(run_to_json(view.state))
    elif result.answer is not None:
        typer.echo(result.answer)
    if result.failure is not None:
        report_failure(result.failure)
        typer.echo(f"  {_way_on(result)}", err=True)
        raise typer.Exit(1)


def _way_on(result: RunResult) -> str:
    """What can be done about a run that failed: recorded failures stay, so they need a fork."""
    failed = [seen.task for seen in result.observations.values() if seen.status == "failed"]
    if result.failure is not None and result.failure.blame in ("limit", "model"):
        return f"go on with it: llmcompiler resume {result.run}"
    if failed:
        call = f"{failed[0].id}={failed[0].tool}(…)"
        return f"try it with another call: llmcompiler fork {result.run} --call '{call}'"
    return f"look into it: llmcompiler show {result.run}"


def read_prompts(chosen: Configuration) -> Prompts | None:
    """The texts in a file that the user named."""
    from llmcompiler.prompting.prompts import Prompts

    file = chosen.settings.prompts
    return None if file is None else Prompts.load(file)


def opened_model(spec: str, chosen: Configuration) -> ChatModel:
    """The model, its weights downloaded and loaded if it is an embedded one.

    Args:
        spec: which.
        chosen: says where its endpoint is.
    """
    import asyncio

    from llmcompiler.cli.interrupt import dies_of_interrupt
    from llmcompiler.cli.progress import download_progress
    from llmcompiler.llm.embedded import EmbeddedModel
    from llmcompiler.llm.models import open_model

    with download_progress() as progress:
        model = open_model(
            spec,
            base_url=chosen.settings.base_url,
            api_key=chosen.api_key(spec),
            progress=progress,
        )
    if isinstance(model, EmbeddedModel):
        with dies_of_interrupt():
            asyncio.run(model.start())
    return model


def made_compiler(
    chosen: Configuration,
    models: Mapping[str, ChatModel],
    prompts: Prompts | None,
    accept: bool,
    planner: str | None = None,
    cache: Path | None = None,
) -> LLMCompiler:
    """The compiler that the settings describe.

    Args:
        chosen: the settings.
        models: what is asked: one for all under ``model``, or by role; empty for a plan that asks
            nobody.
        prompts: texts for planner and joiner.
        accept: whether tools of MCP servers are trusted although they changed.
        planner: instead of the one that is set.
        cache: a file of results that serve later runs.
    """
    from llmcompiler.compiler import LLMCompiler

    settings = chosen.settings
    compiler = LLMCompiler(
        settings.tools,
        models.get("model", "local"),
        planner_model=models.get("planner"),
        joiner_model=models.get("joiner"),
        branch_model=models.get("branch"),
        branch_models={
            role.removeprefix("branch:"): model
            for role, model in models.items()
            if role.startswith("branch:")
        },
        planner=planner or settings.planner,
        limits=settings.limits,
        store=settings.store,
        prompts=prompts,
        reason=settings.reason,
        cache=cache,
        join_reducer=settings.join_reducer,
        executor=executor_of(settings),
    )
    if accept or _agrees(compiler.tool_changes()):
        compiler.accept_tool_changes()
    return compiler


def _agrees(changes: list[str]) -> bool:
    """Whether somebody at the terminal trusts tools that changed; the run refuses them else."""
    from llmcompiler.cli.approval import attended

    if not changes or not attended():
        return False
    say("warning", "tools say something else of themselves than when they were last used:")
    for change in changes:
        typer.echo(f"  {change}", err=True)
    return typer.confirm("Trust them as they are now?", err=True)


def say_interrupted(run: str) -> None:
    """What became of a run that Ctrl-C ended."""
    if run:
        say(
            "interrupted",
            f"the log of run {run} is intact, as far as the run went",
            f"go on with it: llmcompiler resume {run}",
        )
    else:
        say("interrupted", "nothing had begun")
