"""Grammars and schemas of tool catalogues, built once and only where somebody needs them.

A grammar of forty tools takes a tenth of a second to build, and most endpoints take none. So a
request carries a ``LazyGrammar``: a name for the grammar, and the way to build it. What was built
is remembered by the tools' schemas, for all plans with the same tools.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from llmcompiler.language.grammar import GrammarTool, Schema, action_grammar, plan_grammar
from llmcompiler.language.plan_schema import plan_schema

T = TypeVar("T")

MAX_BUILT = 64
"""Most grammars, and most schemas, that are remembered."""

MAX_DIGESTS = 4096
"""Most tools whose digests are remembered."""


class _Memory(Generic[T]):
    """Remembers the values that were used last. Several threads may use it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Any, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> T | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Any, value: T) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)


class LazyGrammar:
    """A GBNF grammar that is built when its text is asked for.

    Args:
        key: names the grammar: equal keys stand for equal texts.
        build: makes the text.

    Attributes:
        key: see the argument.
    """

    def __init__(self, key: str, build: Callable[[], str]) -> None:
        self.key = key
        self._build = build

    @property
    def is_built(self) -> bool:
        """True if the text is there already."""
        return _grammars.get(self.key) is not None

    def text(self) -> str:
        """The grammar's text. It may be called in any thread."""
        text = _grammars.get(self.key)
        if text is None:
            # Of several threads that ask at once, one builds and the others wait.
            with _building:
                text = _grammars.get(self.key)
                if text is None:
                    text = self._build()
                    _grammars.put(self.key, text)
        return text


Grammar: TypeAlias = str | LazyGrammar
"""A grammar's text, or the grammar that has it."""

_grammars: _Memory[str] = _Memory(MAX_BUILT)
_schemas: _Memory[Schema] = _Memory(MAX_BUILT)
_digests: _Memory[tuple[str, Any]] = _Memory(MAX_DIGESTS)
_building = threading.Lock()


def grammar_text(grammar: Grammar) -> str:
    """The text of a grammar."""
    return grammar if isinstance(grammar, str) else grammar.text()


def grammar_key(grammar: Grammar) -> str:
    """The name of a grammar, which is as long for a large one as for a small one."""
    return _digest(grammar) if isinstance(grammar, str) else grammar.key


def lazy_plan_grammar(
    tools: Mapping[str, GrammarTool], *, first_id: int = 1, earlier_ids: Iterable[int] = ()
) -> LazyGrammar:
    """As ``plan_grammar``, built when it is needed."""
    earlier = tuple(sorted(set(earlier_ids)))
    return LazyGrammar(
        _digest(f"plan {first_id} {earlier} {_catalogue_digest(tools)}"),
        lambda: plan_grammar(tools, first_id=first_id, earlier_ids=earlier),
    )


def lazy_action_grammar(tools: Mapping[str, GrammarTool]) -> LazyGrammar:
    """As ``action_grammar``, built when it is needed."""
    return LazyGrammar(_digest(f"action {_catalogue_digest(tools)}"), lambda: action_grammar(tools))


def shared_plan_schema(tools: Mapping[str, GrammarTool]) -> Schema:
    """As ``plan_schema``, built once for all plans with these tools. It must not be changed."""
    key = _catalogue_digest(tools)
    schema = _schemas.get(key)
    if schema is None:
        schema = plan_schema(tools)
        _schemas.put(key, schema)
    return schema


def _catalogue_digest(tools: Mapping[str, GrammarTool]) -> str:
    return _digest("\n".join(_tool_digest(tool) for tool in tools.values()))


def _tool_digest(tool: GrammarTool) -> str:
    schemas = (tool.parameters_schema, tool.return_schema)
    # The schemas are kept with the digest, so that no other object can get their addresses.
    key = (tool.name, *map(id, schemas))
    entry = _digests.get(key)
    if entry is None:
        entry = (_digest(json.dumps([tool.name, *schemas])), schemas)
        _digests.put(key, entry)
    return entry[0]


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
