"""What if: a recorded run is derived again with other values, and only what changes is called.

A call that the run made with the same arguments, anywhere, has the result that it had; a model that
was asked the very same has given its answer. So a change that makes no difference further down ends
there, as in an incremental build. Nothing is kept of it, and tools that change the world are not
called. The module must not know how a run works inside.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.events import ModelStarted, TaskPlanned, TaskStarted
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.history.diff import RunDiff, diff_recordings
from llmcompiler.history.fork import Changes, forked
from llmcompiler.history.recording import Recording, place_text
from llmcompiler.history.replay import RecordedTool, derive, recorded_parts
from llmcompiler.history.state import RunState, fold
from llmcompiler.llm.base import ChatModel, Completion, Request
from llmcompiler.log.journal import Listener
from llmcompiler.log.store import RunStore
from llmcompiler.run.run import Parts, Role
from llmcompiler.runtime.engine import ToolResultLookup
from llmcompiler.runtime.model_calls import CompletionLookup
from llmcompiler.tools.base import Tool


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would have come of a run.

    Attributes:
        run: the recorded run's id.
        state: the hypothetical run.
        called: the tool calls that were really made: ``task 4 (calc)``.
        asked: the roles whose model was really asked, once a call.
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
    parts: Parts,
    until: int | None = None,
    on_event: Listener | None = None,
) -> WhatIf:
    """Derive a run again with other values; see ``LLMCompiler.what_if``.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.
        values: results by task id.
        parts: tools, models and executor for what has to be called.
        until: a task after whose end nothing more is derived.
        on_event: told of each event.
    """
    run = store.find(run)
    recording = Recording(run, list(store.events(run)))
    if not values:
        raise UsageError("no value was given to ask about", hint="--with TASK=JSON")
    known = recorded_parts(recording)
    executor = _Noting(parts.executor)
    asked: list[str] = []

    def model(role: Role) -> ChatModel:
        name = recording.started.models[role]
        return _OpenedLate(name, lambda: parts.model(role), lambda: asked.append(role))

    changed = forked(
        recording,
        dataclasses.replace(
            known,
            tools={name: _tool(stand_in, parts) for name, stand_in in known.tools.items()},
            executor=executor,
            model=model,
            live=True,
            on_error=parts.on_error,
            retry=parts.retry,
            approver=parts.approver,
            prices=parts.prices,
        ),
        Changes(values=values),
    )
    changed = dataclasses.replace(
        changed, recall=_recall(recording), recall_answer=_recall_answer(recording)
    )
    name = secrets.token_hex(5)
    events = await derive(recording, name, changed, until, on_event)
    state = fold(events)
    diff = diff_recordings(recording, Recording(name, events))
    return WhatIf(run, state, tuple(executor.made), tuple(asked), diff)


def _tool(stand_in: Tool, parts: Parts) -> Tool:
    """What a call that is not known goes to."""
    name = stand_in.name
    if stand_in.effect == "write":
        return _refusing(
            stand_in,
            f"{name} changes the world, and was not called to answer a question",
            "llmcompiler fork does it for real",
        )
    live = parts.tools.get(name)
    if live is not None and live.parameters_schema == stand_in.parameters_schema:
        return live
    if live is not None:
        return _refusing(
            stand_in,
            f'the tool "{name}" takes other arguments than in the run',
            "give the run's own tools with --tools",
        )
    return _refusing(stand_in, f'the tool "{name}" is not at hand', "give it with --tools")


class _Refusing(RecordedTool):
    """A recorded tool whose unknown calls fail for a reason of their own."""

    def validate(self, given: Mapping[str, Any]) -> dict[str, Any]:
        raise self.function()


def _refusing(tool: Tool, message: str, hint: str) -> Tool:
    fields = {field.name: getattr(tool, field.name) for field in dataclasses.fields(tool)}
    return _Refusing(**{**fields, "function": lambda: ToolError(message, hint=hint)})


def _recall(recording: Recording) -> ToolResultLookup:
    tools = {e.id: e.task["tool"] for e in recording.events if isinstance(e, TaskPlanned)}
    known = {
        _key(tools[event.task], event.arguments): recording.outcomes[event.task, event.index]
        for event in recording.events
        if isinstance(event, TaskStarted) and (event.task, event.index) in recording.outcomes
    }
    return lambda tool, arguments: known.get(_key(tool, arguments))


def _recall_answer(recording: Recording) -> CompletionLookup:
    calls = recording.calls()
    known = {
        _key(event.role, event.request): calls[event.call]
        for event in recording.events
        if isinstance(event, ModelStarted) and calls[event.call].end is not None
    }
    return lambda role, request: known.get(_key(role, request))


def _key(name: str, data: Mapping[str, Any]) -> str:
    return json.dumps([name, data], sort_keys=True)


class _Noting:
    """An executor that notes what it is given."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.made: list[str] = []

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        self.made.append(f"{place_text(call.context.task, call.context.index)} ({call.tool.name})")
        return self._inner.submit(call)

    async def aclose(self) -> None:
        """It is its owner's."""


class _OpenedLate:
    """A model that is opened when it is first asked, which may never be."""

    def __init__(
        self, name: str, opened: Callable[[], ChatModel], note: Callable[[], None]
    ) -> None:
        self.name = name
        self._opened = opened
        self._note = note

    def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        self._note()
        return self._opened().stream(request)

    async def aclose(self) -> None:
        """It is its owner's."""
