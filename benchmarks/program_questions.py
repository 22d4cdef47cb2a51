"""Questions that need a filter, a count, a set operation, a condition: programs against plans.

    python benchmarks/program_questions.py                        # planner python, the thirty
    python benchmarks/program_questions.py --planner text
    python benchmarks/program_questions.py --split dev --show     # the ten for tuning
    python benchmarks/program_questions.py --out results.jsonl    # goes on where it was stopped

The questions are in ``program_questions.json``. Each entry has a program of plain Python that
computes the right answer from the data that the tools read; it runs here, outside of the package.
Prompts and checks were tuned on the split ``dev`` only.

An answer is right if it has each name and number of the right one, and names no other candidate.
Where a list is asked for, every country that the program looked at is one; an entry names others in
``among``. Numbers may be off by 1 %. Yes and no count as True and False.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from geo_questions import numbers_in, plain

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import Event, ModelStarted, PlanDiagnosed, TaskStarted
from llmcompiler.language.printer import print_plan
from llmcompiler.tools.loading import load_tools

QUESTIONS = Path(__file__).with_suffix(".json")
TOLERANCE = 0.01


# --- what is right --------------------------------------------------------------------------------


class Record(dict[str, Any]):
    """A record whose fields are attributes, as programs read them."""

    __getattr__ = dict.__getitem__


def right_answer(program: str) -> tuple[Any, set[str]]:
    """Run a gold program with plain functions.

    Returns:
        The value of its ``answer``, and the names of all countries that it looked at.
    """
    tools = load_tools(("geo",))
    seen: set[str] = set()

    def country(name: str) -> Record:
        record = Record(tools["country"].encode(tools["country"](name)))
        seen.add(record.name)
        return record

    def city(name: str, country: str | None = None) -> Record:
        return Record(tools["city"].encode(tools["city"](name, country)))

    names: dict[str, Any] = {
        "country": country,
        "city": city,
        "countries": lambda continent=None: tools["countries"](continent),
        "statistics": statistics,
    }
    exec(program, names)
    return names["answer"], seen


def judge(right: Any, rivals: set[str], answer: str) -> list[str]:
    """The faults of an answer; empty if it is right."""
    text = plain(answer)
    if isinstance(right, bool):
        words = text.split()
        said = {"true": True, "yes": True, "false": False, "no": False}
        spoken = next((said[word] for word in words if word in said), None)
        return [] if spoken is right else [f"is not {right}"]
    parts = list(right) if isinstance(right, list | tuple) else [right]
    complaints = []
    for part in parts:
        if isinstance(part, str):
            if plain(part) not in text:
                complaints.append(f"leaves out {part}")
        elif not any(abs(n - abs(part)) <= TOLERANCE * abs(part) for n in numbers_in(answer)):
            complaints.append(f"lacks {part:.6g}")
    spoken_names = [plain(part) for part in parts if isinstance(part, str)]
    for name in sorted(map(plain, rivals)):
        # A name inside a right one, such as Guinea in Equatorial Guinea, is no other name.
        if name in text and not any(name in spoken for spoken in spoken_names):
            complaints.append(f"names{name}too")
    return complaints


# --- the run --------------------------------------------------------------------------------------


@dataclass
class QuestionResult:
    """The result of one question."""

    id: str
    split: str
    kind: str
    planner: str
    question: str
    right: bool
    complaints: list[str]
    answer: str | None
    wanted: Any
    plans: list[str]
    diagnostics: list[str]
    seconds: float
    model_calls: int
    prompt_tokens: int
    completion_tokens: int
    tool_calls: int


async def ask(compiler: LLMCompiler, planner: str, entry: dict[str, Any]) -> QuestionResult:
    """Ask one question, and judge the answer."""
    events: list[Event] = []
    started_at = time.perf_counter()
    result = await compiler.run(entry["question"], on_event=events.append)
    seconds = time.perf_counter() - started_at
    right, seen = right_answer(entry["program"])
    rivals = {*(seen if isinstance(right, list) else ()), *entry.get("among", ())}
    complaints = judge(right, rivals, result.answer or "")
    if result.failure is not None:
        complaints.insert(0, result.failure.message)
    return QuestionResult(
        id=entry["id"],
        split=entry["split"],
        kind=entry["kind"],
        planner=planner,
        question=entry["question"],
        right=not complaints,
        complaints=complaints,
        answer=result.answer,
        wanted=right,
        plans=[plan.program or print_plan(plan) for plan in result.plans],
        diagnostics=[event.rendered for event in events if isinstance(event, PlanDiagnosed)],
        seconds=round(seconds, 1),
        model_calls=sum(isinstance(event, ModelStarted) for event in events),
        prompt_tokens=result.usage.prompt_tokens,
        completion_tokens=result.usage.completion_tokens,
        tool_calls=sum(isinstance(event, TaskStarted) for event in events),
    )


def summary(result: QuestionResult) -> str:
    """A line about one question."""
    return (
        f"{'right' if result.right else 'WRONG'}  {result.id:26} {result.seconds:5.1f} s"
        f"  {result.model_calls} model calls, {result.completion_tokens:3} tokens"
        f"  {result.tool_calls:3} tool calls"
    )


def report(results: list[QuestionResult], show: bool) -> None:
    """Print the wrong answers in full, and the sums."""
    for result in results:
        if show or not result.right:
            print(f"\n{result.id}: {result.question}\n  answer: {result.answer}")
            print(f"  wanted: {result.wanted}")
            print("".join(f"  {complaint}\n" for complaint in result.complaints), end="")
            for text in (*result.plans, *result.diagnostics):
                print("  | " + text.strip().replace("\n", "\n  | ") + "\n")
    print()
    for planner in dict.fromkeys(result.planner for result in results):
        part = [result for result in results if result.planner == planner]
        calls = sum(result.model_calls for result in part)
        print(
            f"{planner}: {sum(result.right for result in part)} of {len(part)} right,"
            f" {sum(result.seconds for result in part) / len(part):.1f} s,"
            f" {sum(result.completion_tokens for result in part) / len(part):.0f} tokens and"
            f" {calls / len(part):.1f} model calls each"
        )


async def main() -> int:
    """Ask, judge, report; the exit code is 0 if every answer is right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", type=Path, default=QUESTIONS, help="a file of your own")
    parser.add_argument("--split", default="test", help="test (the thirty) or dev")
    parser.add_argument("--only", default="", help="questions whose id contains this")
    parser.add_argument("--planner", default="python", help="python, text, drafts, …")
    parser.add_argument("--model", default="local")
    parser.add_argument("--out", type=Path, help="a file of results; those in it are not repeated")
    parser.add_argument("--show", action="store_true", help="print programs of right answers too")
    arguments = parser.parse_args()
    entries = [
        entry
        for entry in json.loads(arguments.questions.read_text(encoding="utf-8"))
        if entry["split"] == arguments.split and arguments.only in entry["id"]
    ]
    results: list[QuestionResult] = []
    if arguments.out is not None and arguments.out.exists():
        for line in arguments.out.read_text(encoding="utf-8").splitlines():
            results.append(QuestionResult(**json.loads(line)))
    done = {(result.planner, result.id) for result in results}
    async with LLMCompiler(
        model=arguments.model, planner=arguments.planner, store=":memory:"
    ) as compiler:
        for entry in entries:
            if (arguments.planner, entry["id"]) in done:
                continue
            result = await ask(compiler, arguments.planner, entry)
            results.append(result)
            print(f"{len(results)}/{len(entries)} {summary(result)}", file=sys.stderr)
            if arguments.out is not None:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
    report(results, arguments.show)
    return 0 if all(result.right for result in results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
