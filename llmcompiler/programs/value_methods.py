"""Methods of values, by their type."""

from __future__ import annotations

from llmcompiler.programs import subset
from llmcompiler.programs.value_types import (
    NOTHING,
    TEXT,
    Alternative,
    Items,
    Record,
    Scalar,
    Table,
    Type,
    forget,
    list_of,
    tuple_of,
    union,
)


def methods_of(alt: Alternative) -> frozenset[str]:
    """Names of the methods that a value has."""
    match alt:
        case Scalar(kind="string"):
            return subset.METHODS[str]
        case Scalar(kind="integer"):
            return subset.METHODS[int]
        case Scalar(kind="number"):
            return subset.METHODS[float] | subset.METHODS[int]
        case Items(kind=kind):
            return subset.METHODS[{"list": list, "set": set, "tuple": tuple}[kind]]
        case Table() | Record():
            return subset.METHODS[dict]
    return frozenset()


def table_method(owner: Table, name: str, types: list[Type]) -> Type:
    """The type of what a method of a dict gives."""
    match name:
        case "get":
            return union(owner.value, *(types[1:] or [NOTHING]))
        case "items":
            return list_of(tuple_of([owner.key, owner.value]))
        case "keys":
            return list_of(owner.key)
        case "values":
            return list_of(owner.value)
        case "copy":
            return (Table(owner.key, owner.value),)
    forget((owner,))
    return None


def record_method(owner: Record, name: str) -> Type:
    """The type of what a method of a record gives."""
    match name:
        case "keys":
            return list_of(TEXT)
        case "items":
            return list_of(tuple_of([TEXT, None]))
        case "get" | "values":
            return None
    owner.is_open = True
    return None
