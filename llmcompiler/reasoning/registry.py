"""Strategies by name: built-in, from other packages, and registered by the program.

A built-in strategy is imported when it is first used. Another package offers a strategy by an
entry point of the group ``llmcompiler.strategies``, named like the strategy. A program calls
``register``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmcompiler.errors import UsageError
from llmcompiler.reasoning.base import Strategy

GROUP = "llmcompiler.strategies"

_BUILT_IN = {
    "atts": "atts:Atts",
    "codemonkeys": "codemonkeys:CodeMonkeys",
    "hogwild": "hogwild:Hogwild",
    "moa": "moa:Moa",
    "multiverse": "multiverse:Multiverse",
    "parallel_r1": "parallel_r1:ParallelR1",
    "parathinker": "parathinker:ParaThinker",
    "pdr": "pdr:Pdr",
    "refine": "refine:Refine",
    "rsa": "rsa:Rsa",
    "vote": "vote:Vote",
}
_registered: dict[str, type[Strategy]] = {}

S = TypeVar("S", bound=type[Any])


def register(strategy: S) -> S:
    """Register a strategy class under its name; usable as a decorator.

    Raises:
        UsageError: the name is taken, or the class is not a pydantic model.
    """
    name = strategy.name
    if name in _BUILT_IN or _registered.get(name, strategy) is not strategy:
        raise UsageError(f'there is a strategy "{name}" already', hint="give yours another name")
    if not issubclass(strategy, BaseModel):
        raise UsageError(
            f'the strategy "{name}" is not a pydantic model',
            hint="derive it from pydantic.BaseModel; its fields are its options",
        )
    _registered[name] = strategy
    return strategy


def strategy_names() -> list[str]:
    """The names of all strategies, sorted."""
    return sorted({*_BUILT_IN, *_registered, *_entry_points()})


def strategy_class(name: str) -> type[Strategy]:
    """The class of the strategy of that name.

    Raises:
        UsageError: there is no such strategy, or it cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        strategy_module = importlib.import_module(f"llmcompiler.reasoning.strategies.{module}")
        return getattr(strategy_module, attribute)  # type: ignore[no-any-return]
    if (entry_point := _entry_points().get(name)) is not None:
        try:
            return entry_point.load()  # type: ignore[no-any-return]
        except Exception as error:
            raise UsageError(
                f'the strategy "{name}" ({entry_point.value}) cannot be loaded: {error}'
            ) from error
    names = strategy_names()
    similar_names = difflib.get_close_matches(name, names, 1)
    raise UsageError(
        f'there is no strategy "{name}"',
        hint=f"did you mean {similar_names[0]}?"
        if similar_names
        else f"one of: {', '.join(names)}",
    )


def make_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """Make a strategy with options.

    Raises:
        UsageError: there is no such strategy or option, or a value does not fit.
    """
    cls = strategy_class(name)
    assert issubclass(cls, BaseModel)
    fields = list(cls.model_fields)
    for option in options:
        if option not in fields:
            similar_options = difflib.get_close_matches(option, fields, 1)
            raise UsageError(
                f'the strategy "{name}" has no option "{option}"',
                hint=f"did you mean {similar_options[0]}?"
                if similar_options
                else f"it has: {', '.join(fields)}",
            )
    try:
        return cls(**options)
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        location = ".".join(map(str, first_error["loc"])) or "its options"
        raise UsageError(
            f'strategy "{name}": {location}: {first_error["msg"].removeprefix("Value error, ")}'
        ) from None


def strategy_options(name: str) -> dict[str, Any]:
    """The options of a strategy and their defaults."""
    cls = strategy_class(name)
    assert issubclass(cls, BaseModel)
    return {
        option: field.get_default(call_default_factory=True)
        for option, field in cls.model_fields.items()
    }


def strategy_summary(name: str) -> str:
    """The first line of a strategy's docstring."""
    return inspect.cleandoc(strategy_class(name).__doc__ or "").partition("\n")[0]


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
