"""Texts and numbers that all views share."""

from __future__ import annotations

import json
import re
from typing import Any

from llmcompiler.errors import Failure
from llmcompiler.history.cost import BranchCost
from llmcompiler.history.state import BranchState, PlanState, RunState, TaskState
from llmcompiler.language.printer import print_task
from llmcompiler.llm.base import Usage
from llmcompiler.plan.model import Task

MOST_CHARACTERS = 60_000
"""Characters of a value that a page shows at most."""

_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_CONTROL_TO_SPACE = dict.fromkeys((*range(32), *range(127, 160)), " ")


def one_line(text: str, width: int | None = None) -> str:
    """``text`` on one line, cut to ``width`` characters, without control characters."""
    # Only the start of a huge text is cleaned: the rest is cut off anyway.
    head = text if width is None else text[: 4 * width]
    line = " ".join(head.translate(_CONTROL_TO_SPACE).split())
    if width is not None and (len(line) > width or len(head) < len(text)):
        return line[: max(width - 1, 0)].rstrip() + "…"
    return line


def display_text(value: Any, limit: int = MOST_CHARACTERS) -> str:
    """A value as text for a page: strings as they are, the rest as JSON; long ones cut.

    Control characters, lone surrogates and characters that change the direction of the text around
    them become visible escapes.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
    cut = text[:limit]
    cleaned = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", cut)
    if len(text) > limit:
        cleaned += f"\n… cut: {limit:,} of {len(text):,} characters are shown"
    return cleaned


def task_call_text(task: Task, width: int | None = None) -> str:
    """The call as the plan writes it, with its references: ``calc("$1.population / 2")``."""
    # Views show the task's number elsewhere.
    call = print_task(task.model_copy(update={"thought": None})).partition(". ")[2]
    return one_line(call, width)


def value_text(value: Any, width: int | None = None) -> str:
    """A result in one line: strings as they are, the rest as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text, width)


def seconds_text(seconds: float) -> str:
    """A duration: ``0.3 s``, ``12.4 s``, ``1 min 05 s``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} min {remainder:02d} s"


def count_text(number: int, noun: str) -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tokens_text(usage: Usage) -> str:
    """``2 model calls, 160 + 39 tokens (40 cached)``: tokens of prompts, then of answers."""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    if usage.reasoning_tokens:
        cached += f" ({usage.reasoning_tokens:,} of thinking)"
    return (
        f"{count_text(usage.calls, 'model call')}, "
        f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens{cached}"
    )


def branch_text(branch: BranchState) -> str:
    """The strategy of a branch and the reason for its answer: ``vote: 3 of 5 agree``."""
    why = (branch.outcome or {}).get("why") or ("thinking" if branch.ended is None else "no answer")
    stopped = f", stopped at its budget of {branch.stopped}" if branch.stopped else ""
    return one_line(f"{branch.strategy}: {why}{stopped}")


def cost_text(cost: BranchCost) -> str:
    """The cost of a branch, in one line."""
    unknown = f" ({cost.unknown} cut, their prompts estimated)" if cost.unknown else ""
    return (
        f"{count_text(cost.calls, 'call')}{unknown}, at most {cost.peak} at once; "
        f"B_total {cost.b_total:,}, B_seq {cost.b_seq:,} tokens; decoded {cost.decoded:,}, "
        f"prefill {cost.prefill:,} + {cost.cached:,} cached; "
        f"critical path {' > '.join(cost.critical) or '-'}, {seconds_text(cost.critical_seconds)} "
        f"of {seconds_text(cost.seconds)}"
    )


def failure_text(failure: Failure) -> str:
    """A failure's message, with its hint in parentheses."""
    return f"{failure.message} ({failure.hint})" if failure.hint else failure.message


def outcome_text(task: TaskState, width: int | None = None) -> str:
    """The outcome of a task so far, in one line; empty before there is one."""
    match task.status:
        case "done":
            return value_text(task.value, width)
        case "failed":
            return one_line(failure_text(task.failure) if task.failure else "failed", width)
        case "waiting":
            why = f": {task.failure.message}" if task.failure else ""
            return one_line(f"will be tried again{why}", width)
        case "skipped" if task.is_not_taken:
            return "not taken: its block did not run"
        case "skipped":
            return f"not run: {task.because} did not succeed"
        case "cancelled":
            return one_line(f"stopped: {task.reason}", width)
        case _:
            return progress_text(task)


def status_text(task: TaskState) -> str:
    """A task's status in words."""
    return "not taken" if task.is_not_taken else task.status


def program_lines(plan: PlanState) -> list[str]:
    """The lines of a program with their numbers; a condition's line tells what it chose."""
    lines = []
    for number, line in enumerate((plan.program or "").splitlines(), 1):
        first, other = plan.conditions.get(number, (0, 0))
        if first + other == 0:
            chosen = ""
        elif first + other == 1:
            chosen = "taken" if first else "not taken"
        else:
            chosen = f"taken {first} of {first + other} times"
        lines.append(f"{number:3} | {line}" + (f"  # {chosen}" if chosen else ""))
    return lines


def progress_text(task: TaskState) -> str:
    """Progress of a fan-out (``12/40, 1 failed``) or of a tool that reports it; may be empty."""
    if task.extent is None:
        progress = task.progress
        if progress is None:
            return ""
        total = "" if progress.total is None else f"/{progress.total:g}"
        return one_line(f"{progress.done:g}{total} {progress.message}")
    failed = f", {task.failed} failed" if task.failed else ""
    return f"{task.done + task.failed}/{task.extent}{failed}"


def summary_text(state: RunState) -> str:
    """Status and totals of a run, in one line: ``answered in 2.6 s: 2 tasks, …``."""
    parts = [count_text(len(state.tasks), "task")]
    for status in ("failed", "skipped", "cancelled"):
        number = sum(
            task.status == status and not task.is_not_taken for task in state.tasks.values()
        )
        if number:
            parts.append(f"{number} {status}")
    if not_taken := sum(task.is_not_taken for task in state.tasks.values()):
        parts.append(f"{not_taken} not taken")
    if state.usage.calls:
        parts.append(tokens_text(state.usage))
    status = "unfinished after" if state.status == "running" else f"{state.status} in"
    return f"{status} {seconds_text(state.now)}: {', '.join(parts)}"
