"""OpenTelemetry: spans and metrics of runs, made from their events.

Spans follow the semantic conventions for generative AI: a run is ``invoke_agent``, each of its
plans ``plan``, each task ``execute_tool``, a task's reasoning branch ``invoke_workflow`` below it,
each model call ``chat``. Names that the conventions lack begin with ``llmcompiler.``.

A plan's span begins with the planner's first token and ends with the plan's last task. A replan is
a second span beside it. Tasks and calls of the planner are its children.

While a tool runs, async or in a thread, the span of its call is the current one. So spans of other
libraries that the tool uses become its children. Prompts, arguments and results are recorded only
on request. Exporters, sampling and resources are those of the user's providers.

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
_AGENT = "llmcompiler"


class Telemetry:
    """Makes spans and metrics of runs. One object serves many runs at once.

        telemetry = Telemetry()
        compiler = LLMCompiler(tools, executor=telemetry.executor(LocalExecutor()))
        await compiler.run(question, on_event=telemetry.listener())

    Args:
        tracer_provider: makes the spans; the global one where not given.
        meter_provider: makes the metrics; the global one where not given.
        content: record prompts, answers, arguments and results too. They may hold secrets.
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
        self.instruments = _Instruments(metrics.get_meter(_SCOPE, VERSION, meter_provider), prices)
        self._calls: dict[str, Context] = {}

    def listener(self) -> _RunTrace:
        """The ``on_event`` of one run. Its spans become children of the current span."""
        return _RunTrace(self, self._calls)

    def executor(self, inner: Executor) -> Executor:
        """An executor that makes each call's span the current one, and passes the call on."""
        return _TracingExecutor(inner, self._calls)


class _TracingExecutor:
    """Submits each call to another executor, in the context of the call's span."""

    def __init__(self, inner: Executor, contexts: dict[str, Context]) -> None:
        self._inner = inner
        self._contexts = contexts

    def submit(self, call: ToolCall) -> asyncio.Future[Any]:
        """See ``Executor.submit``."""
        from opentelemetry import context

        span = self._contexts.get(call.context.key)
        if span is None:
            return self._inner.submit(call)
        # The task or thread of the call starts here, and copies the current context.
        token = context.attach(span)
        try:
            return self._inner.submit(call)
        finally:
            context.detach(token)

    async def aclose(self) -> None:
        """See ``Executor.aclose``."""
        await self._inner.aclose()


class _Instruments:
    """The instruments of all metrics; ``docs/telemetry.md`` lists them."""

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
        self._instruments = telemetry.instruments
        self._contexts = contexts
        self._outer_context = context.get_current()
        self._start_ns = 0
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
        """Record the next event."""
        match event:
            case ModelStarted() | ModelText() | ModelFinished() | ModelFailed():
                self._apply_model_event(event)
            case BranchStarted() | BranchStopped() | BranchFinished():
                self._apply_branch_event(event)
            case RunStarted():
                self._start_run(event)
            case RunResumed() | LimitHit():
                self._note(event)
            case RunFinished():
                self._end_run(event)
            case PlanStarted():
                self._start_plan(event)
            case PlanDiagnosed():
                attributes = {"llmcompiler.diagnostic.code": event.code}
                self._plans[event.plan].add_event(
                    "llmcompiler.diagnostic", attributes, self._epoch_ns(event.at)
                )
            case PlanFinished():
                self._plans[event.plan].set_attribute("llmcompiler.plan.tasks", event.tasks)
            case TaskPlanned():
                self._tasks[event.id] = event
                self._ready[event.id] = event.at
            case MapOpened() | TaskStarted():
                self._start_task(event)
            case TaskRetried():
                span = self._spans[event.task, event.index]
                span.add_event(
                    "llmcompiler.retry",
                    {"error.type": event.failure.type, "llmcompiler.retry.delay": event.delay},
                    self._epoch_ns(event.at),
                )
            case TaskFinished() | TaskFailed() | TaskSkipped() | TaskCancelled():
                self._end_task(event)

    def _apply_model_event(
        self, event: ModelStarted | ModelText | ModelFinished | ModelFailed
    ) -> None:
        match event:
            case ModelStarted():
                self._start_model(event)
            case ModelText():
                self._add_text(event)
            case _:
                self._end_model(event)

    def _apply_branch_event(self, event: BranchStarted | BranchStopped | BranchFinished) -> None:
        match event:
            case BranchStarted():
                self._start_branch(event)
            case BranchStopped():
                self._branches[event.task, event.index].add_event(
                    "llmcompiler.limit",
                    {"llmcompiler.limit": event.limit},
                    self._epoch_ns(event.at),
                )
            case _:
                self._branches.pop((event.task, event.index)).end(self._epoch_ns(event.at))

    def _epoch_ns(self, at: float) -> int:
        """Nanoseconds since the epoch, from seconds since the run began."""
        return self._start_ns + int(at * 1e9)

    def _context_of(self, parent: Span | None) -> Context:
        """The context in which a span becomes a child of ``parent``; ``None`` for the run's own."""
        from opentelemetry.trace import set_span_in_context

        return (
            self._outer_context
            if parent is None
            else set_span_in_context(parent, self._outer_context)
        )

    def _start_span(
        self,
        name: str,
        parent: Span | None,
        at: float,
        attributes: dict[str, Any],
        *,
        remote: bool = False,
    ) -> Span:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(
            name,
            self._context_of(parent),
            kind=SpanKind.CLIENT if remote else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=self._epoch_ns(at),
        )

    # The run and its plans.

    def _start_run(self, event: RunStarted) -> None:
        self._start_ns = time.time_ns() - int(event.at * 1e9)
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": _AGENT,
            "llmcompiler.run.id": event.run,
        }
        if self._telemetry.content and event.question is not None:
            attributes["gen_ai.input.messages"] = _messages("user", event.question)
        self._run = self._start_span(f"invoke_agent {_AGENT}", None, event.at, attributes)

    def _note(self, event: RunResumed | LimitHit) -> None:
        if self._run is not None:
            name = "llmcompiler.resume" if isinstance(event, RunResumed) else "llmcompiler.limit"
            attributes = {"llmcompiler.limit": event.limit} if isinstance(event, LimitHit) else {}
            self._run.add_event(name, attributes, self._epoch_ns(event.at))

    def _end_run(self, event: RunFinished) -> None:
        at = self._epoch_ns(event.at)
        # A stopped run leaves calls in progress; their spans end with the run.
        for span, *_ in self._models.values():
            span.end(at)
        for span in [*self._branches.values(), *self._spans.values()]:
            span.end(at)
        if self._plans:
            self._plans[max(self._plans)].end(at)  # each earlier plan ended when the next began
        for key in self._keys.values():
            self._contexts.pop(key, None)
        assert self._run is not None
        self._run.set_attribute("llmcompiler.run.status", event.status)
        if self._telemetry.content and event.answer is not None:
            self._run.set_attribute("gen_ai.output.messages", _messages("assistant", event.answer))
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": _AGENT}
        if event.failure is not None:
            _mark_failed(self._run, event.failure)
            attributes["error.type"] = event.failure.type
        self._run.end(at)
        self._instruments.run.record(event.at, attributes, self._context_of(self._run))

    def _start_plan(self, event: PlanStarted) -> None:
        if previous := self._plans.get(event.plan - 1):
            previous.end(self._epoch_ns(event.at))
        attributes = {
            "gen_ai.operation.name": "plan",
            "gen_ai.agent.name": _AGENT,
            "llmcompiler.plan.number": event.plan,
        }
        self._plans[event.plan] = self._start_span(
            f"plan {_AGENT}", self._run, event.at, attributes
        )

    # Model calls.

    def _start_model(self, event: ModelStarted) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": event.model,
            "gen_ai.request.stream": True,
            "llmcompiler.call.id": event.call,
            "llmcompiler.call.role": event.role,
        }
        for name in ("temperature", "max_tokens", "top_p", "seed"):
            if (value := event.request.get(name)) is not None:
                attributes[f"gen_ai.request.{name}"] = value
        if self._telemetry.content:
            parts = [
                {
                    "role": message["role"],
                    "parts": [{"type": "text", "content": message["content"]}],
                }
                for message in event.request.get("messages", ())
            ]
            attributes["gen_ai.input.messages"] = json.dumps(parts, ensure_ascii=False)
        span = self._start_span(
            f"chat {event.model}", self._caller_span(event), event.at, attributes, remote=True
        )
        self._models[event.call] = span, event.model, "", event.at
        self._waits_for_text[event.call] = event.at

    def _caller_span(self, event: ModelStarted) -> Span | None:
        """The span that a model call is a child of: its plan, its branch, or the run."""
        if event.role == "planner":
            return self._plans[max(self._plans)]
        if event.role == "branch":
            # ``4/0``, or ``4[2]/0`` for an element of a fan-out.
            task, *index = map(int, re.findall(r"\d+", event.call.partition("/")[0]))
            return self._branches.get((task, tuple(index)), self._run)
        return self._run

    def _start_branch(self, event: BranchStarted) -> None:
        call = event.task, event.index
        attributes = {
            "gen_ai.operation.name": "invoke_workflow",
            "gen_ai.agent.name": event.strategy,
            "llmcompiler.task.id": event.task,
        }
        name = f"invoke_workflow {event.strategy}"
        self._branches[call] = self._start_span(name, self._spans.get(call), event.at, attributes)

    def _add_text(self, event: ModelText) -> None:
        span, model, text, started_at = self._models[event.call]
        if self._telemetry.content:
            self._models[event.call] = span, model, text + event.text, started_at
        requested_at = self._waits_for_text.pop(event.call, None)
        if requested_at is not None:
            waited = event.at - requested_at
            span.set_attribute("gen_ai.response.time_to_first_chunk", waited)
            attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model}
            self._instruments.first.record(waited, attributes, self._context_of(span))

    def _end_model(self, event: ModelFinished | ModelFailed) -> None:
        span, model, text, started_at = self._models.pop(event.call)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
        }
        context = self._context_of(span)
        if isinstance(event, ModelFinished):
            self._record_usage(event, span, attributes, context)
            if self._telemetry.content:
                span.set_attribute(
                    "gen_ai.output.messages", _messages("assistant", text, event.finish)
                )
        else:
            _mark_failed(span, event.failure)
            attributes["error.type"] = event.failure.type
        self._instruments.model.record(event.at - started_at, attributes, context)
        span.end(self._epoch_ns(event.at))

    def _record_usage(
        self, event: ModelFinished, span: Span, attributes: dict[str, Any], context: Context
    ) -> None:
        span.set_attributes(
            {
                "gen_ai.response.finish_reasons": (event.finish,),
                "gen_ai.usage.input_tokens": event.prompt_tokens,
                "gen_ai.usage.output_tokens": event.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": event.cached_tokens,
            }
        )
        if event.reasoning_tokens:
            span.set_attribute("gen_ai.usage.reasoning.output_tokens", event.reasoning_tokens)
        for kind, tokens in (("input", event.prompt_tokens), ("output", event.completion_tokens)):
            self._instruments.tokens.record(
                tokens, {**attributes, "gen_ai.token.type": kind}, context
            )
        usage = Usage(event.prompt_tokens, event.cached_tokens, event.completion_tokens, 1)
        model = str(attributes["gen_ai.request.model"])
        try:
            cost = self._instruments.prices.cost(model, usage)
        except UsageError:
            return
        span.set_attribute("llmcompiler.cost.usd", cost)
        self._instruments.cost.record(cost, attributes, context)

    # Tasks.

    def _start_task(self, event: TaskStarted | MapOpened) -> None:
        index = event.index if isinstance(event, TaskStarted) else ()
        call = event.task, index
        if call in self._spans:
            return  # another attempt of the same call
        task = self._tasks[event.task]
        # The span of an element is a child of its fan-out's span.
        parent = self._spans.get((event.task, ())) if index else None
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": task.task["tool"],
            "gen_ai.tool.type": "function",
            "llmcompiler.task.id": event.task,
        }
        if isinstance(event, MapOpened):
            attributes["llmcompiler.task.elements"] = event.extent
        else:
            attributes["gen_ai.tool.call.id"] = event.key
            if self._telemetry.content:
                attributes["gen_ai.tool.call.arguments"] = _json(event.arguments)
        name = f"execute_tool {task.task['tool']}"
        span = self._start_span(name, parent or self._plans[task.plan], event.at, attributes)
        self._spans[call] = span
        if isinstance(event, TaskStarted):
            self._keys[call] = event.key
            self._contexts[event.key] = self._context_of(span)
        if not index:
            inputs = [self._ended.get(dependency, 0.0) for dependency in task.dependencies]
            waited = event.at - max([self._ready[event.task], *inputs])
            span.set_attribute("llmcompiler.task.queue.seconds", waited)
            self._instruments.queue.record(
                waited, {"gen_ai.tool.name": task.task["tool"]}, self._context_of(span)
            )

    def _end_task(self, event: TaskFinished | TaskFailed | TaskSkipped | TaskCancelled) -> None:
        call = event.task, event.index
        if not event.index:
            self._ended[event.task] = event.at
        if (key := self._keys.pop(call, None)) is not None:
            self._contexts.pop(key, None)
        if (branch := self._branches.pop(call, None)) is not None:
            branch.end(self._epoch_ns(event.at))
        span = self._spans.pop(call, None)
        if span is None:
            return  # the task never started
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": self._tasks[event.task].task["tool"],
        }
        match event:
            case TaskFinished():
                if event.cached:
                    span.set_attribute("llmcompiler.task.cached", value=True)
                if self._telemetry.content:
                    span.set_attribute("gen_ai.tool.call.result", _json(event.value))
                self._instruments.tool.record(event.seconds, attributes, self._context_of(span))
            case TaskFailed():
                _mark_failed(span, event.failure)
                attributes["error.type"] = event.failure.type
                self._instruments.tool.record(event.seconds, attributes, self._context_of(span))
            case TaskCancelled():
                _mark_failed(span, Failure("limit", "cancelled", event.reason))
        span.end(self._epoch_ns(event.at))


def _mark_failed(span: Span, failure: Failure) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", failure.type)
    # The type only: a message may quote arguments, which are recorded only on request.
    span.set_status(Status(StatusCode.ERROR))


def _messages(role: str, text: str, finish: str | None = None) -> str:
    message: dict[str, Any] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if finish is not None:
        message["finish_reason"] = finish
    return json.dumps([message], ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
