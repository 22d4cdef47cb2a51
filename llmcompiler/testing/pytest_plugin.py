"""A pytest plugin: the fixture ``cassette`` plays an exported run back in an application's tests.

    def test_density(cassette):
        compiler = cassette("cassettes/density.jsonl.gz").compiler(tools=[country, calc])
        assert "Japan" in compiler.run_sync("Which is denser, Japan or Peru?").answer

The file lies beside the test and stands in for models and tools, which are never called. A call
that the file does not hold fails the test. ``pytest --record-cassettes`` calls the real models and
tools, and writes the file if the test passes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from llmcompiler.testing.cassette import Cassette

_PASSED = pytest.StashKey[bool]()


class OpenCassette(Protocol):
    """The fixture ``cassette``."""

    def __call__(self, file: str | Path) -> Cassette:
        """The cassette in a file; a relative path starts at the test's directory.

        Raises:
            LogError: the file is missing, damaged or redacted.
        """
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--record-cassettes``."""
    parser.getgroup("llmcompiler").addoption(
        "--record-cassettes",
        action="store_true",
        help="call real models and tools, and write the cassettes of tests that pass anew",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test passed: a failed one must not replace its cassette."""
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture
def cassette(request: pytest.FixtureRequest) -> Iterator[OpenCassette]:
    """Opens cassettes: exported runs that stand in for models and tools.

    Example: ``cassette("cassettes/density.jsonl.gz").compiler(tools=[country, calc])``
    """
    from llmcompiler.testing.cassette import Cassette

    record = bool(request.config.getoption("--record-cassettes"))
    opened: list[Cassette] = []

    def open_cassette(file: str | Path) -> Cassette:
        path = request.path.parent / file
        if not record and not path.exists():
            pytest.fail(
                f"there is no cassette {path}; record it: pytest --record-cassettes", pytrace=False
            )
        opened.append(Cassette(path, record=record))
        return opened[-1]

    yield open_cassette
    for tape in opened:
        if not record or request.node.stash.get(_PASSED, False):
            tape.finish()
