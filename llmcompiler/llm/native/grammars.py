"""Grammars for a model in this process, by llguidance: GBNF and JSON schemas."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from llmcompiler.errors import UsageError

MAX_COMPILED = 16
"""Compiled grammars in memory: a large grammar takes a second to compile."""


class Grammars:
    """Makes matchers, which hold the answers of one model to grammars.

    Args:
        tokenizer: of transformers.
        size: the size of the model's vocabulary, which may be larger than the tokenizer's.
        end: the token that ends an answer.

    Raises:
        UsageError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, size: int, end: int) -> None:
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise UsageError(
                "answers by a grammar need llguidance, which is not installed",
                hint='pip install "llmcompiler-dag[native]"',
            ) from error
        self._tokens = LLTokenizer(_tokenizer_json(tokenizer), n_vocab=size, eos_token=end)
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def matcher(self, grammar: str | None, schema: Mapping[str, Any] | None) -> Any:
        """A matcher that holds one answer to GBNF or to a JSON schema.

        Raises:
            UsageError: the grammar or the schema cannot be read.
        """
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

        key = grammar if grammar is not None else json.dumps(schema, sort_keys=True)
        if key not in self._compiled:
            try:
                llguidance_grammar = (
                    LLMatcher.grammar_from_lark(gbnf_to_lark(grammar))
                    if grammar is not None
                    else LLMatcher.grammar_from_json_schema(json.dumps(schema))
                )
            except (GbnfToLarkError, ValueError) as error:
                raise UsageError(f"the answer's grammar cannot be read: {error}") from error
            matcher = LLMatcher(self._tokens, llguidance_grammar)
            if matcher.is_error():
                raise UsageError(f"the answer's grammar cannot be read: {matcher.get_error()}")
            self._compiled[key] = matcher
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key].deep_copy()


def _tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer as llguidance reads it.

    transformers gives the byte-level tokenizer of a Llama GGUF file the decoder of another kind of
    tokenizer. With that decoder, llguidance would take the sign for a space for a letter.
    """
    from tokenizers import decoders, pre_tokenizers

    backend = copy.copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.decoder = decoders.ByteLevel()
    return str(backend.to_str())
