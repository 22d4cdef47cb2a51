"""How sure a model was of what it wrote, from the log-probabilities of its tokens.

The measure of DeepConf ("Deep Think with Confidence", arXiv 2508.15260): a token's confidence is
minus the mean of the log-probabilities of its likeliest alternatives, and a text is as sure as its
least sure window. The module must not know what the texts say.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcompiler.errors import UsageError

TOP = 20
WINDOW = 2048
WARM_UP = 16
DROPPED = 0.1


def lowest_window(top_logprobs: Sequence[Sequence[float]], window: int = WINDOW) -> float:
    """The confidence of a text: that of its least sure run of ``window`` tokens, higher is surer.

    Args:
        top_logprobs: for each token the log-probabilities of the likeliest tokens at its place;
            the ``TOP`` highest count.
        window: tokens; a shorter text is one window.

    Raises:
        UsageError: there are no log-probabilities, or a token has none.
    """
    if not top_logprobs or not all(top_logprobs):
        raise UsageError(
            "confidence needs the log-probabilities of every token",
            hint="ask an endpoint that gives top_logprobs",
        )
    tokens = []
    for logprobs in top_logprobs:
        best = sorted(logprobs, reverse=True)[:TOP]
        tokens.append(-sum(best) / len(best))
    width = min(window, len(tokens))
    total = sum(tokens[:width])
    lowest = total
    for leaving, coming in zip(tokens, tokens[width:], strict=False):
        total += coming - leaving
        lowest = min(lowest, total)
    return lowest / width


def threshold(confidences: Sequence[float]) -> float:
    """The confidence below which a text is dropped: the 10th percentile of the first sixteen.

    Raises:
        UsageError: there is none.
    """
    if not confidences:
        raise UsageError("no confidences to take a percentile of")
    warm_up = sorted(confidences[:WARM_UP])
    place = DROPPED * (len(warm_up) - 1)
    below = int(place)
    above = min(below + 1, len(warm_up) - 1)
    return warm_up[below] + (place - below) * (warm_up[above] - warm_up[below])
