"""Thoughts in tags: the same parts come out however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from llmcompiler.llm.json_text import find_json
from llmcompiler.llm.surrogates import SurrogateJoiner, join_surrogates
from llmcompiler.llm.thinking import ThinkingSplitter, split_thinking

PARTS = st.sampled_from(["<think>", "</think>", "[THINK]", "[/THINK]", "<", "\n", '"', "a", "<thi"])
TEXTS = st.lists(PARTS, max_size=12).map("".join)


@given(TEXTS, st.integers(1, 6))
def test_pieces_come_out_as_the_whole(text: str, size: int) -> None:
    splitter = ThinkingSplitter()
    pieces = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)]
    passed = "".join(pieces) + splitter.close()
    assert splitter.result() == split_thinking(text)
    if not splitter.retractions:
        assert passed.lstrip("\n") == split_thinking(text).answer.lstrip("\n")


@pytest.mark.parametrize(
    ("text", "said", "thought"),
    [
        ("<think>a</think>b", "b", "a"),
        ("a</think>b", "b", "a"),
        ("<think>a", "", "a"),
        ("x <think>a\nb", "x ", "a\nb"),
        ("Write <think> first.", "Write <think> first.", ""),
        ('{"text": "the tag <think>"}', '{"text": "the tag <think>"}', ""),
        ("a < b", "a < b", ""),
        ("<think>a</think>b<think>c</think>d", "bd", "a\nc"),
    ],
)
def test_what_is_said_and_what_is_thought(text: str, said: str, thought: str) -> None:
    assert split_thinking(text) == (said, thought)


@given(st.text(st.characters(), max_size=8), st.integers(1, 3))
def test_surrogates_are_joined_across_pieces(text: str, size: int) -> None:
    halves = "".join(
        chr(int.from_bytes(pair, "little"))
        for pair in zip(*[iter(text.encode("utf-16-le", "surrogatepass"))] * 2, strict=True)
    )
    joiner = SurrogateJoiner()
    pieces = [joiner.feed(halves[at : at + size]) for at in range(0, len(halves), size)]
    joined = "".join(pieces) + joiner.close()
    assert joined == join_surrogates(halves) == join_surrogates(text)
    joined.encode()


def test_the_json_that_fits_is_found_among_others() -> None:
    text = 'As in {"a": 1}: {"b": {"text": "x"}} and ```json\n{"text": "y"}\n```'
    assert find_json(text, lambda value: isinstance(value, dict) and "text" in value) == {
        "text": "y"
    }
    assert find_json("{" * 5_000, lambda value: True) is None
