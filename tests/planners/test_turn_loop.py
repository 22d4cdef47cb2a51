"""Planners that go from result to result: function calls in parallel, and ReAct."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LogError, ModelError, UsageError
from llmcompiler.events import Event, Joined, ModelFinished, TaskStarted
from llmcompiler.history.replay import replay
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Request
from llmcompiler.llm.emulated_functions import completion_from_json, request_as_json
from llmcompiler.llm.messages import FunctionCall, Message
from llmcompiler.log.store import RunStore
from llmcompiler.planners import function_calling, react
from llmcompiler.planners.function_calling import make_function_names
from llmcompiler.planners.turn_loop import MAX_TURNS
from llmcompiler.prompting.prompts import Prompts
from llmcompiler.run.result import RunResult
from llmcompiler.testing.doubles import Answer, Scripted, ScriptedModel, run_virtual
from llmcompiler.tools.base import DEFAULT_TOOLS, tool
from llmcompiler.tools.loading import load_tools


@tool
async def size(name: str) -> int:
    """How large something is; it takes a second to find out."""
    await asyncio.sleep(1)
    if name == "Atlantis":
        raise ValueError("no such place")
    return len(name)


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


def calls(*requested: tuple[str, dict[str, Any] | str], text: str = "") -> Answer:
    """An answer with function calls."""
    return Answer(
        text,
        calls=tuple(
            FunctionCall(f"id{n}", name, args if isinstance(args, str) else json.dumps(args))
            for n, (name, args) in enumerate(requested)
        ),
    )


IN_TURNS = [
    calls(("size", {"name": "Chad"}), ("size", {"name": "Mali!"}), text="Both at once."),
    calls(("add", {"a": 4, "b": 5})),
    "It is 9.",
]

STEP_BY_STEP = [
    'Thought: first one\nAction: size("Chad")',
    'Thought: then the other\nAction: size(name="Mali!")',
    "Thought: add them\nAction: add(4, 5)",
    "Thought: done\nAnswer: It is 9.",
]


async def ask(
    planner: str, script: list[Scripted], store: RunStore | None = None, **options: Any
) -> tuple[RunResult, ScriptedModel, list[Event]]:
    events: list[Event] = []
    model = ScriptedModel(script)
    compiler = LLMCompiler(
        [size, add], model, planner=planner, store=store or ":memory:", **options
    )
    result = await compiler.run("How large are Chad and Mali?", on_event=events.append)
    return result, model, events


def test_calls_of_a_turn_run_at_once_and_turns_one_after_the_other() -> None:
    result, model, events = run_virtual(ask("function-calling", IN_TURNS))
    assert result.answer == "It is 9."
    assert {n: observation.value for n, observation in result.observations.items()} == {
        1: 4,
        2: 5,
        3: 9,
    }
    started = {event.task: event.at for event in events if isinstance(event, TaskStarted)}
    assert started == {1: 0.0, 2: 0.0, 3: 1.0}
    assert [function.name for function in model.requests[0].functions] == ["size", "add"]
    messages = model.requests[1].messages[-3:]
    assert [(message.role, message.content, message.call) for message in messages] == [
        ("assistant", "Both at once.", ""),
        ("tool", "4", "id0"),
        ("tool", "5", "id1"),
    ]


def test_steps_of_react_run_one_after_the_other() -> None:
    result, model, events = run_virtual(ask("react", STEP_BY_STEP))
    assert result.answer == "It is 9."
    started = {event.task: event.at for event in events if isinstance(event, TaskStarted)}
    assert started == {1: 0.0, 2: 1.0, 3: 2.0}
    assert result.plan is not None
    assert [task.thought for task in result.plan.tasks] == [
        "first one",
        "then the other",
        "add them",
    ]
    assert [message.content for message in model.requests[-1].messages[-6:]] == [
        STEP_BY_STEP[0],
        "Observation: 4",
        STEP_BY_STEP[1],
        "Observation: 5",
        STEP_BY_STEP[2],
        "Observation: 9.0",
    ]
    assert all(request.grammar and request.stop for request in model.requests)


@pytest.mark.parametrize(
    ("planner", "script"), [("function-calling", IN_TURNS), ("react", STEP_BY_STEP)]
)
def test_a_run_is_recorded_whole_and_replayed(planner: str, script: list[Scripted]) -> None:
    async def main() -> None:
        store = RunStore(":memory:")
        result, _, events = await ask(planner, script, store)
        decisions = [event for event in events if isinstance(event, Joined)]
        assert [(event.decision, event.text) for event in decisions] == [("answer", "It is 9.")]
        if planner == "function-calling":
            ends = [event.calls for event in events if isinstance(event, ModelFinished)]
            assert ends[0] is not None and ends[0][1]["name"] == "size" and ends[2] is None
        assert (await replay(store, result.run)).answer == "It is 9."

    run_virtual(main())


@pytest.mark.parametrize(
    ("planner", "script"), [("function-calling", IN_TURNS), ("react", STEP_BY_STEP)]
)
def test_a_run_that_was_stopped_goes_on_where_it_was(planner: str, script: list[Scripted]) -> None:
    async def main() -> None:
        store = RunStore(":memory:")
        stopped, model, _ = await ask(planner, script, store, limits=Limits(tool_calls=2))
        assert stopped.status == "failed" and stopped.observations[1].value == 4
        remaining_model = ScriptedModel(script[len(model.requests) :])
        compiler = LLMCompiler([size, add], remaining_model, planner=planner, store=store)
        events: list[Event] = []
        result = await compiler.resume(stopped.run, limits=Limits(), on_event=events.append)
        assert result.answer == "It is 9."
        assert [event.task for event in events if isinstance(event, TaskStarted)] == [1, 2, 3]
        assert (await replay(store, result.run)).status == "answered"

    run_virtual(main())


@pytest.mark.parametrize(
    ("planner", "script", "answers"),
    [
        ("function-calling", IN_TURNS, [calls(("add", {"a": 40, "b": 5})), "It is 45."]),
        ("react", STEP_BY_STEP, ["Thought: add\nAction: add(40, 5)", "Answer: It is 45."]),
    ],
)
def test_a_fork_asks_anew_what_followed_from_the_change(
    planner: str, script: list[Scripted], answers: list[Scripted]
) -> None:
    async def main() -> None:
        store = RunStore(":memory:")
        result, _, _ = await ask(planner, script, store)
        # In ReAct the second step was taken after the first result, so it is taken anew.
        second_answers = ['Thought: then the other\nAction: size("Mali!")', *answers]
        model = ScriptedModel(second_answers if planner == "react" else answers)
        compiler = LLMCompiler([size, add], model, planner=planner, store=store)
        forked = await compiler.fork(result.run, values={1: 40})
        assert forked.answer == "It is 45."
        assert {n: observation.value for n, observation in forked.observations.items()} == {
            1: 40,
            2: 5,
            3: 45,
        }
        assert (await replay(store, forked.run)).answer == "It is 45."

    run_virtual(main())


def test_the_model_is_told_what_is_wrong_with_its_calls() -> None:
    async def main() -> list[Message]:
        script = [
            calls(
                ("sise", {"name": "x"}),
                ("add", {"a": "x"}),
                ("add", "{"),
                ("add", "3"),
                ("add", '{"a": ' + "[" * 100_000),
            ),
            calls(("size", {"name": "Atlantis"})),
            "I do not know.",
        ]
        result, model, _ = await ask("function-calling", script)
        assert result.answer == "I do not know."
        return [message for message in model.requests[-1].messages if message.role == "tool"]

    replies = [message.content for message in run_virtual(main())]
    assert 'did you mean "size"?' in replies[0]
    assert 'a cannot be "x"' in replies[1] and "needs the argument b" in replies[1]
    assert "not JSON" in replies[2] and "not an object" in replies[3]
    assert "nested more than 64 levels deep" in replies[4]
    assert replies[5] == "failed: no such place"


def test_react_is_told_what_is_wrong_with_its_action() -> None:
    script = [
        "I just talk",
        "Thought: a\nAction: add(1",
        "Thought: b\nAction: sise(1)",
        "Action: nothing to call",
        "Thought: c\nAction: 7. add(1, $1)",
        'Thought: d\nAction: size("$1")\nObservation: 7',
        "**Final answer:** 2",
    ]
    result, model, _ = run_virtual(ask("react", script))
    messages = model.requests[-1].messages
    replies = [message.content for message in messages if "Observation: " in message.content]
    assert result.answer == "2"
    assert "neither an action nor an answer" in replies[0]
    assert "error: " in replies[1] and 'did you mean "size"?' in replies[2]
    assert "not a call" in replies[3] and "error: " in replies[4]
    assert replies[-1] == "Observation: 2"  # the text "$1" has two characters


@pytest.mark.parametrize("planner", ["function-calling", "react"])
def test_after_the_last_turn_the_model_has_to_answer(planner: str) -> None:
    def script(request: Request) -> Scripted:
        last = request.messages[-1].content
        if last == Prompts().last_turn:
            assert not request.functions
            return "Answer: enough"
        number = len(request.messages)
        if planner == "react":
            return f"Thought: on\nAction: add({number}, 1)"
        return calls(("add", {"a": number, "b": 1}))

    result, model, _ = run_virtual(ask(planner, script))  # type: ignore[arg-type]
    assert result.answer in ("enough", "Answer: enough")
    assert len(model.requests) == MAX_TURNS + 1 and len(result.observations) == MAX_TURNS


def test_a_repeated_call_is_not_made_again_but_shown() -> None:
    same_call = calls(("size", {"name": "Chad"}))
    result, model, _ = run_virtual(ask("function-calling", [same_call, same_call, "4"]))
    assert list(result.observations) == [1]
    messages = model.requests[-1].messages
    assert [message.content for message in messages if message.role == "tool"] == ["4", "4"]


@pytest.mark.parametrize("planner", ["function-calling", "react"])
def test_a_model_that_says_nothing_is_an_error(planner: str) -> None:
    result, _, _ = run_virtual(ask(planner, ["" for _ in range(MAX_TURNS + 1)]))
    assert result.failure is not None and result.failure.blame == "model"


def test_what_has_results_but_no_answer_is_left_to_the_joiner() -> None:
    decision = json.dumps({"facts": "", "text": "4", "action": "answer"})
    result, _, _ = run_virtual(
        ask("function-calling", [calls(("size", {"name": "Chad"})), "", decision])
    )
    assert result.answer == "4"


@pytest.mark.parametrize("planner", ["function-calling", "react"])
async def test_results_cannot_be_planned_ahead(planner: str) -> None:
    script: list[Scripted] = [IN_TURNS[0] if planner == "function-calling" else STEP_BY_STEP[0]]
    compiler = LLMCompiler([size, add], ScriptedModel(script), planner=planner, store=":memory:")
    with pytest.raises(UsageError, match="goes on from results"):
        await compiler.plan("?")


def test_both_baselines_are_shown_the_same_examples() -> None:
    async def main(planner: str, answer: str) -> Request:
        model = ScriptedModel([answer])
        compiler = LLMCompiler(
            DEFAULT_TOOLS, model, planner=planner, profile="small", store=":memory:"
        )
        await compiler.run("Thanks!")
        return model.requests[0]

    functions = asyncio.run(main("function-calling", "Bye"))
    steps = asyncio.run(main("react", "Thought: none\nAnswer: Bye"))
    made_calls = [call for message in functions.messages for call in message.calls]
    assert [call.name for call in made_calls] == [*["country"] * 4, *["calc"] * 3]
    assert json.loads(made_calls[0].arguments) == {"name": "Gabon"}
    assert sum("Action: " in message.content for message in steps.messages[1:]) == len(made_calls)


def test_examples_show_what_the_tools_give() -> None:
    from llmcompiler.language import parse_plan
    from llmcompiler.prompting.turn_prompts import TRAJECTORIES
    from llmcompiler.runtime.binding import evaluate_expression

    tools = load_tools(DEFAULT_TOOLS)

    def nothing(task: int) -> Any:
        raise AssertionError(task)

    for example in TRAJECTORIES:
        for step in (step for turn in example.turns for step in turn):
            (task,) = parse_plan(f"1. {step.call}").tasks
            tool = tools[task.tool]
            arguments = tool.bind(
                [evaluate_expression(expr, nothing, {}) for expr in task.args], {}
            )
            text = tool.observe(tool.encode(tool.function(**arguments)))
            result = json.loads(text)
            example_result = json.loads(step.result)
            if isinstance(example_result, dict):
                assert example_result.items() <= result.items()
            else:
                assert example_result == result


def test_names_are_those_that_every_endpoint_takes() -> None:
    tools: dict[str, Any] = {"a.b": size, "a_b": size, "größe": size, "x" * 70: add}
    names = make_function_names(tools)
    assert list(names.values()) == ["a_b", "a_b_2", "gr__e", "x" * 64]


class TestAsJson:
    """Function calling by a model that is held to a JSON schema."""

    REQUEST = Request(
        (
            Message("system", "Be brief."),
            Message("user", "?"),
            Message("assistant", "", calls=(FunctionCall("a", "size", '{"name": "x"}'),)),
            Message("tool", "1", call="a"),
            Message("tool", "2", call="b"),
            Message("assistant", "3"),
        ),
        functions=(
            function_calling.Function("size", "How large.", {"type": "object", "properties": {}}),
        ),
    )

    def test_calls_and_results_are_shown_in_the_form_that_is_asked_for(self) -> None:
        request = request_as_json(self.REQUEST)
        assert not request.functions and request.schema is not None
        assert [(message.role, message.content) for message in request.messages[1:]] == [
            ("user", "?"),
            ("assistant", '{"calls": [{"name": "size", "arguments": {"name": "x"}}]}'),
            ("user", "Result: 1\nResult: 2"),
            ("assistant", '{"answer": "3"}'),
        ]
        assert "size" in request.messages[0].content

    def test_what_it_writes_is_read(self) -> None:
        from llmcompiler.llm.base import Completion, Usage

        def read(text: str) -> Completion:
            return completion_from_json(Completion(text, "stop", Usage(), "m"))

        assert read('{"answer": "3"}').text == "3"
        (call,) = read('{"calls": [{"name": "f", "arguments": {"a": 1}}]}').calls
        assert (call.name, call.arguments) == ("f", '{"a": 1}')
        for broken in ('{"calls": [{"na', '{"calls": ' + "[" * 100_000):
            assert read(broken).text == broken

    def test_shared_definitions_of_two_functions_do_not_meet(self) -> None:
        import jsonschema

        def takes(kind: str) -> dict[str, Any]:
            return {
                "type": "object",
                "properties": {"x": {"$ref": "#/$defs/X"}},
                "$defs": {"X": {"type": kind}},
            }

        functions = tuple(
            function_calling.Function(name, "", takes(kind))
            for name, kind in (("f", "string"), ("g", "integer"))
        )
        schema = request_as_json(Request((Message("user", "?"),), functions=functions)).schema
        assert schema is not None
        valid = jsonschema.Draft202012Validator(schema).is_valid
        assert valid({"calls": [{"name": "g", "arguments": {"x": 1}}]})
        assert not valid({"calls": [{"name": "f", "arguments": {"x": 1}}]})


def test_the_planners_have_names() -> None:
    assert function_calling.FunctionCallingPlanner.name == "function-calling"
    assert react.ReactPlanner.name == "react"
    with pytest.raises(UsageError, match="function-calling, react"):
        LLMCompiler([add], ScriptedModel([]), planner="none", store=":memory:")


async def test_a_replay_of_a_run_with_another_planner_is_refused() -> None:
    store = RunStore(":memory:")
    result, _, _ = await ask("function-calling", ["nothing to do"], store)
    assert (await replay(store, result.run)).answer == "nothing to do"
    compiler = LLMCompiler([size, add], ScriptedModel([]), planner="react", store=store)
    with pytest.raises((UsageError, LogError, ModelError)):
        await compiler.resume(result.run)
