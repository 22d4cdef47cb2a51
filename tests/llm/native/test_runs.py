"""Workers that share attention, in real runs: recorded, replayed, resumed, within budgets."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'llmcompiler-dag[native]'")
pytest.importorskip("transformers", reason="needs transformers, of the extra native")

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import Event, ModelFinished, ModelStarted, ModelText
from llmcompiler.history.replay import replay
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.native.location import ModelLocation
from llmcompiler.llm.native.model import NativeModel
from llmcompiler.log.store import RunStore
from llmcompiler.reasoning.base import BranchBudget
from tests.support.kill_matrix import in_child
from tests.support.tiny import saved_model

pytestmark = pytest.mark.native

FORMS: dict[str, dict[str, Any]] = {
    "hogwild": {"width": 2, "check_every": 8},
    "parathinker": {"width": 3, "termination": "half"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("tiny"), "qwen2")


class CountingModel(NativeModel):
    """A native model that counts pieces; it kills its process at one, and sets an event at one."""

    def __init__(self, folder: Path, dies_at: int = 0) -> None:
        super().__init__(ModelLocation(str(folder)), name="native:tiny")
        self.pieces = 0
        self.dies_at = dies_at
        self.fifth = asyncio.Event()

    async def stream(self, request: Request) -> AsyncGenerator[str | Completion, None]:
        source = super().stream(request)
        try:
            async for piece in source:
                self.pieces += 1
                if self.pieces == 5:
                    self.fifth.set()
                if self.pieces == self.dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield piece
        finally:
            await source.aclose()


async def think(model: NativeModel, store: Path, name: str, **more: Any) -> Any:
    compiler = LLMCompiler(["calc"], model, store=store)
    return compiler, await compiler.think(
        "6 * 7?", strategy=name, seed=3, max_tokens=30, **FORMS[name], **more
    )


def texts(events: list[Event]) -> dict[str, str]:
    """The text of each call, with the texts of calls that went on in its place."""
    text_by_call: dict[str, str] = {}
    for event in events:
        if isinstance(event, ModelText):
            call = "/".join(event.call.split("/")[:2])
            text_by_call[call] = text_by_call.get(call, "") + event.text
    return text_by_call


def recorded_events(folder: Path) -> list[Event]:
    store = RunStore(folder)
    events = list(store.events(store.find("last")))
    store.close()
    return events


@pytest.mark.parametrize("name", FORMS)
async def test_it_takes_the_real_form_and_a_replay_asks_nothing(
    name: str, folder: Path, tmp_path: Path
) -> None:
    model = CountingModel(folder)
    compiler, result = await think(model, tmp_path / "runs", name)
    assert "training-free" in result.notes[0]
    assert result.cost.calls == FORMS[name]["width"] + 1
    pieces = model.pieces
    assert (await replay(compiler.store, result.run)).answer is not None
    assert model.pieces == pieces
    await model.aclose()
    starts = [e for e in recorded_events(tmp_path / "runs") if isinstance(e, ModelStarted)]
    assert [start.call for start in starts] == [f"1/{n}" for n in range(FORMS[name]["width"] + 1)]
    assert starts[0].request["seat"]["kind"] == "write"


@pytest.mark.parametrize("name", FORMS)
async def test_the_form_over_texts_is_there_to_compare_with(
    name: str, folder: Path, tmp_path: Path
) -> None:
    model = CountingModel(folder)
    more = {"rounds": 1} if name == "hogwild" else {}
    _, result = await think(model, tmp_path / "runs", name, attention="text", **more)
    assert "training-free" not in result.notes[0]
    await model.aclose()


@pytest.mark.parametrize("dies_at", [7, 40, 75])
@pytest.mark.parametrize("name", FORMS)
def test_after_a_kill_it_goes_on_from_what_is_recorded_to_the_same_text(
    name: str, dies_at: int, folder: Path, tmp_path: Path
) -> None:
    async def complete_run() -> None:
        model = CountingModel(folder)
        await think(model, tmp_path / "whole", name)
        await model.aclose()

    async def killed_run() -> None:
        await think(CountingModel(folder, dies_at), tmp_path / "killed", name)

    async def resumed_run() -> None:
        model = CountingModel(folder)
        compiler = LLMCompiler(["calc"], model, store=tmp_path / "killed")
        await compiler.resume("last")
        assert (await replay(compiler.store, "last")).answer is not None
        await model.aclose()

    def child(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
        return in_child(lambda: asyncio.run(work()))

    assert child(complete_run) == 0
    assert os.WIFSIGNALED(child(killed_run))
    before = texts(recorded_events(tmp_path / "killed"))
    assert child(resumed_run) == 0
    events = recorded_events(tmp_path / "killed")
    after = texts(events)
    assert all(after[call].startswith(text) for call, text in before.items())
    assert after == texts(recorded_events(tmp_path / "whole"))
    ends = [event for event in events if isinstance(event, ModelFinished)]
    assert sum(end.completion_tokens for end in ends) < 2 * sum(map(len, after.values()))


async def test_a_budget_of_tokens_cuts_workers_in_the_midst(folder: Path, tmp_path: Path) -> None:
    model = CountingModel(folder)
    _, result = await think(model, tmp_path / "runs", "hogwild", budget=BranchBudget(tokens=20))
    await model.aclose()
    assert result.stopped == "tokens"
    ends = [e for e in recorded_events(tmp_path / "runs") if isinstance(e, ModelFinished)]
    assert [end.finish for end in ends] == ["cut", "cut"]
    assert all(end.completion_tokens <= 11 for end in ends)


async def test_cancelling_ends_the_workers_and_leaves_the_model_usable(
    folder: Path, tmp_path: Path
) -> None:
    model = CountingModel(folder)
    running = asyncio.ensure_future(think(model, tmp_path / "runs", "hogwild", temperature=1.0))
    await model.fifth.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    _, result = await think(model, tmp_path / "more", "parathinker")
    assert result.cost.calls == 4
    await model.aclose()


async def test_an_answer_ends_all_at_that_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model never answers, so a letter that it is sure to write counts as one."""
    from llmcompiler.reasoning.strategies import hogwild

    monkeypatch.setattr(hogwild, "extract_answer", lambda text, how: "42" if "e" in text else None)
    monkeypatch.setattr(hogwild, "TAIL_CHARS", 10**6)
    model = CountingModel(folder)
    compiler = LLMCompiler(["calc"], model, store=tmp_path / "runs")
    result = await compiler.think("6 * 7?", strategy="hogwild", seed=5, max_tokens=400, width=3)
    await model.aclose()
    assert (result.answer, result.why[-7:]) == ("42", "said so")
    assert {candidate["finish"] for candidate in result.candidates} <= {"cut", "stop"}
