"""Results of calls alike, side by side: a line for each quantity, the largest first.

Asked which of two countries is denser, a small model that finds the two densities in two lines, and
the populations marked beside them, often names the wrong one. In one line, by owner and in order,
they cannot be mistaken. The module must not know who reads the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmcompiler.prompting.formatting import value_text


class Quantity(NamedTuple):
    """A number that somebody might compare with others.

    Attributes:
        form: what calls alike have in common.
        name: of the quantity: a field, or a formula without its owner.
        owner: whose number it is.
        value: the number.
        task: the call that returned it.
    """

    form: tuple[str, ...]
    name: str
    owner: str
    value: int | float
    task: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Numbers of one kind, of two owners or more.

    Attributes:
        text: the line.
        tasks: whose numbers it tells.
        name: of the quantity.
    """

    text: str
    tasks: frozenset[int]
    name: str


def compare(quantities: Iterable[Quantity]) -> list[Comparison]:
    """Put together what is of one kind; what stands alone, or twice for one owner, is left out."""
    groups: dict[tuple[tuple[str, ...], str], dict[str, Quantity]] = {}
    doubled = set()
    for one in quantities:
        key = (one.form, one.name)
        if one.owner in groups.setdefault(key, {}):
            doubled.add(key)
        groups[key][one.owner] = one
    return [
        Comparison(_line(key[1], group), frozenset(one.task for one in group.values()), key[1])
        for key, group in groups.items()
        if len(group) > 1 and key not in doubled
    ]


def _line(name: str, group: Mapping[str, Quantity]) -> str:
    ranked = sorted(group.values(), key=lambda one: -one.value)
    most, least = ranked[0].value, ranked[-1].value

    def mark(value: Any) -> str:
        if most == least:
            return ""
        return " (highest)" if value == most else " (lowest)" if value == least else ""

    told = "; ".join(f"{one.owner} = {value_text(one.value)}{mark(one.value)}" for one in ranked)
    return f"{name}: {told}"
