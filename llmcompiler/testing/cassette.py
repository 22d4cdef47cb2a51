"""Cassettes: an exported run that answers for models and tools in the tests of an application.

The application's own compiler runs, with its own tool schemas and prompts: it plans, checks, binds
and joins anew. Only what came from outside is played back: a model's text to the very request that
was recorded, a tool's result to the very arguments. Anything else that is asked is a
``CassetteMiss``; nothing is ever called. The module must not know a test framework.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from pydantic_core import to_jsonable_python

from llmcompiler.compiler import LLMCompiler, ModelSpec
from llmcompiler.errors import Failure, LogError, ModelError, ToolError
from llmcompiler.events import (
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskStarted,
)
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.history.recording import DivergenceError, Recording
from llmcompiler.llm.base import Completion, Request
from llmcompiler.log.export import export_run, read_run
from llmcompiler.log.store import RunStore
from llmcompiler.plan.model import Plan
from llmcompiler.run.run import RunResult
from llmcompiler.runtime.model_calls import completion_of, request_to_json
from llmcompiler.settings.servers import load_tools
from llmcompiler.tools.base import Tool
from llmcompiler.tools.loading import ToolSource


class CassetteMiss(AssertionError):
    """Something was asked that the cassette does not hold."""


class Parts(TypedDict, total=False):
    """Arguments of ``LLMCompiler`` that a cassette decides."""

    tools: Mapping[str, Tool]
    model: ModelSpec
    executor: Executor
    store: RunStore


class Cassette:
    """One recorded run, to be played back or recorded anew.

    Args:
        file: written by ``llmcompiler export``, or by a recording.
        record: call real models and tools, and write the run to the file in ``finish``.

    Attributes:
        misses: what was asked and is not in the file.

    Raises:
        LogError: the file is missing or damaged, or its values are redacted.
    """

    def __init__(self, file: str | os.PathLike[str], *, record: bool = False) -> None:
        self.file = Path(file)
        self.record = record
        self.misses: list[str] = []
        self._store = RunStore(":memory:")
        self._recording: Recording | None = None
        if self.file.exists() or not record:
            found = read_run(self.file)
            if found.redacted and not record:
                raise LogError(
                    f"{file} is redacted, so it has no values to play back",
                    hint="export the run without redaction, or record it anew",
                )
            self._recording = Recording(found.run, found.events)

    def parts(self, tools: ToolSource | Sequence[ToolSource], model: ModelSpec = "local") -> Parts:
        """What to give to ``LLMCompiler``, for an application that makes its own.

        Args:
            tools: those of the application; only their schemas are used in playing back.
            model: asked when recording.
        """
        loaded = load_tools(tools)
        if self.record:
            return Parts(tools=loaded, model=model, store=self._store)
        assert self._recording is not None
        return Parts(
            tools=loaded,
            model=_PlaybackModel(self._recording, self.misses),
            executor=_PlaybackExecutor(self._recording, loaded, self.misses),
            store=self._store,
        )

    def compiler(
        self,
        tools: ToolSource | Sequence[ToolSource],
        model: ModelSpec = "local",
        **options: Any,
    ) -> LLMCompiler:
        """A compiler whose models and tools are answered for by the cassette.

        Args:
            tools: as in ``parts``.
            model: as in ``parts``.
            options: further ones of ``LLMCompiler``, such as ``limits`` or ``prompts``.
        """
        return LLMCompiler(**self.parts(tools, model), **options)  # type: ignore[arg-type]

    def replay(
        self,
        tools: ToolSource | Sequence[ToolSource],
        model: ModelSpec = "local",
        **options: Any,
    ) -> RunResult:
        """Ask again what was asked, and compare the end.

        Args:
            tools: as in ``parts``.
            model: as in ``parts``.
            options: as in ``compiler``.

        Raises:
            CassetteMiss: something was asked that the cassette does not hold.
            DivergenceError: the run ended otherwise than recorded.
            LogError: there is no recorded run yet, whose question could be asked.
        """
        if self._recording is None:
            raise LogError(
                f"{self.file} is not there, so it is not known what to ask",
                hint="record it with compiler(…) and a question",
            )
        started, ended = self._recording.started, self._recording.finished
        compiler = self.compiler(tools, model, **options)
        if started.plan is not None:
            result = compiler.execute_sync(Plan.model_validate(started.plan), started.inputs)
        else:
            assert started.question is not None
            result = compiler.run_sync(started.question)
        if not self.record:
            self.check()
            if ended is not None:
                for field in ("status", "answer", "value"):
                    was, came = getattr(ended, field), getattr(result, field)
                    if was != came:
                        raise DivergenceError("run", field, was, came)
        return result

    def check(self) -> None:
        """Fail if anything was asked that the cassette does not hold.

        Raises:
            CassetteMiss: names everything.
        """
        if self.misses:
            raise CassetteMiss(f"{self.file} does not hold:\n" + "\n".join(self.misses))

    def finish(self) -> None:
        """End the test: check what was played back, or write what was recorded.

        Raises:
            CassetteMiss: as ``check``.
            LogError: recording, but there was no run, or more than one.
        """
        if not self.record:
            self.check()
            return
        runs = self._store.runs()
        if len(runs) != 1:
            raise LogError(
                f"{self.file} holds one run, and {len(runs)} were made",
                hint="give the compiler what cassette.parts says, and each run a cassette",
            )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        export_run(self._store, runs[0].run, self.file)


class _PlaybackModel:
    """Answers each recorded request with what was answered then."""

    def __init__(self, recording: Recording, misses: list[str]) -> None:
        self.name = next(iter(recording.started.models.values()), "cassette")
        self._misses = misses
        self._answers: dict[str, deque[_Answer]] = defaultdict(deque)
        self._asked: list[str] = []
        answers: dict[str, _Answer] = {}
        for event in recording.events:
            match event:
                case ModelStarted():
                    answer = answers[event.call] = _Answer()
                    key = _key(event.request)
                    self._asked.append(key)
                    self._answers[key].append(answer)
                case ModelText():
                    answers[event.call].pieces.append(event.text)
                case ModelFinished() | ModelFailed():
                    answers[event.call].end = event

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """See ``ChatModel.stream``."""
        key = _key(request_to_json(request))
        if not self._answers[key]:
            raise self._miss(key)
        answer = self._answers[key].popleft()
        for piece in answer.pieces:
            await asyncio.sleep(0)
            yield piece
        match answer.end:
            case ModelFinished() as end if end.finish != "cut":
                yield completion_of(end, "".join(answer.pieces), self.name)
            case ModelFailed(failure=failure):
                raise ModelError(failure.message, hint=failure.hint)
            case _:
                raise self._noted("the rest of an answer of the model that was cut short then")

    async def aclose(self) -> None:
        """Nothing is held."""

    def _miss(self, key: str) -> CassetteMiss:
        closest = max(self._asked, key=lambda one: _common(one, key), default="")
        at = max(_common(closest, key) - 40, 0)
        return self._noted(
            f"a model's answer to …{key[at : at + 200]}…\n"
            f"  the closest recorded request has …{closest[at : at + 200]}…"
        )

    def _noted(self, what: str) -> CassetteMiss:
        self._misses.append(what)
        return CassetteMiss(f"the cassette does not hold {what}")


class _Answer:
    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.end: ModelFinished | ModelFailed | None = None


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _key(data: Any) -> str:
    return json.dumps(to_jsonable_python(data), sort_keys=True, ensure_ascii=False)


class _PlaybackExecutor:
    """Gives each recorded call the result that it had then, and calls nothing."""

    def __init__(self, recording: Recording, tools: Mapping[str, Tool], misses: list[str]) -> None:
        self._misses = misses
        self._ends: dict[tuple[str, str], deque[TaskFinished | TaskFailed]] = defaultdict(deque)
        for name, arguments, end in _calls(recording):
            if name in tools:
                try:
                    bound = tools[name].bind((), arguments)
                except ToolError:
                    continue  # the tool takes other arguments now; asking for them is a miss
                self._ends[name, _key(bound)].append(end)

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """See ``Executor.submit``."""
        return asyncio.get_running_loop().create_task(self._play(call), name=call.context.key)

    async def _play(self, call: ToolCall) -> Any:
        arguments = _key(call.arguments)
        ends = self._ends[call.tool.name, arguments]
        if not ends:
            what = f"a result of {call.tool.name} for {arguments}"
            self._misses.append(what)
            raise CassetteMiss(f"the cassette does not hold {what}")
        # The last one stays for further calls alike: what a tool gives twice may be asked thrice.
        end = ends.popleft() if len(ends) > 1 else ends[0]
        if isinstance(end, TaskFailed):
            raise _failed(end.failure)
        return end.value

    async def aclose(self) -> None:
        """Nothing is held."""


def _failed(failure: Failure) -> Exception:
    """An exception that is described by the same type, message and hint as the recorded one."""
    kind = type(failure.type, (ToolError,), {})
    error: Exception = kind(failure.message, hint=failure.hint)
    return error


def _calls(
    recording: Recording,
) -> Iterator[tuple[str, dict[str, Any], TaskFinished | TaskFailed]]:
    tools: dict[int, str] = {}
    started: dict[tuple[int, tuple[int, ...]], dict[str, Any]] = {}
    for event in recording.events:
        match event:
            case TaskPlanned():
                tools[event.id] = event.task["tool"]
            case TaskStarted():
                started[event.task, event.index] = event.arguments
            case TaskFinished() | TaskFailed():
                place = event.task, event.index
                if place in started:  # a fan-out as a whole is no call
                    yield tools[event.task], started[place], event
