"""One text that is being written: what is fed to the model next, and what becomes of its scores.

The module must not know what other texts there are, nor threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from llmcompiler.llm.base import Completion, Logprobs, Request, Usage
from llmcompiler.llm.native.loading import Loaded
from llmcompiler.llm.native.rotary import Tensor
from llmcompiler.llm.native.sampling import Sampler
from llmcompiler.llm.native.token_text import Words
from llmcompiler.llm.native.views import BlockId, View, plan_group

PREFILL = 256
"""Tokens that are read at once; between two such chunks, other texts are written on."""

Deliver: TypeAlias = Callable[[str | Completion | BaseException], None]


class Writer:
    """A text on its way.

    Args:
        loaded: the model.
        request: what is asked.
        block: where it is written.
        deliver: takes pieces of text, then a ``Completion``.
        name: of the model, for the completion.
        banned: tokens that it may not write.
        matcher: of a grammar.

    Attributes:
        queue: tokens that the model has not been fed yet; one is what a step needs.
        script: tokens that are known already, from the record of an earlier process.
        prompt_tokens: what it was asked, for the account.
        cached_tokens: those of them that had been read for others.
        finish: how it ended; empty while it goes on.
        decoded: tokens picked.
        recalled: tokens that were in ``script``.
        pieces: how many were handed on.
        thought: the number of its line of thought, for models that were trained to have such.
    """

    def __init__(
        self,
        loaded: Loaded,
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
        self.script: deque[int] = deque()
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.finish = ""
        self.decoded = 0
        self.recalled = 0
        self.pieces = 0
        self.thought = 0
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
        # At a workspace, the text is all that is kept of what the others have seen.
        special = request.seat is not None
        self._words = Words(loaded.tokenizer, request.stop, special=special)
        self._text: list[str] = []

    def took(self, scores: Tensor, seen: int) -> str:
        """Take the scores behind what was fed: pick the next token, tell what it says.

        Args:
            scores: of the whole vocabulary.
            seen: tokens that the writer sees, its own included.

        Returns:
            The text that became whole by it, shown or not.
        """
        if self.script:
            token = self.script.popleft()
            self._sampler.skip()
            known = True
        else:
            token = self._sampler.pick(scores)
            known = False
            self.decoded += 1
        self.queue = [token]
        if token in self.loaded.ends:
            self.end("stop")
            return ""
        new = self._words.take(token)
        if not known:
            self.tell(new)
        if self._words.stopped:
            self.end("stop")
        elif not self.script:
            most = self.request.max_tokens or self.loaded.context
            if self.recalled + self.decoded >= most or seen + 1 >= self.loaded.context:
                self.end("length")
        return new

    def tell(self, text: str) -> None:
        """Hand on a piece of text."""
        if text:
            self._text.append(text)
            self.pieces += 1
            self._deliver(text)

    def end(self, finish: Literal["stop", "length"]) -> None:
        """Nothing more is written."""
        if self.finish:
            return
        self.tell(self._words.rest())
        self.finish = finish
        told = self._sampler.told
        logprobs = None
        if self.request.logprobs is not None:
            logprobs = Logprobs(tuple(one.chosen for one in told), tuple(one.top for one in told))
        usage = Usage(self.prompt_tokens, self.cached_tokens, self.decoded, 1)
        self._deliver(Completion("".join(self._text), finish, usage, self._name, logprobs))


def read(loaded: Loaded, view: View, tokens: list[int], thought: int = 0) -> Iterable[Tensor]:
    """Read tokens into a view's own block, a chunk a time; scores behind each chunk."""
    for at in range(0, len(tokens), PREFILL):
        chunk = tokens[at : at + PREFILL]
        group = plan_group([view], [len(chunk)], loaded.rotation)
        yield loaded.forward([group], [chunk], [thought])
