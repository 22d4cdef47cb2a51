"""How a model is talked to: chats as tokens, by the template that came with the model.

The module must not know caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm.base import Request
from llmcompiler.llm.messages import Message
from llmcompiler.llm.native.grammars import Grammars
from llmcompiler.llm.native.loading import Loaded


class Chat:
    """A loaded model as one that answers chats.

    Args:
        loaded: the model.

    Raises:
        UsageError: it came without a chat template.
    """

    def __init__(self, loaded: Loaded) -> None:
        if not loaded.tokenizer.chat_template:
            raise UsageError(
                "this model came without a chat template, so it cannot be asked anything",
                hint="use a model that was tuned to follow instructions",
            )
        self.loaded = loaded
        self._grammars: Grammars | None = None
        self._by_text: dict[str, int] = {}

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """A chat as tokens, up to where the answer begins or goes on.

        Raises:
            ModelError: it is longer than the model's context.
        """
        continues = messages[-1].role == "assistant"
        text = self.loaded.tokenizer.apply_chat_template(
            [_plain(message) for message in messages],
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
        """A text as tokens, nothing put before or behind it."""
        found: list[int] = self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def written(self, pieces: Sequence[str]) -> list[int]:
        """What a model had picked when it wrote these pieces of text.

        A piece is a token's text nearly always, and need not be what a tokenizer makes of it: a
        model may spell a word in other tokens than it was taught.
        """
        if not pieces:
            return []
        if not self._by_text:
            tokenizer = self.loaded.tokenizer
            ids = sorted(tokenizer.get_vocab().values())
            texts = tokenizer.batch_decode(
                [[number] for number in ids], clean_up_tokenization_spaces=False
            )
            self._by_text = dict(zip(reversed(texts), reversed(ids), strict=True))
        found: list[int] = []
        for piece in pieces:
            token = self._by_text.get(piece)
            found += self.tokens(piece) if token is None else [token]
        return found

    def known(self, texts: Iterable[str]) -> tuple[int, ...]:
        """Those of the texts that are tokens of the model's."""
        return tuple(ids[0] for text in texts if len(ids := self.tokens(text)) == 1)

    def matcher(self, request: Request) -> Any:
        """What holds the answer to the request's grammar or schema; ``None`` for neither."""
        if request.grammar is None and request.schema is None:
            return None
        if self._grammars is None:
            config = self.loaded.model.config
            self._grammars = Grammars(
                self.loaded.tokenizer,
                max(config.vocab_size, len(self.loaded.tokenizer)),
                min(self.loaded.ends),
            )
        return self._grammars.matcher(request.grammar, request.schema)


def _plain(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
