"""Cassettes: an exported run stands in for models and tools in the tests of an application.

The application's own compiler runs, with its own tool schemas and prompts: it plans, checks, binds
and joins as usual. Only what comes from outside is played back: a model's text for the request that
was recorded, a tool's result for the arguments that were recorded. Anything else raises
``CassetteMiss``; no model or tool is ever called.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypedDict

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import Failure, LogError, ModelError, ToolError
from llmcompiler.events import ModelFailed, ModelFinished, Outcome, RunFinished, TaskFailed
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.history.decisions import DivergenceError
from llmcompiler.history.run_history import RunHistory, json_key
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.pool import ModelSpec
from llmcompiler.log.export import export_run, read_run
from llmcompiler.log.store import RunStore
from llmcompiler.prompting.profile import Profiles
from llmcompiler.run.result import RunResult
from llmcompiler.runtime.model_calls import completion_of, request_to_json
from llmcompiler.settings.servers import load_tools
from llmcompiler.tools.base import Tool
from llmcompiler.tools.loading import ToolSource


class CassetteMiss(AssertionError):
    """A model or tool was asked for something that the cassette does not hold."""


class CompilerOptions(TypedDict, total=False):
    """Those arguments of ``LLMCompiler`` that a cassette decides."""

    tools: Mapping[str, Tool]
    model: ModelSpec
    executor: Executor
    store: RunStore
    profile: Profiles
    today: Callable[[], date]


class Cassette:
    """One recorded run, to be played back or recorded again.

    Args:
        file: written by ``llmcompiler export``, or by a recording.
        record: True to call real models and tools, and write the run to the file in ``finish``.

    Attributes:
        misses: what was asked for and is not in the file.

    Raises:
        LogError: the file is missing or damaged, or its values are redacted.
    """

    def __init__(self, file: str | os.PathLike[str], *, record: bool = False) -> None:
        self.file = Path(file)
        self.record = record
        self.misses: list[str] = []
        self._store = RunStore(":memory:")
        self._history: RunHistory | None = None
        if self.file.exists() or not record:
            exported = read_run(self.file)
            if exported.redacted and not record:
                raise LogError(
                    f"{file} is redacted, so it has no values to play back",
                    hint="export the run without redaction, or record it anew",
                )
            self._history = RunHistory(exported.run, exported.events)

    def parts(
        self, tools: ToolSource | Sequence[ToolSource], model: ModelSpec = "local"
    ) -> CompilerOptions:
        """Arguments for ``LLMCompiler``, for an application that makes its own compiler.

        Args:
            tools: those of the application; playing back uses only their schemas.
            model: asked when recording.
        """
        loaded = load_tools(tools)
        if self.record:
            return CompilerOptions(tools=loaded, model=model, store=self._store)
        assert self._history is not None
        options = CompilerOptions(
            tools=loaded,
            model=_PlaybackModel(self._history, self.misses),
            executor=_PlaybackExecutor(self._history, loaded, self.misses),
            store=self._store,
            profile=self._history.profiles(),
        )
        if day := self._history.start.today:
            options["today"] = lambda: date.fromisoformat(day)
        return options

    def compiler(
        self,
        tools: ToolSource | Sequence[ToolSource],
        model: ModelSpec = "local",
        **options: Any,
    ) -> LLMCompiler:
        """A compiler whose models and tools the cassette stands in for.

        Args:
            tools: as in ``parts``.
            model: as in ``parts``.
            options: further arguments of ``LLMCompiler``, such as ``limits`` or ``prompts``.
        """
        return LLMCompiler(**self.parts(tools, model), **options)  # type: ignore[arg-type]

    def replay(
        self,
        tools: ToolSource | Sequence[ToolSource],
        model: ModelSpec = "local",
        **options: Any,
    ) -> RunResult:
        """Run the recorded question or plan again, and compare the end.

        Args:
            tools: as in ``parts``.
            model: as in ``parts``.
            options: as in ``compiler``.

        Raises:
            CassetteMiss: something was asked for that the cassette does not hold.
            DivergenceError: the run ended differently.
            LogError: there is no recorded run yet.
        """
        if self._history is None:
            raise LogError(
                f"{self.file} is not there, so it is not known what to ask",
                hint="record it with compiler(…) and a question",
            )
        start, end = self._history.start, self._history.end
        saved_plan = self._history.saved_plan()
        compiler = self.compiler(tools, model, **options)
        if saved_plan is not None:
            result = compiler.execute_sync(saved_plan, start.inputs)
        else:
            assert start.question is not None
            result = compiler.run_sync(start.question)
        if not self.record:
            self.check()
            if end is not None:
                _compare_end(end, result)
        return result

    def check(self) -> None:
        """Fail if anything was asked for that the cassette does not hold.

        Raises:
            CassetteMiss: names every miss.
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


def _compare_end(finished: RunFinished, result: RunResult) -> None:
    for field in ("status", "answer", "value"):
        recorded, derived = getattr(finished, field), getattr(result, field)
        if recorded != derived:
            raise DivergenceError("run", field, recorded, derived)


class _PlaybackModel:
    """Gives the recorded completion of each recorded request.

    Args:
        history: the recorded run.
        misses: takes in what was asked for and is not recorded.
    """

    def __init__(self, history: RunHistory, misses: list[str]) -> None:
        self.name = next(iter(history.start.models.values()), "cassette")
        self._misses = misses
        self._unplayed = {
            request: deque(history.completions[call] for call in calls)
            for request, calls in history.calls_by_request.items()
        }

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        """See ``ChatModel.stream``."""
        key = json_key(request_to_json(request))
        if not self._unplayed.get(key):
            raise self._miss_of_request(key)
        completion = self._unplayed[key].popleft()
        for piece in completion.pieces:
            await asyncio.sleep(0)
            yield piece
        match completion.end:
            case ModelFinished() as end if end.finish != "cut":
                yield completion_of(end, "".join(completion.pieces), self.name)
            case ModelFailed(failure=failure):
                raise ModelError(failure.message, hint=failure.hint)
            case _:
                raise self._miss("the rest of an answer of the model that was cut short then")

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""

    def _miss_of_request(self, key: str) -> CassetteMiss:
        closest = max(
            self._unplayed, key=lambda recorded: _common_length(recorded, key), default=""
        )
        at = max(_common_length(closest, key) - 40, 0)
        return self._miss(
            f"a model's answer to …{key[at : at + 200]}…\n"
            f"  the closest recorded request has …{closest[at : at + 200]}…"
        )

    def _miss(self, request_text: str) -> CassetteMiss:
        self._misses.append(request_text)
        return CassetteMiss(f"the cassette does not hold {request_text}")


def _common_length(first: str, second: str) -> int:
    """The length of the longest common beginning of two texts."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


class _PlaybackExecutor:
    """Gives the recorded result of each recorded tool call, and calls nothing.

    Args:
        history: the recorded run.
        tools: those of the application, by name.
        misses: takes in what was asked for and is not recorded.
    """

    def __init__(self, history: RunHistory, tools: Mapping[str, Tool], misses: list[str]) -> None:
        self._misses = misses
        self._outcomes: dict[tuple[str, str], deque[Outcome]] = defaultdict(deque)
        for name, arguments, outcome in history.tool_results():
            if name in tools:
                try:
                    bound = tools[name].bind((), arguments)
                except ToolError:
                    continue  # the tool takes other arguments now, so a call of it is a miss
                self._outcomes[name, json_key(bound)].append(outcome)

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """See ``Executor.submit``."""
        return asyncio.get_running_loop().create_task(self._play(call), name=call.context.key)

    async def _play(self, call: ToolCall) -> Any:
        arguments = json_key(call.arguments)
        outcomes = self._outcomes[call.tool.name, arguments]
        if not outcomes:
            result_text = f"a result of {call.tool.name} for {arguments}"
            self._misses.append(result_text)
            raise CassetteMiss(f"the cassette does not hold {result_text}")
        # The last outcome serves further equal calls: an application may call more often now.
        outcome = outcomes.popleft() if len(outcomes) > 1 else outcomes[0]
        if isinstance(outcome, TaskFailed):
            raise _recorded_error(outcome.failure)
        return outcome.value

    async def aclose(self) -> None:
        """Do nothing: there is nothing to free."""


def _recorded_error(failure: Failure) -> Exception:
    """An exception with the type name, message and hint of the recorded one."""
    error_type = type(failure.type, (ToolError,), {})
    error: Exception = error_type(failure.message, hint=failure.hint)
    return error
