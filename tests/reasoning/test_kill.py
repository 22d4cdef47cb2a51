"""A process that is killed during a branch, and many branches on an endpoint of few slots."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from llmcompiler.compiler import LLMCompiler
from llmcompiler.events import BranchFinished, ModelStarted
from llmcompiler.history.replay import replay
from llmcompiler.language import parse_plan
from llmcompiler.llm.base import Request
from llmcompiler.llm.endpoint import EndpointModel
from llmcompiler.llm.limits import ModelLimits
from llmcompiler.log.store import RunStore
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual
from tests.support.fake_openai import ReceivedRequest, Reply, fake_openai
from tests.support.kill_matrix import in_child


def work(folder: Path, dies_at: int | None) -> None:
    """Run pdr with two rounds, or resume it; every request is first appended to a file.

    Args:
        folder: holds the store and the file of requests.
        dies_at: number of the request at which the process kills itself; ``None`` to resume.
    """
    request_file = os.open(folder / "asked", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    request_count = 0

    def answer(request: Request) -> Answer:
        nonlocal request_count
        request_count += 1
        os.write(request_file, f"{hash_of(request)}\n".encode())
        if request_count == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return Answer(f"Thinking.\nAnswer: {7}", chunk=4, delay=0.1 + request_count / 1000)

    async def main() -> None:
        agent = LLMCompiler(["calc"], ScriptedModel(answer), store=folder / "runs")
        if dies_at is not None:
            await agent.think("3 + 4?", strategy="pdr", width=3, rounds=2, seed=1)
            return
        result = await agent.resume("last")
        assert result.answer == "7", result
        assert (await replay(agent.store, "last")).answer == "7"

    run_virtual(main())


def hash_of(request: Request) -> str:
    """A key that is the same in every process; seeds distinguish parallel samples."""
    return f"{request.seed}-{len(request.messages[-1].content)}"


def test_round_1_of_pdr_is_not_repeated_after_a_kill_in_round_2(tmp_path: Path) -> None:
    # Three drafts and their summary are round 1; the sixth request is in round 2.
    status = in_child(lambda: work(tmp_path, 6))
    assert os.WIFSIGNALED(status)
    requests_before = (tmp_path / "asked").read_text().split()
    assert len(requests_before) == 6
    assert in_child(lambda: work(tmp_path, None)) == 0
    request_counts = Counter((tmp_path / "asked").read_text().split())
    assert [request_counts[key] for key in requests_before[:4]] == [1, 1, 1, 1]
    assert max(request_counts.values()) == 2  # what was in flight
    store = RunStore(tmp_path / "runs")
    events = list(store.events(store.find("last")))
    store.close()
    started = Counter(event.label for event in events if isinstance(event, ModelStarted))
    assert sum(isinstance(event, BranchFinished) for event in events) == 1
    assert started


def test_64_branches_on_four_slots_wait_for_each_other_and_time_out_never() -> None:
    """The read timeout is shorter than the wait in the queue, which it does not include."""

    def reply(request: ReceivedRequest) -> Reply:
        return Reply(["Answer: ", "7"], delay=0.4)

    async def main() -> None:
        async with fake_openai(reply) as server:
            model = EndpointModel(
                "m",
                base_url=server.url,
                read_timeout=2.0,
                retries=0,
                trust_env=False,
                limits=ModelLimits(concurrency=4),
            )
            plan = parse_plan(
                f'1. calc("{list(range(64))}")\n2. think("$1[*] + 4?", width=2)\n3. join($2)'
            )
            agent = LLMCompiler(["calc"], model, store=":memory:")
            result = await agent.execute(plan)
            assert result.value == ["7"] * 64, result.failure
            assert server.most_open <= 4
            prompts = [request.body["messages"][0]["content"] for request in server.requests]
            prompts = [
                text for text in prompts if "+ 4?" in text
            ]  # not those that find out abilities
            assert len(prompts) == 128
            # In turns: by the time that half is served, half of the branches are through.
            assert len(set(prompts[:64])) >= 32
            await model.aclose()

    run_virtual(main())
