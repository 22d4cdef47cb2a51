"""The ``files`` tools: what lies under the root can be read, and nothing else, on a real disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.context import CallContext, call_context
from llmcompiler.tools.files import FileText, Match, file_tools


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "docs" / "deep").mkdir(parents=True)
    (top / "a.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    (top / "docs" / "b.md").write_text("# Title\r\nÉtude in two parts\r\n", encoding="utf-8")
    (top / "docs" / "deep" / "c.md").write_text("", encoding="utf-8")
    (top / "picture.bin").write_bytes(b"two\x00\x01")
    (top / "latin.txt").write_bytes("für two".encode("latin-1"))
    (top / ".hidden").write_text("two", encoding="utf-8")
    secret = tmp_path / "secret.txt"
    secret.write_text("two secrets", encoding="utf-8")
    (top / "link.txt").symlink_to(secret)
    (top / "up").symlink_to(tmp_path)
    (top / "inner.txt").symlink_to(top / "a.txt")
    return top


def call(root: Path, name: str, *args: Any) -> Any:
    return {tool.name: tool for tool in file_tools(root)}[name](*args)


def test_files_are_listed_without_hidden_ones_and_links_that_lead_out(root: Path) -> None:
    assert call(root, "list_files") == [
        "a.txt",
        "docs/b.md",
        "docs/deep/c.md",
        "inner.txt",
        "latin.txt",
        "picture.bin",
    ]
    assert call(root, "list_files", "*.txt") == ["a.txt", "inner.txt", "latin.txt"]
    assert call(root, "list_files", "docs/*") == ["docs/b.md"]
    assert call(root, "list_files", "up/*") == []
    assert call(root, "list_files", "*.none") == []


def test_lines_of_a_file_are_read_with_their_place(root: Path) -> None:
    assert call(root, "read_file", "a.txt") == FileText("a.txt", 1, 3, False, "one\ntwo\nthree")
    assert call(root, "read_file", "a.txt", 2, 1) == FileText("a.txt", 2, 2, True, "two")
    assert call(root, "read_file", "inner.txt").text == "one\ntwo\nthree"
    assert call(root, "read_file", "docs/b.md").text == "# Title\nÉtude in two parts"
    assert call(root, "read_file", "docs/deep/c.md") == FileText("docs/deep/c.md", 1, 0, False, "")


def test_a_very_long_line_is_cut_with_a_mark(root: Path) -> None:
    (root / "long.txt").write_text("x" * 10_000 + "\nend\n", encoding="utf-8")
    first, last = call(root, "read_file", "long.txt").text.split("\n")
    assert first == "x" * 2000 + "..."
    assert last == "end"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.txt", "outside the directory"),
        ("docs/../../secret.txt", "outside the directory"),
        ("link.txt", "outside the directory"),
        ("up/secret.txt", "outside the directory"),
        ("nothing.txt", "there is no file 'nothing.txt'"),
        ("docs", "is a directory"),
        ("picture.bin", "is a binary file"),
        ("latin.txt", "not UTF-8"),
        ("a\0b", "cannot be a path"),
        ("", "is a directory"),
    ],
)
def test_nothing_else_is_read(root: Path, path: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        call(root, "read_file", path)


def test_an_absolute_path_is_refused_even_inside_the_root(root: Path) -> None:
    for path in (root / "a.txt", root.parent / "secret.txt"):
        with pytest.raises(ToolError, match="outside the directory"):
            call(root, "read_file", str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are a Unix thing")
def test_a_pipe_does_not_block_the_reader(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(ToolError, match="not a regular file"):
        call(root, "read_file", "pipe")


@pytest.mark.parametrize(("start", "lines"), [(0, 1), (1, 0), (1, 9999), (-3, 5)])
def test_a_range_that_makes_no_sense_is_refused(root: Path, start: int, lines: int) -> None:
    with pytest.raises(ToolError, match="cannot read"):
        call(root, "read_file", "a.txt", start, lines)


def test_reading_behind_the_end_is_an_error(root: Path) -> None:
    with pytest.raises(ToolError, match="ends before line 9"):
        call(root, "read_file", "a.txt", 9)


def test_a_search_finds_lines_in_any_case_and_passes_over_binaries(root: Path) -> None:
    assert call(root, "search_files", "TWO") == [
        Match("a.txt", 2, "two"),
        Match("docs/b.md", 2, "Étude in two parts"),
        Match("inner.txt", 2, "two"),
    ]
    assert call(root, "search_files", "étude", "**/*.md") == [
        Match("docs/b.md", 2, "Étude in two parts")
    ]
    assert call(root, "search_files", "t.o") == []


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "", "docs/../../*", "**x/../*"])
def test_patterns_stay_inside_the_root(root: Path, pattern: str) -> None:
    for arguments in (("list_files", pattern), ("search_files", "two", pattern)):
        with pytest.raises(ToolError, match="not a pattern"):
            call(root, *arguments)


def test_too_much_to_answer_is_an_error_and_not_a_part_of_it(root: Path) -> None:
    (root / "many.txt").write_text("two\n" * 201, encoding="utf-8")
    with pytest.raises(ToolError, match="more than 200 lines"):
        call(root, "search_files", "two")
    with pytest.raises(ToolError, match="empty text"):
        call(root, "search_files", "")


def test_a_search_stops_when_nobody_waits_for_it(root: Path) -> None:
    with call_context(CallContext("r", 1, (), "r/1")) as served:
        served.cancelled.set()
        assert [match.path for match in call(root, "search_files", "two")] == ["a.txt"]


def test_the_root_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        file_tools(tmp_path / "nowhere")
