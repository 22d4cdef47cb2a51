"""When a draft is good enough: conformal p-values with a calibration for every turn.

From "Asynchronous Test-Time Scaling" (arXiv 2509.15148). A target model scores a draft. The rank of
the score among the scores of calibration drafts of the same turn is a p-value; for a draft like
them it is uniform. Later turns score differently from the first, so with one calibration for all
turns the rate of takeovers would drift from turn to turn.
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
    """Scores of calibration drafts for each turn, and the p-value at which the target takes over.

    Attributes:
        scores: turn, from 1 -> scores of calibration drafts of that turn; a higher score is a worse
            draft (mean negative log-probability, or a judge's doubt).
        alpha: the target takes over a draft whose p-value is at most ``alpha``.
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
        """The calibration whose rate of takeovers on its own drafts is nearest to ``budget``.

        Each calibration draft is ranked among the others of its turn.

        Args:
            scores: see ``Calibration``.
            budget: the share of turns that the target may take over, 0 to 1.

        Raises:
            UsageError: ``budget`` is no share, or a turn has fewer than two scores.
        """
        if not 0 <= budget <= 1:
            raise UsageError(f"a takeover budget of {budget} is no share", hint="0 to 1")
        p_values: list[float] = []
        for turn, turn_scores in scores.items():
            if len(turn_scores) < 2:
                raise UsageError(
                    f"turn {turn} has {len(turn_scores)} calibration scores",
                    hint="give at least two",
                )
            ordered = sorted(turn_scores)
            p_values += [
                (len(ordered) - bisect_left(ordered, score)) / len(ordered) for score in ordered
            ]
        p_values.sort()
        alpha = min(
            sorted({0.0, *p_values}),
            key=lambda level: abs(bisect_right(p_values, level) / len(p_values) - budget),
        )
        return cls({turn: tuple(turn_scores) for turn, turn_scores in scores.items()}, alpha)

    def p_value(self, turn: int, score: float | None) -> float:
        """The share of the turn's drafts, this one included, that are no better than this one.

        Raises:
            UsageError: there is no score, or the turn has no calibration.
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
        """True if the draft stands; otherwise the target takes over the turn."""
        return self.p_value(turn, score) > self.alpha
