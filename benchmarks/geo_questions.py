"""Questions about countries and cities, answered by a real model with real tools.

    python benchmarks/geo_questions.py                       # all splits, the embedded model
    python benchmarks/geo_questions.py --split heldout --json
    python benchmarks/geo_questions.py --only density --show

The questions are in ``geo_questions.json``. An entry holds expressions instead of a right answer;
they are evaluated here on the tables that the tools read. Prompts were tuned on the splits ``dev``
and ``tuned``; ``heldout`` was written afterwards and shows how well that generalises.
``--questions`` reads questions from another file.

An answer is right if it has the names it should have (the winner before all other candidates) and
every number within the entry's tolerance, 1 % by default. ``1.4 times``, ``125 million`` and
``92,560`` are recognised as numbers. "At once" is the highest number of tool calls in flight.
"Waited" counts tool calls that started more than 50 ms after their last input, or after their line
of the plan if they have no input; it is 0 if calls wait for nothing but their data.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simpleeval import EvalWithCompoundTypes

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import (
    Event,
    ModelStarted,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskStarted,
)
from llmcompiler.language.printer import print_plan
from llmcompiler.tools.loading import load_tools

QUESTIONS = Path(__file__).with_suffix(".json")
LATE_S = 0.05


# --- what is right --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gold:
    """The requirements of a right answer.

    Attributes:
        winner: names, one of which must occur before any other candidate.
        among: the candidates.
        every: names that must all occur.
        numbers: numbers that must all occur.
        tolerance: largest relative error of a number.
    """

    winner: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    every: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    tolerance: float = 0.01


def gold(entry: dict[str, Any]) -> Gold:
    """Compute the requirements of a right answer from the tools' data."""
    winner = _evaluate(entry["winner"]) if "winner" in entry else ()
    return Gold(
        winner=(winner,) if isinstance(winner, str) else tuple(winner),
        among=tuple(entry.get("among", ())),
        every=tuple(_evaluate(entry["every"])) if "every" in entry else (),
        numbers=tuple(float(_evaluate(number)) for number in entry.get("numbers", ())),
        tolerance=entry.get("tolerance", 0.01),
    )


def _evaluate(expression: str) -> Any:
    tools = load_tools(("geo",))

    def call(name: str) -> Any:
        return lambda *args: tools[name].encode(tools[name](*args))

    country = call("country")

    def formula(name: str, by: str) -> Any:
        return EvalWithCompoundTypes(names=country(name)).eval(by)

    functions = {
        "country": country,
        "city": call("city"),
        "countries": call("countries"),
        "top": lambda names, by: max(names, key=lambda name: formula(name, by)),
        "low": lambda names, by: min(names, key=lambda name: formula(name, by)),
        "total": lambda names, of: sum(formula(name, of) for name in names),
        "density": lambda name: formula(name, "population / area_km2"),
        "len": len,
        "max": max,
        "min": min,
        "sum": sum,
        "abs": abs,
    }
    return EvalWithCompoundTypes(functions=functions).eval(expression)


_NUMBER = re.compile(
    r"(?<![\w.])(\d[\d,\u202f\u00a0]*(?:\.\d+)?)\s*(thousand|million|billion|trillion|k|m|bn)?\b",
    re.IGNORECASE,
)
_SCALE = {
    "": 1.0,
    "k": 1e3,
    "thousand": 1e3,
    "m": 1e6,
    "million": 1e6,
    "bn": 1e9,
    "billion": 1e9,
    "trillion": 1e12,
}


def numbers_in(text: str) -> list[float]:
    """Every number in a text, scale words applied."""
    return [
        float(re.sub(r"[^\d.]", "", digits)) * _SCALE[scale.lower()]
        for digits, scale in _NUMBER.findall(text)
    ]


def plain(text: str) -> str:
    """Remove case, accents and punctuation from a text, so that names can be compared."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return f" {' '.join(word for word in re.findall(r'[a-z0-9]+', bare) if word != 'the')} "


def judge(gold_answer: Gold, answer: str) -> list[str]:
    """The faults of an answer; empty if it is right."""
    text = plain(answer)
    complaints = []
    if gold_answer.winner:
        names = [plain(name) for name in gold_answer.winner]
        place = min((text.find(name) for name in names if name in text), default=-1)
        rivals = [plain(name) for name in gold_answer.among if plain(name) not in names]
        if place < 0:
            complaints.append(f"does not name {gold_answer.winner[0]}")
        elif any(0 <= text.find(rival) < place for rival in rivals):
            complaints.append(f"names another before {gold_answer.winner[0]}")
    complaints += [f"leaves out {name}" for name in gold_answer.every if plain(name) not in text]
    answer_numbers = numbers_in(answer)
    complaints += [
        f"lacks {number:.6g}"
        for number in gold_answer.numbers
        if not any(
            abs(answer_number - number) <= gold_answer.tolerance * abs(number)
            for answer_number in answer_numbers
        )
    ]
    return complaints


# --- the run --------------------------------------------------------------------------------------


@dataclass
class QuestionResult:
    """The result of one question."""

    id: str
    split: str
    kind: str
    question: str
    right: bool
    complaints: list[str]
    answer: str | None
    plans: list[str]
    seconds: float
    model_calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tool_calls: int
    at_once: int
    waited: int
    replans: int
    repairs: int
    joiner_prompts: list[str] = field(default_factory=list)


def parallelism(events: Iterable[Event]) -> tuple[int, int, int]:
    """Count tool calls, the most calls in flight, and calls that started late for no reason."""
    planned: dict[int, tuple[float, tuple[int, ...]]] = {}
    ended_at: dict[int, float] = {}
    running: set[tuple[int, tuple[int, ...]]] = set()
    calls = max_parallel = late_starts = 0
    for event in events:
        match event:
            case TaskPlanned():
                planned[event.id] = (event.at, event.dependencies)
            case TaskStarted():
                calls += 1
                running.add((event.task, event.index))
                max_parallel = max(max_parallel, len(running))
                at, dependencies = planned[event.task]
                ready = max([at, *(ended_at[need] for need in dependencies)])
                # Elements of a wide fan-out wait for threads, so they are not counted.
                late_starts += not event.index and event.at - ready > LATE_S
            case TaskFinished() | TaskFailed():
                running.discard((event.task, event.index))
                if not event.index:
                    ended_at[event.task] = event.at
    return calls, max_parallel, late_starts


async def ask(compiler: LLMCompiler, entry: dict[str, Any]) -> QuestionResult:
    """Ask one question, and judge the answer."""
    events: list[Event] = []
    started_at = time.perf_counter()
    result = await compiler.run(entry["question"], on_event=events.append)
    seconds = time.perf_counter() - started_at
    complaints = judge(gold(entry), result.answer or "")
    if result.failure is not None:
        complaints.insert(0, result.failure.message)
    calls, max_parallel, late_starts = parallelism(events)
    planners = [event for event in events if isinstance(event, ModelStarted)]
    return QuestionResult(
        id=entry["id"],
        split=entry["split"],
        kind=entry["kind"],
        question=entry["question"],
        right=not complaints,
        complaints=complaints,
        answer=result.answer,
        plans=[print_plan(plan) for plan in result.plans],
        seconds=seconds,
        model_calls=result.usage.calls,
        prompt_tokens=result.usage.prompt_tokens,
        cached_tokens=result.usage.cached_tokens,
        completion_tokens=result.usage.completion_tokens,
        tool_calls=calls,
        at_once=max_parallel,
        waited=late_starts,
        replans=len(result.plans) - 1,
        repairs=sum(event.role == "planner" for event in planners) - len(result.plans),
        joiner_prompts=[
            event.request["messages"][-1]["content"] for event in planners if event.role == "joiner"
        ],
    )


def summary(result: QuestionResult) -> str:
    """A line about one question."""
    return (
        f"{'right' if result.right else 'WRONG'}  {result.id:26} {result.seconds:5.1f} s"
        f"  {result.model_calls} model calls, {result.completion_tokens:3} tokens"
        f"  {result.tool_calls:2} tool calls, {result.at_once:2} at once, {result.waited} waited"
        + (f"  {result.replans} replans" if result.replans else "")
        + (f"  {result.repairs} repairs" if result.repairs else "")
    )


def report(results: list[QuestionResult], show: bool) -> None:
    """Print a line for each question, the wrong answers in full, and the sums."""
    for result in results:
        print(summary(result))
    for result in results:
        if show or not result.right:
            print(f"\n{result.id}: {result.question}\n  answer: {result.answer}")
            print("".join(f"  {complaint}\n" for complaint in result.complaints), end="")
            for text in (*result.plans, *result.joiner_prompts):
                print("  | " + text.strip().replace("\n", "\n  | ") + "\n")
    print()
    for split in dict.fromkeys(result.split for result in results):
        split_results = [result for result in results if result.split == split]
        print(
            f"{split}: {sum(result.right for result in split_results)} of"
            f" {len(split_results)} right,"
            f" {sum(result.seconds for result in split_results) / len(split_results):.1f} s each"
        )


async def main() -> int:
    """Ask, judge, report; the exit code is 0 if every answer is right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", type=Path, default=QUESTIONS, help="a file of your own")
    parser.add_argument("--split", help="dev, tuned or heldout; default: all")
    parser.add_argument("--only", help="questions whose id contains this")
    parser.add_argument("--model", default="local")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--show", action="store_true", help="print plans also of right answers")
    arguments = parser.parse_args()
    entries = [
        entry
        for entry in json.loads(arguments.questions.read_text(encoding="utf-8"))
        if arguments.split in (None, entry["split"]) and (arguments.only or "") in entry["id"]
    ]
    results = []
    async with LLMCompiler(model=arguments.model, store=":memory:") as compiler:
        for entry in entries:
            results.append(await ask(compiler, entry))
            print(f"{len(results)}/{len(entries)} {summary(results[-1])}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], ensure_ascii=False, indent=1))
    else:
        report(results, arguments.show)
    return 0 if all(result.right for result in results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
