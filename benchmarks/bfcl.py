"""BFCL: does the planner write the calls that the question needs?

Categories ``parallel`` and ``parallel_multiple`` of the Berkeley Function Calling Leaderboard
(Patil et al., https://gorilla.cs.berkeley.edu/leaderboard.html). Its data and its checker of calls,
the judge, come from the package ``bfcl-eval``. A plan is *well-formed* if it parses and fits its
tools; with repair, only the last attempt counts. A plan is *exact* if the judge accepts the calls
that a run would make; a repeated call counts once. The mode ``function-calling`` is the baseline:
the calls of the first turn, which the leaderboard judges. Models answer greedily, so the same
request of several modes is made once: the text draft of ``drafts`` is ``grammar+repair``, and
``plain`` is the beginning of ``plain+repair``.

    pip install --no-deps -r benchmarks/requirements-bfcl.txt
    python benchmarks/bfcl.py --n 100 --modes grammar plain

Each result is appended to a file at once, so a run that was stopped resumes where it was. ``--n 0``
only prints the table.
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


class _SecondTurnError(LLMCompilerError):
    """The planner asked for a second turn, which is not judged."""


async def refuse_second_turn() -> NoReturn:
    """End planning when the planner asks for the results of its calls."""
    raise _SecondTurnError("the calls of one turn are judged")


MODES = {
    "grammar": Mode(TextPlanner(), 0),
    "grammar+repair": Mode(TextPlanner(), 2),
    "plain": Mode(TextPlanner(constrained=False), 0),
    "plain+repair": Mode(TextPlanner(constrained=False), 2),
    "drafts": Mode(DraftsPlanner(), 2),
    "function-calling": Mode(FunctionCallingPlanner(), 0),
}


class CachingModel:
    """Answers a repeated request from memory, and counts its tokens each time.

    Args:
        model: a model that answers greedily.

    Attributes:
        usage: calls and tokens of all answers since the attribute was last set; an answer that
            broke off counts as a call without tokens.
    """

    def __init__(self, model: ChatModel) -> None:
        self.usage = Usage()
        self._model = model
        self._answers: dict[str, list[str | Completion]] = {}

    async def ask(self, request: Request) -> Pieces:
        """Yield the answer's pieces."""
        self.usage += Usage(calls=1)
        question = repr(request)
        recorded_answer = self._answers.get(question)
        new_answer: list[str | Completion] = []
        stream = (
            self._model.stream(request)
            if recorded_answer is None
            else _repeat_answer(recorded_answer)
        )
        async with aclosing(cast(Pieces, stream)) as pieces:
            async for piece in pieces:
                new_answer.append(piece)
                if isinstance(piece, Completion):
                    self._answers[question] = new_answer
                    self.usage += dataclasses.replace(piece.usage, calls=0)
                yield piece


async def _repeat_answer(answer: list[str | Completion]) -> Pieces:
    for piece in answer:
        yield piece


class Case(NamedTuple):
    """One question of the leaderboard."""

    name: str
    question: str
    functions: list[dict[str, Any]]
    truth: list[dict[str, Any]]


def package_folder() -> Path:
    """The folder of the installed package ``bfcl-eval``."""
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        sys.exit("bfcl-eval is not installed: pip install --no-deps -r requirements-bfcl.txt")
    return Path(spec.origin).parent


def load_cases(category: str) -> list[Case]:
    """All questions of a category."""

    def rows(path: str) -> Iterator[dict[str, Any]]:
        with (package_folder() / "data" / path).open(encoding="utf-8") as lines:
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


def make_tool(function: dict[str, Any]) -> Tool:
    """Make a tool for plans of a function of the leaderboard."""
    schema = json_schema(function["parameters"])
    return Tool(
        name=function["name"],
        description=function["description"],
        function=lambda: None,
        parameters=BaseModel,
        parameters_schema={**schema, "additionalProperties": False},
    )


def json_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    """Translate the leaderboard's types to JSON schema."""
    out = {key: value for key, value in parameters.items() if key not in ("optional", "format")}
    kind = out.pop("type", "any")
    if kind != "any":
        out["type"] = _TYPES.get(kind, kind)
    if "properties" in out:
        out["properties"] = {
            name: json_schema(property_schema)
            for name, property_schema in out["properties"].items()
        }
    if isinstance(out.get("items"), dict):
        out["items"] = json_schema(out["items"])
    return out


def calls_of(tasks: list[Task], tools: dict[str, Tool]) -> list[dict[str, Any]]:
    """The calls in the judge's form; a reference becomes a text, which is never right."""
    calls = []
    for task in tasks:
        names = tools[task.tool].parameters_schema["properties"]
        arguments = task.named_arguments(names)
        values = {k: e.value if isinstance(e, Literal) else str(e) for k, e in arguments.items()}
        calls.append({task.tool: values})
    return calls


def judge(case: Case, calls: list[dict[str, Any]], category: str) -> bool:
    """True if the leaderboard's checker accepts the calls."""
    # The checker needs the table of models only for the spelling of names, but the table imports
    # the client libraries of every vendor. The converters for Java and JavaScript import parsers.
    model_table = types.ModuleType("bfcl_eval.constants.model_config")
    model_table.MODEL_CONFIG_MAPPING = {"x": types.SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    sys.modules.setdefault(model_table.__name__, model_table)
    for language in ("java", "js"):
        name = f"bfcl_eval.eval_checker.ast_eval.type_convertor.{language}_type_converter"
        converter_module = types.ModuleType(name)
        setattr(converter_module, f"{language}_type_converter", None)
        sys.modules.setdefault(name, converter_module)
    from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]
    from bfcl_eval.eval_checker.ast_eval.ast_checker import (  # type: ignore[import-not-found]
        ast_checker,
    )

    verdict = ast_checker(case.functions, calls, case.truth, Language.PYTHON, category, "x")
    return bool(verdict["valid"])


async def answer_case(case: Case, mode: Mode, model: CachingModel, category: str) -> dict[str, Any]:
    """Plan one question, and return the row of the results."""
    tools = {function["name"]: make_tool(function) for function in case.functions}
    model.usage = Usage()

    def ask(request: Request) -> AsyncIterator[str | Completion]:
        errors.clear()
        return model.ask(request)

    context = PlanningContext(
        case.question,
        tools,
        ask,
        ask_as=lambda name: ask,
        repairs=mode.repairs,
        observe=refuse_second_turn,
    )
    tasks: list[Task] = []
    errors: list[str] = []
    deduplicator = Deduplicator(tools)
    try:
        async for item in mode.planner.plan(context):
            if isinstance(item, Task):
                if isinstance(accepted := deduplicator.accept(item), Task):
                    tasks.append(accepted)
            elif isinstance(item, Diagnostic) and item.severity == "error":
                errors.append(item.code)
    except _SecondTurnError:
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
    """Plan the questions that the file lacks, and print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100, help="questions of each category")
    parser.add_argument("--seed", type=int, default=0, help="of the random sample")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["grammar", "plain"])
    parser.add_argument("--model", default="local")
    parser.add_argument("--out", type=Path, default=Path("bfcl.jsonl"))
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.out.open()] if args.out.exists() else []
    finished = {(row["model"], row["mode"], row["id"]) for row in rows}
    model = open_model(args.model)
    samples = {
        c: random.Random(args.seed).sample(load_cases(c), len(load_cases(c))) for c in CATEGORIES
    }
    # Categories and modes alternate, so that a stopped run has results of each.
    for position in range(args.n):
        for category in CATEGORIES:
            case = samples[category][position]
            caching_model = CachingModel(model)
            for mode in args.modes:
                if (args.model, mode, case.name) in finished:
                    continue
                row = await answer_case(case, MODES[mode], caching_model, category)
                row = {"model": args.model, "mode": mode, "category": category, **row}
                rows.append(row)
                with args.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
    await model.aclose()
    print("| category | mode | n | well-formed | exact | model calls | tokens read | written |")
    print("|---|---|---|---|---|---|---|---|")
    for category in CATEGORIES:
        for mode in MODES:
            mode_rows = [r for r in rows if (r["category"], r["mode"]) == (category, mode)]
            mode_rows = [r for r in mode_rows if r["model"] == args.model]
            if n := len(mode_rows):
                formed = sum(r["well_formed"] for r in mode_rows) / n
                exact = sum(r["exact"] for r in mode_rows) / n
                costs = ("model_calls", "prompt_tokens", "completion_tokens")
                calls, tokens_read, tokens_written = (
                    sum(r[cost] for r in mode_rows) / n for cost in costs
                )
                print(
                    f"| {category} | {mode} | {n} | {formed:.1%} | {exact:.1%} "
                    f"| {calls:.2f} | {tokens_read:.0f} | {tokens_written:.0f} |"
                )


if __name__ == "__main__":
    asyncio.run(main())
