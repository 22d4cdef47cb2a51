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
from llmcompiler.llm.native.model import NativeModel
from llmcompiler.llm.native.source import Source
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


class Noting(NativeModel):
    """A native model that ends its process, or speaks to a test, at a piece of a call."""

    def __init__(self, folder: Path, dies_at: int = 0) -> None:
        super().__init__(Source(str(folder)), name="native:tiny")
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


async def thought(model: NativeModel, store: Path, name: str, **more: Any) -> Any:
    made = LLMCompiler(["calc"], model, store=store)
    return made, await made.think(
        "6 * 7?", strategy=name, seed=3, max_tokens=30, **FORMS[name], **more
    )


def texts(events: list[Event]) -> dict[str, str]:
    """What each call wrote, calls that were made in its place included."""
    found: dict[str, str] = {}
    for event in events:
        if isinstance(event, ModelText):
            call = "/".join(event.call.split("/")[:2])
            found[call] = found.get(call, "") + event.text
    return found


def read(folder: Path) -> list[Event]:
    store = RunStore(folder)
    events = list(store.events(store.find("last")))
    store.close()
    return events


@pytest.mark.parametrize("name", FORMS)
async def test_it_takes_the_real_form_and_a_replay_asks_nothing(
    name: str, folder: Path, tmp_path: Path
) -> None:
    model = Noting(folder)
    made, result = await thought(model, tmp_path / "runs", name)
    assert "training-free" in result.notes[0]
    assert result.cost.calls == FORMS[name]["width"] + 1
    asked = model.pieces
    assert (await replay(made.store, result.run)).answer is not None
    assert model.pieces == asked
    await model.aclose()
    started = [one for one in read(tmp_path / "runs") if isinstance(one, ModelStarted)]
    assert [one.call for one in started] == [f"1/{n}" for n in range(FORMS[name]["width"] + 1)]
    assert started[0].request["seat"]["kind"] == "write"


@pytest.mark.parametrize("name", FORMS)
async def test_the_form_over_texts_is_there_to_compare_with(
    name: str, folder: Path, tmp_path: Path
) -> None:
    model = Noting(folder)
    more = {"rounds": 1} if name == "hogwild" else {}
    _, result = await thought(model, tmp_path / "runs", name, attention="text", **more)
    assert "training-free" not in result.notes[0]
    await model.aclose()


@pytest.mark.parametrize("dies_at", [7, 40, 75])
@pytest.mark.parametrize("name", FORMS)
def test_after_a_kill_it_goes_on_from_what_is_recorded_to_the_same_text(
    name: str, dies_at: int, folder: Path, tmp_path: Path
) -> None:
    async def whole() -> None:
        model = Noting(folder)
        await thought(model, tmp_path / "whole", name)
        await model.aclose()

    async def dies() -> None:
        await thought(Noting(folder, dies_at), tmp_path / "killed", name)

    async def resumes() -> None:
        model = Noting(folder)
        made = LLMCompiler(["calc"], model, store=tmp_path / "killed")
        await made.resume("last")
        assert (await replay(made.store, "last")).answer is not None
        await model.aclose()

    def child(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
        return in_child(lambda: asyncio.run(work()))

    assert child(whole) == 0
    assert os.WIFSIGNALED(child(dies))
    before = texts(read(tmp_path / "killed"))
    assert child(resumes) == 0
    events = read(tmp_path / "killed")
    after = texts(events)
    assert all(after[call].startswith(text) for call, text in before.items())
    assert after == texts(read(tmp_path / "whole"))
    ends = [one for one in events if isinstance(one, ModelFinished)]
    assert sum(one.completion_tokens for one in ends) < 2 * sum(map(len, after.values()))


async def test_a_budget_of_tokens_cuts_workers_in_the_midst(folder: Path, tmp_path: Path) -> None:
    model = Noting(folder)
    _, result = await thought(model, tmp_path / "runs", "hogwild", budget=BranchBudget(tokens=20))
    await model.aclose()
    assert result.stopped == "tokens"
    ends = [one for one in read(tmp_path / "runs") if isinstance(one, ModelFinished)]
    assert [one.finish for one in ends] == ["cut", "cut"]
    assert all(one.completion_tokens <= 11 for one in ends)


async def test_cancelling_ends_the_workers_and_leaves_the_model_usable(
    folder: Path, tmp_path: Path
) -> None:
    model = Noting(folder)
    running = asyncio.ensure_future(thought(model, tmp_path / "runs", "hogwild", temperature=1.0))
    await model.fifth.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    _, result = await thought(model, tmp_path / "more", "parathinker")
    assert result.cost.calls == 4
    await model.aclose()


async def test_an_answer_ends_all_at_that_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model never answers, so a letter that it is sure to write counts as one."""
    from llmcompiler.reasoning.strategies import hogwild

    monkeypatch.setattr(hogwild, "extract", lambda text, how: "42" if "e" in text else None)
    monkeypatch.setattr(hogwild, "TAIL", 10**6)
    model = Noting(folder)
    made = LLMCompiler(["calc"], model, store=tmp_path / "runs")
    result = await made.think("6 * 7?", strategy="hogwild", seed=5, max_tokens=400, width=3)
    await model.aclose()
    assert (result.answer, result.why[-7:]) == ("42", "said so")
    assert {one["finish"] for one in result.candidates} <= {"cut", "stop"}
