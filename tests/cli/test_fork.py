"""``fork`` and ``replay --with`` from the command line, with every kind of change."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import Done, cli
from tests.support.fake_openai import FakeOpenAI, ReceivedRequest, Reply, fake_openai

PLAN = '1. country("Japan")\n2. country("Peru")\n3. calc("$1.area_km2 / $2.area_km2")\n4. join()'

Fork = Callable[..., Any]


def answers(request: ReceivedRequest) -> Reply:
    """A plan for a planner; a joiner's answer names the model that gave it."""
    text = json.dumps(request.body["messages"])
    if "Say hello" in text:
        return Reply(["Hello."])
    if "join()" in text:
        return Reply([PLAN])
    said = {"facts": "", "text": f"{request.body['model']} says so", "action": "answer"}
    return Reply([json.dumps(said)])


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with fake_openai(answers) as found:
        yield found


@pytest.fixture
async def again(server: FakeOpenAI, tmp_path: Path) -> Fork:
    """Run the question once; gives what runs a command on a copy of its store."""
    first = tmp_path / "first.sqlite"
    at = {"OPENAI_BASE_URL": server.url}
    done = await cli("run", "How?", "--model", "openai:one", "--store", str(first), "-q", **at)
    assert done.out == "one says so\n", done.err

    async def command(name: str, *options: str) -> tuple[Done, list[ReceivedRequest], Path]:
        store = tmp_path / "copy.sqlite"
        shutil.copy(first, store)
        before = len(server.requests)
        done = await cli(name, "last", *options, "--store", str(store), **at)
        new = [one for one in server.requests[before:] if "Say hello" not in str(one.body)]
        return done, new, store

    return command


async def shown(store: Path) -> dict[str, Any]:
    done = await cli("show", "last", "--store", str(store), "--json")
    found: dict[str, Any] = json.loads(done.out)
    return found


async def test_another_value(again: Fork) -> None:
    done, asked, store = await again("fork", "--set", '2={"area_km2": 1}', "-q")
    assert done.code == 0, done.err
    run = await shown(store)
    assert run["tasks"][2]["value"] > 300_000
    assert len(asked) == 1, "only the joiner"


async def test_other_arguments(again: Fork) -> None:
    _, _, store = await again("fork", "--call", '2=country("Chile")', "-q")
    run = await shown(store)
    assert run["tasks"][1]["value"]["name"] == "Chile"
    assert run["tasks"][2]["value"] == pytest.approx(0.5, abs=0.05)


async def test_another_tool(again: Fork) -> None:
    _, _, store = await again("fork", "--call", '3=largest([$1, $2], by="area_km2")', "-q")
    run = await shown(store)
    assert run["tasks"][2]["tool"] == "largest" and run["tasks"][2]["value"]["name"] == "Peru"


async def test_another_model_for_the_answer_alone(again: Fork) -> None:
    done, asked, store = await again("fork", "--from", "join", "--model", "openai:two", "-q")
    assert done.out == "two says so\n"
    assert [one.body["model"] for one in asked] == ["two"], "the plan was taken over"
    compared = await cli("diff", (await shown(store))["run"], "last", "--store", str(store))
    assert compared.code == 0


async def test_without_a_model_it_is_the_runs_own(again: Fork) -> None:
    done, asked, _ = await again("fork", "--from", "plan", "-q")
    assert done.out == "one says so\n" and len(asked) == 2


async def test_another_prompt(again: Fork, tmp_path: Path) -> None:
    texts = tmp_path / "prompts.toml"
    texts.write_text('joiner_guidelines = ["Speak like a pirate."]')
    done, asked, store = await again("fork", "--from", "join", "--prompts", str(texts), "-q")
    assert done.code == 0, done.err
    assert "pirate" in json.dumps(asked[0].body["messages"])
    assert (await cli("replay", "last", "--store", str(store))).code == 0


async def test_what_would_have_been_is_shown_and_not_kept(again: Fork) -> None:
    done, asked, store = await again("replay", "--with", '2={"area_km2": 1}')
    assert done.code == 0, done.err
    assert "~ 3 calc" in done.out
    assert "called: task 3 (calc), the joiner's model" in done.err
    assert len(asked) == 1
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


async def test_what_cannot_be_done_is_said(again: Fork) -> None:
    for arguments, message in WRONG:
        done, asked, _ = await again(*arguments)
        assert done.code == 2 and message in done.err and "Traceback" not in done.err, arguments
        assert asked == []
