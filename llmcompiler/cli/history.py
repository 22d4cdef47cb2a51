"""``replay``, ``resume``, ``fork``, ``diff``, ``save``, ``export``, ``import``: recorded runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcompiler.cli.errors import print_failure, say
from llmcompiler.cli.options import (
    AcceptOption,
    BaseUrlOption,
    ExecutorOption,
    JsonOption,
    LimitOption,
    ProfileOption,
    PromptsOption,
    QuietOption,
    RunArgument,
    SameModelOption,
    SamePlannerOption,
    StoreOption,
    ToolsOption,
    open_store,
    parse_by_task,
    parse_json_values,
    parse_pairs,
    read_configuration,
)
from llmcompiler.cli.output import write_text
from llmcompiler.cli.run import create_compiler, load_model, read_prompts, run_and_report
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.history.replay import ReplayReport
    from llmcompiler.history.run_history import RunHistory
    from llmcompiler.history.whatif import WhatIf
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.settings.reading import Configuration


OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Write the plan there.", show_default=False
    ),
]


def replay(
    run: RunArgument,
    until: Annotated[
        int | None,
        typer.Option(
            "--until",
            metavar="TASK",
            help="Stop when this task has ended, and show the task.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="TASK=JSON",
            help="Show the outcome of another result; makes only calls that the run did not make, "
            "records nothing. May be repeated.",
            show_default=False,
        ),
    ] = None,
    tools: ToolsOption = None,
    profile: ProfileOption = None,
    model: SameModelOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive a run again from its log.

    Nothing is called; every decision is made again and compared with the log. Exit code 1 if
    a decision differs; the error names the task and the field.

    With other results, what depends on them is derived anew: recorded calls are not made again, new
    ones are, except those that change the world.

    Example: llmcompiler replay last

    Example: llmcompiler replay last --until 3

    Example: llmcompiler replay last --with 3=120.5
    """
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.history.replay import replay as derive_again

    def on_interrupt() -> None:
        say("interrupted", "a replay records nothing, so nothing is lost")

    if values:
        configuration = read_configuration(
            profile=profile, tools=tools, model=model, store=store, base_url=base_url
        )
        _what_if(run, until, values, configuration, store, as_json)
        return
    if tools or profile or model or base_url:
        raise UsageError(
            "a replay calls nothing", hint="--tools and --model are for --with TASK=JSON"
        )
    replayed = derive_again(open_store(store), run, until=until)
    _print_replay(run_interruptible(replayed, on_interrupt), as_json)


def _print_replay(report: ReplayReport, as_json: bool) -> None:
    from llmcompiler.cli.output import print_json
    from llmcompiler.view.data import task_to_json
    from llmcompiler.view.report import task_lines
    from llmcompiler.view.text import count_text

    state, until = report.state, report.until
    if as_json:
        fields = (
            "run",
            "tasks",
            "model_calls",
            "status",
            "answer",
            "seconds",
            "until",
            "other_release",
        )
        data = {name: getattr(report, name) for name in fields}
        if until is not None:
            data["task"] = task_to_json(state.tasks[until], state.now)
        print_json(data)
        return
    calls = count_text(report.model_calls, "model call")
    tasks = count_text(report.tasks, "task")
    if report.other_release is not None:
        say(
            "note",
            f"made by another release ({report.other_release}), so the prompts were not compared",
        )
    if until is None:
        typer.echo(f"run {report.run} came out the same: {tasks}, {calls}, {report.status}")
        return
    typer.echo(f"run {report.run} came out the same up to task {until}: {tasks}, {calls}")
    for line in task_lines(state.tasks[until], state.now):
        typer.echo(line)


def _what_if(
    run: str,
    until: int | None,
    values: list[str],
    configuration: Configuration,
    store: Path | None,
    as_json: bool,
) -> None:
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import log_to_stderr
    from llmcompiler.compiler import LLMCompiler

    log_to_stderr()
    results = parse_json_values(parse_by_task(values, "--with"))
    history = _load_history(run, store)
    # The names of models, not open ones: a model is opened at its first call, if there is one.
    recorded, model = history.start.models, configuration.from_flags("model")
    specs = {role: model or recorded.get(role) for role in ("planner", "joiner")}
    compiler = LLMCompiler(
        configuration.settings.tools,
        planner_model=specs["planner"],
        joiner_model=specs["joiner"],
        store=open_store(store),
        base_url=configuration.settings.base_url,
        api_key=configuration.api_key(*filter(None, specs.values())),
    )

    async def work() -> WhatIf:
        outcome = await compiler.what_if(history.run, results, until=until)
        await compiler.aclose()
        return outcome

    def on_interrupt() -> None:
        say("interrupted", "nothing of this is recorded, and the run is as it was")

    outcome = run_interruptible(work(), on_interrupt)
    _print_what_if(outcome, results, until, as_json)
    if outcome.state.failure is not None:
        print_failure(outcome.state.failure)
        raise typer.Exit(1)


def _print_what_if(
    outcome: WhatIf, results: dict[int, Any], until: int | None, as_json: bool
) -> None:
    import json

    from llmcompiler.cli.output import print_json
    from llmcompiler.view.data import task_to_json
    from llmcompiler.view.diff import print_diff
    from llmcompiler.view.report import task_lines

    state = outcome.state
    if as_json:
        data: dict[str, Any] = {
            "run": outcome.run,
            "with": {str(task): value for task, value in results.items()},
            "status": "unfinished" if state.status == "running" else state.status,
            "answer": state.answer,
            "called": list(outcome.called),
            "asked": list(outcome.asked),
        }
        if until is None:
            data["diff"] = outcome.diff.to_json()
        else:
            data["task"] = task_to_json(state.tasks[until], state.now)
        print_json(data)
        return
    if until is None:
        print_diff(outcome.diff, times=False)
    else:
        for line in task_lines(state.tasks[until], state.now):
            typer.echo(line)
    called = [*outcome.called, *(f"the {role}'s model" for role in outcome.asked)]
    say("called", ", ".join(called) if called else "nothing: every call was recorded")
    options = "".join(f" --set '{task}={json.dumps(v)}'" for task, v in results.items())
    say(
        "note",
        f"nothing of this is recorded; llmcompiler fork {outcome.run}{options} makes a run of it",
    )


def resume(
    run: RunArgument,
    tools: ToolsOption = None,
    profile: ProfileOption = None,
    model: SameModelOption = None,
    planner: SamePlannerOption = None,
    limits: LimitOption = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Continue a run that a process on another machine owns; use it only if that "
            "process has ended.",
        ),
    ] = False,
    executor: ExecutorOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    accept: AcceptOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Continue a run that was killed or stopped.

    The cause may be a crash, Ctrl-C, a limit or a failing endpoint.

    Recorded calls are not made again; calls that were in flight are, under the same idempotency
    key. Give the tools that the run had.

    Example: llmcompiler resume last

    Example: llmcompiler resume 3f2a --limit deadline=300
    """
    from llmcompiler.cli.output import log_to_stderr
    from llmcompiler.limits import Limits

    log_to_stderr()
    history = _load_history(run, store)
    new_limits = Limits.parse(parse_pairs(limits, "--limit")) if limits else None
    configuration = read_configuration(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        store=store,
        executor=executor,
        base_url=base_url,
    )
    models = _models_for(history, configuration) if history.is_open else {}
    compiler = create_compiler(
        configuration, models, None, accept, _planner_for(history, configuration)
    )
    run_and_report(
        compiler,
        models.values(),
        lambda view: compiler.resume(
            history.run, limits=new_limits, take_over=take_over, on_event=view
        ),
        quiet,
        as_json,
    )


def fork(
    run: RunArgument,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="Repeat this and everything that depends on it: a task by its number, plan, or "
            "join for the answer alone; plan/2 and join/1 for those of a replan.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TASK=JSON",
            help="Use this as the task's result. May be repeated.",
            show_default=False,
        ),
    ] = None,
    calls: Annotated[
        list[str] | None,
        typer.Option(
            "--call",
            metavar="TASK=CALL",
            help="Replace the task's call by this one, written as in a plan: other arguments, or "
            "another tool. May be repeated.",
            show_default=False,
        ),
    ] = None,
    tools: ToolsOption = None,
    profile: ProfileOption = None,
    model: SameModelOption = None,
    planner: SamePlannerOption = None,
    prompts: PromptsOption = None,
    limits: LimitOption = None,
    executor: ExecutorOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    accept: AcceptOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start a new run from another's past, with a change.

    Everything that does not depend on the change is reused. The rest is repeated with the tools
    given here, and with the run's own model and prompts unless others are given.

    Example: llmcompiler fork last --set 3=120.5

    Example: llmcompiler fork last --call '2=country("Austria")'

    Example: llmcompiler fork last --from join --model openai:gpt-4.1-mini
    """
    from llmcompiler.cli.output import log_to_stderr

    log_to_stderr()
    results = parse_json_values(parse_by_task(values, "--set"))
    new_calls = parse_by_task(calls, "--call")
    history = _load_history(run, store)
    configuration = read_configuration(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        prompts=prompts,
        limits=limits,
        store=store,
        executor=executor,
        base_url=base_url,
    )
    texts = (read_prompts(configuration) if prompts else None) or history.prompts()
    models = _models_for(history, configuration)
    compiler = create_compiler(
        configuration, models, texts, accept, _planner_for(history, configuration)
    )
    start_place = int(start) if start is not None and start.isdecimal() else start
    run_and_report(
        compiler,
        models.values(),
        lambda view: compiler.fork(
            history.run, start=start_place, values=results, calls=new_calls, on_event=view
        ),
        quiet,
        as_json,
    )


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A run, as for show.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another run.")],
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: plans, values, times, tokens, money, answers.

    Example: llmcompiler diff 3f2a last
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.history.diff import diff_runs

    difference = diff_runs(open_store(store), before, after)
    if as_json:
        print_json(difference.to_json())
        return
    from llmcompiler.view.diff import print_diff

    print_diff(difference)


def save(
    run: RunArgument,
    output: OutputOption = None,
    parameterise: Annotated[
        bool,
        typer.Option(
            "--parameterise",
            help="Turn constants from the question into inputs; the constants are their defaults.",
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a plan of a finished run, to be run again.

    As JSON (--json, or a file that ends with .json) it also holds the schemas of its tools, so that
    a run of it warns about tools that changed since.

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
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The file to write, FILE.jsonl.gz."),
    ],
    redact: Annotated[
        bool, typer.Option("--redact", help="Replace each value by its type and size.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write a run to one file, for a bug report or for your own tests.

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


def _load_history(run: str, store: Path | None) -> RunHistory:
    """The recorded events of a run."""
    from llmcompiler.history.run_history import RunHistory

    run_store = open_store(store)
    try:
        return RunHistory.load(run_store, run)
    finally:
        run_store.close()


def _planner_for(history: RunHistory, configuration: Configuration) -> str:
    """The planner of the recorded run, unless a flag or a profile names another."""
    return configuration.from_flags("planner") or history.start.planner or "text"


def _models_for(history: RunHistory, configuration: Configuration) -> dict[str, ChatModel]:
    """The open models by role: those of the recorded run, or the one that a flag names."""
    names = history.start.models
    if not names:
        return {}
    if (spec := configuration.from_flags("model")) is not None:
        return {"model": load_model(spec, configuration)}
    models: dict[str, ChatModel] = {}
    for name in names.values():
        if name not in models:
            try:
                models[name] = load_model(name, configuration)
            except UsageError as error:
                raise UsageError(
                    f"run {history.run} called the model {name}, which cannot be opened: "
                    f"{error.message}",
                    hint=f"{error.hint}; or name another with --model",
                ) from error
    return {role: models[name] for role, name in names.items()}
