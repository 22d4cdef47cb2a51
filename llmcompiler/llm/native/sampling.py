"""From scores to a token: bans, grammars, temperature, nucleus sampling, and a text's own seed.

Each token takes exactly one random number, so that a text that is resumed from a record goes on as
it would have gone on.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch

from llmcompiler.llm.native.rotary import Tensor


class TokenLogprobs(NamedTuple):
    """Log-probabilities at one place: of the picked token, and of the likeliest ones."""

    chosen: float
    top: tuple[float, ...]


class Sampler:
    """Picks tokens for one text.

    Args:
        temperature: 0 for the likeliest token.
        top_p: share of the probability mass to sample from; 1 for all.
        seed: ``None`` for a random one.
        banned: tokens that are never picked.
        matcher: a grammar's matcher (llguidance's ``LLMatcher``).
        logprobs: how many alternatives to record; ``None`` to record no log-probabilities.

    Attributes:
        token_logprobs: the recorded log-probabilities, token by token.
    """

    def __init__(
        self,
        *,
        temperature: float,
        top_p: float = 1.0,
        seed: int | None = None,
        banned: tuple[int, ...] = (),
        matcher: Any = None,
        logprobs: int | None = None,
    ) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._random = random.Random(seed)
        self._banned = list(banned)
        self._matcher = matcher
        self._logprobs = logprobs
        self.token_logprobs: list[TokenLogprobs] = []

    def pick(self, scores: Tensor) -> int:
        """Pick a token by the scores of the whole vocabulary."""
        random_number = self._random.random()
        scores = scores.float()
        if self._banned or self._matcher is not None:
            scores = scores.clone()
            scores[self._banned] = float("-inf")
        if self._matcher is not None:
            self._apply_grammar(scores)
        token = self._sample(scores, random_number)
        if self._matcher is not None:
            self._matcher.consume_token(token)
        if self._logprobs is not None:
            logs = scores.log_softmax(-1)
            top = logs.topk(self._logprobs).values.tolist() if self._logprobs else ()
            self.token_logprobs.append(TokenLogprobs(float(logs[token]), tuple(top)))
        return token

    def skip(self) -> None:
        """Use up the random number of a token that a record gives."""
        self._random.random()

    def _sample(self, scores: Tensor, random_number: float) -> int:
        if self._temperature <= 0:
            return int(scores.argmax())
        chances = (scores / self._temperature).softmax(-1)
        order = None
        if self._top_p < 1:
            chances, order = chances.sort(descending=True)
            ahead = chances.cumsum(-1) - chances
            chances = chances.masked_fill(ahead >= self._top_p, 0.0)
        cumulative = chances.double().cumsum(-1)
        target = random_number * float(cumulative[-1])
        index = int(torch.searchsorted(cumulative, target, right=True))
        index = min(index, len(chances) - 1)
        return index if order is None else int(order[index])

    def _apply_grammar(self, scores: Tensor) -> None:
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(mask, bitorder="little").astype(bool))
        allowed = allowed.to(scores.device)
        covered = min(len(allowed), len(scores))
        scores[:covered][~allowed[:covered]] = float("-inf")
        scores[covered:] = float("-inf")
