"""What all tests share: nothing of the user's is touched; model tests need the weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmcompiler.llm.weights import DEFAULT, is_pulled

# Read by torch when it is imported: threads of tiny models wait for each other more than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["tests.leaks"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--always-resume",
        action="store_true",
        help="stop every engine after each of its records, and let another one go on",
    )


@pytest.fixture(autouse=True)
def always_resume(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an engine that never lives for long in every engine's place, where asked to."""
    if not request.config.getoption("--always-resume"):
        return
    import llmcompiler.run.run
    from tests.support.relay import Relay

    monkeypatch.setattr(llmcompiler.run.run, "Engine", Relay)
    if hasattr(request.module, "Engine"):
        monkeypatch.setattr(request.module, "Engine", Relay)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs go to a directory of the test's; no endpoint of the user's is asked by mistake."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    asks_model = [item for item in items if item.get_closest_marker("model")]
    if asks_model and not is_pulled(DEFAULT):
        why = f"needs the embedded model: llmcompiler models pull {DEFAULT}"
        for item in asks_model:
            item.add_marker(pytest.mark.skip(reason=why))
