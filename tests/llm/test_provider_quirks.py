"""Scripted servers, each with a quirk that some provider's endpoint has or had.

Every server is asked by a whole run: a planner plans one call, the joiner answers. A quirk ends in
the right result, or in a failure whose message names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from llmcompiler import LLMCompiler, ModelOptions, RunResult, tool
from llmcompiler.events import Event, ModelFinished
from llmcompiler.llm import capabilities
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.testing.doubles import run_virtual
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, events, fake_openai

PLAN = '1. price("lamp")\n2. join()\n'
ANSWER = json.dumps({"text": "It costs 731.", "action": "answer"})
LONG = "A word of many. " * 100

CALLS: list[str] = []


@tool
def price(item: str) -> float:
    """The price of an item."""
    CALLS.append(item)
    return 731.0


@tool(effect="write", description=LONG)
def buy(item: str) -> str:
    """Buy an item."""
    CALLS.append(f"buy {item}")
    return "731 paid"


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCOMPILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(capabilities, "_memory", {})
    CALLS.clear()


def is_join(body: dict[str, Any]) -> bool:
    return "731" in json.dumps(body["messages"])


def write_text(body: dict[str, Any], plan: str = PLAN, answer: str = ANSWER) -> Reply:
    return Reply([answer if is_join(body) else plan])


class Outcome:
    """A run, and what the server saw."""

    def __init__(self, result: RunResult, server: FakeOpenAI, seen: list[Event]) -> None:
        self.result = result
        self.requests = server.requests
        self.ends = [event for event in seen if isinstance(event, ModelFinished)]

    @property
    def message(self) -> str:
        failure = self.result.failure
        return f"{failure.message} {failure.hint}" if failure is not None else ""


def run_against(
    answer: Callable[[dict[str, Any]], Reply], planner: str = "text", runs: int = 1, **options: Any
) -> Outcome:
    """Run a question against a server on virtual time."""

    async def main() -> Outcome:
        async with fake_openai(lambda request: answer(request.body)) as server:
            stated = {"constraint": "none", "functions": True, "abilities": frozenset()}
            model = EndpointModel("m", base_url=server.url, api_key="k", **(stated | options))
            agent = LLMCompiler(tools=[price, buy], model=model, planner=planner, store=":memory:")
            async with agent:
                for _ in range(runs):
                    seen: list[Event] = []
                    result = await agent.run("What does the lamp cost?", on_event=seen.append)
            return Outcome(result, server, seen)

    outcome: Outcome = run_virtual(main())
    return outcome


def assert_answered(outcome: Outcome, calls: list[str] | None = None) -> None:
    assert outcome.result.failure is None, outcome.message
    assert outcome.result.answer == "It costs 731."
    assert (["lamp"] if calls is None else calls) == CALLS


# --- fields that are refused ----------------------------------------------------------------------


def error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def with_status(status: int, body: Any) -> Reply:
    return Reply(status=status, body=body if isinstance(body, str) else json.dumps(body))


REFUSALS: dict[str, tuple[str, Reply]] = {
    "openai: no such argument": (
        "stream_options",
        with_status(400, error("Unrecognized request argument supplied: stream_options")),
    ),
    "openai: the field as param": (
        "temperature",
        with_status(400, error("Unsupported value", param="temperature")),
    ),
    "openai: another name": (
        "max_tokens",
        with_status(
            400, error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
        ),
    ),
    "o1: in words": (
        "temperature",
        with_status(400, error("temperature is not supported with this model")),
    ),
    "xai: the error is a text": (
        "stop",
        with_status(400, {"code": "invalid", "error": "Argument not supported: stop"}),
    ),
    "fastapi: the place of the field": (
        "stream_options",
        with_status(422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]}),
    ),
    "fastapi: the request is repeated": (
        "stop",
        with_status(422, {"detail": [{"loc": ["body", "stop"], "input": {"temperature": 0}}]}),
    ),
    "deepseek: a type of format": (
        "response_format",
        with_status(400, error("This response_format type is unavailable now")),
    ),
    "serde: a variant, then all that there are": (
        "response_format",
        with_status(422, "response_format.type: unknown variant `json_schema`, expected `text`"),
    ),
    "google: a violation": (
        "response_format",
        with_status(
            400,
            error("Invalid", details=[{"fieldViolations": [{"field": "response_format"}]}]),
        ),
    ),
    "plain text": ("stop", with_status(400, "stop sequences are not supported")),
    "not found": (
        "response_format",
        with_status(404, error("response_format is not available for this model")),
    ),
    "unsupported media": (
        "response_format",
        with_status(415, error("structured outputs are unsupported")),
    ),
    "too large": ("stop", with_status(413, error("`stop` is not allowed"))),
    "server error that names the field": (
        "response_format",
        with_status(500, error("json_schema is not supported by this backend")),
    ),
    "not implemented": ("stream", with_status(501, error("streaming is not implemented"))),
    "openrouter: an error inside a text": (
        "stop",
        with_status(
            400,
            error(
                "Provider returned error",
                metadata={"raw": '{"error":{"message":"Unsupported parameter: stop"}}'},
            ),
        ),
    ),
    "in another language": (
        "stop",
        with_status(400, error("Der Parameter stop wird nicht unterstuetzt")),
    ),
    "in a body of status 200": (
        "response_format",
        Reply(body=json.dumps(error("response_format is not supported", code=400))),
    ),
    "inside the stream": (
        "stream_options",
        Reply((), raw='data: {"error": {"message": "unknown field stream_options"}}\n\n'),
    ),
    "without a name": ("stop", with_status(400, error("Bad request"))),
    "without a word": ("response_format", with_status(422, "")),
    "without a name, last in the order": ("stream", with_status(400, error("Invalid input"))),
}


@pytest.mark.parametrize("quirk", REFUSALS)
def test_a_refused_field_is_left_out_and_stays_out(quirk: str) -> None:
    field, refusal = REFUSALS[quirk]

    def answer(body: dict[str, Any]) -> Reply:
        if body.get(field):
            return refusal
        if not body["stream"]:
            text = ANSWER if is_join(body) else PLAN
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return Reply(body=json.dumps({"choices": [choice]}))
        return write_text(body)

    options = ModelOptions(max_plan_tokens=900, max_answer_tokens=900)
    outcome = run_against(answer, runs=2, options=options)
    assert outcome.result.answer == "It costs 731.", outcome.message
    assert CALLS == ["lamp", "lamp"]
    # The second run pays for the finding no more.
    assert all(not request.body.get(field) for request in outcome.requests[-2:])
    if field == "max_tokens":
        assert outcome.requests[-1].body["max_completion_tokens"] == 900


def test_a_strict_schema_that_is_refused_is_sent_as_a_loose_one() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        form = body.get("response_format")
        if form and form["json_schema"]["strict"]:
            return with_status(400, error("Invalid schema for response_format 'answer'"))
        return write_text(body)

    outcome = run_against(answer)
    assert_answered(outcome)
    assert outcome.requests[-1].body["response_format"]["json_schema"]["strict"] is False


def test_several_refused_fields_are_found_one_after_the_other() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        for field in ("stop", "temperature", "stream_options", "response_format"):
            if field in body:
                return with_status(400, error(f"{field} is not supported"))
        return write_text(body)

    assert_answered(run_against(answer))


def test_a_system_message_that_is_refused_stands_in_the_users() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if body["messages"][0]["role"] == "system":
            return with_status(400, error("System role not supported"))
        return write_text(body)

    assert_answered(run_against(answer))


def test_a_description_that_is_too_long_is_cut() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        for number, entry in enumerate(body.get("tools", ())):
            if len(entry["function"]["description"]) > 1024:
                place = f"tools[{number}].function.description"
                return with_status(400, error(f"Invalid '{place}': string too long", param=place))
        return Reply(["It costs 731."])

    assert_answered(run_against(answer, "function-calling"), calls=[])


def test_what_no_field_causes_is_asked_once() -> None:
    for status, message in (
        (400, "The model `m` does not exist"),
        (400, "Invalid API key: stop"),
        (400, "Failed to parse grammar"),
    ):
        refusal = with_status(status, error(message))
        outcome = run_against(lambda body, refusal=refusal: refusal)  # type: ignore[misc]
        assert message in outcome.message
        assert len(outcome.requests) == 1


# --- models that think ----------------------------------------------------------------------------

WRONG = '1. buy("everything")\n2. join()\n'


@pytest.mark.parametrize(
    "before",
    [
        f"<think>\n{WRONG}</think>\n\n",
        f"<think>{WRONG}</think>",
        f"<thinking>\n{WRONG}</thinking>\n",
        f"[THINK]{WRONG}[/THINK]",
        f"Well. <think>\n{WRONG}</think>\n",
        f"Let me see.\n{WRONG}No.\n</think>\n",
        f"{WRONG}no, that is wrong.\n</think>\n\n",
        f"<|channel|>analysis<|message|>{WRONG}<|end|><|start|>assistant<|channel|>final<|message|>",
        f"◁think▷{WRONG}◁/think▷",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_thoughts_in_tags_are_not_executed(before: str, size: int) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        text = before + (ANSWER if is_join(body) else PLAN)
        return Reply([text[start : start + size] for start in range(0, len(text), size)])

    outcome = run_against(answer)
    assert_answered(outcome)
    assert all(end.thinking and "everything" in end.thinking for end in outcome.ends)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": WRONG},
        {"reasoning": WRONG},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": WRONG}]}]},
        {"content": [{"type": "reasoning", "text": WRONG}]},
        {"content": None, "reasoning_content": WRONG},
    ],
)
def test_thoughts_in_fields_are_not_executed(delta: dict[str, Any]) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return events(delta, {"content": ANSWER if is_join(body) else PLAN})

    outcome = run_against(answer)
    assert_answered(outcome)
    assert [end.thinking for end in outcome.ends] == [WRONG, WRONG]


def test_hidden_thoughts_are_counted() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        details = {"reasoning_tokens": 40}
        usage = {"prompt_tokens": 5, "completion_tokens": 50, "completion_tokens_details": details}
        return events({"content": ANSWER if is_join(body) else PLAN}, usage=usage)

    outcome = run_against(answer)
    assert_answered(outcome)
    assert outcome.result.usage.reasoning_tokens == 80
    assert outcome.result.usage.completion_tokens == 100


@pytest.mark.parametrize("text", ["", "<think>\nhm"])
def test_a_plan_that_ends_in_thought_says_at_which_bound(text: str) -> None:
    options = ModelOptions(max_plan_tokens=50)
    outcome = run_against(lambda body: events({"content": text}, finish="length"), options=options)
    assert "50 tokens" in outcome.message and "max_plan_tokens" in outcome.message


def test_an_answer_that_ends_in_thought_says_at_which_bound() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if is_join(body):
            return events({"reasoning_content": "hm"}, finish="length")
        return write_text(body)

    assert "max_answer_tokens" in run_against(answer).message


# --- answers in other shapes ----------------------------------------------------------------------


def whole(body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER if is_join(body) else PLAN}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def text_of(body: dict[str, Any]) -> str:
    return ANSWER if is_join(body) else PLAN


SHAPES: dict[str, Callable[[dict[str, Any]], Reply]] = {
    "one document in place of a stream": lambda body: Reply(body=json.dumps(whole(body))),
    "a message in place of deltas": lambda body: Reply(
        (), raw=f"data: {json.dumps(whole(body))}\n\ndata: [DONE]\n\n"
    ),
    "no blank line at the end": lambda body: Reply((), raw=f"data: {json.dumps(whole(body))}"),
    "comments and carriage returns": lambda body: Reply(
        (), raw=f": keep-alive\r\n\r\ndata: {json.dumps(whole(body))}\r\n\r\ndata: [DONE]\r\n\r\n"
    ),
    "no finish reason": lambda body: Reply([text_of(body)], finish=None),
    "no usage": lambda body: Reply([text_of(body)], usage=None),
    "usage of nulls": lambda body: Reply(
        [text_of(body)],
        usage={"prompt_tokens": None, "completion_tokens": None, "prompt_tokens_details": None},
    ),
    "content as parts": lambda body: events({"content": [{"type": "text", "text": text_of(body)}]}),
    "a finish reason of its own": lambda body: Reply([text_of(body)], finish="eos_token"),
    "answer in a fence": lambda body: write_text(body, answer=f"```json\n{ANSWER}\n```"),
    "answer in a sentence": lambda body: write_text(body, answer=f"Here: {ANSWER} Done!"),
    "answer in prose": lambda body: write_text(body, answer="It costs 731."),
    "events without choices": lambda body: Reply(
        (), raw=f'data: {{"choices": null}}\n\ndata: {json.dumps(whole(body))}\n\n'
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_is_understood_in_any_shape(shape: str) -> None:
    assert_answered(run_against(SHAPES[shape]))


@pytest.mark.parametrize(
    ("pieces", "item"),
    [
        (['1. price("lamp \\ud83d', '\\ude00")\\n2. join()'], "lamp \U0001f600"),
        (['1. price("lamp \\ud83d")\\n2. join()'], "lamp \ufffd"),
    ],
)
def test_halves_of_characters_are_joined_or_replaced(pieces: list[str], item: str) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if is_join(body):
            return Reply([ANSWER])
        chunks = (
            f'data: {{"choices":[{{"index":0,"delta":{{"content":"{piece}"}}}}]}}\n\n'
            for piece in (
                piece.replace('"lamp', '\\"lamp').replace('")', '\\")') for piece in pieces
            )
        )
        return Reply((), raw="".join((*chunks, "data: [DONE]\n\n")))

    assert_answered(run_against(answer), calls=[item])


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (events({"content": None}, finish="content_filter"), "content_filter"),
        (events({"content": "1. pr"}, finish="SAFETY"), "SAFETY"),
        (events({"refusal": "I cannot help with weapons."}), "weapons"),
        (events({"content": [{"type": "refusal", "refusal": "No weapons."}]}), "weapons"),
        (with_status(400, error("x", code="content_filter", innererror={})), "content"),
        (events({"content": ""}, finish="error"), "'error'"),
        (Reply(body="<html>welcome</html>"), "no chat completion"),
        (Reply(body=json.dumps({"message": "no such route"})), "no such route"),
        (Reply((), raw="data: [1, 2]\n\n"), "not a chat completion"),
        (Reply((), raw="data: {nonsense\n\n"), "not a chat completion"),
        (Reply(body="[" * 100_000), "not a chat completion"),
        (Reply((), raw='data: {"choices": [{"delta": 7}]}\n\n'), "sent no choices"),
        (Reply((), raw='data: {"choices": "x", "usage": 3}\n\n'), "sent no choices"),
        (with_status(400, "\ud83d".encode("utf-8", "replace").decode()), "answered 400"),
        (with_status(400, error("does not support tools")), "needs no functions"),
    ],
)
def test_what_is_no_answer_is_named(reply: Reply, words: str) -> None:
    outcome = run_against(lambda body: reply, retries=0)
    assert outcome.result.failure is not None
    assert outcome.result.failure.blame == "model"
    assert words in outcome.message


# --- function calls -------------------------------------------------------------------------------


def call(item: str, **fields: Any) -> dict[str, Any]:
    function = {"name": "price", "arguments": json.dumps({"item": item})}
    return {"type": "function", "function": function, **fields}


FUNCTION_CALLS: dict[str, list[dict[str, Any]]] = {
    "every call is number 0": [call("a", id="1", index=0), call("b", id="2", index=0)],
    "no call has a number": [call("a", id="1"), call("b", id="2")],
    "every number is null": [call("a", id="1", index=None), call("b", id="2", index=None)],
    "neither numbers nor ids": [call("a"), call("b")],
    "one id for all": [call("a", id="x", index=0), call("b", id="x", index=1)],
    "an id that is a number": [call("a", id=1, index=0), call("b", id=2, index=1)],
    "arguments as an object": [
        {"index": 0, "id": "1", "function": {"name": "price", "arguments": {"item": "a"}}},
        {"index": 1, "id": "2", "function": {"name": "price", "arguments": {"item": "b"}}},
    ],
    "arguments quoted twice": [
        {
            "index": 0,
            "id": "1",
            "function": {"name": "price", "arguments": '"{\\"item\\": \\"a\\"}"'},
        },
        call("b", id="2", index=1),
    ],
    "name and id in every piece": [
        {"index": 0, "id": "1", "function": {"name": "price", "arguments": '{"item"'}},
        {"index": 0, "id": "1", "function": {"name": "price", "arguments": ': "a"}'}},
        call("b", id="2", index=1),
    ],
    "another id in every piece": [
        {"index": 0, "id": "1", "function": {"name": "price", "arguments": '{"item"'}},
        {"index": 0, "id": "9", "function": {"name": None, "arguments": ': "a"}'}},
        call("b", id="2", index=1),
    ],
    "the whole call once more at the end": [
        call("a", id="1", index=0),
        call("b", id="2", index=1),
        call("b", id="2", index=1),
    ],
}


@pytest.mark.parametrize("quirk", FUNCTION_CALLS)
def test_parallel_calls_are_told_apart(quirk: str) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if is_join(body):
            ids = [m["tool_call_id"] for m in body["messages"] if m["role"] == "tool"]
            assert len(ids) == len(set(ids)) == 2
            return Reply(["It costs 731."])
        deltas = [{"tool_calls": [piece]} for piece in FUNCTION_CALLS[quirk]]
        return events(*deltas, finish="tool_calls")

    outcome = run_against(answer, "function-calling")
    assert outcome.result.answer == "It costs 731.", outcome.message
    assert sorted(CALLS) == ["a", "b"]


@pytest.mark.parametrize("arguments", ['{"item": "lamp",}', "lamp", '{"item": NaN}', None, "[1]"])
def test_broken_arguments_go_back_as_json(arguments: str | None) -> None:
    broken = {"index": 0, "id": "1", "function": {"name": "price", "arguments": arguments}}

    def answer(body: dict[str, Any]) -> Reply:
        for message in body["messages"]:
            for sent in message.get("tool_calls", ()):
                parsed = json.loads(sent["function"]["arguments"], parse_constant=pytest.fail)
                assert isinstance(parsed, dict)
        replies = sum(message["role"] == "tool" for message in body["messages"])
        if replies == 0:
            return events({"tool_calls": [broken]}, finish="tool_calls")
        if replies == 1:
            return events({"tool_calls": [call("lamp", id="2", index=0)]}, finish="tool_calls")
        return Reply(["It costs 731."])

    assert_answered(run_against(answer, "function-calling"))


def test_the_function_call_of_old_servers_is_one() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        if is_join(body):
            return Reply(["It costs 731."])
        function = {"name": "price", "arguments": '{"item": "lamp"}'}
        return events({"function_call": function}, finish="function_call")

    assert_answered(run_against(answer, "function-calling"))


def test_a_text_that_ends_at_a_bound_says_so() -> None:
    outcome = run_against(
        lambda body: events({"content": "It costs"}, finish="length"), "function-calling"
    )
    assert outcome.result.answer is not None
    assert "max_turn_tokens" in outcome.result.answer


# --- trials ---------------------------------------------------------------------------------------


def test_a_model_that_thinks_first_is_given_room_in_trials() -> None:
    def answer(request: ReceivedRequest) -> Reply:
        bound = request.body.get("max_tokens", 10**6)
        if bound < 200:
            return events({"reasoning_content": "hm"}, finish="length")
        if "zyzzyva" in json.dumps(request.body.get("response_format", "")):
            return Reply(['{"word": "zyzzyva"}'])
        return Reply(["hello"])

    async def main() -> str:
        async with fake_openai(answer) as server:
            model = EndpointModel("m", base_url=server.url)
            found = await model._capabilities.constraint()
            await model.aclose()
            return found

    assert run_virtual(main()) == "json_schema"


# --- whatever a server sends ----------------------------------------------------------------------

_WORDS = st.sampled_from(
    "choices delta content tool_calls function name arguments index finish_reason usage error "
    "message reasoning_content logprobs prompt_tokens type text role id".split()
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)
_EVENTS = st.lists(
    st.fixed_dictionaries(
        {"choices": st.lists(st.dictionaries(_WORDS, _JSON, max_size=4), max_size=2) | _JSON},
        optional={"usage": _JSON, "model": _JSON},
    )
    | _JSON,
    max_size=3,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=_EVENTS, status=st.sampled_from([200, 200, 200, 400, 422, 500]))
@pytest.mark.parametrize("planner", ["text", "function-calling"])
def test_whatever_a_server_sends_a_run_has_a_result(
    planner: str, sent: list[Any], status: int
) -> None:
    raw = "".join(f"data: {json.dumps(event)}\n\n" for event in sent) + "data: [DONE]\n\n"
    reply = Reply((), raw=raw) if status == 200 else with_status(status, json.dumps(sent))
    outcome = run_against(lambda body: reply, planner, retries=0)
    if outcome.result.failure is not None:
        assert outcome.result.failure.blame in ("model", "plan"), outcome.message
