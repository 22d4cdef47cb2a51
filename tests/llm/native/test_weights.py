"""The equalities on real weights, in float32. Minutes long: `pytest -m "native and slow"`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'llmcompiler-dag[native]'")
pytest.importorskip("transformers", reason="needs transformers, of the extra native")

from llmcompiler.llm import weights  # noqa: E402
from llmcompiler.llm.base import Request, complete  # noqa: E402
from llmcompiler.llm.embedded import physical_cores  # noqa: E402
from llmcompiler.llm.messages import Message  # noqa: E402
from llmcompiler.llm.native.chat import ChatTokenizer  # noqa: E402
from llmcompiler.llm.native.engine import NativeEngine  # noqa: E402
from llmcompiler.llm.native.loading import LoadedModel, load  # noqa: E402
from llmcompiler.llm.native.location import ModelLocation  # noqa: E402
from llmcompiler.llm.native.model import NativeModel, _SharedEngine  # noqa: E402
from tests.llm.native.test_attention import TestFiveEqualities, TestParallelPaths  # noqa: E402

__all__ = ["TestFiveEqualities", "TestParallelPaths"]  # they are run here on this module's models

pytestmark = [pytest.mark.native, pytest.mark.slow]

TOLERANCE = 2e-3
"""In float32, for scores whose spread is about 40."""

QUESTION = (Message("user", "How do I sort a list of pairs by their second element in Python?"),)


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def loaded(request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    if not weights.is_pulled(request.param):
        pytest.skip(f"needs the weights: llmcompiler models pull {request.param}")
    torch.set_num_threads(physical_cores())
    yield load(ModelLocation(str(weights.path_of(request.param))))
    torch.set_num_threads(1)


@pytest.fixture
def model(loaded: LoadedModel) -> Any:
    return loaded.model


@pytest.fixture
def tolerance() -> float:
    return TOLERANCE


def generated(loaded: LoadedModel, prompt: Sequence[int], count: int) -> list[int]:
    """The tokens that transformers generates by its own attention."""
    from llmcompiler.llm.native.attention import NAME

    loaded.model.set_attn_implementation("sdpa")
    ids = loaded.model.generate(
        torch.tensor([list(prompt)]), max_new_tokens=count, min_new_tokens=count, do_sample=False
    )
    loaded.model.set_attn_implementation(NAME)
    tokens: list[int] = ids[0, len(prompt) :].tolist()
    return tokens


def test_greedy_text_is_what_transformers_generates_for_200_tokens(loaded: LoadedModel) -> None:
    chat = ChatTokenizer(loaded)
    reference = generated(loaded, chat.prompt(QUESTION), 200)
    text = loaded.tokenizer.decode(reference, skip_special_tokens=True)
    ends, loaded.end_tokens = loaded.end_tokens, frozenset()
    shared = _SharedEngine(ModelLocation("here"))
    shared._engine = engine = NativeEngine(chat, "native:here", physical_cores())
    model = NativeModel(ModelLocation("here"), name="native:here")
    model._engine = shared
    try:
        # generate() does not pick an end before 200 tokens, so the writer may not either.
        from llmcompiler.llm.native.writer import Writer

        init = Writer.__init__

        def init_without_ends(self: Any, *arguments: Any, **options: Any) -> None:
            init(self, *arguments, **{**options, "banned": tuple(ends)})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Writer, "__init__", init_without_ends)
            answer = asyncio.run(complete(model, Request(QUESTION, max_tokens=200)))
    finally:
        loaded.end_tokens = ends
        engine.stop()
    assert answer.usage.completion_tokens == 200
    assert answer.text == text
