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
from llmcompiler.native.chat import Chat  # noqa: E402
from llmcompiler.native.engine import Engine  # noqa: E402
from llmcompiler.native.loading import Loaded, load  # noqa: E402
from llmcompiler.native.model import NativeModel, _SharedEngine  # noqa: E402
from llmcompiler.native.source import Source  # noqa: E402
from llmcompiler.native.views import BlockId, plan_group  # noqa: E402
from tests.support.joint import joint  # noqa: E402
from tests.test_native_attention import Desk, as_seen, joined, line_up, off  # noqa: E402

pytestmark = [pytest.mark.native, pytest.mark.slow]

TOLERANCE = 2e-3
"""In float32, of scores whose spread is about 40."""

ASKED = (Message("user", "How do I sort a list of pairs by their second element in Python?"),)


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    if not weights.is_pulled(request.param):
        pytest.skip(f"needs the weights: llmcompiler models pull {request.param}")
    torch.set_num_threads(physical_cores())
    yield load(Source(str(weights.path_of(request.param))))
    torch.set_num_threads(1)


def tokens_of(loaded: Loaded, text: str, count: int) -> list[int]:
    found: list[int] = loaded.tokenizer(text * count, add_special_tokens=False)["input_ids"]
    return found[:count]


class Same(Desk):
    """Workers on a model that is loaded already."""

    def __init__(self, loaded: Loaded, workers: int) -> None:
        from llmcompiler.native.blocks import Bank

        self.loaded = loaded
        self.prompt, self.bank = Bank(loaded.shape), Bank(loaded.shape, workers)
        self.workers = range(workers)


def generated(loaded: Loaded, prompt: Sequence[int], count: int) -> list[int]:
    """What transformers generates, by its own attention."""
    from llmcompiler.native.attention import NAME

    loaded.model.set_attn_implementation("sdpa")
    ids = loaded.model.generate(
        torch.tensor([list(prompt)]), max_new_tokens=count, min_new_tokens=count, do_sample=False
    )
    loaded.model.set_attn_implementation(NAME)
    found: list[int] = ids[0, len(prompt) :].tolist()
    return found


def test_greedy_text_is_what_transformers_generates_for_200_tokens(loaded: Loaded) -> None:
    chat = Chat(loaded)
    reference = generated(loaded, chat.prompt(ASKED), 200)
    text = loaded.tokenizer.decode(reference, skip_special_tokens=True)
    ends, loaded.ends = loaded.ends, frozenset()
    shared = _SharedEngine(Source("here"))
    shared._engine = engine = Engine(chat, "native:here", physical_cores())
    model = NativeModel(Source("here"), name="native:here")
    model._engine = shared
    try:
        # generate() never picks the end before so many tokens; neither does this.
        from llmcompiler.native.writer import Writer

        made = Writer.__init__

        def without_end(self: Any, *given: Any, **more: Any) -> None:
            made(self, *given, **{**more, "banned": tuple(ends)})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Writer, "__init__", without_end)
            answer = asyncio.run(complete(model, Request(ASKED, max_tokens=200)))
    finally:
        loaded.ends = ends
        engine.stop()
    assert answer.usage.completion_tokens == 200
    assert answer.text == text


def test_one_worker_split_into_blocks_equals_plain_generation(loaded: Loaded) -> None:
    from llmcompiler.native.blocks import Bank

    tokens = tokens_of(loaded, "The sum of the first ten odd numbers is one hundred. ", 90)
    reference = plain(loaded, tokens)
    blocks: list[BlockId] = []
    at = 0
    for count in (31, 40, 19):
        blocks.append(BlockId(Bank(loaded.shape), 0))
        group = plan_group([line_up(*blocks)], [count], loaded.rotation)
        scores = loaded.forward([group], [tokens[at : at + count]])
        at += count
        assert off(scores[0], reference[at - 1]) < TOLERANCE


def plain(loaded: Loaded, tokens: list[int]) -> Any:
    from llmcompiler.native.attention import NAME

    loaded.model.set_attn_implementation("sdpa")
    with torch.no_grad():
        scores = loaded.model(input_ids=torch.tensor([tokens])).logits[0]
    loaded.model.set_attn_implementation(NAME)
    return scores


def test_three_workers_equal_one_joint_pass(loaded: Loaded) -> None:
    from llmcompiler.native.attention import NAME

    prompt = tokens_of(loaded, "Three people solve a problem together. ", 12)
    rows = [tokens_of(loaded, text, 6) for text in ("I add. ", "You take away. ", "We count. ")]
    desk = Same(loaded, 3)
    desk.read(prompt)
    scores = [desk.step(*(row[at : at + 1] for row in rows)) for at in range(6)]
    pairs, places = as_seen(len(prompt), [6, 6, 6])
    reference = joint(loaded.model, prompt + joined(rows), pairs)
    loaded.model.set_attn_implementation(NAME)
    for step, got in enumerate(scores):
        for worker in range(3):
            assert off(got[worker], reference[places.index((worker, step))]) < TOLERANCE
