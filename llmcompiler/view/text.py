"""The words and numbers that all views share. It must not know where they are shown."""

from __future__ import annotations

import json
import re
from typing import Any

from llmcompiler.errors import Failure
from llmcompiler.history.cost import BranchCost
from llmcompiler.history.state import BranchState, RunState, TaskState
from llmcompiler.language.printer import print_task
from llmcompiler.llm.base import Usage
from llmcompiler.plan.model import Task

LONGEST = 60_000
"""Characters of a value that a page shows."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


def one_line(text: str, width: int | None = None) -> str:
    """``text`` on one line, cut to ``width`` characters, with nothing a terminal would obey."""
    # A huge value need not be cleaned to its end only to be cut off.
    head = text if width is None else text[: 4 * width]
    line = " ".join(head.translate(_CONTROL).split())
    if width is not None and (len(line) > width or len(head) < len(text)):
        return line[: max(width - 1, 0)].rstrip() + "…"
    return line


def shown(value: Any, limit: int = LONGEST) -> str:
    """A value as text for a page: strings as they are, the rest as JSON; long ones cut.

    Control characters, orphaned surrogates and those that turn the direction of what stands around
    them are spelt out as escapes.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    cut = text[:limit]
    cleaned = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", cut)
    if len(text) > limit:
        cleaned += f"\n… cut: {limit:,} of {len(text):,} characters are shown"
    return cleaned


def call_text(task: Task, width: int | None = None) -> str:
    """The call as the plan has it, references unresolved: ``calc("$1.population / 2")``."""
    # The number is shown in a place of its own.
    call = print_task(task.model_copy(update={"thought": None})).partition(". ")[2]
    return one_line(call, width)


def value_text(value: Any, width: int | None = None) -> str:
    """A result in one line: strings as they are, the rest as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text, width)


def seconds_text(seconds: float) -> str:
    """A duration for people: ``0.3 s``, ``12.4 s``, ``1 min 05 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def count_text(number: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tokens_text(usage: Usage) -> str:
    """``2 model calls, 160 + 39 tokens (40 cached)``: of the prompts, then of the answers."""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return (
        f"{count_text(usage.calls, 'model call')}, "
        f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens{cached}"
    )


def branch_text(branch: BranchState) -> str:
    """How a branch came to its answer: ``vote: 3 of 5 agree``."""
    why = (branch.outcome or {}).get("why") or ("thinking" if branch.ended is None else "no answer")
    stopped = f", stopped at its budget of {branch.stopped}" if branch.stopped else ""
    return one_line(f"{branch.strategy}: {why}{stopped}")


def cost_text(cost: BranchCost) -> str:
    """What a branch cost, in a line."""
    unknown = f" ({cost.unknown} cut, their prompts estimated)" if cost.unknown else ""
    return (
        f"{count_text(cost.calls, 'call')}{unknown}, at most {cost.peak} at once; "
        f"B_total {cost.b_total:,}, B_seq {cost.b_seq:,} tokens; decoded {cost.decoded:,}, "
        f"prefill {cost.prefill:,} + {cost.cached:,} cached; "
        f"critical path {' > '.join(cost.critical) or '-'}, {seconds_text(cost.critical_seconds)} "
        f"of {seconds_text(cost.seconds)}"
    )


def failure_text(failure: Failure) -> str:
    """What went wrong and what to do about it."""
    return f"{failure.message} ({failure.hint})" if failure.hint else failure.message


def outcome_text(task: TaskState, width: int | None = None) -> str:
    """What came of a task so far; empty while there is nothing to say."""
    match task.status:
        case "done":
            return value_text(task.value, width)
        case "failed":
            return one_line(failure_text(task.failure) if task.failure else "failed", width)
        case "waiting":
            why = f": {task.failure.message}" if task.failure else ""
            return one_line(f"will be tried again{why}", width)
        case "skipped":
            return f"not run: {task.because} did not succeed"
        case "cancelled":
            return one_line(f"stopped: {task.reason}", width)
        case _:
            return progress_text(task)


def progress_text(task: TaskState) -> str:
    """How far a fan-out is, or what the tool says of itself: ``12/40, 1 failed``; may be empty."""
    if task.extent is None:
        said = task.progress
        if said is None:
            return ""
        of = "" if said.total is None else f"/{said.total:g}"
        return one_line(f"{said.done:g}{of} {said.message}")
    failed = f", {task.failed} failed" if task.failed else ""
    return f"{task.done + task.failed}/{task.extent}{failed}"


def summary_text(state: RunState) -> str:
    """What a run came to, in a line: ``answered in 2.6 s: 2 tasks, 2 model calls, …``."""
    parts = [count_text(len(state.tasks), "task")]
    for status in ("failed", "skipped", "cancelled"):
        number = sum(task.status == status for task in state.tasks.values())
        if number:
            parts.append(f"{number} {status}")
    if state.usage.calls:
        parts.append(tokens_text(state.usage))
    status = "unfinished after" if state.status == "running" else f"{state.status} in"
    return f"{status} {seconds_text(state.now)}: {', '.join(parts)}"
