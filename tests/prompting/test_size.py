"""Texts and values are shortened to a bound, by their structure, and never silently."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmcompiler.prompting.size import (
    compact_json,
    estimate_tokens,
    share_room,
    shorten_lines,
    shorten_text,
    shorten_value,
    size_of,
)

SMALLEST = 64
"""Bytes of the longest statement that stands alone."""

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=300)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=60,
)


@given(values, st.integers(0, 2000))
def test_a_value_fits_its_bound_and_says_what_it_leaves_out(value: Any, limit: int) -> None:
    whole, text = compact_json(value), shorten_value(value, limit)
    assert size_of(text) <= max(limit, SMALLEST)
    if size_of(whole) <= limit:
        assert text == whole
    else:
        assert "left out)" in text


@given(st.text(max_size=3000), st.integers(0, 2000))
def test_a_text_keeps_its_beginning_and_its_end(text: str, limit: int) -> None:
    short = shorten_text(text, limit)
    assert size_of(short) <= max(limit, SMALLEST)
    if short != text:
        head, _, rest = short.partition("… (")
        assert text.startswith(head.removesuffix(" "))
        assert rest.count("left out)") == 1 or "left out)" in text


@given(st.lists(st.integers(0, 500), max_size=20), st.integers(-10, 3000))
def test_room_is_shared_fairly(sizes: list[int], room: int) -> None:
    shares = share_room(sizes, room)
    assert sum(shares) <= max(room, 0)
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    if sum(sizes) <= room:
        assert shares == sizes
    for size, share in zip(sizes, shares, strict=True):
        # Who gets less than asked for gets as much as anybody, rounding apart.
        assert share == size or share >= max(shares, default=0) - 1


@given(st.lists(st.text(max_size=400), max_size=40), st.integers(100, 4000))
def test_lines_fit_together(lines: list[str], limit: int) -> None:
    short = shorten_lines(lines, limit)
    if sum(map(size_of, lines)) <= limit:
        assert short == lines
    else:
        assert "left out)" in "".join(short)


def test_a_long_list_keeps_its_first_items_whole_enough_to_read() -> None:
    records = [{"id": f"F{number}", "price": number, "note": "x" * 900} for number in range(300)]
    text = shorten_value(records, 3000)
    assert '"id": "F0"' in text
    assert '"price": 0' in text
    assert "of 300 items left out)" in text


def test_a_record_keeps_all_its_fields_where_they_fit() -> None:
    text = shorten_value({"name": "Ada", "page": "y" * 9000, "home": "OSL"}, 400)
    assert text.startswith('{"name": "Ada", "page": "yyy')
    assert text.endswith('"home": "OSL"}')
    assert "characters left out)" in text


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("abc", 1), ("abcd", 2), ("日本", 2)])
def test_a_token_is_three_bytes(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens
