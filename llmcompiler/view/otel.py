"""OpenTelemetry: spans and metrics of runs, made from their events.

Spans follow the semantic conventions for generative AI: a run is ``invoke_agent``, each of its
plans ``plan``, each task ``execute_tool``, a task's reasoning branch ``invoke_workflow`` below it,
each model call ``chat``.
A plan's span lasts from the planner's first word to the end of the tasks it planned, so that a
replan is a second one beside it; tasks and the planner's calls are its children. What the
conventions have no name for is under ``llmcompiler.``.

The context of a call's span is the current one inside the tool, async or in a thread, so that what
the tool does with other libraries hangs below it. Prompts, arguments and results are recorded only
if asked for. Exporters, sampling and resources are those of the user's providers.

Conventions: https://github.com/open-telemetry/semantic-conventions-genai (in development).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import Failure, UsageError
from llmcompiler.events import (
    BranchFinished,
    BranchStarted,
    BranchStopped,
    Event,
    LimitHit,
    MapOpened,
    ModelFailed,
    ModelFinished,
    ModelStarted,
    ModelText,
    PlanDiagnosed,
    PlanFinished,
    PlanStarted,
    RunFinished,
    RunResumed,
    RunStarted,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskPlanned,
    TaskRetried,
    TaskSkipped,
    TaskStarted,
)
from llmcompiler.executors.base import Executor, ToolCall
from llmcompiler.llm.base import Usage
from llmcompiler.llm.prices import Prices
from llmcompiler.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

_SCOPE = "llmcompiler"
_NAME = "llmcompiler"


class Telemetry:
    """Makes spans and metrics of runs; one serves many runs at once.

        telemetry = Telemetry()
        compiler = LLMCompiler(tools, executor=telemetry.executor(LocalExecutor()))
        await compiler.run(question, on_event=telemetry.listener())

    Args:
        tracer_provider: makes the spans; the global one where not given.
        meter_provider: makes the metrics; the global one where not given.
        content: whether prompts, answers, arguments and results are recorded too. They may hold
            what must not leave the program.
        prices: of models, for the cost of calls; ``genai-prices`` where not given.

    Raises:
        UsageError: the extra ``otel`` is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        content: bool = False,
        prices: Prices | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise UsageError(
                "OpenTelemetry is not installed",
                hint="install the extra: pip install 'llmcompiler-dag[otel]'",
            ) from error
        self.content = content
        self.tracer: Tracer = trace.get_tracer(_SCOPE, VERSION, tracer_provider)
        self.meters = _Meters(metrics.get_meter(_SCOPE, VERSION, meter_provider), prices)
        self._calls: dict[str, Context] = {}

    def listener(self) -> _RunTrace:
        """What is given as ``on_event`` of one run; its spans are children of the current one."""
        return _RunTrace(self, self._calls)

    def executor(self, inner: Executor) -> Executor:
        """An executor that runs each call in the context of its span, by means of another."""
        return _InContext(inner, self._calls)


class _InContext:
    """Runs calls in the contexts of their spans."""

    def __init__(self, inner: Executor, contexts: dict[str, Context]) -> None:
        self._inner = inner
        self._contexts = contexts

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """See ``Executor.submit``."""
        from opentelemetry import context

        span = self._contexts.get(call.context.key)
        if span is None:
            return self._inner.submit(call)
        # Whatever serves the call is started here, and takes a copy of what is current.
        token = context.attach(span)
        try:
            return self._inner.submit(call)
        finally:
            context.detach(token)

    async def aclose(self) -> None:
        """See ``Executor.aclose``."""
        await self._inner.aclose()


class _Meters:
    """What is measured: see ``docs/telemetry.md``."""

    def __init__(self, meter: Any, prices: Prices | None) -> None:
        def seconds(name: str, description: str) -> Histogram:
            histogram: Histogram = meter.create_histogram(name, "s", description)
            return histogram

        self.run = seconds("gen_ai.invoke_agent.duration", "How long runs take.")
        self.tool = seconds("gen_ai.execute_tool.duration", "How long calls of tools take.")
        self.model = seconds("gen_ai.client.operation.duration", "How long model calls take.")
        self.first = seconds(
            "gen_ai.client.operation.time_to_first_chunk", "From the request to the first text."
        )
        self.queue = seconds(
            "llmcompiler.task.queue.duration", "From a task's inputs being there to its start."
        )
        self.tokens: Histogram = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of model calls."
        )
        self.cost: Histogram = meter.create_histogram(
            "llmcompiler.cost", "{USD}", "Cost of model calls whose price is known."
        )
        self.prices = prices or Prices()


class _RunTrace:
    """The spans of one run."""

    def __init__(self, telemetry: Telemetry, contexts: dict[str, Context]) -> None:
        from opentelemetry import context

        self._telemetry = telemetry
        self._tracer = telemetry.tracer
        self._meters = telemetry.meters
        self._contexts = contexts
        self._outside = context.get_current()
        self._began = 0
        self._run: Span | None = None
        self._plans: dict[int, Span] = {}
        self._models: dict[str, tuple[Span, str, str, float]] = {}
        self._waits_for_text: dict[str, float] = {}
        self._tasks: dict[int, TaskPlanned] = {}
        self._ready: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._spans: dict[tuple[int, tuple[int, ...]], Span] = {}
        self._branches: dict[tuple[int, tuple[int, ...]], Span] = {}
        self._keys: dict[tuple[int, tuple[int, ...]], str] = {}

    def __call__(self, event: Event) -> None:
        """Take in the next event."""
        match event:
            case RunStarted():
                self._start_run(event)
            case RunResumed() | LimitHit():
                self._note(event)
            case RunFinished():
                self._end_run(event)
            case PlanStarted():
                self._start_plan(event)
            case PlanDiagnosed():
                plan = self._plans[event.plan]
                said = {"llmcompiler.diagnostic.code": event.code}
                plan.add_event("llmcompiler.diagnostic", said, self._when(event.at))
            case PlanFinished():
                self._plans[event.plan].set_attribute("llmcompiler.plan.tasks", event.tasks)
            case ModelStarted():
                self._start_model(event)
            case ModelText():
                self._first_text(event)
            case ModelFinished() | ModelFailed():
                self._end_model(event)
            case TaskPlanned():
                self._tasks[event.id] = event
                self._ready[event.id] = event.at
            case MapOpened() | TaskStarted():
                self._start_task(event)
            case BranchStarted():
                self._start_branch(event)
            case BranchStopped():
                said = {"llmcompiler.limit": event.limit}
                branch = self._branches[event.task, event.index]
                branch.add_event("llmcompiler.limit", said, self._when(event.at))
            case BranchFinished():
                self._branches.pop((event.task, event.index)).end(self._when(event.at))
            case TaskRetried():
                span = self._spans[event.task, event.index]
                span.add_event(
                    "llmcompiler.retry",
                    {"error.type": event.failure.type, "llmcompiler.retry.delay": event.delay},
                    self._when(event.at),
                )
            case TaskFinished() | TaskFailed() | TaskSkipped() | TaskCancelled():
                self._end_task(event)

    def _when(self, at: float) -> int:
        """Nanoseconds since the epoch, from seconds since the run began."""
        return self._began + int(at * 1e9)

    def _below(self, parent: Span | None) -> Context:
        from opentelemetry.trace import set_span_in_context

        return self._outside if parent is None else set_span_in_context(parent, self._outside)

    def _open(
        self,
        name: str,
        parent: Span | None,
        at: float,
        said: dict[str, Any],
        *,
        remote: bool = False,
    ) -> Span:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(
            name,
            self._below(parent),
            kind=SpanKind.CLIENT if remote else SpanKind.INTERNAL,
            attributes=said,
            start_time=self._when(at),
        )

    # The run and its plans.

    def _start_run(self, event: RunStarted) -> None:
        self._began = time.time_ns() - int(event.at * 1e9)
        said = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": _NAME,
            "llmcompiler.run.id": event.run,
        }
        if self._telemetry.content and event.question is not None:
            said["gen_ai.input.messages"] = _messages("user", event.question)
        self._run = self._open(f"invoke_agent {_NAME}", None, event.at, said)

    def _note(self, event: RunResumed | LimitHit) -> None:
        if self._run is not None:
            name = "llmcompiler.resume" if isinstance(event, RunResumed) else "llmcompiler.limit"
            said = {"llmcompiler.limit": event.limit} if isinstance(event, LimitHit) else {}
            self._run.add_event(name, said, self._when(event.at))

    def _end_run(self, event: RunFinished) -> None:
        at = self._when(event.at)
        # What was under way when the run was stopped ends with it.
        for span in [one[0] for one in self._models.values()]:
            span.end(at)
        for span in [*self._branches.values(), *self._spans.values()]:
            span.end(at)
        if self._plans:
            self._plans[max(self._plans)].end(at)  # those before ended where it began
        for key in self._keys.values():
            self._contexts.pop(key, None)
        assert self._run is not None
        self._run.set_attribute("llmcompiler.run.status", event.status)
        if self._telemetry.content and event.answer is not None:
            self._run.set_attribute("gen_ai.output.messages", _messages("assistant", event.answer))
        said = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": _NAME}
        if event.failure is not None:
            _fail(self._run, event.failure)
            said["error.type"] = event.failure.type
        self._run.end(at)
        self._meters.run.record(event.at, said, self._below(self._run))

    def _start_plan(self, event: PlanStarted) -> None:
        if before := self._plans.get(event.plan - 1):
            before.end(self._when(event.at))
        said = {
            "gen_ai.operation.name": "plan",
            "gen_ai.agent.name": _NAME,
            "llmcompiler.plan.number": event.plan,
        }
        self._plans[event.plan] = self._open(f"plan {_NAME}", self._run, event.at, said)

    # Model calls.

    def _start_model(self, event: ModelStarted) -> None:
        said: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": event.model,
            "gen_ai.request.stream": True,
            "llmcompiler.call.id": event.call,
            "llmcompiler.call.role": event.role,
        }
        for name in ("temperature", "max_tokens", "top_p", "seed"):
            if (value := event.request.get(name)) is not None:
                said[f"gen_ai.request.{name}"] = value
        if self._telemetry.content:
            parts = [
                {"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]}
                for one in event.request.get("messages", ())
            ]
            said["gen_ai.input.messages"] = json.dumps(parts, ensure_ascii=False)
        span = self._open(f"chat {event.model}", self._asker(event), event.at, said, remote=True)
        self._models[event.call] = span, event.model, "", event.at
        self._waits_for_text[event.call] = event.at

    def _asker(self, event: ModelStarted) -> Span | None:
        """The span below which a model call belongs: its plan, its task, or the run."""
        if event.role == "planner":
            return self._plans[max(self._plans)]
        if event.role == "branch":
            # ``4/0``, or ``4[2]/0`` for an element of a fan-out.
            task, *index = map(int, re.findall(r"\d+", event.call.partition("/")[0]))
            return self._branches.get((task, tuple(index)), self._run)
        return self._run

    def _start_branch(self, event: BranchStarted) -> None:
        place = event.task, event.index
        said = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.agent.name": event.strategy,
            "llmcompiler.task.id": event.task,
        }
        name = f"invoke_workflow {event.strategy}"
        self._branches[place] = self._open(name, self._spans.get(place), event.at, said)

    def _first_text(self, event: ModelText) -> None:
        span, model, text, began = self._models[event.call]
        if self._telemetry.content:
            self._models[event.call] = span, model, text + event.text, began
        asked = self._waits_for_text.pop(event.call, None)
        if asked is not None:
            waited = event.at - asked
            span.set_attribute("gen_ai.response.time_to_first_chunk", waited)
            said = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
            self._meters.first.record(waited, said, self._below(span))

    def _end_model(self, event: ModelFinished | ModelFailed) -> None:
        span, model, text, began = self._models.pop(event.call)
        said: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
        }
        where = self._below(span)
        if isinstance(event, ModelFinished):
            self._count(event, span, said, where)
            if self._telemetry.content:
                span.set_attribute(
                    "gen_ai.output.messages", _messages("assistant", text, event.finish)
                )
        else:
            _fail(span, event.failure)
            said["error.type"] = event.failure.type
        self._meters.model.record(event.at - began, said, where)
        span.end(self._when(event.at))

    def _count(
        self, event: ModelFinished, span: Span, said: dict[str, Any], where: Context
    ) -> None:
        span.set_attributes(
            {
                "gen_ai.response.finish_reasons": (event.finish,),
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": event.cached_tokens,
            }
        )
        for kind, tokens in (("input", event.prompt_tokens), ("output", event.completion_tokens)):
            self._meters.tokens.record(tokens, {**said, "gen_ai.token.type": kind}, where)
        usage = Usage(event.prompt_tokens, event.cached_tokens, event.completion_tokens, 1)
        model = str(said["gen_ai.request.model"])
        try:
            cost = self._meters.prices.cost(model, usage)
        except UsageError:
            return
        span.set_attribute("llmcompiler.cost.usd", cost)
        self._meters.cost.record(cost, said, where)

    # Tasks.

    def _start_task(self, event: TaskStarted | MapOpened) -> None:
        index = event.index if isinstance(event, TaskStarted) else ()
        place = event.task, index
        if place in self._spans:
            return  # another attempt of the same call
        task = self._tasks[event.task]
        # An element of a fan-out hangs below the whole.
        parent = self._spans.get((event.task, ())) if index else None
        said: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": task.task["tool"],
            "gen_ai.tool.type": "function",
            "llmcompiler.task.id": event.task,
        }
        if isinstance(event, MapOpened):
            said["llmcompiler.task.elements"] = event.extent
        else:
            said["gen_ai.tool.call.id"] = event.key
            if self._telemetry.content:
                said["gen_ai.tool.call.arguments"] = _json(event.arguments)
        name = f"execute_tool {task.task['tool']}"
        span = self._open(name, parent or self._plans[task.plan], event.at, said)
        self._spans[place] = span
        if isinstance(event, TaskStarted):
            self._keys[place] = event.key
            self._contexts[event.key] = self._below(span)
        if not index:
            inputs = [self._ended.get(one, 0.0) for one in task.dependencies]
            waited = event.at - max([self._ready[event.task], *inputs])
            span.set_attribute("llmcompiler.task.queue.seconds", waited)
            self._meters.queue.record(
                waited, {"gen_ai.tool.name": task.task["tool"]}, self._below(span)
            )

    def _end_task(self, event: TaskFinished | TaskFailed | TaskSkipped | TaskCancelled) -> None:
        place = event.task, event.index
        if not event.index:
            self._ended[event.task] = event.at
        if (key := self._keys.pop(place, None)) is not None:
            self._contexts.pop(key, None)
        if (branch := self._branches.pop(place, None)) is not None:
            branch.end(self._when(event.at))
        span = self._spans.pop(place, None)
        if span is None:
            return  # it never started
        said: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": self._tasks[event.task].task["tool"],
        }
        match event:
            case TaskFinished():
                if event.cached:
                    span.set_attribute("llmcompiler.task.cached", value=True)
                if self._telemetry.content:
                    span.set_attribute("gen_ai.tool.call.result", _json(event.value))
                self._meters.tool.record(event.seconds, said, self._below(span))
            case TaskFailed():
                _fail(span, event.failure)
                said["error.type"] = event.failure.type
                self._meters.tool.record(event.seconds, said, self._below(span))
            case TaskCancelled():
                _fail(span, Failure("limit", "cancelled", event.reason))
        span.end(self._when(event.at))


def _fail(span: Span, failure: Failure) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", failure.type)
    # The message may quote arguments, which are recorded only on request; the type never does.
    span.set_status(Status(StatusCode.ERROR))


def _messages(role: str, text: str, finish: str | None = None) -> str:
    message: dict[str, Any] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if finish is not None:
        message["finish_reason"] = finish
    return json.dumps([message], ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
