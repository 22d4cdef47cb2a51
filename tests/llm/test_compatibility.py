"""What real servers sent is understood as it was when it was recorded.

``benchmarks/compatibility.py`` records; the files are in ``tests/golden/servers``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compatibility import CELLS, run_cell
from llmcompiler.llm import capabilities
from tests.support.server_cassette import replay

CASSETTES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "golden" / "servers").glob("*.json"))
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("server", CASSETTES)
async def test_a_server_is_understood_as_recorded(
    server: str, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capabilities, "_memory", {})
    cassette = CASSETTES[server]
    recorded: dict[str, Any] = dict(cassette["cells"][cell])
    async with replay(recorded.pop("exchanges")) as url:
        assert await run_cell(cell, url, cassette["model"]) == recorded
