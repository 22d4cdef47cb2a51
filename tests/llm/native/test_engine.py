"""The native model as a ``ChatModel``: plain answers, workspaces, resumption from a record."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'llmcompiler-dag[native]'")
pytest.importorskip("transformers", reason="needs transformers, of the extra native")

from llmcompiler.errors import LLMCompilerError, ModelError, UsageError  # noqa: E402
from llmcompiler.language.grammar import plan_grammar  # noqa: E402
from llmcompiler.llm.base import Completion, Request, complete  # noqa: E402
from llmcompiler.llm.messages import Function, Message  # noqa: E402
from llmcompiler.llm.models import open_model  # noqa: E402
from llmcompiler.llm.native.blocks import Bank  # noqa: E402
from llmcompiler.llm.native.grammars import Grammars  # noqa: E402
from llmcompiler.llm.native.loading import LoadedModel  # noqa: E402
from llmcompiler.llm.native.location import ModelLocation, parse_location  # noqa: E402
from llmcompiler.llm.native.model import NativeModel  # noqa: E402
from llmcompiler.llm.native.token_text import TokenText  # noqa: E402
from llmcompiler.llm.workspace import (  # noqa: E402
    Workspace,
    WorkspaceLayout,
    WorkspaceRules,
    ends_step,
)
from tests.language.test_grammar import TOOLS  # noqa: E402
from tests.support.tiny import saved_model, tiny_model, tiny_tokenizer  # noqa: E402

pytestmark = pytest.mark.native

HELLO = (Message("user", "hello"),)
LAYOUTS: tuple[WorkspaceLayout, ...] = ("contiguous", "interleaved", "combined", "paths")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("tiny"), "qwen2")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[NativeModel]:
    model = NativeModel(ModelLocation(str(folder)), name="native:tiny")
    try:
        yield model
    finally:
        await model.aclose()


def sampled(seed: int, tokens: int = 60, **more: Any) -> Request:
    return Request(HELLO, max_tokens=tokens, temperature=1.0, seed=seed, **more)


async def write(model: NativeModel, request: Request, until: int | None = None) -> Completion:
    """Read a call at a workspace as a branch does, at most ``until`` pieces of it."""
    seat = request.seat
    assert seat is not None
    pieces = model.stream(request)
    async for piece in pieces:
        if isinstance(piece, Completion):
            seat.over, seat.finish = True, piece.finish
            return piece
        seat.pieces.append(piece)
        if len(seat.pieces) == until:
            break
    await pieces.aclose()
    seat.over, seat.finish = True, "cut"
    return Completion("".join(seat.pieces), "cut", None, "")  # type: ignore[arg-type]


def make_workspace(layout: WorkspaceLayout, check_every: int = 0) -> Workspace:
    rules = WorkspaceRules(
        layout, ("A: ", "B: ", "Charly: "), ("others: ", "mine: "), "ok? ", check_every
    )
    return Workspace(HELLO, rules)


async def all_write(
    model: NativeModel, workspace: Workspace, tokens: int = 40, until: int | None = None
) -> list[Completion]:
    return await asyncio.gather(
        *(
            write(model, sampled(seat.number, tokens, seat=seat), until)
            for seat in workspace.writers
        )
    )


def copied(workspace: Workspace, pieces: int | None = None) -> Workspace:
    """The workspace that a later process reads from the record."""
    copy = Workspace(workspace.messages, workspace.rules)
    for new, old in zip(copy.writers, workspace.writers, strict=True):
        new.pieces = old.pieces[:pieces]
        if pieces is None:
            new.over, new.finish = True, old.finish
    return copy


def steps_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have steps end where a random model lets them: behind every letter e."""
    monkeypatch.setattr(
        "llmcompiler.llm.native.session.StepDetector.take", lambda self, new: "e" in new
    )


class TestPlainAnswers:
    async def test_greedy_text_is_what_transformers_generates(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        reference = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = tiny_tokenizer()
        prompt = tokenizer("<|user|>hello<|end|><|assistant|>", return_tensors="pt").input_ids
        ids = reference.generate(prompt, max_new_tokens=200, do_sample=False)[0]
        async with opened(folder) as model:
            answer = await complete(model, Request(HELLO, max_tokens=200))
        assert answer.text == tokenizer.decode(ids[prompt.shape[1] :], skip_special_tokens=True)
        assert answer.usage.prompt_tokens == prompt.shape[1]

    async def test_requests_join_and_leave_and_do_not_change_each_other(self, folder: Path) -> None:
        requests = [sampled(seed, 10 + 5 * seed) for seed in range(12)]
        async with opened(folder) as model:
            in_turn = [await complete(model, request) for request in requests]
            at_once = await asyncio.gather(*(complete(model, request) for request in requests))
        assert [answer.text for answer in at_once] == [answer.text for answer in in_turn]

    async def test_a_seed_repeats_and_another_does_not(self, folder: Path) -> None:
        async with opened(folder) as model:
            first, second, third = [
                (await complete(model, sampled(seed))).text for seed in (1, 1, 2)
            ]
        assert first == second != third

    async def test_a_call_that_is_left_makes_room(self, folder: Path) -> None:
        async with opened(folder) as model:
            for _ in range(20):
                pieces = model.stream(sampled(1, 1000))
                async for _piece in pieces:
                    break
                await pieces.aclose()
            assert (await complete(model, sampled(1, 5))).usage.completion_tokens <= 5

    async def test_stops_end_an_answer_and_are_left_out(self, folder: Path) -> None:
        async with opened(folder) as model:
            full_text = (await complete(model, Request(HELLO, max_tokens=60))).text
            stop = full_text[20:23]
            answer = await complete(model, Request(HELLO, max_tokens=60, stop=(stop,)))
        assert (answer.text, answer.finish) == (full_text[: full_text.index(stop)], "stop")

    async def test_an_answer_holds_to_gbnf_also_to_that_of_plans(self, folder: Path) -> None:
        grammar = plan_grammar(TOOLS)
        async with opened(folder) as model:
            short = await complete(model, sampled(1, grammar='root ::= "ab" [0-9]{1,9} "x"'))
            plan = await complete(model, sampled(3, 300, grammar=grammar))
            with pytest.raises(UsageError, match="cannot be read"):
                await complete(model, sampled(1, grammar="root ::= ("))
        assert re.fullmatch("ab[0-9]{1,9}x", short.text)
        assert plan.text.startswith(("Thought: ", "1. "))

    def test_a_grammar_knows_spaces_also_of_tokenizers_of_gguf_files(self) -> None:
        from tokenizers import decoders

        tokenizer = tiny_tokenizer()
        # As transformers reads the byte-level tokenizer of a GGUF file of Llama's kind.
        others = [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("\u2581", " ")]
        decoder = decoders.Sequence([*others, decoders.ByteLevel()])
        tokenizer.backend_tokenizer.decoder = decoder
        grammars = Grammars(tokenizer, len(tokenizer), tokenizer.eos_token_id)
        matcher = grammars.matcher('root ::= "1. a b"', None)
        tokens = tokenizer("1. a b", add_special_tokens=False)["input_ids"]
        assert all(matcher.consume_token(token) for token in tokens)
        assert matcher.is_accepting()
        assert repr(tokenizer.backend_tokenizer.decoder) == repr(decoder), "the model's own stays"

    async def test_a_schema_and_functions(self, folder: Path) -> None:
        schema = {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}},
            "required": ["a"],
            "additionalProperties": False,
        }
        call = Function(
            "f",
            "Does it.",
            {
                "type": "object",
                "properties": {"x": {"enum": [3]}},
                "required": ["x"],
                "additionalProperties": False,
            },
        )
        async with opened(folder) as model:
            answer = await complete(model, sampled(1, 200, schema=schema))
            called = await complete(model, sampled(1, 400, functions=(call,)))
        assert json.loads(answer.text)["a"] in (1, 2)
        assert called.finish in ("tool_calls", "stop", "length")

    async def test_log_probabilities(self, folder: Path) -> None:
        async with opened(folder) as model:
            answer = await complete(model, Request(HELLO, max_tokens=5, logprobs=3))
        assert answer.logprobs is not None
        assert [round(top[0], 5) for top in answer.logprobs.top] == [
            round(chosen, 5) for chosen in answer.logprobs.chosen
        ]

    async def test_a_prompt_that_is_too_long_is_named(self, folder: Path) -> None:
        async with opened(folder) as model:
            with pytest.raises(ModelError, match="model's context 4096"):
                await complete(model, Request((Message("user", "x" * 5000),)))


class TestWorkspaces:
    @pytest.mark.parametrize("layout", LAYOUTS)
    async def test_one_writer_writes_what_it_would_write_alone(
        self, folder: Path, layout: WorkspaceLayout
    ) -> None:
        """Its opening is the beginning of its answer; headings are the layout's own."""
        async with opened(folder) as model:
            workspace = Workspace(HELLO, WorkspaceRules(layout, ("A: ",), ("", "")))
            [answer] = await all_write(model, workspace, 50)
            messages = (*HELLO, Message("assistant", "A: "))
            plain = await complete(model, dataclasses.replace(sampled(0, 50), messages=messages))
        assert "".join(workspace.writers[0].pieces).startswith(plain.text[:8])
        assert answer.usage.completion_tokens == plain.usage.completion_tokens

    @pytest.mark.parametrize("layout", LAYOUTS)
    async def test_who_is_cut_ends_at_that_token_and_the_others_go_on(
        self, folder: Path, layout: WorkspaceLayout
    ) -> None:
        async with opened(folder) as model:
            workspace = make_workspace(layout)
            calls = [
                write(model, sampled(seat.number, 40, seat=seat), until)
                for seat, until in zip(workspace.writers, (3, None, None), strict=True)
            ]
            cut, *others = await asyncio.gather(*calls)
            assert cut.finish == "cut"
            assert len(workspace.writers[0].pieces) == 3
            # What comes behind sees what was read of it, and that reads the same again.
            seat = workspace.append(1, "So: ")
            after = await complete(model, sampled(9, 10, seat=seat))
            copy = copied(workspace)
            reread = await complete(model, sampled(9, 10, seat=copy.append(1, "So: ")))
        assert all(answer.finish in ("length", "stop") for answer in others)
        assert (reread.text, reread.usage) == (after.text, after.usage)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("pieces", [0, 11])
    async def test_a_later_process_goes_on_as_this_one_would_have(
        self, folder: Path, layout: WorkspaceLayout, pieces: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps_everywhere(monkeypatch)
        async with opened(folder) as model:
            workspace = make_workspace(layout, check_every=8)
            await all_write(model, workspace)
            resumed = copied(workspace, pieces)
            await all_write(model, resumed)
        texts = ["".join(seat.pieces) for seat in workspace.writers]
        assert ["".join(seat.pieces) for seat in resumed.writers] == texts
        if layout != "paths":
            assert any("ok? " in text for text in texts)

    async def test_a_conclusion_reads_only_its_own_words(self, folder: Path) -> None:
        async with opened(folder) as model:
            workspace = make_workspace("paths")
            paths = await all_write(model, workspace)
            seat = workspace.conclude("Sum: ")
            summary = await complete(model, sampled(9, 10, seat=seat))
        new = summary.usage.prompt_tokens - summary.usage.cached_tokens
        assert new == len(tiny_tokenizer()("Sum: ").input_ids)
        assert summary.usage.cached_tokens > sum(path.usage.completion_tokens for path in paths) - 4

    async def test_banned_tokens_are_not_written(self, folder: Path) -> None:
        letters = tuple("abcdefghij")
        async with opened(folder) as model:
            workspace = Workspace(
                HELLO, WorkspaceRules("contiguous", ("A: ", "B: "), banned=letters)
            )
            await all_write(model, workspace)
        assert not {piece for seat in workspace.writers for piece in seat.pieces} & set(letters)

    async def test_closing_a_workspace_frees_its_caches(self, folder: Path) -> None:
        async with opened(folder) as model:
            workspace = make_workspace("combined")
            await all_write(model, workspace, 5)
            workspace.close()
            await complete(model, sampled(1, 2))  # the engine has handled the closing by its end
            assert model._engine is not None
            assert model._engine.engine.workspaces == 0

    async def test_an_error_in_a_step_reaches_all_who_write(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("out of memory")

        async with opened(folder) as model:
            await complete(model, sampled(1, 2))
            monkeypatch.setattr(LoadedModel, "forward", fail)
            workspace = make_workspace("combined")
            errors = await asyncio.gather(
                *(write(model, sampled(seat.number, 5, seat=seat)) for seat in workspace.writers),
                return_exceptions=True,
            )
            monkeypatch.undo()
            assert [str(error) for error in errors] == ["out of memory"] * 3
            assert (await complete(model, sampled(1, 2))).text


class TestTrainedCheckpoints:
    """ParaThinker's thought embeddings, with random numbers for a published checkpoint's."""

    def save(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
        from safetensors.torch import load_file, save_file

        saved_model(folder, "qwen2")
        weights = load_file(folder / "model.safetensors")
        torch.manual_seed(7)
        for layer in range(2):
            weights[f"model.layers.{layer}.self_attn.seg_embeddings.weight"] = torch.randn(32, 8)
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    async def test_they_are_loaded_and_matter(self, tmp_path: Path, folder: Path) -> None:
        async with opened(self.save(tmp_path, lambda weights: None)) as model:
            assert "thought_tokens" in await model.capabilities()
            trained = await all_write(model, make_workspace("paths"))
        async with opened(folder) as model:
            assert "thought_tokens" not in await model.capabilities()
            stock = await all_write(model, make_workspace("paths"))
        assert [path.text for path in trained] != [path.text for path in stock]

    async def test_a_table_of_zeros_changes_nothing(self, tmp_path: Path, folder: Path) -> None:
        def zero(weights: dict[str, Any]) -> None:
            for name in weights:
                if "seg_embeddings" in name:
                    weights[name] = torch.zeros(32, 8)

        async with opened(self.save(tmp_path, zero)) as model:
            trained = await all_write(model, make_workspace("paths"))
        async with opened(folder) as model:
            stock = await all_write(model, make_workspace("paths"))
        assert [path.text for path in trained] == [path.text for path in stock]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (
                lambda w: w.pop("model.layers.1.self_attn.seg_embeddings.weight"),
                "lacks model.layers.1.self_attn.seg_embeddings.weight",
            ),
            (lambda w: w.update({"model.strange": torch.zeros(2)}), "has model.strange"),
            (
                lambda w: w.pop("model.layers.1.mlp.up_proj.weight"),
                "lacks model.layers.1.mlp.up_proj.weight",
            ),
        ],
    )
    async def test_what_is_missing_or_unexpected_is_named(
        self, tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
    ) -> None:
        async with opened(self.save(tmp_path, change)) as model:
            with pytest.raises(ModelError, match=says):
                await complete(model, sampled(1))


class TestNames:
    def test_options_stand_behind_the_place(self) -> None:
        location = parse_location("/some/where,dtype=bfloat16,device=cuda:1")
        assert location == ModelLocation("/some/where", "bfloat16", "cuda:1")

    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            ("native:", "lacks a model's name"),
            ("native:x,dtyp=float32", "did you mean dtype="),
            ("native:x,dtype=int3", 'no dtype "int3"'),
        ],
    )
    def test_what_names_nothing_is_refused(self, spec: str, says: str) -> None:
        with pytest.raises(LLMCompilerError, match=says):
            open_model(spec)

    async def test_a_place_with_no_model_and_a_device_that_is_not_there(
        self, tmp_path: Path, folder: Path
    ) -> None:
        with pytest.raises(ModelError, match="cannot be loaded"):
            await complete(open_model(f"native:{tmp_path}"), sampled(1))
        with pytest.raises(UsageError, match="no device"):
            await complete(open_model(f"native:{folder},device=toaster"), sampled(1))

    async def test_bfloat16_writes_too(self, folder: Path) -> None:
        model = open_model(f"native:{folder},dtype=bfloat16,device=cpu")
        assert (await complete(model, sampled(1, 5))).text
        await model.aclose()


class TestWords:
    def test_characters_of_several_tokens_wait_until_they_are_whole(self) -> None:
        class Bytes:
            def decode(self, tokens: list[int], **_: Any) -> str:
                return bytes(tokens).decode(errors="replace")

        token_text = TokenText(Bytes())
        texts = [token_text.take(byte) for byte in "aé€b".encode()]
        assert texts == [
            "a",
            "",
            "é",
            "",
            "",
            "€",
            "b",
        ]

    @pytest.mark.parametrize(
        ("text", "ends"),
        [
            ("So it is 7.\n\n", True),
            ("So it is 7\n\n", False),
            ("So it is 7.\n", False),
            ("Then:\n\n```python\nx = 1.\n\n", False),
            ("Then:\n\n```python\nx = 1.\n```\n\n", True),
            ("$$ x = 1.\n\n", False),
            ("\\[ x = 1. \\]\n\n", True),
            ("\\begin{align} x.\n\n", False),
        ],
    )
    def test_a_step_ends_with_a_blank_line_behind_a_sentence_outside_of_fences(
        self, text: str, ends: bool
    ) -> None:
        assert ends_step(text) is ends


class TestMemory:
    def test_new_room_is_blank(self) -> None:
        """What is behind a shorter block's end gets weight 0, and 0 times NaN would be NaN."""
        bank = Bank(LoadedModel(tiny_model(), tiny_tokenizer()).shape, 2)
        for length in (5, 100, 1000):
            bank.reserve(length)
            assert not any(tensor.any() for tensor in (*bank.keys, *bank.values))
