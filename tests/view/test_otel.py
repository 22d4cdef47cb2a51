"""OpenTelemetry: the spans of a run, one by one, its metrics, and the context inside tools."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llmcompiler import LLMCompiler, parse_plan, tool
from llmcompiler.executors.local import LocalExecutor
from llmcompiler.llm.prices import Price, Prices
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual
from llmcompiler.view.otel import Telemetry

SCRIPT = [
    '1. look("Japan")\n2. look("Oz")\n3. add($1.size, 1)\n4. look($1.parts[*])\n5. join()',
    json.dumps({"action": "replan", "text": "take Peru"}),
    '6. look("Peru")\n7. join($6)',
    json.dumps({"action": "answer", "text": "Five."}),
]


@tool
async def look(what: str) -> dict[str, Any]:
    """Look something up."""
    with trace.get_tracer("tool", tracer_provider=PROVIDERS[-1]).start_as_current_span("inside"):
        await asyncio.sleep(1)
    if what == "Oz":
        raise LookupError("there is no Oz")
    return {"size": len(what), "parts": ["a", "b"]}


@tool
def add(a: float, b: float) -> float:
    """Add in a thread."""
    with trace.get_tracer("tool", tracer_provider=PROVIDERS[-1]).start_as_current_span("inside"):
        return a + b


PROVIDERS: list[TracerProvider] = []


class Collector:
    """The providers of a user, with the spans and metrics that they got."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        PROVIDERS[:] = [self.provider]
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader])
        self.telemetry = Telemetry(self.provider, meters, **options)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        spans = [span for span in self.spans if span.name == name]
        return sorted(spans, key=lambda span: (span.start_time or 0, span.end_time or 0))

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def ask(collected: Collector) -> RunResult:
    async def main() -> RunResult:
        compiler = LLMCompiler(
            [look, add],
            ScriptedModel(SCRIPT),
            store=":memory:",
            executor=collected.telemetry.executor(LocalExecutor()),
        )
        return await compiler.run("How big?", on_event=collected.telemetry.listener())

    result = run_virtual(main())
    assert result.answer == "Five."
    return result


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_a_run_with_a_replan_span_by_span() -> None:
    collected = Collector()
    result = ask(collected)
    (run,) = collected.named("invoke_agent llmcompiler")
    assert (run.kind, run.parent, run.status.status_code) == (
        SpanKind.INTERNAL,
        None,
        StatusCode.UNSET,
    )
    assert attributes_of(run) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "llmcompiler",
        "llmcompiler.run.id": result.run,
        "llmcompiler.run.status": "answered",
    }
    plans = collected.named("plan llmcompiler")
    assert [attributes_of(plan) for plan in plans] == [
        {
            "gen_ai.operation.name": "plan",
            "gen_ai.agent.name": "llmcompiler",
            "llmcompiler.plan.number": number,
            "llmcompiler.plan.tasks": tasks,
        }
        for number, tasks in ((1, 4), (2, 1))
    ]
    assert [parent_of(plan) for plan in plans] == [id_of(run)] * 2
    chats = [span for span in collected.spans if span.name.startswith("chat ")]
    assert {attributes_of(chat)["llmcompiler.call.id"]: parent_of(chat) for chat in chats} == {
        "plan/1": id_of(plans[0]),
        "join/1": id_of(run),
        "plan/2": id_of(plans[1]),
        "join/2": id_of(run),
    }
    for chat in chats:
        assert chat.kind is SpanKind.CLIENT
        attributes = attributes_of(chat)
        assert chat.name == f"chat {attributes['gen_ai.request.model']}"
        assert attributes["gen_ai.operation.name"] == "chat"
        assert attributes["gen_ai.response.finish_reasons"] == ("stop",)
        for name in ("input_tokens", "output_tokens", "cache_read.input_tokens"):
            assert isinstance(attributes[f"gen_ai.usage.{name}"], int)
    looks = {
        (
            attributes_of(span)["llmcompiler.task.id"],
            attributes_of(span).get("gen_ai.tool.call.id"),
        ): span
        for span in collected.named("execute_tool look")
    }
    fan_out = looks[4, None]
    assert attributes_of(fan_out)["llmcompiler.task.elements"] == 2
    expected = {
        (1, f"{result.run}/1"): plans[0],
        (2, f"{result.run}/2"): plans[0],
        (4, None): plans[0],
        (4, f"{result.run}/4/0"): fan_out,
        (4, f"{result.run}/4/1"): fan_out,
        (6, f"{result.run}/6"): plans[1],
    }
    assert {place: parent_of(span) for place, span in looks.items()} == {
        place: id_of(parent) for place, parent in expected.items()
    }
    oz = looks[2, f"{result.run}/2"]
    assert oz.status.status_code is StatusCode.ERROR
    assert attributes_of(oz)["error.type"] == "LookupError"
    assert len({span.context.trace_id for span in collected.spans if span.context}) == 1
    for span in collected.spans:
        assert span.start_time is not None and span.end_time is not None
        assert span.start_time <= span.end_time


def test_what_a_tool_does_hangs_below_its_call_async_and_in_a_thread() -> None:
    collected = Collector()
    ask(collected)
    calls = [span for span in collected.spans if "gen_ai.tool.call.id" in attributes_of(span)]
    inside = collected.named("inside")
    assert len(calls) == len(inside) == 6
    assert sorted(map(id_of, calls)) == sorted(parent_of(span) or 0 for span in inside)


def test_words_and_values_are_recorded_only_on_request() -> None:
    silent, open_ = Collector(), Collector(content=True)
    for collected in (silent, open_):
        PROVIDERS[:] = [collected.provider]
        ask(collected)
    words = ("How big?", "Japan", "Five.", "there is no Oz")
    recorded = json.dumps([json.loads(span.to_json()) for span in silent.spans])
    assert not any(word in recorded for word in words)
    (run,) = open_.named("invoke_agent llmcompiler")
    assert "How big?" in attributes_of(run)["gen_ai.input.messages"]
    assert "Five." in attributes_of(run)["gen_ai.output.messages"]
    (add_call,) = open_.named("execute_tool add")
    assert attributes_of(add_call)["gen_ai.tool.call.arguments"] == '{"a": 5, "b": 1}'
    assert attributes_of(add_call)["gen_ai.tool.call.result"] == "6.0"
    chat = next(span for span in open_.spans if span.name.startswith("chat "))
    message = json.loads(attributes_of(chat)["gen_ai.output.messages"])[0]
    assert (message["role"], message["finish_reason"]) == ("assistant", "stop")


def test_metrics_of_latency_tokens_queue_and_cost() -> None:
    prices = Prices({ScriptedModel(SCRIPT).name: Price(prompt=1.0, completion=2.0)})
    collected = Collector(prices=prices)
    ask(collected)
    metrics = collected.metrics()

    def count(name: str) -> int:
        return sum(point.count for point in metrics[name])

    assert count("gen_ai.invoke_agent.duration") == 1
    assert count("gen_ai.client.operation.duration") == 4
    assert count("gen_ai.client.operation.time_to_first_chunk") == 4
    assert count("gen_ai.client.token.usage") == 8
    assert count("llmcompiler.cost") == 4
    assert count("llmcompiler.task.queue.duration") == 5
    tools = metrics["gen_ai.execute_tool.duration"]
    failed = [point for point in tools if point.attributes.get("error.type") == "LookupError"]
    assert [point.count for point in failed] == [1]
    (run,) = collected.named("invoke_agent llmcompiler")
    exemplars = metrics["gen_ai.invoke_agent.duration"][0].exemplars
    assert [exemplar.span_id for exemplar in exemplars] == [id_of(run)]


def test_a_branch_hangs_below_its_task_and_its_calls_below_the_branch() -> None:
    collected = Collector()

    async def main() -> RunResult:
        model = ScriptedModel(lambda request: Answer("So.\nAnswer: 5"))
        compiler = LLMCompiler(["calc"], model, store=":memory:")
        plan = parse_plan(
            '1. calc("[1, 2]")\n2. think("$1[*]", strategy="vote", width=2)\n'
            '3. think("And?", strategy="vote", width=2)\n4. join($2)'
        )
        return await compiler.execute(plan, on_event=collected.telemetry.listener())

    assert run_virtual(main()).value == ["5", "5"]
    branches = collected.named("invoke_workflow vote")
    assert {attributes_of(span)["gen_ai.operation.name"] for span in branches} == {
        "invoke_workflow"
    }
    tasks = {id_of(span): attributes_of(span) for span in collected.named("execute_tool think")}
    keys = [tasks[parent_of(branch) or 0]["gen_ai.tool.call.id"] for branch in branches]
    assert sorted(key.partition("/")[2] for key in keys) == ["2/0", "2/1", "3"]
    chats = [span for span in collected.spans if span.name.startswith("chat ")]
    parents = [parent_of(chat) for chat in chats]
    assert sorted(map(str, parents)) == sorted(str(id_of(branch)) for branch in branches * 2)


def tree(collected: Collector, parent: int | None = None, depth: int = 0) -> list[str]:
    """The names of all spans, each indented below its parent."""
    children = [span for span in collected.spans if parent_of(span) == parent]
    children.sort(key=lambda span: (span.start_time or 0, span.name))
    return [
        line
        for span in children
        for line in ["  " * depth + span.name, *tree(collected, id_of(span), depth + 1)]
    ]


WITH_A_BRANCH = [
    '1. look("Japan")\n2. think("How big is $1.size?", strategy="vote", width=2)\n3. join()',
    "Answer: 5",
    "Answer: 5",
    json.dumps({"action": "replan", "text": "take Peru"}),
    '4. look("Peru")\n5. join($4)',
    json.dumps({"action": "answer", "text": "Four."}),
]

ITS_TREE = [
    "invoke_agent llmcompiler",
    "  plan llmcompiler",
    "    chat scripted",
    "    execute_tool look",
    "      inside",
    "    execute_tool think",
    "      invoke_workflow vote",
    "        chat scripted",
    "        chat scripted",
    "  chat scripted",
    "  plan llmcompiler",
    "    chat scripted",
    "    execute_tool look",
    "      inside",
    "  chat scripted",
]


def ask_with_a_branch(telemetry: Telemetry) -> None:
    async def main() -> RunResult:
        executor = telemetry.executor(LocalExecutor())
        model = ScriptedModel(WITH_A_BRANCH)
        compiler = LLMCompiler([look], model, store=":memory:", executor=executor, reason="vote")
        return await compiler.run("How big?", on_event=telemetry.listener())

    assert run_virtual(main()).answer == "Four."


def test_the_tree_of_a_run_with_a_replan_and_a_branch() -> None:
    collected = Collector()
    ask_with_a_branch(collected.telemetry)
    assert tree(collected) == ITS_TREE


RECEIVER = """
import logging, time
from oteltest.sink import HttpSink
from oteltest.sink.handler import PrintHandler

sink = HttpSink(PrintHandler(), logging.getLogger(), port=0, daemon=False)
sink.start()
while sink.httpd is None:
    time.sleep(0.01)
print(sink.httpd.server_port, flush=True)
"""


def test_a_receiver_in_another_process_gets_the_tree_and_the_metrics_by_otlp() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as receiver:
        assert receiver.stdout is not None
        address = f"http://127.0.0.1:{int(receiver.stdout.readline())}/v1"
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address}/traces")))
        meters = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter(f"{address}/metrics"))]
        )
        PROVIDERS[:] = [provider]
        ask_with_a_branch(Telemetry(provider, meters))
        provider.shutdown()
        meters.shutdown()
        receiver.terminate()
        received = [ast.literal_eval(line) for line in receiver.communicate()[0].splitlines()]
    spans = [
        span
        for request in received
        for resource in request.get("resourceSpans", ())
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert len({span["traceId"] for span in spans}) == 1
    assert received_tree(spans) == ITS_TREE
    metrics = {
        metric["name"]
        for request in received
        for resource in request.get("resourceMetrics", ())
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }
    assert {"gen_ai.invoke_agent.duration", "gen_ai.client.token.usage"} <= metrics


def received_tree(spans: list[dict[str, Any]], parent: str = "", depth: int = 0) -> list[str]:
    """The same as ``tree``, for spans in the form of OTLP."""
    children = [span for span in spans if span.get("parentSpanId", "") == parent]
    children.sort(key=lambda span: (int(span["startTimeUnixNano"]), span["name"]))
    return [
        line
        for span in children
        for line in [
            "  " * depth + span["name"],
            *received_tree(spans, span["spanId"], depth + 1),
        ]
    ]


def test_a_run_hangs_below_what_is_current_where_it_is_begun() -> None:
    collected = Collector()
    with collected.provider.get_tracer("app").start_as_current_span("request"):
        ask(collected)
    (request,) = collected.named("request")
    (run,) = collected.named("invoke_agent llmcompiler")
    assert parent_of(run) == id_of(request)


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Any:
    """The SDK logs misuse instead of raising: a span ended twice, an attribute of a wrong type."""
    yield
    PROVIDERS.clear()
    records = caplog.get_records("call")
    assert [item.getMessage() for item in records if item.name.startswith("opentelemetry")] == []
