"""``fork`` and ``replay --with`` from the command line, with every kind of change."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import Finished, cli
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, fake_openai

PLAN = '1. country("Japan")\n2. country("Peru")\n3. calc("$1.area_km2 / $2.area_km2")\n4. join()'

Fork = Callable[..., Any]


def answers(request: ReceivedRequest) -> Reply:
    """A plan for a planner; for a joiner, an answer that names its model."""
    text = json.dumps(request.body["messages"])
    if "Say hello" in text:
        return Reply(["Hello."])
    if "join()" in text:
        return Reply([PLAN])
    decision = {"facts": "", "text": f"{request.body['model']} says so", "action": "answer"}
    return Reply([json.dumps(decision)])


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with fake_openai(answers) as endpoint:
        yield endpoint


@pytest.fixture
async def run_again(server: FakeOpenAI, tmp_path: Path) -> Fork:
    """Run the question once. The result runs a command on a copy of the store.

    It returns the finished command, its requests to the endpoint and the path of the copy.
    """
    first = tmp_path / "first.sqlite"
    at = {"OPENAI_BASE_URL": server.url}
    done = await cli("run", "How?", "--model", "openai:one", "--store", str(first), "-q", **at)
    assert done.out == "one says so\n", done.err

    async def command(name: str, *options: str) -> tuple[Finished, list[ReceivedRequest], Path]:
        store = tmp_path / "copy.sqlite"
        shutil.copy(first, store)
        before = len(server.requests)
        done = await cli(name, "last", *options, "--store", str(store), **at)
        requests = [new for new in server.requests[before:] if "Say hello" not in str(new.body)]
        return done, requests, store

    return command


async def show_last(store: Path) -> dict[str, Any]:
    done = await cli("show", "last", "--store", str(store), "--json")
    run: dict[str, Any] = json.loads(done.out)
    return run


async def test_another_value(run_again: Fork) -> None:
    done, requests, store = await run_again("fork", "--set", '2={"area_km2": 1}', "-q")
    assert done.code == 0, done.err
    run = await show_last(store)
    assert run["tasks"][2]["value"] > 300_000
    assert len(requests) == 1, "only the joiner"


async def test_other_arguments(run_again: Fork) -> None:
    _, _, store = await run_again("fork", "--call", '2=country("Chile")', "-q")
    run = await show_last(store)
    assert run["tasks"][1]["value"]["name"] == "Chile"
    assert run["tasks"][2]["value"] == pytest.approx(0.5, abs=0.05)


async def test_another_tool(run_again: Fork) -> None:
    _, _, store = await run_again("fork", "--call", '3=largest([$1, $2], by="area_km2")', "-q")
    run = await show_last(store)
    assert run["tasks"][2]["tool"] == "largest" and run["tasks"][2]["value"]["name"] == "Peru"


async def test_another_model_for_the_answer_alone(run_again: Fork) -> None:
    done, requests, store = await run_again("fork", "--from", "join", "--model", "openai:two", "-q")
    assert done.out == "two says so\n"
    assert [request.body["model"] for request in requests] == ["two"], "the plan was taken over"
    compared = await cli("diff", (await show_last(store))["run"], "last", "--store", str(store))
    assert compared.code == 0


async def test_without_a_model_it_is_the_runs_own(run_again: Fork) -> None:
    done, requests, _ = await run_again("fork", "--from", "plan", "-q")
    assert done.out == "one says so\n" and len(requests) == 2


async def test_another_prompt(run_again: Fork, tmp_path: Path) -> None:
    texts = tmp_path / "prompts.toml"
    texts.write_text('joiner_guidelines = ["Speak like a pirate."]')
    done, requests, store = await run_again("fork", "--from", "join", "--prompts", str(texts), "-q")
    assert done.code == 0, done.err
    assert "pirate" in json.dumps(requests[0].body["messages"])
    assert (await cli("replay", "last", "--store", str(store))).code == 0


async def test_what_would_have_been_is_shown_and_not_kept(run_again: Fork) -> None:
    done, requests, store = await run_again("replay", "--with", '2={"area_km2": 1}')
    assert done.code == 0, done.err
    assert "~ 3 calc" in done.out
    assert "called: task 3 (calc), the joiner's model" in done.err
    assert len(requests) == 1
    runs = json.loads((await cli("runs", "--json", "--store", str(store))).out)["runs"]
    assert len(runs) == 1


WRONG = (
    (("fork",), "a fork needs a place to start from"),
    (("fork", "--from", "9"), "has no task 9"),
    (("fork", "--from", "jion"), "is no place in a run"),
    (("fork", "--call", "2=contry(1)"), "unknown tool"),
    (("fork", "--from", "join", "--prompts", "nowhere.toml"), "cannot read the prompts"),
    (("fork", "--from", "join", "--model", "gpt"), "unknown model"),
    (("replay", "--until", "9"), "has no task 9"),
    (("replay", "--model", "openai:two"), "a replay calls nothing"),
    (("replay", "--with", "x=1"), "does not name a task"),
)


async def test_what_cannot_be_done_is_said(run_again: Fork) -> None:
    for arguments, message in WRONG:
        done, requests, _ = await run_again(*arguments)
        assert done.code == 2 and message in done.err and "Traceback" not in done.err, arguments
        assert requests == []
