"""One text that is being written: the tokens to feed to the model next, and the scores' outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from llmcompiler.llm.base import Completion, Logprobs, Request, Usage
from llmcompiler.llm.native.loading import LoadedModel
from llmcompiler.llm.native.rotary import Tensor
from llmcompiler.llm.native.sampling import Sampler
from llmcompiler.llm.native.token_text import TokenText
from llmcompiler.llm.native.views import BlockId, View, plan_group

CHUNK_TOKENS = 256
"""Tokens that are read at once; other texts are written on between two such chunks."""

Deliver: TypeAlias = Callable[[str | Completion | BaseException], None]
"""Takes the pieces of a text, then its ``Completion`` or an error."""


class Writer:
    """A text that is being written.

    Args:
        loaded: the model.
        request: the request that the text answers.
        block: the block that the text is written to.
        deliver: takes pieces of text, then a ``Completion``.
        name: the model's name, for the completion.
        banned: tokens that the writer may not write.
        matcher: the matcher of a grammar.

    Attributes:
        queue: tokens that the model has not been fed yet; a decoding step needs exactly one.
        recorded_tokens: tokens that the record of an earlier process gives, still to be fed.
        prompt_tokens: tokens of the prompt, for the usage.
        cached_tokens: prompt tokens that were read for other calls.
        finish: the finish reason; empty while the text goes on.
        decoded_tokens: tokens that were picked.
        recalled_tokens: tokens that the record gave.
        pieces: how many pieces were delivered.
        thought_number: the number of the writer's line of thought, for models that were trained to
            have several; 0 for none.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        request: Request,
        block: BlockId,
        deliver: Deliver,
        name: str,
        *,
        banned: tuple[int, ...] = (),
        matcher: object = None,
    ) -> None:
        self.loaded = loaded
        self.request = request
        self.block = block
        self.queue: list[int] = []
        self.recorded_tokens: deque[int] = deque()
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.finish = ""
        self.decoded_tokens = 0
        self.recalled_tokens = 0
        self.pieces = 0
        self.thought_number = 0
        self._name = name
        self._deliver = deliver
        self._sampler = Sampler(
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            banned=banned,
            matcher=matcher,
            logprobs=request.logprobs,
        )
        # The record of a workspace holds text only, so special tokens must show in the text.
        special = request.seat is not None
        self._token_text = TokenText(loaded.tokenizer, request.stop, special=special)
        self._text: list[str] = []

    def take_scores(self, scores: Tensor, visible: int) -> str:
        """Pick the next token by the scores behind the last one, and deliver its text.

        Args:
            scores: one score for each token of the vocabulary.
            visible: tokens that the writer sees, its own included.

        Returns:
            The text that became whole with the token, delivered or recorded before.
        """
        from_record = bool(self.recorded_tokens)
        if from_record:
            token = self.recorded_tokens.popleft()
            self._sampler.skip()
        else:
            token = self._sampler.pick(scores)
            self.decoded_tokens += 1
        self.queue = [token]
        if token in self.loaded.end_tokens:
            self.end("stop")
            return ""
        text = self._token_text.take(token)
        if not from_record:
            self.deliver(text)
        if self._token_text.stopped:
            self.end("stop")
        elif not self.recorded_tokens:
            limit = self.request.max_tokens or self.loaded.context
            tokens = self.recalled_tokens + self.decoded_tokens
            if tokens >= limit or visible + 1 >= self.loaded.context:
                self.end("length")
        return text

    def deliver(self, text: str) -> None:
        """Deliver a piece of text, if it is not empty."""
        if text:
            self._text.append(text)
            self.pieces += 1
            self._deliver(text)

    def end(self, finish: Literal["stop", "length"]) -> None:
        """End the text and deliver its completion."""
        if self.finish:
            return
        self.deliver(self._token_text.flush())
        self.finish = finish
        logprobs = None
        if self.request.logprobs is not None:
            places = self._sampler.token_logprobs
            logprobs = Logprobs(
                tuple(place.chosen for place in places), tuple(place.top for place in places)
            )
        usage = Usage(self.prompt_tokens, self.cached_tokens, self.decoded_tokens, 1)
        self._deliver(Completion("".join(self._text), finish, usage, self._name, logprobs))


def prefill(
    loaded: LoadedModel, view: View, tokens: list[int], thought_number: int = 0
) -> Iterable[Tensor]:
    """Read tokens into a view's own block; yields the scores behind each chunk."""
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens[start : start + CHUNK_TOKENS]
        group = plan_group([view], [len(chunk)], loaded.rotation)
        yield loaded.forward([group], [chunk], [thought_number])
