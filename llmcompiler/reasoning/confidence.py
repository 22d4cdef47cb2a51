"""Confidence of a model in its text, from the log-probabilities of the tokens.

The measure of DeepConf ("Deep Think with Confidence", arXiv 2508.15260). A token's confidence is
minus the mean of the log-probabilities of its likeliest alternatives. A text's confidence is that
of its least confident window.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcompiler.errors import UsageError

TOP_ALTERNATIVES = 20
WINDOW = 2048
WARM_UP = 16
DROPPED_SHARE = 0.1


def lowest_window(top_logprobs: Sequence[Sequence[float]], window: int = WINDOW) -> float:
    """The confidence of a text: the lowest mean over ``window`` tokens; higher is more confident.

    Args:
        top_logprobs: for each token, the log-probabilities of the likeliest tokens at its position;
            the ``TOP_ALTERNATIVES`` highest are used.
        window: length in tokens; a shorter text is one window.

    Raises:
        UsageError: there are no tokens, or a token has no log-probabilities.
    """
    if not top_logprobs or not all(top_logprobs):
        raise UsageError(
            "confidence needs the log-probabilities of every token",
            hint="ask an endpoint that gives top_logprobs",
        )
    confidences = []
    for logprobs in top_logprobs:
        likeliest = sorted(logprobs, reverse=True)[:TOP_ALTERNATIVES]
        confidences.append(-sum(likeliest) / len(likeliest))
    size = min(window, len(confidences))
    total = sum(confidences[:size])
    lowest = total
    for oldest, newest in zip(confidences, confidences[size:], strict=False):
        total += newest - oldest
        lowest = min(lowest, total)
    return lowest / size


def confidence_threshold(confidences: Sequence[float]) -> float:
    """The confidence below which a text has no vote: the 10th percentile of the first sixteen.

    Raises:
        UsageError: there are no confidences.
    """
    if not confidences:
        raise UsageError("no confidences to take a percentile of")
    warm_up = sorted(confidences[:WARM_UP])
    rank = DROPPED_SHARE * (len(warm_up) - 1)
    lower = int(rank)
    upper = min(lower + 1, len(warm_up) - 1)
    return warm_up[lower] + (rank - lower) * (warm_up[upper] - warm_up[lower])
