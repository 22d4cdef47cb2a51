"""``think``: one reasoning branch, or a comparison of several strategies on one problem."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcompiler.cli import completion
from llmcompiler.cli.errors import print_failure, say
from llmcompiler.cli.options import (
    BaseUrlOption,
    JsonOption,
    LimitOption,
    ModelOption,
    ProfileOption,
    PromptsOption,
    QuietOption,
    StoreOption,
    parse_json_values,
    parse_pairs,
    read_configuration,
)
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.history.think import ThinkResult
    from llmcompiler.llm.base import ChatModel
    from llmcompiler.reasoning.base import BranchBudget


def think(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="A problem, a file with one, or - for stdin.",
            show_default=False,
        ),
    ] = "",
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="How to reason; see --list.",
            autocompletion=completion.strategies,
        ),
    ] = "vote",
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="NAMES",
            help="Several strategies one after the other, as vote,pdr,hogwild, and a table.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option("--width", metavar="N", help="Drafts or paths at once.", show_default=False),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", metavar="N", help="Rounds of the strategy.", show_default=False),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="K=V",
            help="A further option of the strategy, as window=2. May be repeated.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="TEXT|FILE",
            help="Known facts: a text, or a file of it. May be repeated.",
            show_default=False,
        ),
    ] = None,
    answer: Annotated[
        str,
        typer.Option(
            "--answer",
            metavar="HOW",
            help="Where the answer is: auto, boxed, last_line, number, json:FIELD, regex:PATTERN.",
        ),
    ] = "auto",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="K=V",
            help="A bound of the branch: tokens, calls, cost (US dollars), seconds. At the "
            "bound it gives its best answer so far. May be repeated.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of sampling; makes the result repeatable.",
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", metavar="N", help="Most tokens of a call.", show_default=False
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", metavar="T", help="Temperature of sampling.", show_default=False
        ),
    ] = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    branch_models: Annotated[
        list[str] | None,
        typer.Option(
            "--branch-model",
            metavar="NAME=SPEC",
            help="A further model that the strategy names, as target=openai:gpt-4.1. May be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    prompts: PromptsOption = None,
    limits: LimitOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    list_strategies: Annotated[
        bool, typer.Option("--list", help="List the strategies and their options.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Reason about a problem with several model calls.

    The answer goes to stdout, the drafts as they are written to stderr, and both into the log.

    Example: llmcompiler think "What is 17 * 23 - 4?" --strategy vote --width 4

    Example: llmcompiler think "What is 17 * 23 - 4?" --compare vote,refine --max-tokens 300
    """
    from llmcompiler.cli.output import log_to_stderr
    from llmcompiler.cli.run import load_model, read_prompts
    from llmcompiler.cli.sources import read_text
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.reasoning.registry import strategy_class

    if list_strategies:
        _print_strategies(as_json)
        return
    if not problem:
        raise UsageError("there is no problem", hint='llmcompiler think "What is 17 * 23?"')
    problem = read_text(problem).strip()
    if not problem:
        raise UsageError("the problem is empty", hint='llmcompiler think "What is 17 * 23?"')
    log_to_stderr()
    names = [name.strip() for name in compare.split(",")] if compare else [strategy]
    option_values: dict[str, Any] = parse_json_values(parse_pairs(options, "--option"))
    _reject_flags(option_values)
    option_values |= {k: v for k, v in (("width", width), ("rounds", rounds)) if v is not None}
    for name in names:
        strategy_class(name)  # raises for an unknown name before weights are loaded
    request = {
        "problem": problem,
        "context": [read_text(text) for text in context or ()] or None,
        "answer": answer,
        "budget": _parse_budget(budget),
        "seed": seed,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    configuration = read_configuration(
        profile=profile, model=model, limits=limits, prompts=prompts, store=store, base_url=base_url
    )
    texts = read_prompts(configuration)
    main_model = load_model(configuration.settings.model, configuration)
    further_models = {
        name: load_model(spec, configuration)
        for name, spec in parse_pairs(branch_models, "--branch-model").items()
    }
    compiler = LLMCompiler(
        (),
        main_model,
        branch_models=further_models,
        limits=configuration.settings.limits,
        store=configuration.settings.store,
        prompts=texts,
    )
    thoughts: list[tuple[str, ThinkResult]] = []
    for number, name in enumerate(names, 1):
        last = number == len(names)
        # In a comparison, an option goes to those strategies that have it.
        fitting = _fitting_options(name, option_values) if compare else option_values
        closing = (main_model, *further_models.values()) if last else ()
        thought, state = _run_branch(compiler, closing, name, request, fitting, quiet)
        thoughts.append((name, thought))
        if as_json and compare is None:
            from llmcompiler.cli.output import print_json
            from llmcompiler.view.data import run_to_json

            print_json(run_to_json(state))
    if compare is not None:
        _print_table(thoughts, as_json)
    elif not as_json and thoughts[0][1].failure is None:
        typer.echo(_answer_text(thoughts[0][1]))
    for name, thought in thoughts:
        if thought.stopped:
            say("note", f"{name} stopped at its budget of {thought.stopped}")
        for note in thought.notes:
            say("note", f"{name}: {note}")
        if thought.failure is not None:
            print_failure(thought.failure)
    if any(thought.failure is not None for _, thought in thoughts):
        raise typer.Exit(1)


def _run_branch(
    compiler: LLMCompiler,
    closing: tuple[ChatModel, ...],
    strategy: str,
    request: dict[str, Any],
    options: dict[str, Any],
    quiet: bool,
) -> tuple[ThinkResult, Any]:
    """Carry out one branch and show its progress.

    Args:
        compiler: closed after the branch if ``closing`` is not empty.
        closing: models to close after the branch.
        strategy: how to reason.
        request: the problem, and arguments of ``LLMCompiler.think``.
        options: options of the strategy.
        quiet: show no progress.

    Returns:
        The thought and the state of its run.
    """
    from llmcompiler.cli.interrupt import run_interruptible
    from llmcompiler.cli.output import open_view
    from llmcompiler.cli.run import print_interrupted

    async def work() -> ThinkResult:
        settings = dict(request)
        thought = await compiler.think(
            settings.pop("problem"), strategy=strategy, on_event=view, **settings, **options
        )
        for model in closing:
            await model.aclose()
        if closing:
            await compiler.aclose()
        return thought

    with open_view(quiet) as view:

        def on_interrupt() -> None:
            view.close()
            print_interrupted(view.state.run)

        thought = run_interruptible(work(), on_interrupt)
    return thought, view.state


def _parse_budget(texts: list[str] | None) -> BranchBudget:
    from llmcompiler.reasoning.base import BranchBudget

    bounds: dict[str, Any] = {}
    for name, text in parse_pairs(texts, "--budget").items():
        if name not in ("tokens", "calls", "cost", "seconds"):
            raise UsageError(
                f'a branch has no budget of "{name}"', hint="tokens, calls, cost or seconds"
            )
        try:
            bounds[name] = int(text) if name in ("tokens", "calls") else float(text)
        except ValueError:
            raise UsageError(f"--budget {name}={text}: {text!r} is no number") from None
    return BranchBudget(**bounds)


def _reject_flags(options: Iterable[str]) -> None:
    """Raise for an option that is a flag of the command, not an option of a strategy."""
    for name in options:
        if name in ("answer", "context", "max_tokens", "seed", "temperature"):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"--option {name} is none of a strategy", hint=f"give {flag} instead")
        if name in ("budget", "on_event", "problem", "strategy"):
            raise UsageError(
                f"no strategy has the option {name!r}", hint="llmcompiler think --list"
            )


def _fitting_options(strategy: str, options: dict[str, Any]) -> dict[str, Any]:
    from llmcompiler.reasoning.registry import strategy_options

    return {name: value for name, value in options.items() if name in strategy_options(strategy)}


def _answer_text(thought: ThinkResult) -> str:
    return thought.text if thought.answer is None else thought.answer


def _print_table(thoughts: list[tuple[str, ThinkResult]], as_json: bool) -> None:
    import dataclasses

    from llmcompiler.cli.output import print_json
    from llmcompiler.view.text import one_line, seconds_text

    if as_json:
        print_json(
            {
                "strategies": [
                    {"strategy": name, **dataclasses.asdict(thought)} for name, thought in thoughts
                ]
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("strategy", no_wrap=True)
    table.add_column("answer", no_wrap=True, overflow="ellipsis")
    for title in ("calls", "B_total", "B_seq", "decoded", "prefill", "cached", "peak", "took"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("run", no_wrap=True)
    for name, thought in thoughts:
        answer = one_line(thought.failure.message if thought.failure else _answer_text(thought), 40)
        cost = thought.cost
        figures: tuple[str, ...] = ("",) * 8
        if cost is not None:
            counts = (cost.calls, cost.b_total, cost.b_seq, cost.decoded, cost.prefill, cost.cached)
            figures = (
                *(f"{count:,}" for count in (*counts, cost.peak)),
                seconds_text(cost.seconds),
            )
        table.add_row(name, answer, *figures, thought.run)
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def _print_strategies(as_json: bool) -> None:
    from llmcompiler.cli.output import print_json
    from llmcompiler.reasoning.registry import strategy_names, strategy_options, strategy_summary

    options_by_name = {name: strategy_options(name) for name in strategy_names()}
    if as_json:
        print_json({"strategies": options_by_name})
        return
    for name, options in options_by_name.items():
        typer.echo(f"{name}: {strategy_summary(name)}")
        defaults = ", ".join(f"{option}={value}" for option, value in options.items())
        typer.echo(f"    {defaults}")
