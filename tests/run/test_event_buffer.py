"""Events wait for a slow consumer within bounds, and nobody waits for the consumer."""

from __future__ import annotations

import asyncio

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import Event, ModelFinished, ModelText, PlanStarted, RunFinished
from llmcompiler.run.event_buffer import GAP, EventBuffer
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual


def take_all(buffer: EventBuffer) -> list[Event]:
    events = []
    while (event := buffer.take()) is not None:
        events.append(event)
    return events


def finished(call: str) -> ModelFinished:
    return ModelFinished(0.0, call, "stop", 1, 0, 1, 0.1)


def test_text_of_a_call_that_waits_is_joined_and_others_keep_their_places() -> None:
    buffer = EventBuffer()
    for event in (
        ModelText(0.0, "4/0", "a"),
        ModelText(0.0, "4/1", "x"),
        ModelText(0.0, "4/0", "b"),
        finished("4/0"),
        ModelText(0.0, "4/1", "y"),
    ):
        buffer.put(event)
    assert take_all(buffer) == [
        ModelText(0.0, "4/0", "ab"),
        ModelText(0.0, "4/1", "xy"),
        finished("4/0"),
    ]


def test_text_that_comes_after_its_call_s_was_taken_is_a_piece_of_its_own() -> None:
    buffer = EventBuffer()
    buffer.put(ModelText(0.0, "4/0", "a"))
    assert take_all(buffer) == [ModelText(0.0, "4/0", "a")]
    buffer.put(PlanStarted(0.0, 1))
    buffer.put(ModelText(0.0, "4/0", "b"))
    buffer.put(ModelText(0.0, "4/0", "c"))
    assert take_all(buffer) == [PlanStarted(0.0, 1), ModelText(0.0, "4/0", "bc")]


def test_too_much_text_is_dropped_the_oldest_first_and_nothing_else_ever() -> None:
    buffer = EventBuffer(characters=1000)
    for number in range(50):
        buffer.put(ModelText(0.0, f"4/{number}", "x" * 100))
        buffer.put(finished(f"4/{number}"))
    events = take_all(buffer)
    texts = [event.text for event in events if isinstance(event, ModelText)]
    assert len(texts) == 50
    assert texts[0] == GAP
    assert texts[-1] == "x" * 100
    assert sum(isinstance(event, ModelFinished) for event in events) == 50


def test_a_run_ends_while_its_consumer_has_not_taken_a_second_event() -> None:
    async def main() -> None:
        model = ScriptedModel(
            lambda request: (
                Answer('{"action": "answer", "text": "42"}', chunk=3, delay=0.1)
                if request.schema is not None
                else Answer('1. calc("6 * 7")\n2. join()', chunk=2, delay=0.1)
            )
        )
        agent = LLMCompiler(["calc"], model, store=":memory:")
        stream = agent.stream("6 * 7?")
        first = await anext(stream)
        run = getattr(first, "run", "")

        await asyncio.sleep(3600)  # of virtual time: the consumer sleeps, the run does not
        assert any(isinstance(event, RunFinished) for event in agent.store.events(run))
        later_events = [event async for event in stream]
        assert isinstance(later_events[-1], RunFinished)
        assert sum(isinstance(event, ModelText) for event in later_events) <= 3

    run_virtual(main())
