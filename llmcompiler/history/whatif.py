"""What if: a recorded run is derived again with other values, and only what changes is called.

A call with arguments that the run knows gets its recorded result, and a model with a request that
the run knows gives its recorded completion. So a change that makes no difference further down ends
there, as in an incremental build. Nothing is kept, and tools that change the world are not called.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.history.decisions import call_text
from llmcompiler.history.diff import RunDiff, diff_histories
from llmcompiler.history.fork import Changes, fork_inputs
from llmcompiler.history.replay import RecordedTool, derive, recorded_config
from llmcompiler.history.run_history import RunHistory
from llmcompiler.history.state import RunState
from llmcompiler.llm.base import ChatModel, Completion, Request
from llmcompiler.log.journal import Listener
from llmcompiler.log.store import RunStore
from llmcompiler.run.config import RecordedInputs, Role, RunConfig
from llmcompiler.run.run import new_run_id
from llmcompiler.tools.base import Tool


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would have come of a run.

    Attributes:
        run: the recorded run's id.
        state: the hypothetical run.
        called: the tool calls that were made for real: ``task 4 (calc)``.
        asked: the role of each model call that was made for real.
        diff: the recorded run beside the hypothetical one.
    """

    run: str
    state: RunState
    called: tuple[str, ...]
    asked: tuple[str, ...]
    diff: RunDiff


async def what_if(
    store: RunStore,
    run: str,
    values: Mapping[int, Any],
    config: RunConfig,
    until: int | None = None,
    on_event: Listener | None = None,
) -> WhatIf:
    """Derive a run again with other values; see ``LLMCompiler.what_if``.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.
        values: overridden results by task id.
        config: tools, models and executor for what has to be called.
        until: the task whose end ends the hypothetical run; ``None`` for the whole run.
        on_event: called with each event.

    Raises:
        UsageError: no value is given, or the run does not have a task that is named.
        LogError: there is no such run, or its log is damaged.
    """
    history = RunHistory.load(store, run)
    if not values:
        raise UsageError("no value was given to ask about", hint="--with TASK=JSON")
    executor = _CountingExecutor(config.executor)
    asked_roles: list[str] = []

    def model_for(role: Role) -> ChatModel:
        name = history.start.models[role]
        return _LazyModel(name, lambda: config.model_for(role), lambda: asked_roles.append(role))

    config_on_record = recorded_config(history)
    hypothetical = dataclasses.replace(
        config_on_record,
        tools={
            name: _hypothetical_tool(tool, config) for name, tool in config_on_record.tools.items()
        },
        executor=executor,
        model_for=model_for,
        may_ask_models=True,
        on_error=config.on_error,
        retry=config.retry,
        approver=config.approver,
        prices=config.prices,
    )
    run_id = new_run_id()
    events = await derive(
        history, run_id, hypothetical, what_if_inputs(history, values), until, on_event
    )
    derived_history = RunHistory(run_id, events)
    diff = diff_histories(history, derived_history)
    return WhatIf(
        history.run, derived_history.state, tuple(executor.calls), tuple(asked_roles), diff
    )


def what_if_inputs(history: RunHistory, values: Mapping[int, Any]) -> RecordedInputs:
    """What a hypothetical run has on record: a fork's inputs, and look-ups in the recorded run."""
    return dataclasses.replace(
        fork_inputs(history, Changes(values=values)),
        lookup_tool_result=history.find_tool_result,
        lookup_completion=history.find_completion,
    )


def _hypothetical_tool(recorded_tool: Tool, config: RunConfig) -> Tool:
    """The tool for calls that the run does not know, or one that says why there is none."""
    name = recorded_tool.name
    if recorded_tool.effect == "write":
        return _refusing(
            recorded_tool,
            f"{name} changes the world, and was not called to answer a question",
            "llmcompiler fork does it for real",
        )
    real_tool = config.tools.get(name)
    if real_tool is None:
        return _refusing(recorded_tool, f'the tool "{name}" is not at hand', "give it with --tools")
    if real_tool.parameters_schema != recorded_tool.parameters_schema:
        return _refusing(
            recorded_tool,
            f'the tool "{name}" takes other arguments than in the run',
            "give the run's own tools with --tools",
        )
    return real_tool


class _RefusingTool(RecordedTool):
    """A recorded tool that refuses unknown calls for a reason of its own."""

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        raise self.function()


def _refusing(tool: Tool, message: str, hint: str) -> Tool:
    fields = {field.name: getattr(tool, field.name) for field in dataclasses.fields(tool)}
    return _RefusingTool(**{**fields, "function": lambda: ToolError(message, hint=hint)})


class _CountingExecutor:
    """An executor that lists the calls it makes.

    Attributes:
        calls: each as ``task 4 (calc)``.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.calls: list[str] = []

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        self.calls.append(f"{call_text(call.context.task, call.context.index)} ({call.tool.name})")
        return self._inner.submit(call)

    async def aclose(self) -> None:
        """Do nothing: the inner executor belongs to the compiler."""


class _LazyModel:
    """A model that is opened when it is first asked.

    Args:
        name: of the model, known without opening it.
        open_model: opens it.
        on_ask: called once a request.
    """

    def __init__(
        self, name: str, open_model: Callable[[], ChatModel], on_ask: Callable[[], None]
    ) -> None:
        self.name = name
        self._open_model = open_model
        self._on_ask = on_ask

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        self._on_ask()
        return self._open_model().stream(request)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to the compiler."""
