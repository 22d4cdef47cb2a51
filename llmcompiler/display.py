"""How objects show themselves, printed or in a notebook: by layers above them.

An object says here that it wants to be shown; the package's root, which knows every layer and is
imported before any of them, says who shows what. So neither imports the other. The module must not
know what is shown, nor how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Showing: TypeAlias = Callable[[Any], str]

_DRAWINGS: dict[str, Callable[[], Showing]] = {}
_TEXTS: dict[str, Callable[[], Showing]] = {}


def drawn_by(kind: str, find: Callable[[], Showing]) -> None:
    """Have objects of a class drawn by what ``find`` gives, which is called at the first of them.

    Args:
        kind: the name of the class.
        find: imports and gives the function from an object to its HTML.
    """
    _DRAWINGS[kind] = find


def html_of(kind: str, one: object) -> str:
    """The object, of a class that ``drawn_by`` named, as HTML for a notebook's ``_repr_html_``."""
    return _DRAWINGS[kind]()(one)


def written_by(kind: str, find: Callable[[], Showing]) -> None:
    """As ``drawn_by``, for the text that ``print`` shows."""
    _TEXTS[kind] = find


def text_of(kind: str, one: object) -> str:
    """The object, of a class that ``written_by`` named, as text for its ``__str__``."""
    return _TEXTS[kind]()(one)
