"""Reasoning branches in runs: recorded, limited, cut, resumed and replayed like any task."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LogError, UsageError
from llmcompiler.events import (
    BranchStopped,
    Event,
    LimitHit,
    ModelFinished,
    ModelStarted,
    TaskFinished,
)
from llmcompiler.history.decisions import DivergenceError
from llmcompiler.history.replay import replay
from llmcompiler.language import parse_plan
from llmcompiler.limits import Limits
from llmcompiler.llm.base import Request
from llmcompiler.log.store import RunStore
from llmcompiler.reasoning.base import Branch, BranchBudget, Capability, StrategyResult
from llmcompiler.reasoning.registry import make_strategy, register, strategy_names
from llmcompiler.testing.doubles import Answer, ScriptedModel, run_virtual


def answers(*numbers: int, delay: float = 0.1) -> Callable[[Request], Answer]:
    """A script that answers these numbers in turn; each call is slightly slower than the last."""
    count = itertools.count()

    def answer(request: Request) -> Answer:
        number = next(count)
        text = f"Thinking.\nAnswer: {numbers[number % len(numbers)]}"
        return Answer(text, chunk=6, delay=delay + number / 1000)

    return answer


def compiler(model: ScriptedModel, store: Path | str = ":memory:", **options: Any) -> LLMCompiler:
    return LLMCompiler(["calc"], model, store=store, **options)


@register
class Sprint(BaseModel):
    """Several paths; the first to end cuts the others, and a last call sees all of them."""

    name: ClassVar[str] = "test-sprint"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {"path": "{problem}", "sum": "{problem}\n{paths}"}

    width: int = 3

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        prompt = branch.prompt("path", problem=problem)
        calls = [branch.start(prompt, label=f"path {number}") for number in range(self.width)]
        paths = await branch.race(calls, 1)
        path_lines = "\n".join(f"{path.finish}: {path.text}" for path in paths)
        summary = await branch.generate(branch.prompt("sum", problem=problem, paths=path_lines))
        branch.accept(next(path for path in paths if path.complete), summary[0])
        return StrategyResult(summary[0].text, summary[0].answer, tuple(paths))


def test_every_call_of_a_branch_is_a_child_of_its_task() -> None:
    async def main() -> None:
        events: list[Event] = []
        model = ScriptedModel(answers(7, 8, 7))
        agent = compiler(model)
        result = await agent.think("3 + 4?", strategy="vote", width=3, on_event=events.append)
        assert (result.answer, result.why) == ("7", "2 of 3 agree")
        assert [e.call for e in events if isinstance(e, ModelStarted)] == ["1/0", "1/1", "1/2"]
        assert [e.value for e in events if isinstance(e, TaskFinished)] == ["7"]
        assert {e.request["messages"][0]["content"] for e in events if isinstance(e, ModelStarted)}

    run_virtual(main())


def test_a_plan_mixes_tools_and_branches() -> None:
    async def main() -> None:
        model = ScriptedModel(answers(24))
        plan = parse_plan(
            '1. calc("3 * 4")\n'
            '2. think("Double it.", context=[$1, "twelve"], strategy="vote", width=2)\n'
            '3. calc("$2 + 1")\n4. join($3)'
        )
        agent = compiler(model)
        result = await agent.execute(plan)
        assert result.value == 25
        assert model.requests[0].messages[0].content.startswith("12\n\ntwelve\n\nDouble it.")
        assert (await replay(agent.store, "last")).answer == "25"

    run_virtual(main())


def test_elements_of_a_fan_out_are_branches_of_their_own() -> None:
    async def main() -> None:
        events: list[Event] = []
        plan = parse_plan('1. calc("[1, 2]")\n2. think("$1[*]", width=1)\n3. join($2)')
        agent = compiler(ScriptedModel(answers(5, 6)))
        result = await agent.execute(plan, on_event=events.append)
        assert result.value == ["5", "6"]
        assert {e.call for e in events if isinstance(e, ModelStarted)} == {"2[0]/0", "2[1]/0"}
        assert (await replay(agent.store, "last")).status == "answered"

    run_virtual(main())


def test_a_race_cuts_the_others_at_that_moment_and_keeps_what_they_had() -> None:
    async def main() -> None:
        events: list[Event] = []
        model = ScriptedModel(answers(1, 2, 3, 4))
        agent = compiler(model)
        problem = "How much is three and four?"
        result = await agent.think(problem, strategy="test-sprint", on_event=events.append)
        finishes = [path["finish"] for path in result.candidates]
        assert finishes == ["stop", "cut", "cut"]
        assert model.cancelled == 2
        assert result.cost is not None
        assert (result.cost.calls, result.cost.unknown, result.cost.peak) == (4, 2, 3)
        assert result.cost.critical == ("1/0", "1/3")
        cost = result.cost
        assert 0 < cost.b_seq < cost.b_total
        # All three paths had the same prompt; endpoints report no tokens of the two cut ones.
        reported_tokens = cost.prefill + cost.cached
        assert cost.b_total > reported_tokens + cost.decoded
        summary_prompt = model.requests[-1].messages[0].content
        assert "cut: Thinking.\nAn" in summary_prompt
        report = await replay(agent.store, "last")
        assert (report.answer, report.model_calls) == ("4", 4)

    run_virtual(main())


def test_seeds_are_derived_from_the_branch_s() -> None:
    async def seeds(seed: int | None) -> list[int | None]:
        model = ScriptedModel(answers(1))
        await compiler(model).think("?", strategy="vote", width=3, seed=seed)
        return [request.seed for request in model.requests]

    async def main() -> None:
        first_run, second_run, run_with_seed_2 = await seeds(1), await seeds(1), await seeds(2)
        assert first_run == second_run
        assert len({*first_run, *run_with_seed_2}) == 6
        assert await seeds(None) == [None] * 3

    run_virtual(main())


# Budgets.


@pytest.mark.parametrize(
    ("budget", "limit"),
    [
        (BranchBudget(calls=2), "calls"),
        (BranchBudget(tokens=100), "tokens"),
        (BranchBudget(seconds=1.2), "seconds"),
    ],
)
def test_a_branch_that_reaches_its_budget_gives_its_best_and_says_so(
    budget: BranchBudget, limit: str
) -> None:
    async def main() -> None:
        model = ScriptedModel(answers(7))
        events: list[Event] = []
        agent = compiler(model)
        result = await agent.think(
            "?", strategy="refine", rounds=9, budget=budget, on_event=events.append
        )
        assert (result.answer, result.stopped) == ("7", limit)
        assert [e.limit for e in events if isinstance(e, BranchStopped)] == [limit]
        assert len(model.requests) < 10
        report = await replay(agent.store, "last")
        assert (report.status, report.answer) == ("answered", "7")

    run_virtual(main())


def test_a_vote_takes_as_many_samples_as_its_budget_allows() -> None:
    async def main() -> None:
        agent = compiler(ScriptedModel(answers(7)))
        result = await agent.think("?", strategy="vote", width=8, budget=BranchBudget(calls=5))
        assert (result.why, result.stopped) == ("5 of 5 agree", "calls")

    run_virtual(main())


def test_a_limit_of_the_run_stops_the_run() -> None:
    async def main() -> None:
        events: list[Event] = []
        agent = compiler(ScriptedModel(answers(7)), limits=Limits(model_calls=2))
        result = await agent.think("?", strategy="vote", width=4, on_event=events.append)
        assert result.failure is not None
        assert result.failure.blame == "limit"
        assert [e.limit for e in events if isinstance(e, LimitHit)][:1] == ["model_calls"]
        finished = {e.call for e in events if isinstance(e, ModelFinished)}
        assert finished == {e.call for e in events if isinstance(e, ModelStarted)}

    run_virtual(main())


def test_a_vote_stops_after_a_window_that_is_of_one_mind() -> None:
    async def main() -> None:
        model = ScriptedModel(answers(1, 2, 3, 3, 9, 9))
        result = await compiler(model).think("?", strategy="vote", width=10, window=2)
        assert (result.answer, len(model.requests)) == ("3", 4)

    run_virtual(main())


# Stopping and resuming.


def test_a_cancelled_branch_is_resumed_and_repeats_only_what_was_in_flight(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        model = ScriptedModel(answers(7))
        agent = compiler(model, tmp_path / "runs")
        running = asyncio.ensure_future(agent.think("?", strategy="refine", rounds=2))
        await asyncio.sleep(0.6)  # in the second call
        running.cancel()
        await asyncio.wait((running,))
        assert (len(model.requests), model.cancelled) == (2, 1)
        events: list[Event] = []
        result = await agent.resume("last", on_event=events.append)
        assert result.answer == "7"
        assert len(model.requests) == 4  # the second again, and the third
        calls = [e.call for e in events if isinstance(e, ModelStarted)]
        assert calls == ["1/0", "1/1", "1/1/2", "1/2"]
        assert (await replay(agent.store, "last")).answer == "7"

    run_virtual(main())


def test_a_cut_call_is_not_made_again_when_the_branch_is_resumed(tmp_path: Path) -> None:
    async def main() -> None:
        model = ScriptedModel(answers(1, 2, 3, 4))
        agent = compiler(model, tmp_path / "runs")
        running = asyncio.ensure_future(agent.think("?", strategy="test-sprint"))
        await asyncio.sleep(0.6)  # in the summary
        assert len(model.requests) == 4
        running.cancel()
        await asyncio.wait((running,))
        result = await agent.resume("last")
        assert result.answer == "1"  # the script's fifth answer
        assert len(model.requests) == 5
        assert (await replay(agent.store, "last")).status == "answered"

    run_virtual(main())


def test_a_fork_does_a_branch_anew_or_takes_it_over(tmp_path: Path) -> None:
    async def main() -> None:
        model = ScriptedModel(answers(5, 5, 6, 6))
        agent = compiler(model, tmp_path / "runs")
        plan = parse_plan('1. calc("2")\n2. think("?", context=[$1], width=2)\n3. calc("$2*2")')
        parent = await agent.execute(plan)
        assert parent.value == 10
        fork_behind = await agent.fork(parent.run, start=3)
        assert (fork_behind.value, len(model.requests)) == (10, 2)
        assert (await replay(agent.store, fork_behind.run)).status == "answered"
        fork_before = await agent.fork(parent.run, values={1: 3})
        assert (fork_before.value, len(model.requests)) == (12, 4)
        assert (await replay(agent.store, fork_before.run)).status == "answered"

    run_virtual(main())


def test_a_replay_names_what_comes_out_otherwise(tmp_path: Path) -> None:
    async def main() -> None:
        agent = compiler(ScriptedModel(answers(7)), tmp_path / "runs")
        result = await agent.think("?", strategy="refine", rounds=1)
        events = list(agent.store.events(result.run))
        log = agent.store.begin("forged", 0.0)
        log.append([_forged(event) for event in events])
        log.close()
        with pytest.raises(DivergenceError, match="call 1/1: request"):
            await replay(agent.store, "forged")

    def _forged(event: Event) -> Event:
        from llmcompiler.events import ModelText

        if isinstance(event, ModelText) and event.call == "1/0":
            return ModelText(event.at, event.call, event.text.replace("7", "8"))
        return event

    run_virtual(main())


# Mistakes of users.


def test_options_are_checked_before_anything_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        agent = compiler(ScriptedModel([]), tmp_path / "runs")
        for mistake, message in (
            ({"strategy": "votes"}, 'no strategy "votes"'),
            ({"widht": 3}, 'no option "widht"'),
            ({"width": 0}, "width"),
            ({"problem": " "}, "the problem is empty"),
            ({"answer": "nonsense"}, "cannot be extracted by 'nonsense'"),
            ({"answer": "regex:("}, "is broken"),
            ({"budget": BranchBudget(calls=-1)}, "not calls=-1"),
        ):
            arguments: dict[str, Any] = {"problem": "?", **mistake}
            with pytest.raises(UsageError, match=message):
                await agent.think(arguments.pop("problem"), **arguments)
        assert agent.store.runs() == []

    run_virtual(main())


def test_a_need_that_an_endpoint_lacks_is_refused_by_name() -> None:
    @register
    class Needy(Sprint):
        name: ClassVar[str] = "test-needy"
        needs: ClassVar[frozenset[Capability]] = frozenset({"logprobs"})

    async def main() -> None:
        result = await compiler(ScriptedModel([])).think("?", strategy="test-needy")
        assert result.failure is not None
        assert '"test-needy" needs logprobs' in result.failure.message

    run_virtual(main())


def test_texts_of_strategies_are_replaced_by_name() -> None:
    from llmcompiler.prompting.prompts import Prompts

    async def main() -> None:
        model = ScriptedModel(answers(7))
        prompts = Prompts(reasoning={"vote.solve": "Solve {problem} briefly."})
        await compiler(model, prompts=prompts).think("3+4", strategy="vote", width=1)
        assert model.requests[0].messages[0].content == "Solve 3+4 briefly."

    run_virtual(main())


def test_a_strategy_of_the_user_is_known_by_name() -> None:
    assert "test-sprint" in strategy_names()
    assert make_strategy("test-sprint", {"width": 2}).model_dump() == {"width": 2}  # type: ignore[attr-defined]


def test_a_finished_branch_without_its_calls_cannot_be_replayed(tmp_path: Path) -> None:
    async def main() -> None:
        agent = compiler(ScriptedModel(answers(7)), tmp_path / "runs")
        result = await agent.think("?", strategy="vote", width=2)
        log = agent.store.begin("forged", 0.0)
        log.append(
            [
                event
                for event in agent.store.events(result.run)
                if getattr(event, "call", "") != "1/1"
            ]
        )
        log.close()
        with pytest.raises(LogError):
            await replay(agent.store, "forged")

    run_virtual(main())


def test_stores_find_branches_again(tmp_path: Path) -> None:
    """What views show of a branch is folded from the log alone."""
    from llmcompiler.history.cost import branch_cost
    from llmcompiler.history.state import fold

    async def main() -> None:
        agent = compiler(ScriptedModel(answers(7)), tmp_path / "runs")
        result = await agent.think("?", strategy="vote", width=2)
        await agent.aclose()
        store = RunStore(tmp_path / "runs")
        state = fold(store.events(result.run))
        branch = state.branches["1"]
        assert branch_cost(branch, state.calls_of("1"), state.now) == result.cost
        store.close()

    run_virtual(main())
