"""Strategies by name: those of this package, those of others' packages, and the user's own.

Built-in ones are imported when they are asked for. Another package offers one by an entry point of
the group ``llmcompiler.strategies``, whose name is the strategy's; a program calls ``register``.
The module must not know what strategies do.
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
    """Make a strategy known under its name; may be used as a decorator.

    Raises:
        UsageError: the name is taken, or the class is no pydantic model.
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
    """Every strategy that can be asked for."""
    return sorted({*_BUILT_IN, *_registered, *_offered()})


def strategy_class(name: str) -> type[Strategy]:
    """The strategy of that name.

    Raises:
        UsageError: there is none, or it cannot be imported.
    """
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found = importlib.import_module(f"llmcompiler.reasoning.strategies.{module}")
        return getattr(found, attribute)  # type: ignore[no-any-return]
    if (offered := _offered().get(name)) is not None:
        try:
            return offered.load()  # type: ignore[no-any-return]
        except Exception as error:
            raise UsageError(
                f'the strategy "{name}" ({offered.value}) cannot be loaded: {error}'
            ) from error
    known = strategy_names()
    close = difflib.get_close_matches(name, known, 1)
    raise UsageError(
        f'there is no strategy "{name}"',
        hint=f"did you mean {close[0]}?" if close else f"one of: {', '.join(known)}",
    )


def make_strategy(name: str, options: Mapping[str, Any]) -> Strategy:
    """A strategy with options.

    Raises:
        UsageError: there is no such strategy or option, or a value does not fit.
    """
    found = strategy_class(name)
    assert issubclass(found, BaseModel)
    fields = list(found.model_fields)
    for option in options:
        if option not in fields:
            close = difflib.get_close_matches(option, fields, 1)
            raise UsageError(
                f'the strategy "{name}" has no option "{option}"',
                hint=f"did you mean {close[0]}?" if close else f"it has: {', '.join(fields)}",
            )
    try:
        return found(**options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "its options"
        raise UsageError(
            f'strategy "{name}": {where}: {first["msg"].removeprefix("Value error, ")}'
        ) from None


def strategy_options(name: str) -> dict[str, Any]:
    """The options of a strategy and their defaults."""
    found = strategy_class(name)
    assert issubclass(found, BaseModel)
    return {
        option: field.get_default(call_default_factory=True)
        for option, field in found.model_fields.items()
    }


def strategy_summary(name: str) -> str:
    """The first sentence of a strategy's description."""
    return inspect.cleandoc(strategy_class(name).__doc__ or "").partition("\n")[0]


def _offered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
