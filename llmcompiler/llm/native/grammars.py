"""Grammars for a model in this process, by llguidance: GBNF and JSON schemas.

The module must not know what grammars are for.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from llmcompiler.errors import UsageError

KEPT = 16
"""Grammars that are kept ready: a large one takes a second to read."""


class Grammars:
    """Holds answers of one model to grammars.

    Args:
        tokenizer: of transformers.
        size: of the model's vocabulary, which may be larger than the tokenizer's.
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
        self._tokens = LLTokenizer(_as_json(tokenizer), n_vocab=size, eos_token=end)
        self._ready: OrderedDict[str, Any] = OrderedDict()

    def matcher(self, grammar: str | None, schema: Mapping[str, Any] | None) -> Any:
        """What holds one answer to GBNF or to a JSON schema.

        Raises:
            UsageError: it cannot be read.
        """
        from llguidance import LLMatcher
        from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

        key = grammar if grammar is not None else json.dumps(schema, sort_keys=True)
        if key not in self._ready:
            try:
                read = (
                    LLMatcher.grammar_from_lark(gbnf_to_lark(grammar))
                    if grammar is not None
                    else LLMatcher.grammar_from_json_schema(json.dumps(schema))
                )
            except (GbnfToLarkError, ValueError) as error:
                raise UsageError(f"the answer's grammar cannot be read: {error}") from error
            made = LLMatcher(self._tokens, read)
            if made.is_error():
                raise UsageError(f"the answer's grammar cannot be read: {made.get_error()}")
            self._ready[key] = made
            while len(self._ready) > KEPT:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return self._ready[key].deep_copy()


def _as_json(tokenizer: Any) -> str:
    """The tokenizer as llguidance reads it.

    To the byte-level tokenizer of a GGUF file of Llama's kind, transformers gives the decoder of
    another kind, by which llguidance would take the sign for a space for a letter.
    """
    from tokenizers import decoders, pre_tokenizers

    backend = copy.copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.decoder = decoders.ByteLevel()
    return str(backend.to_str())
