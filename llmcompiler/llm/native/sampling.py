"""From scores to a token: bans, grammars, temperature, nucleus, and a seed of one's own.

One number is drawn a token, so that a text that was read again goes on as it would have. The module
must not know what is written.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch

from llmcompiler.llm.native.rotary import Tensor


class Told(NamedTuple):
    """Log-probabilities of one place."""

    chosen: float
    top: tuple[float, ...]


class Sampler:
    """Picks tokens for one text.

    Args:
        temperature: 0 for the likeliest.
        top_p: of the mass that may be drawn from.
        seed: ``None`` for a new one.
        banned: tokens that are never picked.
        matcher: of a grammar (llguidance's ``LLMatcher``).
        logprobs: how many alternatives to tell; ``None`` to tell nothing.
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
        self.told: list[Told] = []

    def pick(self, scores: Tensor) -> int:
        """A token, from scores of the whole vocabulary."""
        drawn = self._random.random()
        scores = scores.float()
        if self._banned or self._matcher is not None:
            scores = scores.clone()
            scores[self._banned] = float("-inf")
        if self._matcher is not None:
            self._hold(scores)
        token = self._draw(scores, drawn)
        if self._matcher is not None:
            self._matcher.consume_token(token)
        if self._logprobs is not None:
            logs = scores.log_softmax(-1)
            top = logs.topk(self._logprobs).values.tolist() if self._logprobs else ()
            self.told.append(Told(float(logs[token]), tuple(top)))
        return token

    def skip(self) -> None:
        """Leave out one token that is known already."""
        self._random.random()

    def _draw(self, scores: Tensor, drawn: float) -> int:
        if self._temperature <= 0:
            return int(scores.argmax())
        chances = (scores / self._temperature).softmax(-1)
        order = None
        if self._top_p < 1:
            chances, order = chances.sort(descending=True)
            ahead = chances.cumsum(-1) - chances
            chances = chances.masked_fill(ahead >= self._top_p, 0.0)
        heaped = chances.double().cumsum(-1)
        at = int(torch.searchsorted(heaped, drawn * float(heaped[-1]), right=True))
        at = min(at, len(chances) - 1)
        return at if order is None else int(order[at])

    def _hold(self, scores: Tensor) -> None:
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(mask, bitorder="little").astype(bool))
        allowed = allowed.to(scores.device)
        known = min(len(allowed), len(scores))
        scores[:known][~allowed[:known]] = float("-inf")
        scores[known:] = float("-inf")
