"""Chats as tokens, by the template that came with the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.language.lazy_grammar import grammar_text
from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import Message
from llmcompiler.llm.native.grammars import Grammars
from llmcompiler.llm.native.loading import LoadedModel


class ChatTokenizer:
    """Turns chats, texts and grammars into the tokens of a loaded model.

    Args:
        loaded: the model.

    Raises:
        UsageError: the model came without a chat template.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        if not loaded.tokenizer.chat_template:
            raise UsageError(
                "this model came without a chat template, so it cannot be asked anything",
                hint="use a model that was tuned to follow instructions",
            )
        self.loaded = loaded
        self._grammars: Grammars | None = None
        self._token_by_text: dict[str, int] = {}

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A chat as tokens, up to where the answer begins or goes on.

        Raises:
            ModelError: the chat is longer than the model's context.
        """
        continues = messages[-1].role == "assistant"
        text = self.loaded.tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            tokenize=False,
            add_generation_prompt=not continues,
            continue_final_message=continues,
        )
        tokens = self.tokens(text)
        if len(tokens) >= self.loaded.context:
            raise ModelError(
                f"the prompt has {len(tokens)} tokens, and the model's context "
                f"{self.loaded.context}",
                hint="the prompt is longer than the model's context; ask with less",
            )
        return tokens

    def tokens(self, text: str) -> list[int]:
        """A text as tokens, without special tokens before or behind it."""
        ids: list[int] = self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def piece_tokens(self, pieces: Sequence[str]) -> list[int]:
        """The tokens that the model had picked when it wrote these pieces of text.

        A piece is nearly always one token's text. Tokenizing the piece may give other tokens: a
        model may spell a word in other tokens than the tokenizer.
        """
        if not pieces:
            return []
        if not self._token_by_text:
            tokenizer = self.loaded.tokenizer
            ids = sorted(tokenizer.get_vocab().values())
            texts = tokenizer.batch_decode(
                [[number] for number in ids], clean_up_tokenization_spaces=False
            )
            self._token_by_text = dict(zip(reversed(texts), reversed(ids), strict=True))
        tokens: list[int] = []
        for piece in pieces:
            token = self._token_by_text.get(piece)
            tokens += self.tokens(piece) if token is None else [token]
        return tokens

    def single_tokens(self, texts: Iterable[str]) -> tuple[int, ...]:
        """The tokens of those texts that are one token of the model's."""
        return tuple(ids[0] for text in texts if len(ids := self.tokens(text)) == 1)

    def matcher(self, request: Request) -> Any:
        """The matcher of the request's grammar or schema; ``None`` for neither."""
        if request.grammar is None and request.schema is None:
            return None
        if self._grammars is None:
            config = self.loaded.model.config
            self._grammars = Grammars(
                self.loaded.tokenizer,
                max(config.vocab_size, len(self.loaded.tokenizer)),
                min(self.loaded.end_tokens),
            )
        return self._grammars.matcher(
            None if request.grammar is None else grammar_text(request.grammar), request.schema
        )
