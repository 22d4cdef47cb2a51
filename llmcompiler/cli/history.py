"""``replay``, ``resume`` and ``fork``: what is made of a run's past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcompiler.cli.errors import report_failure, say
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
    by_task,
    configured,
    json_values,
    open_store,
    pairs,
)
from llmcompiler.cli.run import carry_out, made_compiler, opened_model, read_prompts
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.history.replay import ReplayReport
    from llmcompiler.history.run_history import RunHistory
    from llmcompiler.history.whatif import WhatIf
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.settings.reading import Configuration


def replay(
    run: RunArgument,
    until: Annotated[
        int | None,
        typer.Option(
            "--until",
            metavar="TASK",
            help="Derive no more than this task and what came before, and show the task.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="TASK=JSON",
            help="Ask what would have come of another result; calls what is not known, keeps "
            "nothing. May be repeated.",
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
    anything comes out differently; the error names the task and the field.

    With other results, what depends on them is derived anew: calls that the run knows are not made
    again, the others are, save those that change the world.

    Example: llmcompiler replay last

    Example: llmcompiler replay last --until 3

    Example: llmcompiler replay last --with 3=120.5
    """
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.history.replay import replay as derive_again

    def goodbye() -> None:
        say("interrupted", "a replay keeps nothing, so nothing is lost")

    if values:
        chosen = configured(
            profile=profile, tools=tools, model=model, store=store, base_url=base_url
        )
        _what_if(run, until, values, chosen, store, as_json)
        return
    if tools or profile or model or base_url:
        raise UsageError(
            "a replay calls nothing", hint="--tools and --model are for --with TASK=JSON"
        )
    kept = open_store(store)
    _print_replay(run_interruptible(derive_again(kept, run, until=until), goodbye), as_json)


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
            f"made by another release ({report.other_release}), so what models were shown was "
            "not compared",
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
    chosen: Configuration,
    store: Path | None,
    as_json: bool,
) -> None:
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import log_to_stderr
    from llmcompiler.compiler import LLMCompiler

    log_to_stderr()
    given = json_values(by_task(values, "--with"))
    history = _load_history(run, store)
    # Models are opened when they are asked, which they may never be.
    had, model = history.started.models, chosen.asked_for("model")
    specs = {role: model or had.get(role) for role in ("planner", "joiner")}
    compiler = LLMCompiler(
        chosen.settings.tools,
        planner_model=specs["planner"],
        joiner_model=specs["joiner"],
        store=open_store(store),
        base_url=chosen.settings.base_url,
        api_key=chosen.api_key(*filter(None, specs.values())),
    )

    async def work() -> WhatIf:
        found = await compiler.what_if(history.run, given, until=until)
        await compiler.aclose()
        return found

    def goodbye() -> None:
        say("interrupted", "nothing of this is kept, and the run is as it was")

    found = run_interruptible(work(), goodbye)
    _print_what_if(found, given, until, as_json)
    if found.state.failure is not None:
        report_failure(found.state.failure)
        raise typer.Exit(1)


def _print_what_if(found: WhatIf, given: dict[int, Any], until: int | None, as_json: bool) -> None:
    import json

    from llmcompiler.cli.output import print_json
    from llmcompiler.view.data import task_to_json
    from llmcompiler.view.diff import print_diff
    from llmcompiler.view.report import task_lines

    state = found.state
    if as_json:
        data: dict[str, Any] = {
            "run": found.run,
            "with": {str(task): value for task, value in given.items()},
            "status": "unfinished" if state.status == "running" else state.status,
            "answer": state.answer,
            "called": list(found.called),
            "asked": list(found.asked),
        }
        if until is None:
            data["diff"] = found.diff.to_json()
        else:
            data["task"] = task_to_json(state.tasks[until], state.now)
        print_json(data)
        return
    if until is None:
        print_diff(found.diff, times=False)
    else:
        for line in task_lines(state.tasks[until], state.now):
            typer.echo(line)
    called = [*found.called, *(f"the {role}'s model" for role in found.asked)]
    say("called", ", ".join(called) if called else "nothing: all of it was known")
    options = "".join(f" --set '{task}={json.dumps(v)}'" for task, v in given.items())
    say("note", f"nothing of this is kept; llmcompiler fork {found.run}{options} makes a run of it")


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
            help="Go on with a run that a process on another machine holds; give it only if that "
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
    """Go on with a run that was killed or stopped.

    By a crash, Ctrl-C, a limit or a failing endpoint.

    What is recorded is neither asked nor called again; what was in flight is, under the same
    idempotency key. Give the tools that the run had.

    Example: llmcompiler resume last

    Example: llmcompiler resume 3f2a --limit deadline=300
    """
    from llmcompiler.cli.output import log_to_stderr
    from llmcompiler.limits import Limits

    log_to_stderr()
    history = _load_history(run, store)
    given = Limits.parse(pairs(limits, "--limit")) if limits else None
    chosen = configured(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        store=store,
        executor=executor,
        base_url=base_url,
    )
    models = _models_for(history, chosen) if history.is_open else {}
    compiler = made_compiler(chosen, models, None, accept, _planner_for(history, chosen))
    carry_out(
        compiler,
        models.values(),
        lambda view: compiler.resume(history.run, limits=given, take_over=take_over, on_event=view),
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
            help="Do this anew, and all that depends on it: a task by its number, plan, or join "
            "for the answer alone; plan/2 and join/1 for those of a replan.",
            show_default=False,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TASK=JSON",
            help="Take this result instead of what the task returned. May be repeated.",
            show_default=False,
        ),
    ] = None,
    calls: Annotated[
        list[str] | None,
        typer.Option(
            "--call",
            metavar="TASK=CALL",
            help="Make this call instead, written as in a plan: other arguments, or another tool. "
            "May be repeated.",
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

    What does not depend on the change is taken over; the rest is done anew, with the tools given
    here, and with the run's own model and prompts unless others are given.

    Example: llmcompiler fork last --set 3=120.5

    Example: llmcompiler fork last --call '2=country("Austria")'

    Example: llmcompiler fork last --from join --model openai:gpt-4.1-mini
    """
    from llmcompiler.cli.output import log_to_stderr

    log_to_stderr()
    results = json_values(by_task(values, "--set"))
    changed = by_task(calls, "--call")
    history = _load_history(run, store)
    chosen = configured(
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
    texts = (read_prompts(chosen) if prompts else None) or history.prompts()
    models = _models_for(history, chosen)
    compiler = made_compiler(chosen, models, texts, accept, _planner_for(history, chosen))
    place = int(start) if start is not None and start.isdecimal() else start
    carry_out(
        compiler,
        models.values(),
        lambda view: compiler.fork(
            history.run, start=place, values=results, calls=changed, on_event=view
        ),
        quiet,
        as_json,
    )


def _load_history(run: str, store: Path | None) -> RunHistory:
    """What the log holds of a run."""
    from llmcompiler.history.run_history import RunHistory

    run_store = open_store(store)
    try:
        return RunHistory.load(run_store, run)
    finally:
        run_store.close()


def _planner_for(history: RunHistory, chosen: Configuration) -> str:
    """The planner that the run had, unless another one is asked for."""
    return chosen.asked_for("planner") or history.started.planner or "text"


def _models_for(history: RunHistory, chosen: Configuration) -> dict[str, ChatModel]:
    """The models that the run asks, or the one that is to be asked instead."""
    asked = history.started.models
    if not asked:
        return {}
    if (spec := chosen.asked_for("model")) is not None:
        return {"model": opened_model(spec, chosen)}
    opened: dict[str, ChatModel] = {}
    for name in asked.values():
        if name not in opened:
            try:
                opened[name] = opened_model(name, chosen)
            except UsageError as error:
                raise UsageError(
                    f"run {history.run} asked the model {name}, which cannot be opened: "
                    f"{error.message}",
                    hint=f"{error.hint}; or say which to ask with --model",
                ) from error
    return {role: opened[name] for role, name in asked.items()}
