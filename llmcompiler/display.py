"""How objects show themselves in notebooks: by drawings that lie in layers above them.

An object says here that it wants to be drawn; the package's root, which knows every layer and is
imported before any of them, says who draws what. So neither imports the other. The module must not
know what is drawn, nor how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Drawing: TypeAlias = Callable[[Any], str]

_DRAWINGS: dict[str, Callable[[], Drawing]] = {}


def drawn_by(kind: str, find: Callable[[], Drawing]) -> None:
    """Have objects of a class drawn by what ``find`` gives, which is called at the first of them.

    Args:
        kind: the name of the class.
        find: imports and gives the function from an object to its HTML.
    """
    _DRAWINGS[kind] = find


def html_of(kind: str, one: object) -> str:
    """The object, of a class that ``drawn_by`` named, as HTML for a notebook's ``_repr_html_``."""
    return _DRAWINGS[kind]()(one)
