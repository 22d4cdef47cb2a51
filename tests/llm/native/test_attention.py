"""Shared attention equals one joint forward pass: five equalities, and what breaks them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'llmcompiler-dag[native]'")
pytest.importorskip("transformers", reason="needs transformers, of the extra native")

from llmcompiler.errors import UsageError  # noqa: E402
from llmcompiler.llm.native import attention, views  # noqa: E402
from llmcompiler.llm.native.blocks import Bank  # noqa: E402
from llmcompiler.llm.native.loading import FAMILIES, LoadedModel  # noqa: E402
from llmcompiler.llm.native.rotary import Rotation, quarter_turn, rotate  # noqa: E402
from llmcompiler.llm.native.views import BlockId, View, plan_group  # noqa: E402
from tests.support.joint import Pairs, exact_rotary, joint  # noqa: E402
from tests.support.tiny import ROPES, tiny_config, tiny_model, tiny_tokenizer  # noqa: E402

pytestmark = pytest.mark.native

TOLERANCE = 1e-6
"""In float64, for scores up to about 8: transformers rounds to float32 inside its norms."""

KINDS = [(family, "default") for family in FAMILIES] + [("qwen2", rope) for rope in ROPES][1:]


@pytest.fixture(autouse=True)
def few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tolerance() -> float:
    return TOLERANCE


@pytest.fixture(params=KINDS, ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    return exact_rotary(tiny_model(*request.param).double())


def some_tokens(count: int, seed: int = 0) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(5, len(tiny_tokenizer())) for _ in range(count)]


def joined(texts: Sequence[list[int]]) -> list[int]:
    return [token for text in texts for token in text]


def plain(model: Any, tokens: Sequence[int]) -> Any:
    """The scores behind each token of a sequence, by transformers' own attention."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(tokens)])).logits[0]


def off(scores: Any, reference: Any) -> float:
    return float((scores - reference).abs().max())


def line_up(*blocks: BlockId) -> View:
    return tuple((block,) for block in blocks)


class SharedText:
    """A prompt, and writers who write side by side and see each other's work before their own."""

    def __init__(self, model: Any, workers: int) -> None:
        self.loaded = LoadedModel(model, tiny_tokenizer())
        self.prompt = Bank(self.loaded.shape)
        self.bank = Bank(self.loaded.shape, workers)
        self.workers = range(workers)

    def view(self, worker: int) -> View:
        others = [BlockId(self.bank, writer) for writer in self.workers if writer != worker]
        return line_up(BlockId(self.prompt, 0), *others, BlockId(self.bank, worker))

    def read(self, tokens: Sequence[int]) -> None:
        view = line_up(BlockId(self.prompt, 0))
        self.loaded.forward([plan_group([view], [len(tokens)], self.loaded.rotation)], [tokens])

    def step(self, *tokens: Sequence[int], workers: Sequence[int] | None = None) -> Any:
        chosen = self.workers if workers is None else workers
        group = plan_group(
            [self.view(worker) for worker in chosen],
            [len(row) for row in tokens],
            self.loaded.rotation,
        )
        return self.loaded.forward([group], tokens)


def visible_pairs(prompt: int, counts: Sequence[int]) -> tuple[Pairs, list[tuple[int, int]]]:
    """Who sees whom at what distance when writers write ``counts`` tokens in step."""
    places = [(-1, at) for at in range(prompt)]
    places += [(worker, at) for worker, count in enumerate(counts) for at in range(count)]
    sees = torch.zeros(len(places), len(places), dtype=torch.bool)
    distance = torch.zeros(len(places), len(places), dtype=torch.long)
    for q, (worker, step) in enumerate(places):
        if worker < 0:
            begins = {-1: 0}
        else:
            lengths = {w: min(step + 1, count) for w, count in enumerate(counts)}
            begins, at = {-1: 0}, prompt
            for writer in (*(w for w in lengths if w != worker), worker):
                begins[writer] = at
                at += lengths[writer]
        for k, (writer, at) in enumerate(places):
            sees[q, k] = writer in begins and (writer < 0 <= worker or at <= step)
            distance[q, k] = begins[worker] + step - begins.get(writer, 0) - at
    return Pairs(sees, distance), places


def together(model: Any, workers: int = 3, steps: int = 5, chunk: int = 1) -> float:
    """The largest difference between ``workers`` who write in step and one joint pass."""
    prompt = some_tokens(7)
    texts = [some_tokens(steps, 1 + worker) for worker in range(workers)]
    shared = SharedText(model, workers)
    shared.read(prompt)
    scores = [
        shared.step(*(row[at : at + chunk] for row in texts)) for at in range(0, steps, chunk)
    ]
    pairs, places = visible_pairs(len(prompt), [steps] * workers)
    reference = joint(copy.deepcopy(model), prompt + joined(texts), pairs)
    worst = 0.0
    for number, step_scores in enumerate(scores):
        last = min((number + 1) * chunk, steps) - 1
        for worker in range(workers):
            worst = max(worst, off(step_scores[worker], reference[places.index((worker, last))]))
    return worst


class TestFiveEqualities:
    @pytest.mark.parametrize("cuts", [(40,), (1, 39), (7, 11, 22), (13, 1, 1, 25)])
    def test_one_worker_however_its_text_is_split_is_plain_generation(
        self, model: Any, tolerance: float, cuts: tuple[int, ...]
    ) -> None:
        tokens = some_tokens(sum(cuts))
        reference = plain(model, tokens)
        loaded = LoadedModel(model, tiny_tokenizer())
        blocks: list[BlockId] = []
        at = 0
        for count in cuts:
            blocks.append(BlockId(Bank(loaded.shape), 0))
            for piece in (count // 2, count - count // 2):
                if piece:
                    group = plan_group([line_up(*blocks)], [piece], loaded.rotation)
                    scores = loaded.forward([group], [tokens[at : at + piece]])
                    at += piece
                    assert off(scores[0], reference[at - 1]) < tolerance

    def test_turning_a_query_is_turning_the_keys_the_other_way(self, model: Any) -> None:
        frequencies = model.get_decoder().rotary_emb.inv_freq
        rotation = Rotation(frequencies, torch.float64)
        query, key = torch.randn(2, 2 * len(frequencies), dtype=torch.float64)
        by, back = rotation.cos_sin(torch.tensor(917)), rotation.cos_sin(torch.tensor(-917))
        rotated_query = rotate(query, quarter_turn(query), by)
        rotated_key = rotate(key, quarter_turn(key), back)
        assert float(rotated_query @ key - query @ rotated_key) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize(("workers", "chunk"), [(1, 1), (2, 1), (3, 1), (8, 1), (3, 2)])
    def test_workers_equal_one_joint_pass_that_lets_them_see_the_same_step(
        self, model: Any, tolerance: float, workers: int, chunk: int
    ) -> None:
        assert together(model, workers, chunk=chunk) < tolerance

    def test_reading_the_texts_again_one_after_the_other_is_not_the_same(
        self, model: Any, tolerance: float
    ) -> None:
        prompt, first, second = some_tokens(7), some_tokens(5, 1), some_tokens(5, 2)
        shared = SharedText(model, 2)
        shared.read(prompt)
        scores = [shared.step([a], [b]) for a, b in zip(first, second, strict=True)]
        reread = plain(model, prompt + first + second)
        assert off(scores[-1][1], reread[-1]) > 10 * tolerance

    def test_merging_turns_keys_and_leaves_values(self, model: Any, tolerance: float) -> None:
        tokens = some_tokens(30)
        loaded = LoadedModel(model, tiny_tokenizer())
        common, own = Bank(loaded.shape), Bank(loaded.shape, 2)
        past, step = line_up(BlockId(common, 0)), line_up(BlockId(common, 0), BlockId(own, 1))
        loaded.forward([plan_group([past], [12], loaded.rotation)], [tokens[:12]])
        loaded.forward([plan_group([step], [9], loaded.rotation)], [tokens[12:21]])
        keys, values = own.keys[1][1, :, :9].clone(), own.values[1][1, :, :9].clone()
        common.absorb(own, 1, loaded.rotation)
        merged = common.keys[1][0, :, 12:21]
        back = loaded.rotation.cos_sin(torch.tensor(-12))
        assert off(rotate(merged, quarter_turn(merged), back), keys) < tolerance / 10
        assert torch.equal(common.values[1][0, :, 12:21], values)
        assert (common.lengths, own.lengths) == ([21], [0, 0])
        # What is merged reads on as if it had been written there.
        scores = loaded.forward([plan_group([past], [9], loaded.rotation)], [tokens[21:]])
        assert off(scores[0], plain(model, tokens)[-1]) < tolerance

    def test_padding_changes_nothing(self, model: Any, tolerance: float) -> None:
        rows = [some_tokens(count, count) for count in (3, 9, 1)]
        shared = SharedText(model, 3)
        shared.read(some_tokens(7))
        scores = shared.step(*rows)
        pairs, places = visible_pairs(7, [3, 9, 1])
        reference = joint(copy.deepcopy(model), some_tokens(7) + joined(rows), pairs)
        for worker, row in enumerate(rows):
            at = places.index((worker, len(row) - 1))
            assert off(scores[worker], reference[at]) < tolerance

    def test_who_has_ended_stays_visible(self, model: Any, tolerance: float) -> None:
        rows = [some_tokens(count, count) for count in (4, 6)]
        shared = SharedText(model, 2)
        shared.read(some_tokens(7))
        for at in range(4):
            shared.step(rows[0][at : at + 1], rows[1][at : at + 1])
        for at in (4, 5):
            scores = shared.step(rows[1][at : at + 1], workers=[1])
        pairs, _ = visible_pairs(7, [4, 6])
        reference = joint(copy.deepcopy(model), some_tokens(7) + joined(rows), pairs)
        assert off(scores[0], reference[-1]) < tolerance


class TestParallelPaths:
    def test_paths_and_their_summary_equal_one_pass_under_a_mask(
        self, model: Any, tolerance: float
    ) -> None:
        prompt, closing = some_tokens(7), some_tokens(6, 9)
        paths = [some_tokens(count, count) for count in (5, 3, 8)]
        loaded = LoadedModel(model, tiny_tokenizer())
        head, bank, end = (Bank(loaded.shape, slots) for slots in (1, 3, 1))
        start = BlockId(head, 0)
        blocks = [BlockId(bank, slot) for slot in range(3)]
        loaded.forward([plan_group([line_up(start)], [7], loaded.rotation)], [prompt])
        path_views = [line_up(start, block) for block in blocks]
        group = plan_group(path_views, [len(path) for path in paths], loaded.rotation)
        path_scores = loaded.forward([group], paths)
        summary = ((start,), tuple(blocks), (BlockId(end, 0),))
        group = plan_group([summary], [6], loaded.rotation)
        scores = loaded.forward([group], [closing])
        # The one pass: paths begin where the prompt ends, the summary behind the longest path.
        tokens = prompt + joined(paths) + closing
        owner = [-1] * 7 + [n for n, path in enumerate(paths) for _ in path] + [9] * 6
        place = list(range(7)) + [7 + at for path in paths for at in range(len(path))]
        place += [7 + 8 + at for at in range(6)]
        sees = torch.tensor(
            [
                [
                    k <= q and (owner[k] in (-1, owner[q]) or owner[q] == 9)
                    for k in range(len(tokens))
                ]
                for q in range(len(tokens))
            ]
        )
        distance = torch.tensor(place)[:, None] - torch.tensor(place)
        reference = joint(copy.deepcopy(model), tokens, Pairs(sees, distance))
        assert off(scores[0], reference[-1]) < tolerance
        ends = [7 + 5 - 1, 7 + 5 + 3 - 1, 7 + 5 + 3 + 8 - 1]
        assert off(path_scores, reference[ends]) < tolerance


def unturned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention, "rotate", lambda vectors, _, angles: vectors.expand_as(vectors * angles[0])
    )


def turned_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    cos_sin = Rotation.cos_sin
    monkeypatch.setattr(Rotation, "cos_sin", lambda self, by: cos_sin(self, 2 * by))


def scaled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cos_sin = Rotation.cos_sin
    monkeypatch.setattr(
        Rotation, "cos_sin", lambda self, by: tuple(1.1 * x for x in cos_sin(self, by))
    )


def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    bank_view = views.BankView
    monkeypatch.setattr(views, "BankView", lambda *fields: bank_view(*fields[:-1], None))


def attended_before_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write, attend = attention.ForwardPass.update, attention.attend
    delayed: list[Any] = []

    def delay(self: Any, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> Any:
        delayed.append((self, keys, values, layer))
        return keys, values

    def attend_then_write(*arguments: Any, **options: Any) -> Any:
        output = attend(*arguments, **options)
        write(*delayed.pop())
        return output

    monkeypatch.setattr(attention.ForwardPass, "update", delay)
    monkeypatch.setitem(
        attention.AttentionInterface._global_mapping, attention.NAME, attend_then_write
    )


class TestWhatBreaksThem:
    """Each equality would notice: the same comparison with one thing done wrong."""

    @pytest.mark.parametrize(
        ("mutation", "chunk"),
        [
            (unturned, 1),
            (turned_twice, 1),
            (scaled_again, 1),
            (all_visible, 2),
            (attended_before_written, 1),
        ],
    )
    def test_a_mutation_is_seen(
        self, monkeypatch: pytest.MonkeyPatch, mutation: Callable[[Any], None], chunk: int
    ) -> None:
        model = exact_rotary(tiny_model("qwen2", "yarn").double())
        assert together(model, chunk=chunk) < TOLERANCE
        mutation(monkeypatch)
        assert together(model, chunk=chunk) > 1e-3

    def test_workers_who_are_read_one_after_the_other_are_seen(self) -> None:
        model = exact_rotary(tiny_model("qwen2").double())
        shared = SharedText(model, 2)
        shared.read(some_tokens(7))
        pairs, _ = visible_pairs(7, [1, 1])
        reference = joint(copy.deepcopy(model), [*some_tokens(7), 20, 30], pairs)
        alone = shared.step([20], workers=[0])
        assert off(alone[0], reference[7]) > 1e-3


class TestRefusals:
    @pytest.mark.parametrize(
        ("family", "more", "says"),
        [
            ("mistral", {}, 'family "mistral"'),
            (
                "qwen2",
                {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
                "sliding window",
            ),
            (
                "llama",
                {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}},
                '"dynamic"',
            ),
        ],
    )
    def test_what_blocks_are_not_known_to_be_right_for_is_refused_by_name(
        self, family: str, more: dict[str, Any], says: str
    ) -> None:
        from transformers import AutoModelForCausalLM

        config = tiny_config(family, **more)
        with pytest.raises(UsageError, match=says):
            LoadedModel(AutoModelForCausalLM.from_config(config), tiny_tokenizer())


class TestRoom:
    def test_room_grows_by_a_sixteenth(self) -> None:
        loaded = LoadedModel(tiny_model(), tiny_tokenizer())
        bank = Bank(loaded.shape)
        rooms = set()
        for length in range(1, 3000):
            bank.reserve(length)
            rooms.add(bank.room)
        assert len(rooms) < 90
        assert bank.bytes <= 1.1 * 2999 * loaded.shape.token_bytes
