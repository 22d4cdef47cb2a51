"""What functions of tools return: read to its end as a part of the call, or that call's failure."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, computed_field

from llmcompiler import LLMCompiler, parse_plan, tool
from llmcompiler.run.result import RunResult
from llmcompiler.testing import run_virtual
from llmcompiler.tools.base import Tool
from llmcompiler.tools.policy import Retry


@tool
async def other() -> str:
    """Another call, which goes on whatever happens to the first."""
    await asyncio.sleep(5)
    return "fine"


def outcome_of(function: Callable[..., Any], **options: Any) -> RunResult:
    """The result of a run of the function, beside a call that takes longer."""
    made: Tool = tool(name="made", **options)(function)

    async def main() -> RunResult:
        async with LLMCompiler([made, other], store=":memory:") as compiler:
            return await compiler.execute(parse_plan("1. made()\n2. other()\n3. join($2)"))

    return run_virtual(main())


def failure_of_call(function: Callable[..., Any], **options: Any) -> str:
    """The message of the call's failure; the other call has succeeded."""
    result = outcome_of(function, **options)
    assert result.value == "fine"
    assert result.observations[1].failure is not None
    return result.observations[1].failure.message


# --- what has to be read --------------------------------------------------------------------------


async def two() -> int:
    await asyncio.sleep(1)
    return 2


def wrapper() -> Coroutine[Any, Any, int]:
    return two()


class Client:
    async def __call__(self) -> int:
        return await two()


def items() -> Iterator[int]:
    yield from (1, 2)


async def async_items() -> AsyncIterator[int]:
    for number in (1, 2):
        await asyncio.sleep(1)
        yield number


def wrapped_items() -> AsyncIterator[int]:
    return async_items()


async def items_later() -> Iterator[int]:
    return items()


def later_async_items() -> Awaitable[AsyncIterator[int]]:
    async def give() -> AsyncIterator[int]:
        return async_items()

    return give()


@pytest.mark.parametrize(
    ("function", "value", "schema"),
    [
        (wrapper, 2, "int"),
        (functools.partial(Client()), 2, "int"),
        (functools.partial(two), 2, "int"),
        (items, [1, 2], "list[int]"),
        (async_items, [1, 2], "list[int]"),
        (functools.partial(async_items), [1, 2], "list[int]"),
        (wrapped_items, [1, 2], "list[int]"),
        (items_later, [1, 2], "list[int]"),
        (later_async_items, [1, 2], "list[int]"),
    ],
)
def test_a_result_is_awaited_and_collected_and_so_is_its_type(
    function: Callable[..., Any], value: Any, schema: str
) -> None:
    assert tool(name="made")(function).signature() == f"made() -> {schema}"
    assert outcome_of(function).observations[1].value == value


def test_an_error_between_two_items_is_the_calls_and_is_retried() -> None:
    attempts = itertools.count(1)

    def flaky() -> Iterator[int]:
        yield 1
        if next(attempts) == 1:
            raise ConnectionError("connection lost")

    assert outcome_of(flaky, retry=Retry(on=(ConnectionError,))).observations[1].value == [1]
    assert "connection lost" in failure_of_call(lost_between_items)


def lost_between_items() -> Iterator[int]:
    yield 1
    raise ConnectionError("connection lost")


def test_items_without_end_stop_at_the_timeout() -> None:
    def endless() -> Iterator[int]:
        yield from itertools.repeat(1)

    async def endless_async() -> AsyncIterator[int]:
        while True:
            await asyncio.sleep(1)
            yield 1

    assert "timed out" in failure_of_call(endless, timeout=0.01)
    assert "timed out" in failure_of_call(endless_async, timeout=3)


# --- what cannot be JSON --------------------------------------------------------------------------


class Row(BaseModel):
    """A row with a field that cannot be computed."""

    a: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def b(self) -> int:
        raise KeyError("missing")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Row(a=1), "KeyError: 'missing'"),
        (nested(1_000), "nested too deeply"),
        (nested(100_000), "nested too deeply"),
        ({1: "a", "1": "b"}, "two keys of a dict are '1'"),
        ([{"a": {None: 1, "None": 2}}], "two keys of a dict are 'None'"),
        ({"a": [float("nan")]}, "nan is not a JSON number"),
        (b"\xff", "utf-8"),
        (object(), "object is no type that JSON has"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_be_json_is_that_calls_failure(value: Any, words: str) -> None:
    assert words in failure_of_call(lambda: value)


def test_scalars_and_arrays_of_numpy_and_pandas_are_plain_values() -> None:
    numpy = pytest.importorskip("numpy")
    value = {"a": numpy.int64(3), "b": numpy.bool_(True), "c": numpy.array([[1.5, 2.0]])}
    assert outcome_of(lambda: value).observations[1].value == {"a": 3, "b": True, "c": [[1.5, 2.0]]}


# --- what exceptions say --------------------------------------------------------------------------


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def fails_in_a_group() -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(fail(ConnectionError("the shop is closed")))
        group.create_task(fail(KeyError("lamp")))


def test_a_group_of_exceptions_names_those_inside_and_is_retried_if_each_would_be() -> None:
    message = failure_of_call(fails_in_a_group)
    assert "ConnectionError: the shop is closed" in message
    assert "KeyError: 'lamp'" in message
    group = ExceptionGroup("two", [ConnectionError(), ExceptionGroup("one", [TimeoutError()])])
    assert Retry(on=(ConnectionError, TimeoutError)).helps(group, 1)
    assert not Retry(on=(ConnectionError,)).helps(group, 1)


def test_notes_and_texts_that_cannot_be_read_are_told() -> None:
    def noted() -> None:
        error = ValueError("bad row")
        error.add_note("in line 7")
        raise error

    def unreadable() -> None:
        raise Unreadable

    assert failure_of_call(noted) == "bad row\nin line 7"
    assert "__str__ raised RuntimeError" in failure_of_call(unreadable)
