"""Drafts are taken over as often as the budget says, turn by turn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.errors import UsageError
from llmcompiler.reasoning.confidence import confidence_threshold, lowest_window
from llmcompiler.reasoning.conformal import Calibration

SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@settings(deadline=None)
@given(SCORES, st.floats(-60, 60))
def test_the_p_value_is_the_papers_formula(scores: list[float], score: float) -> None:
    calibration = Calibration({1: tuple(scores)}, alpha=0.1)
    no_better = sum(score <= calibration_score for calibration_score in scores)
    assert calibration.p_value(1, score) == (1 + no_better) / (len(scores) + 1)


@settings(deadline=None)
@given(SCORES, st.floats(-60, 60), st.floats(0, 5))
def test_a_worse_draft_is_never_trusted_more(
    scores: list[float], score: float, worse: float
) -> None:
    calibration = Calibration({1: tuple(scores)}, alpha=0.1)
    assert calibration.p_value(1, score + worse) <= calibration.p_value(1, score)


@pytest.mark.parametrize("budget", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_held_out_drafts_are_taken_over_as_often_as_the_budget_says(budget: float) -> None:
    """Turns differ by far more than drafts of one turn do, as a dialogue's do."""
    rng = random.Random(7)

    def draft(turn: int) -> float:
        return rng.gauss(3.0 * turn, 0.5 + turn)

    calibration = Calibration.for_budget(
        {turn: [draft(turn) for _ in range(400)] for turn in (1, 2, 3)}, budget
    )
    for turn in (1, 2, 3):
        takeovers = [not calibration.accepts(turn, draft(turn)) for _ in range(4000)]
        assert sum(takeovers) / len(takeovers) == pytest.approx(budget, abs=0.06)


def test_one_calibration_for_all_turns_would_miss_the_budget() -> None:
    rng = random.Random(7)
    turns = {turn: [rng.gauss(3.0 * turn, 1) for _ in range(400)] for turn in (1, 2, 3)}
    pooled = Calibration.for_budget(
        {1: [score for scores in turns.values() for score in scores]}, 0.3
    )
    rates = [
        sum(not pooled.accepts(1, rng.gauss(3.0 * t, 1)) for _ in range(999)) / 999 for t in turns
    ]
    assert max(rates) - min(rates) > 0.5


@pytest.mark.parametrize("score", [None, float("nan")])
def test_a_missing_score_is_an_error_and_no_acceptance(score: float | None) -> None:
    with pytest.raises(UsageError, match="no score"):
        Calibration({1: (1.0, 2.0)}, alpha=0.0).accepts(1, score)


def test_a_turn_without_calibration_is_an_error() -> None:
    with pytest.raises(UsageError, match="turn 3 is not calibrated"):
        Calibration({1: (1.0,), 2: (1.0,)}, alpha=0.1).accepts(3, 1.0)


@pytest.mark.parametrize("scores", [{1: []}, {1: [1.0]}])
def test_too_few_scores_are_refused(scores: dict[int, list[float]]) -> None:
    with pytest.raises(UsageError, match="turn 1"):
        Calibration.for_budget(scores, 0.1)


def test_a_budget_is_a_share() -> None:
    with pytest.raises(UsageError, match="no share"):
        Calibration.for_budget({1: [1.0, 2.0]}, 30)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(-30, 0), min_size=1, max_size=25), min_size=1, max_size=8),
    st.integers(1, 10),
)
def test_confidence_is_that_of_the_least_sure_window(
    top_logprobs: list[list[float]], window: int
) -> None:
    confidences = [
        -sum(sorted(logprobs)[-20:]) / len(sorted(logprobs)[-20:]) for logprobs in top_logprobs
    ]
    size = min(window, len(confidences))
    windows = [sum(confidences[i : i + size]) / size for i in range(len(confidences) - size + 1)]
    assert lowest_window(top_logprobs, window) == pytest.approx(min(windows), abs=1e-9)


@pytest.mark.parametrize("nothing", [[], [[-1.0], []]])
def test_confidence_without_log_probabilities_is_refused(nothing: list[list[float]]) -> None:
    with pytest.raises(UsageError, match="log-probabilities"):
        lowest_window(nothing)


def test_the_threshold_is_the_tenth_percentile_of_the_warm_up() -> None:
    assert confidence_threshold([float(confidence) for confidence in range(11)]) == pytest.approx(
        1.0
    )
    assert confidence_threshold([5.0] * 16 + [-100.0] * 50) == 5.0
    with pytest.raises(UsageError):
        confidence_threshold([])
