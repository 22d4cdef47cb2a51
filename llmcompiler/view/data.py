"""A run as plain data, for ``--json``."""

from __future__ import annotations

import dataclasses
from typing import Any

from llmcompiler.history.cost import branch_cost
from llmcompiler.history.state import BranchState, RunState, TaskState
from llmcompiler.language import print_plan


def run_to_json(state: RunState) -> dict[str, Any]:
    """The whole run, with its values uncut."""
    status = "unfinished" if state.status == "running" else state.status
    return {
        "run": state.run,
        "started": state.wall,
        "status": status,
        "question": state.question,
        "inputs": state.inputs,
        "answer": state.answer,
        "value": state.value,
        "failure": dataclasses.asdict(state.failure) if state.failure else None,
        "seconds": state.now,
        "models": state.models,
        "usage": dataclasses.asdict(state.usage),
        "plans": [print_plan(state.plan(plan.number)) for plan in state.plans],
        "tasks": [task_to_json(task, state.now) for task in state.tasks.values()],
        "model_calls": [
            {
                "call": call.call,
                "label": call.label,
                "model": call.model,
                "finish": call.finish,
                "seconds": call.seconds,
                "usage": dataclasses.asdict(call.usage) if call.usage else None,
                "text": call.text,
                "failure": dataclasses.asdict(call.failure) if call.failure else None,
            }
            for call in state.calls.values()
        ],
        "branches": [_branch_to_json(state, branch) for branch in state.branches.values()],
        "joins": [
            {"decision": join.decision, "text": join.text, "why": join.why} for join in state.joins
        ],
    }


def _branch_to_json(state: RunState, branch: BranchState) -> dict[str, Any]:
    cost = branch_cost(branch, state.calls_of(branch.name), state.now)
    return {
        "branch": branch.name,
        "strategy": branch.strategy,
        "options": branch.spec["options"],
        "stopped": branch.stopped or None,
        "outcome": branch.outcome,
        "cost": dataclasses.asdict(cost),
    }


def task_to_json(task: TaskState, now: float) -> dict[str, Any]:
    """A task of a run: its call, its times and its outcome."""
    return {
        "id": task.id,
        "tool": task.task.tool,
        "plan": task.plan,
        "depends_on": list(task.dependencies),
        "status": task.status,
        "started": task.started,
        "seconds": task.seconds(now),
        "attempts": task.attempts,
        "arguments": task.arguments,
        "elements": task.extent,
        "value": task.value,
        "failure": dataclasses.asdict(task.failure) if task.failure else None,
    }
