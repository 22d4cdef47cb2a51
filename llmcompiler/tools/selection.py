"""Selects the tools that a question may need, where a prompt cannot show all of them.

A prompt with hundreds of signatures is slow to read and hard to choose from. So the tools are
ranked by the words that they share with the question: BM25 (Robertson and Zaragoza, "The
Probabilistic Relevance Framework: BM25 and Beyond", 2009) over names, descriptions and parameters.
A question often asks for several things, so each of its sentences has a ranking of its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llmcompiler.tools.base import Tool

THRESHOLD = 40
"""A prompt shows all tools if there are at most so many."""

SELECTED = 24
"""Number of tools that are selected from more than ``THRESHOLD``."""

_WORD = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PART = re.compile(r"(?<=[.?!;:])\s+|\n+|,?\s+(?:and|then|also)\s+")
_COMMON = frozenset(
    "a an and are as at be by for from given how i if in into is it its me my of on or please "
    "such that the this to was what when which who will with would you your".split()
)
_ENDINGS = re.compile(r"(?:y|ies|e|es|s|ing|ed|ion|ions|or|ors|er|ers)$")


def select_tools(
    question: str,
    tools: Mapping[str, Tool],
    *,
    always: Iterable[str] = (),
    threshold: int = THRESHOLD,
    count: int = SELECTED,
) -> dict[str, Tool]:
    """The tools to plan with.

    Args:
        question: the question, and further text about the matter.
        tools: all tools, by name.
        always: names of tools to select in any case, such as tools that were used before.
        threshold: if there are at most so many tools, all of them are returned.
        count: number of tools to select otherwise.

    Returns:
        The selected tools in the order of the catalogue.
    """
    if len(tools) <= threshold:
        return dict(tools)
    names = list(tools)
    selected = dict.fromkeys(name for name in always if name in tools)
    for place in _rank(question, [_document(tool) for tool in tools.values()]):
        if len(selected) >= count:
            break
        selected[names[place]] = None
    return {name: tools[name] for name in names if name in selected}


def _rank(question: str, documents: list[list[str]]) -> Iterator[int]:
    """Places of the documents, the most relevant first; the question and its parts take turns."""
    import bm25s

    index = bm25s.BM25()
    index.index(documents, show_progress=False)
    rankings: list[list[int]] = []
    for part in dict.fromkeys([question, *_PART.split(question)]):
        words = [word for word in _words(part) if word in index.vocab_dict]
        if not words:
            continue
        scores = index.get_scores(words)
        order = sorted(range(len(documents)), key=lambda place: (-scores[place], place))
        rankings.append([place for place in order if scores[place] > 0])
    relevant: dict[int, None] = {}
    for row in itertools.zip_longest(*rankings):
        relevant.update(dict.fromkeys(place for place in row if place is not None))
    yield from relevant
    yield from (place for place in range(len(documents)) if place not in relevant)


def _document(tool: Tool) -> list[str]:
    # The name sums up the rest in one or two words, so it counts more.
    return [
        *_words(tool.name) * 3,
        *_words(tool.description),
        *_words(" ".join(_schema_texts(tool.parameters_schema))),
    ]


def _schema_texts(schema: Any) -> Iterator[str]:
    """Names, descriptions and choices in a schema."""
    if isinstance(schema, Mapping):
        yield from map(str, schema.get("properties", ()))
        yield str(schema.get("description", ""))
        yield from (choice for choice in schema.get("enum", ()) if isinstance(choice, str))
        for inner in schema.values():
            yield from _schema_texts(inner)
        for inner in schema.get("properties", {}).values():
            yield from _schema_texts(inner)


def _words(text: str) -> list[str]:
    """The words of a text in lower case, without endings and without words such as "the"."""
    words = _WORD.findall(_HUMP.sub(" ", text).lower())
    return [_stem(word) for word in words if word not in _COMMON]


def _stem(word: str) -> str:
    stem = _ENDINGS.sub("", word)
    return stem if len(stem) >= 3 else word
