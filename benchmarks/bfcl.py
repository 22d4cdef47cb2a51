"""BFCL: does the planner write the calls that are asked for?

Categories ``parallel`` and ``parallel_multiple`` of the Berkeley Function Calling Leaderboard
(Patil et al., https://gorilla.cs.berkeley.edu/leaderboard.html), with its own data and its own
checker of calls as judge, both from the package ``bfcl-eval``. A plan is *well-formed* if, once
written, it parses and fits its tools: with repair, what was wrong before the last attempt does not
count. It is *exact* if the judge accepts the calls that a run would make, a repeated one once. Mode
``function-calling`` is the baseline: the calls of the first turn, as the leaderboard takes them.
What modes ask alike is asked once, as models answer greedily: the text draft of ``drafts`` is
``grammar+repair``, and ``plain`` is the beginning of ``plain+repair``.

    pip install --no-deps -r benchmarks/requirements-bfcl.txt
    python benchmarks/bfcl.py --n 100 --modes grammar plain

Each question's outcome is written to a file as it comes, so a run that is broken off goes on where
it stopped, and its table can be printed at any time with ``--n 0``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import json
import random
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from pydantic import BaseModel

from llmcompiler.errors import LLMCompilerError
from llmcompiler.llm.base import ChatModel, Completion, Pieces, Request, Usage
from llmcompiler.llm.models import open_model
from llmcompiler.passes.deduplicate import Deduplicator
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import Literal
from llmcompiler.plan.model import Task
from llmcompiler.planners.base import Planner, PlanningContext
from llmcompiler.planners.drafts import DraftsPlanner
from llmcompiler.planners.function_calling import FunctionCallingPlanner
from llmcompiler.planners.text import TextPlanner
from llmcompiler.tools.base import Tool

CATEGORIES = ("parallel", "parallel_multiple")

_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


class Mode(NamedTuple):
    """A way to plan: the planner, and how often it may repair."""

    planner: Planner
    repairs: int


class _OneTurn(LLMCompilerError):
    """Nothing is called, so there is no second turn."""


async def one_turn() -> NoReturn:
    """What a planner gets that asks for results."""
    raise _OneTurn("the calls of one turn are judged")


MODES = {
    "grammar": Mode(TextPlanner(), 0),
    "grammar+repair": Mode(TextPlanner(), 2),
    "plain": Mode(TextPlanner(constrained=False), 0),
    "plain+repair": Mode(TextPlanner(constrained=False), 2),
    "drafts": Mode(DraftsPlanner(), 2),
    "function-calling": Mode(FunctionCallingPlanner(), 0),
}


class Remembering:
    """A model that is asked the same once, and what it cost to be told so each time.

    Args:
        model: answers greedily.

    Attributes:
        usage: of all answers since it was last set; of one that was broken off only that it was
            asked for.
    """

    def __init__(self, model: ChatModel) -> None:
        self.usage = Usage()
        self._model = model
        self._answers: dict[str, list[str | Completion]] = {}

    async def ask(self, request: Request) -> Pieces:
        """Yield the answer's pieces."""
        self.usage += Usage(calls=1)
        question = repr(request)
        told = self._answers.get(question)
        heard: list[str | Completion] = []
        stream = self._model.stream(request) if told is None else _again(told)
        async with aclosing(cast(Pieces, stream)) as pieces:
            async for piece in pieces:
                heard.append(piece)
                if isinstance(piece, Completion):
                    self._answers[question] = heard
                    self.usage += dataclasses.replace(piece.usage, calls=0)
                yield piece


async def _again(told: list[str | Completion]) -> Pieces:
    for piece in told:
        yield piece


class Case(NamedTuple):
    """One question of the leaderboard."""

    name: str
    question: str
    functions: list[dict[str, Any]]
    truth: list[dict[str, Any]]


def package() -> Path:
    """Where ``bfcl-eval`` is installed."""
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        sys.exit("bfcl-eval is not installed: pip install --no-deps -r requirements-bfcl.txt")
    return Path(spec.origin).parent


def cases(category: str) -> list[Case]:
    """All questions of a category."""

    def rows(path: str) -> Iterator[dict[str, Any]]:
        with (package() / "data" / path).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    truths = {row["id"]: row for row in rows(f"possible_answer/BFCL_v4_{category}.json")}
    return [
        Case(
            row["id"],
            "\n".join(message["content"] for message in row["question"][0]),
            row["function"],
            truths[row["id"]]["ground_truth"],
        )
        for row in rows(f"BFCL_v4_{category}.json")
    ]


def tool_of(function: dict[str, Any]) -> Tool:
    """A leaderboard's function as a tool that can be planned with."""
    schema = json_schema(function["parameters"])
    return Tool(
        name=function["name"],
        description=function["description"],
        function=lambda: None,
        parameters=BaseModel,
        parameters_schema={**schema, "additionalProperties": False},
    )


def json_schema(said: dict[str, Any]) -> dict[str, Any]:
    """The leaderboard's types in the words of JSON schema."""
    out = {key: value for key, value in said.items() if key not in ("optional", "format")}
    kind = out.pop("type", "any")
    if kind != "any":
        out["type"] = _TYPES.get(kind, kind)
    if "properties" in out:
        out["properties"] = {name: json_schema(one) for name, one in out["properties"].items()}
    if isinstance(out.get("items"), dict):
        out["items"] = json_schema(out["items"])
    return out


def calls_of(tasks: list[Task], tools: dict[str, Tool]) -> list[dict[str, Any]]:
    """The calls as the judge reads them; a reference is shown as text, which is never right."""
    calls = []
    for task in tasks:
        names = tools[task.tool].parameters_schema["properties"]
        given = task.named_arguments(names)
        values = {k: e.value if isinstance(e, Literal) else str(e) for k, e in given.items()}
        calls.append({task.tool: values})
    return calls


def judge(case: Case, calls: list[dict[str, Any]], category: str) -> bool:
    """What the leaderboard's checker says."""
    # The table of models, which the checker only asks for the spelling of names, imports the client
    # libraries of every vendor; the converters for Java and JavaScript import parsers for them.
    known = types.ModuleType("bfcl_eval.constants.model_config")
    known.MODEL_CONFIG_MAPPING = {"x": types.SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules.setdefault(known.__name__, known)
    for language in ("java", "js"):
        name = f"bfcl_eval.eval_checker.ast_eval.type_convertor.{language}_type_converter"
        unused = types.ModuleType(name)
        setattr(unused, f"{language}_type_converter", None)
        sys.modules.setdefault(name, unused)
    from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
    from bfcl_eval.eval_checker.ast_eval.ast_checker import (  # type: ignore[import-not-found]
        ast_checker,
    )

    found = ast_checker(case.functions, calls, case.truth, Language.PYTHON, category, "x")
    return bool(found["valid"])


async def answer(case: Case, mode: Mode, model: Remembering, category: str) -> dict[str, Any]:
    """One question, and what came of it."""
    tools = {one["name"]: tool_of(one) for one in case.functions}
    model.usage = Usage()

    def ask(request: Request) -> AsyncIterator[str | Completion]:
        errors.clear()
        return model.ask(request)

    asked = PlanningContext(
        case.question,
        tools,
        ask,
        ask_as=lambda name: ask,
        repairs=mode.repairs,
        observe=one_turn,
    )
    tasks: list[Task] = []
    errors: list[str] = []
    deduplicator = Deduplicator(tools)
    try:
        async for item in mode.planner.plan(asked):
            if isinstance(item, Task):
                if isinstance(accepted := deduplicator.accept(item), Task):
                    tasks.append(accepted)
            elif isinstance(item, Diagnostic) and item.severity == "error":
                errors.append(item.code)
    except _OneTurn:
        pass
    except LLMCompilerError as error:
        errors.append(type(error).__name__)
    calls = calls_of(tasks, tools)
    return {
        "id": case.name,
        "well_formed": not errors,
        "exact": judge(case, calls, category),
        "errors": errors,
        "model_calls": model.usage.calls,
        "prompt_tokens": model.usage.prompt_tokens,
        "completion_tokens": model.usage.completion_tokens,
        "calls": calls,
    }


async def main() -> None:
    """Run what is asked for and print the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100, help="questions of each category")
    parser.add_argument("--seed", type=int, default=0, help="of the random sample")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["grammar", "plain"])
    parser.add_argument("--model", default="local")
    parser.add_argument("--out", type=Path, default=Path("bfcl.jsonl"))
    args = parser.parse_args()
    done = [json.loads(line) for line in args.out.open()] if args.out.exists() else []
    seen = {(row["model"], row["mode"], row["id"]) for row in done}
    model = open_model(args.model)
    samples = {c: random.Random(args.seed).sample(cases(c), len(cases(c))) for c in CATEGORIES}
    # Categories and modes take turns, so that a run that is broken off has something of each.
    for place in range(args.n):
        for category in CATEGORIES:
            case = samples[category][place]
            asked = Remembering(model)
            for mode in args.modes:
                if (args.model, mode, case.name) in seen:
                    continue
                row = await answer(case, MODES[mode], asked, category)
                row = {"model": args.model, "mode": mode, "category": category, **row}
                done.append(row)
                with args.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
    await model.aclose()
    print("| category | mode | n | well-formed | exact | model calls | tokens read | written |")
    print("|---|---|---|---|---|---|---|---|")
    for category in CATEGORIES:
        for mode in MODES:
            rows = [r for r in done if (r["category"], r["mode"]) == (category, mode)]
            rows = [r for r in rows if r["model"] == args.model]
            if n := len(rows):
                formed = sum(r["well_formed"] for r in rows) / n
                exact = sum(r["exact"] for r in rows) / n
                costs = ("model_calls", "prompt_tokens", "completion_tokens")
                calls, read, written = (sum(r[cost] for r in rows) / n for cost in costs)
                print(
                    f"| {category} | {mode} | {n} | {formed:.1%} | {exact:.1%} "
                    f"| {calls:.2f} | {read:.0f} | {written:.0f} |"
                )


if __name__ == "__main__":
    asyncio.run(main())
