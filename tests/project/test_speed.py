"""The tricks for speed do what their plain equivalents do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from llmcompiler.events import EVENTS, Event
from llmcompiler.speed import PLAIN_CONSTRUCTORS, compiled_encoder, plain_encoder

KINDS = [pytest.param(kind, id=name) for name, kind in EVENTS.items()]


def arguments_of(kind: type[Event]) -> dict[str, Any]:
    """A distinct value for every field."""
    return {field.name: [field.name] for field in dataclasses.fields(kind)}


def made_plainly(kind: type[Event], *values: Any, **named_values: Any) -> Event:
    event = object.__new__(kind)
    PLAIN_CONSTRUCTORS[kind](event, *values, **named_values)
    return event


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_constructor_makes_what_the_plain_one_makes(kind: type[Event]) -> None:
    arguments = arguments_of(kind)
    assert kind(**arguments) == made_plainly(kind, **arguments)
    assert kind(*arguments.values()) == made_plainly(kind, *arguments.values())
    required = {
        field.name: [field.name]
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
    }
    assert kind(**required) == made_plainly(kind, **required)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_constructor_has_the_signature_of_the_plain_one(kind: type[Event]) -> None:
    plain = PLAIN_CONSTRUCTORS[kind]
    constructor: Any = kind.__init__  # type: ignore[misc]
    assert constructor is not plain
    names = [
        [(parameter.name, parameter.default) for parameter in signature.parameters.values()]
        for signature in (inspect.signature(constructor), inspect.signature(plain))
    ]
    assert names[0] == names[1]
    assert constructor.__annotations__ == plain.__annotations__


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_constructor_refuses_what_the_plain_one_refuses(kind: type[Event]) -> None:
    arguments = arguments_of(kind)
    for wrong in ({**arguments, "unknown": 1}, dict(list(arguments.items())[1:])):
        with pytest.raises(TypeError):
            kind(**wrong)
        with pytest.raises(TypeError):
            made_plainly(kind, **wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_stays_frozen_and_can_be_copied(kind: type[Event]) -> None:
    event = kind(**arguments_of(kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at = 2.0  # type: ignore[misc]
    assert dataclasses.replace(event, at=3.0).at == 3.0
    assert copy.deepcopy(event) == event == pickle.loads(pickle.dumps(event))


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_encoder_gives_what_the_plain_one_gives(kind: type[Event]) -> None:
    def encode_value(value: Any, first: Any, second: Any) -> Any:
        return ("encoded", value, first, second)

    event = kind(**arguments_of(kind))
    encoders = [make(kind, kind.VALUES, encode_value) for make in (compiled_encoder, plain_encoder)]
    compiled, plain = (encode(event, "first", "second") for encode in encoders)
    assert compiled == plain
    assert list(compiled) == list(plain) == [field.name for field in dataclasses.fields(kind)]
