"""``run``: answers questions and runs saved plans; what other commands need for a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcompiler.cli.errors import print_failure, say
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
    create_executor,
    note_missing_tools,
    parse_json_values,
    parse_pairs,
    read_configuration,
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
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.plan.model import Plan
    from llmcompiler.prompting.prompts import Prompts
    from llmcompiler.run.result import RunResult
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

    The answer goes to stdout, the progress of the run to stderr, and both into the log.

    Example: llmcompiler run "Which is more densely populated, Japan or Germany?"

    Example: llmcompiler run density.plan --input first=Peru --input second=Chile

    Example: llmcompiler run largest.py --input n=3
    """
    from llmcompiler.cli.cache_report import CacheReport
    from llmcompiler.cli.output import log_to_stderr

    log_to_stderr()
    if explain and cache is None:
        raise UsageError("--cache-explain needs a cache", hint="--cache results.sqlite")
    configuration = read_configuration(
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
    plan = load_saved_plan(text, configuration, what) if is_plan(text, what) else None
    input_values = _parse_inputs(inputs, plan)
    asks_model = (
        plan is None
        or plan.question is not None
        or any(task.tool == "think" for task in plan.tasks)
    )
    texts = read_prompts(configuration)
    if asks_model:
        check_before_model(configuration, text if plan is None else None)
    models = (
        {"model": load_model(configuration.settings.model, configuration)} if asks_model else {}
    )
    compiler = create_compiler(configuration, models, texts, accept, cache=cache)
    report = CacheReport() if explain else None

    def work(view: LiveView | PlainView) -> Awaitable[RunResult]:
        listener = view if report is None else report.observe(view)
        if plan is None:
            return compiler.run(text.strip(), on_event=listener)
        return compiler.execute(plan, input_values, on_event=listener)

    try:
        run_and_report(compiler, models.values(), work, quiet, as_json)
    finally:
        for line in report.lines() if report is not None else ():
            say("cache", line)


def _parse_inputs(texts: list[str] | None, plan: Plan | None) -> dict[str, Any]:
    """The values of ``--input``; ``plan`` is ``None`` for a question, which takes none."""
    pairs = parse_pairs(texts, "--input")
    if pairs and plan is None:
        raise UsageError("a question takes no inputs", hint="--input is for saved plans")
    values = parse_json_values(pairs)
    for declared in plan.inputs if plan is not None else ():
        # A postal code is all digits, and still a string.
        if declared.type == "string" and not isinstance(values.get(declared.name, ""), str):
            values[declared.name] = pairs[declared.name]
    return values


def check_before_model(configuration: Configuration, question: str | None) -> None:
    """Check everything that a question needs but its model, which may have to be downloaded.

    Args:
        configuration: the settings.
        question: in the user's words; ``None`` for a saved plan.

    Raises:
        UsageError: the question is empty, or a tool, planner, strategy or reducer is unknown.
    """
    from llmcompiler.joiners.reduced import JoinReducer
    from llmcompiler.planners.base import check_question
    from llmcompiler.planners.registry import create_planner
    from llmcompiler.prompting.prompts import Prompts
    from llmcompiler.reasoning.registry import strategy_class
    from llmcompiler.settings.servers import load_tools

    if question is not None:
        check_question(question)
        create_planner(configuration.settings.planner, Prompts())
        load_tools(configuration.settings.tools)
        note_missing_tools(configuration)
    if configuration.settings.reason is not None:
        strategy_class(configuration.settings.reason)
    if configuration.settings.join_reducer is not None:
        JoinReducer.parse(configuration.settings.join_reducer)


def load_saved_plan(text: str, configuration: Configuration, source: str) -> Plan:
    """Parse and check a plan, and warn about tools that changed since it was saved.

    Args:
        text: the plan.
        configuration: names its tools.
        source: where the text is from; see ``is_plan``.
    """
    from llmcompiler.passes.drift import schema_drift
    from llmcompiler.settings.servers import load_tools

    tools = load_tools(configuration.settings.tools)
    note_missing_tools(configuration)
    parsed = parse_plan_source(text, source)
    for change in schema_drift(parsed.plan, tools):
        say("warning", change)
    return require_valid_plan(check_parsed_plan(parsed, tools))


def run_and_report(
    compiler: LLMCompiler,
    models: Iterable[ChatModel],
    work: Callable[[LiveView | PlainView], Awaitable[RunResult]],
    quiet: bool,
    as_json: bool,
) -> None:
    """Carry out a run: print its progress to stderr and its answer to stdout.

    Args:
        compiler: closed when the run has ended.
        models: closed when the run has ended.
        work: starts the run; the view is its listener.
        quiet: show no progress.
        as_json: print the run as JSON instead of its answer.

    Raises:
        typer.Exit: with code 1, if the run failed.
    """
    from llmcompiler.cli.approval import TerminalApprover, is_attended
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import open_view, print_json
    from llmcompiler.view.data import run_to_json

    async def run(view: LiveView | PlainView) -> RunResult:
        # After a Ctrl-C nothing is closed: stopping a busy model takes long, and the process ends.
        result = await work(view)
        for model in models:
            await model.aclose()
        await compiler.aclose()
        return result

    with open_view(quiet) as view:

        def on_interrupt() -> None:
            view.close()
            print_interrupted(view.state.run)

        if is_attended():
            compiler.approve_with(TerminalApprover(compiler.tools, view))
        result = run_interruptible(run(view), on_interrupt)
    if as_json:
        print_json(run_to_json(view.state))
    elif result.answer is not None:
        typer.echo(result.answer)
    if result.failure is not None:
        print_failure(result.failure)
        typer.echo(f"  {_next_step(result)}", err=True)
        raise typer.Exit(1)


def _next_step(result: RunResult) -> str:
    """A hint for a run that failed. A resumed run keeps recorded failures; a fork does not."""
    failed = [item.task for item in result.observations.values() if item.status == "failed"]
    if result.failure is not None and result.failure.blame in ("limit", "model"):
        return f"go on with it: llmcompiler resume {result.run}"
    if failed:
        call = f"{failed[0].id}={failed[0].tool}(…)"
        return f"try it with another call: llmcompiler fork {result.run} --call '{call}'"
    return f"look into it: llmcompiler show {result.run}"


def read_prompts(configuration: Configuration) -> Prompts | None:
    """The texts in the file that the settings name; ``None`` without one."""
    from llmcompiler.prompting.prompts import Prompts

    file = configuration.settings.prompts
    return None if file is None else Prompts.load(file)


def load_model(spec: str, configuration: Configuration) -> ChatModel:
    """Open a model. The weights of an embedded one are downloaded and loaded.

    Args:
        spec: as for ``--model``.
        configuration: holds the address and key of the model's endpoint.
    """
    import asyncio

    from llmcompiler.cli.interrupt import default_interrupt
    from llmcompiler.cli.progress import download_progress
    from llmcompiler.llm.embedded import EmbeddedModel
    from llmcompiler.llm.models import open_model

    with download_progress() as progress:
        is_openai = spec.startswith("openai:")
        model = open_model(
            spec,
            base_url=configuration.settings.base_url if is_openai else None,
            api_key=configuration.api_key(spec) if is_openai else None,
            options=configuration.model_options(spec),
            progress=progress,
        )
    if isinstance(model, EmbeddedModel):
        with default_interrupt():
            asyncio.run(model.start())
    return model


def create_compiler(
    configuration: Configuration,
    models: Mapping[str, ChatModel],
    prompts: Prompts | None,
    accept: bool,
    planner: str | None = None,
    cache: Path | None = None,
) -> LLMCompiler:
    """The compiler that the settings describe.

    Args:
        configuration: the settings.
        models: one model for every role under ``model``, or one for each role; empty for a plan
            that calls no model.
        prompts: texts for planner and joiner.
        accept: trust tools of MCP servers although they changed.
        planner: used instead of the planner of the settings.
        cache: a file that keeps results of tools for later runs.
    """
    from llmcompiler.compiler import LLMCompiler

    settings = configuration.settings
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
        profile=settings.prompt_profile,
        context_tokens=settings.context_tokens,
        reason=settings.reason,
        cache=cache,
        join_reducer=settings.join_reducer,
        executor=create_executor(settings),
    )
    if accept or _confirm_changes(compiler.tool_changes()):
        compiler.accept_tool_changes()
    return compiler


def _confirm_changes(changes: list[str]) -> bool:
    """Ask at the terminal whether to trust tools that changed. Without trust the run is refused."""
    from llmcompiler.cli.approval import is_attended

    if not changes or not is_attended():
        return False
    say("warning", "these tools describe themselves differently than when they were last used:")
    for change in changes:
        typer.echo(f"  {change}", err=True)
    return typer.confirm("Trust them as they are now?", err=True)


def print_interrupted(run: str) -> None:
    """Print the state of a run that Ctrl-C ended, and how to continue it."""
    if run:
        say(
            "interrupted",
            f"the log of run {run} is intact, as far as the run went",
            f"go on with it: llmcompiler resume {run}",
        )
    else:
        say("interrupted", "nothing had begun")
