"""The embedded model, with the smallest weights, which are downloaded if absent."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm import embedded, slot_files
from llmcompiler.llm.base import ChatModel, Completion, Request, complete
from llmcompiler.llm.embedded import EmbeddedModel
from llmcompiler.llm.messages import Message
from llmcompiler.llm.models import open_model

NAME = "local:smollm2-135m"


def ask(text: str, *more: Message, **fields: Any) -> Request:
    return Request((Message("user", text), *more), **{"max_tokens": 24} | fields)


@pytest.fixture(autouse=True)
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test starts with the caches of another process."""
    monkeypatch.setattr(slot_files, "cache_dir", lambda: tmp_path / "cache")


@pytest_asyncio.fixture
async def model() -> AsyncIterator[ChatModel]:
    opened = open_model(NAME)
    yield opened
    await opened.aclose()


@pytest.mark.model
class TestAnswers:
    async def test_it_streams_text_and_ends_with_a_completion(self, model: ChatModel) -> None:
        pieces = [piece async for piece in model.stream(ask("Say hello."))]
        last = pieces.pop()
        assert isinstance(last, Completion)
        assert len(pieces) > 1
        assert "".join(str(piece) for piece in pieces) == last.text
        assert last.model == "smollm2-135m"
        assert model.name == NAME

    async def test_usage_counts_tokens_and_what_the_prefix_cache_gave(
        self, model: ChatModel
    ) -> None:
        request = ask("Say hello in one word.", max_tokens=4)
        first = (await complete(model, request)).usage
        second = (await complete(model, request)).usage
        assert first.calls == 1
        assert first.completion_tokens <= 4
        assert first.cached_tokens == 0
        # The last token is always evaluated, because the next one is sampled from its scores.
        assert second.cached_tokens == second.prompt_tokens - 1
        assert first.prompt_tokens == second.prompt_tokens

    async def test_the_most_likely_text_is_the_same_every_time(self, model: ChatModel) -> None:
        texts = {(await complete(model, ask("Name a colour."))).text for _ in range(3)}
        assert len(texts) == 1

    async def test_the_length_limit_is_told(self, model: ChatModel) -> None:
        assert (await complete(model, ask("Tell a story.", max_tokens=3))).finish == "length"

    async def test_a_stop_text_ends_the_answer_and_is_left_out(self, model: ChatModel) -> None:
        request = ask("x", grammar='root ::= "one two STOP three"', stop=("STOP",))
        answer = await complete(model, request)
        assert (answer.text, answer.finish) == ("one two ", "stop")

    async def test_a_grammar_is_obeyed(self, model: ChatModel) -> None:
        answer = await complete(model, ask("Why is the sky blue?", grammar='root ::= "yes" | "no"'))
        assert answer.text in ("yes", "no")

    async def test_a_json_schema_is_obeyed(self, model: ChatModel) -> None:
        schema = {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "rank": {"enum": [1, 2]}},
            "required": ["city", "rank"],
            "additionalProperties": False,
        }
        answer = await complete(model, ask("The city?", schema=schema, max_tokens=60))
        value = json.loads(answer.text)
        assert value["city"] in ("Paris", "Rome")
        assert value["rank"] in (1, 2)

    async def test_a_final_assistant_message_is_continued_and_not_repeated(
        self, model: ChatModel
    ) -> None:
        beginning = Message("assistant", "One, two, three, four,")
        answer = await complete(model, ask("Count from one to six in words.", beginning))
        assert answer.text.startswith(" five")

    async def test_requests_at_once_answer_as_they_would_alone(self, model: ChatModel) -> None:
        grammars = [f'root ::= "answer {n}"' for n in range(6)]
        answers = await asyncio.gather(
            *(complete(model, ask("Which?", grammar=grammar)) for grammar in grammars)
        )
        assert [answer.text for answer in answers] == [f"answer {n}" for n in range(6)]

    async def test_leaving_an_answer_frees_its_slot(self, model: ChatModel) -> None:
        endless = ask("Go on.", grammar='root ::= "la "+', max_tokens=None)
        for _ in range(embedded.SLOTS + 1):
            async with asyncio.timeout(60):
                stream = model.stream(endless)
                await anext(stream)
                await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            assert (await complete(model, ask("Say hello.", max_tokens=2))).text

    async def test_a_prompt_beyond_the_context_is_an_error(self, model: ChatModel) -> None:
        with pytest.raises(ModelError) as caught:
            await complete(model, ask("word " * (embedded.CONTEXT_TOKENS + 10)))
        assert "longer than the model's context" in caught.value.hint
        assert not caught.value.retryable

    async def test_a_bad_grammar_is_an_error(self, model: ChatModel) -> None:
        with pytest.raises(ModelError, match="grammar"):
            await complete(model, ask("x", grammar="root ::= ("))


@pytest.mark.model
class TestServer:
    async def test_models_of_the_same_weights_share_one_server(self) -> None:
        first, second = open_model(NAME), open_model(NAME)
        request = ask("Say hello.", max_tokens=2)
        await asyncio.gather(complete(first, request), complete(second, request))
        assert len(embedded._servers) == 1
        await first.aclose()
        assert len(embedded._servers) == 1
        assert (await complete(second, request)).text
        await second.aclose()
        await second.aclose()
        assert not embedded._servers

    async def test_the_next_server_need_not_read_a_prompts_beginning_again(self) -> None:
        rules = Message("system", " ".join(f"Rule {n}: be kind." for n in range(20)))
        for question, cached in (("Hello?", False), ("Who are you?", True)):
            model = open_model(NAME)
            request = Request((rules, Message("user", question)), max_tokens=2)
            usage = (await complete(model, request)).usage
            assert (usage.cached_tokens > usage.prompt_tokens - 20) is cached
            await model.aclose()

    async def test_a_damaged_file_of_what_was_read_is_as_if_there_were_none(
        self, tmp_path: Path
    ) -> None:
        request = ask("Say hello.", max_tokens=2)
        for _ in range(2):
            model = open_model(NAME)
            assert (await complete(model, request)).text
            await model.aclose()
            for file in (tmp_path / "cache" / "prompts").rglob("slot-*"):
                file.write_bytes(file.read_bytes()[:1000])

    async def test_a_closed_model_starts_again_when_asked(self) -> None:
        model = open_model(NAME)
        for _ in range(2):
            assert (await complete(model, ask("Say hello.", max_tokens=2))).text
            await model.aclose()

    async def test_the_port_refuses_callers_without_the_key(self) -> None:
        import httpx

        model = open_model(NAME)
        await complete(model, ask("Say hello.", max_tokens=2))
        (server,) = embedded._servers.values()
        async with httpx.AsyncClient(trust_env=False) as client:
            body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            answer = await client.post(f"{server.address}/v1/chat/completions", json=body)
        await model.aclose()
        assert server.address.startswith("http://127.0.0.1:")
        assert answer.status_code == 401

    @pytest.mark.parametrize("close", [True, False])
    def test_a_process_ends_cleanly_and_quietly(self, close: bool) -> None:
        code = f"""
            import asyncio
            from llmcompiler.llm.base import Request, complete
            from llmcompiler.llm.messages import Message
            from llmcompiler.llm.models import open_model

            async def main():
                model = open_model({NAME!r})
                await complete(model, Request((Message("user", "Hi"),), max_tokens=2))
                if {close}:
                    await model.aclose()

            asyncio.run(main())
        """
        process = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


async def test_weights_that_are_no_model_are_an_error(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    model = EmbeddedModel(broken)
    with pytest.raises(ModelError, match=r"cannot load .*broken\.gguf"):
        await complete(model, ask("x"))
    await model.aclose()
    assert not embedded._servers


async def test_without_xllamacpp_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    weights = tmp_path / "any.gguf"
    weights.touch()
    with pytest.raises(UsageError) as caught:
        await complete(EmbeddedModel(weights), ask("x"))
    assert "llmcompiler-dag[local]" in caught.value.hint


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no weights at .*absent\.gguf"):
        EmbeddedModel(tmp_path / "absent.gguf")


def test_there_is_at_least_one_core() -> None:
    assert embedded.physical_cores() >= 1


@pytest.mark.parametrize(
    ("setting", "spins"), [({}, "2000"), ({"GOMP_SPINCOUNT": "77"}, "77")], ids=["ours", "theirs"]
)
def test_threads_that_wait_give_their_cores_away_unless_the_user_has_set_it(
    setting: dict[str, str], spins: str
) -> None:
    """OpenMP itself says what it read, when it is loaded."""
    program = (
        "import os\n"
        "before = dict(os.environ)\n"
        "from llmcompiler.llm import embedded\n"
        "with embedded.short_waits():\n"
        "    import xllamacpp\n"
        "assert dict(os.environ) == before\n"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE", **setting},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in ended.stderr:
        pytest.skip("this build of the library has another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{spins}'" in ended.stderr
