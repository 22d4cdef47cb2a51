"""Generated code that does what plain Python does, in less time.

Each trick stands beside its plain equivalent. ``tests/project/test_speed.py`` holds that both
agree, and ``benchmarks/tricks.py`` measures what a trick is worth. One that saves less than a tenth
of the operation that it serves is removed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

PLAIN_CONSTRUCTORS: dict[type, Callable[..., None]] = {}
"""The ``__init__`` of each class before ``use_slot_constructor`` replaced it."""


def use_slot_constructor(kind: type) -> None:
    """Give a frozen dataclass with slots an ``__init__`` that calls the setters of its slots.

    The plain ``__init__`` calls ``object.__setattr__``, which looks each field up by its name.
    Without the look-ups, an instance takes about half the time. All defaults must be values, not
    factories.
    """
    plain: Any = kind.__init__  # type: ignore[misc]
    PLAIN_CONSTRUCTORS[kind] = plain
    names = [field.name for field in dataclasses.fields(kind)]
    scope: dict[str, Any] = {f"set_{name}": getattr(kind, name).__set__ for name in names}
    lines = "".join(f"    set_{name}(self, {name})\n" for name in names)
    exec(f"def __init__(self, {', '.join(names)}):\n{lines}", scope)
    constructor = scope["__init__"]
    constructor.__defaults__ = plain.__defaults__
    constructor.__annotations__ = plain.__annotations__
    constructor.__qualname__ = plain.__qualname__
    setattr(kind, "__init__", constructor)  # noqa: B010


Encoder: TypeAlias = Callable[..., dict[str, Any]]
"""Called with an instance and the further arguments of ``encode_value``; returns its fields."""


def compiled_encoder(
    kind: type, encoded_fields: Collection[str], encode_value: Callable[..., Any]
) -> Encoder:
    """An encoder that is one dict display, so that no loop runs for an instance.

    Args:
        kind: a dataclass.
        encoded_fields: names of the fields whose values go through ``encode_value``.
        encode_value: called with a field's value and the encoder's two further arguments.
    """
    items = ", ".join(
        f"{name!r}: encode_value(instance.{name}, first, second)"
        if name in encoded_fields
        else f"{name!r}: instance.{name}"
        for name in (field.name for field in dataclasses.fields(kind))
    )
    encoder: Encoder = eval(
        f"lambda instance, first, second: {{{items}}}", {"encode_value": encode_value}
    )
    return encoder


def plain_encoder(
    kind: type, encoded_fields: Collection[str], encode_value: Callable[..., Any]
) -> Encoder:
    """The plain equivalent of ``compiled_encoder``."""
    fields = [(field.name, field.name in encoded_fields) for field in dataclasses.fields(kind)]

    def encode(instance: Any, first: Any, second: Any) -> dict[str, Any]:
        return {
            name: encode_value(getattr(instance, name), first, second)
            if encoded
            else getattr(instance, name)
            for name, encoded in fields
        }

    return encode
