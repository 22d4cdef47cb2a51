"""When a draft is good enough: conformal p-values with a calibration for every turn.

From "Asynchronous Test-Time Scaling" (arXiv 2509.15148). A target model scores a draft; the rank of
the score among those of other drafts of the same turn is a p-value, uniform if the draft is like
them. Drafts of later turns score differently from those of the first, so one calibration for all
would let the rate of takeovers drift with the turns. The module must not know models.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Self

from llmcompiler.errors import UsageError


@dataclass(frozen=True)
class Calibration:
    """Scores of drafts of known origin, turn by turn, and where to draw the line.

    Attributes:
        scores: turn, from 1 -> scores of calibration drafts of that turn; a higher score is a worse
            draft (mean negative log-probability, or a judge's doubt).
        alpha: drafts whose p-value is at most this are taken over by the target.
    """

    scores: Mapping[int, tuple[float, ...]]
    alpha: float
    _sorted: dict[int, list[float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for turn, scores in self.scores.items():
            if not scores or any(map(isnan, scores)):
                raise UsageError(f"the calibration of turn {turn} lacks a score")
        ordered = {turn: sorted(scores) for turn, scores in self.scores.items()}
        object.__setattr__(self, "_sorted", ordered)

    @classmethod
    def for_budget(cls, scores: Mapping[int, Sequence[float]], budget: float) -> Self:
        """The calibration whose rate of takeovers, on its own drafts, is nearest to ``budget``.

        Each draft is judged by the others of its turn, as a new one will be by all of them.

        Args:
            scores: as above.
            budget: the share of turns that the target may take over, 0 to 1.

        Raises:
            UsageError: no such share, or a turn with fewer than two scores.
        """
        if not 0 <= budget <= 1:
            raise UsageError(f"a takeover budget of {budget} is no share", hint="0 to 1")
        own: list[float] = []
        for turn, one_turn in scores.items():
            if len(one_turn) < 2:
                raise UsageError(
                    f"turn {turn} has {len(one_turn)} calibration scores", hint="give at least two"
                )
            ordered = sorted(one_turn)
            own += [(len(ordered) - bisect_left(ordered, one)) / len(ordered) for one in ordered]
        own.sort()
        alpha = min(
            sorted({0.0, *own}),
            key=lambda line: abs(bisect_right(own, line) / len(own) - budget),
        )
        return cls({turn: tuple(given) for turn, given in scores.items()}, alpha)

    def p_value(self, turn: int, score: float | None) -> float:
        """The share of calibration drafts of the turn, itself counted in, that are no better.

        Raises:
            UsageError: there is no score, or no calibration for the turn: never an acceptance.
        """
        if score is None or isnan(score):
            raise UsageError(
                f"the draft of turn {turn} has no score", hint="the target must be able to score"
            )
        if turn not in self._sorted:
            raise UsageError(
                f"turn {turn} is not calibrated",
                hint=f"turns {', '.join(map(str, sorted(self._sorted)))} are; give scores for it",
            )
        ordered = self._sorted[turn]
        return (1 + len(ordered) - bisect_left(ordered, score)) / (len(ordered) + 1)

    def accepts(self, turn: int, score: float | None) -> bool:
        """Whether the draft stands; otherwise the target takes the turn."""
        return self.p_value(turn, score) > self.alpha
