"""What a run is made of: how it is configured, and what is on record before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeAlias

from llmcompiler.events import CallId, Outcome
from llmcompiler.executors.base import Executor
from llmcompiler.joiners.model import Joiner
from llmcompiler.joiners.reduced import JoinReducer
from llmcompiler.limits import Limits
from llmcompiler.llm.base import ChatModel
from llmcompiler.llm.prices import Prices
from llmcompiler.plan.model import Task
from llmcompiler.planners.base import Planner
from llmcompiler.prompting.profile import Profiles
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.reasoning.request import BranchRecord
from llmcompiler.runtime.admission import ToolResultLookup
from llmcompiler.runtime.approval import ApprovalDecision, Approver
from llmcompiler.runtime.model_calls import CompletionLookup, RecordedCall
from llmcompiler.runtime.result_cache import ResultCache
from llmcompiler.tools.base import Tool
from llmcompiler.tools.policy import OnError, Retry

Role: TypeAlias = str
"""``planner``, ``joiner``, ``branch``, or ``branch:NAME`` for further models of strategies."""


def role_of(name: str) -> Role:
    """The role of the model that strategies call ``name``."""
    return name if name == "branch" else f"branch:{name}"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a run is configured.

    A new run has the user's configuration. A replay has one that ``recorded_config`` makes from the
    log, with tools and models that call nothing.

    Attributes:
        tools: what plans may call, by name.
        executor: where tool calls run.
        planner: writes the plans.
        joiner: decides after each plan whether there is an answer.
        model_for: gives the model of a role.
        limits: bounds of the run.
        prompts: the texts that models are shown.
        profiles: what the models of planner and joiner are shown, and how their answers are
            checked.
        today: the day that prompts name, in ISO 8601, or a function that returns it; empty for the
            day on which a run starts.
        on_error: what a failed task means for the others; see ``Engine``.
        retry: how calls that failed with a transient error are repeated.
        join_reducer: how several drafts of the joiner become one; ``None`` for a single draft.
        branch_models: names of the models that strategies may use.
        may_ask_models: False in a replay, where a model call that is not recorded is an error.
        approver: asks somebody about calls of tools that need approval.
        cache: results of earlier runs, for tools that allow it.
        weights: seconds that a call of a tool is expected to take, by tool name, for priorities.
        prices: what models cost, for a limit on cost.
    """

    tools: Mapping[str, Tool]
    executor: Executor
    planner: Planner
    joiner: Joiner
    model_for: Callable[[Role], ChatModel]
    limits: Limits
    prompts: Prompts
    profiles: Profiles = field(default_factory=Profiles)
    today: str | Callable[[], date] = ""
    on_error: OnError = "observe"
    retry: Retry = field(default_factory=Retry)
    join_reducer: JoinReducer | None = None
    branch_models: tuple[str, ...] = ("branch",)
    may_ask_models: bool = True
    approver: Approver | None = None
    cache: ResultCache | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    prices: Prices | None = None


@dataclass(frozen=True, slots=True)
class RecordedInputs:
    """What is on record before a run starts; empty for a new run.

    A replay and a resume take it from the run's own log, a fork and a what-if from their parent's.

    Attributes:
        recorded_completions: model calls by id.
        outcomes: how tool calls ended, by task and index.
        attempts: how often tool calls without an outcome were started.
        retry_at: when to retry each call that failed with a transient error, in seconds since the
            run started.
        approvals: decisions about calls that need approval.
        branches: reasoning branches by name, each whole or in part.
        overridden_results: values that a fork sets in place of what tasks return, by task id.
        replaced_calls: calls that a fork makes in place of the planned ones, by task id.
        parent_calls: the calls that ``outcomes`` belong to, as JSON by task id. A fork sets them,
            because its planner may give a task's number to another call.
        lookup_tool_result: finds the outcome of a call in the parent by tool and arguments.
        lookup_completion: finds a model call in the parent by role and request.
        origin: where a fork comes from; see ``RunStarted``.
    """

    recorded_completions: Mapping[str, RecordedCall] = field(default_factory=dict)
    outcomes: Mapping[CallId, Outcome] = field(default_factory=dict)
    attempts: Mapping[CallId, int] = field(default_factory=dict)
    retry_at: Mapping[CallId, float] = field(default_factory=dict)
    approvals: Mapping[CallId, ApprovalDecision] = field(default_factory=dict)
    branches: Mapping[str, BranchRecord] = field(default_factory=dict)
    overridden_results: Mapping[int, Any] = field(default_factory=dict)
    replaced_calls: Mapping[int, Task] = field(default_factory=dict)
    parent_calls: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    lookup_tool_result: ToolResultLookup | None = None
    lookup_completion: CompletionLookup | None = None
    origin: dict[str, Any] | None = None
