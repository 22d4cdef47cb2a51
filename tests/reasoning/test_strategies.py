"""Each strategy against a scripted model: its prompts, their order, and its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm.base import Logprobs, Request, Usage
from llmcompiler.reasoning.base import StrategyResult
from llmcompiler.reasoning.registry import make_strategy
from llmcompiler.reasoning.sandbox import missing_guards
from llmcompiler.reasoning.strategies import multiverse
from llmcompiler.reasoning.strategies.pdr import parse_selection
from llmcompiler.testing.doubles import Answer, Script, ScriptedModel, run_virtual
from tests.support.branches import ScriptedBranch

PROBLEM = "What is six times seven?"


def think(
    name: str,
    script: Script,
    *,
    problem: str = PROBLEM,
    branch: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[StrategyResult, ScriptedBranch]:
    scripted_branch = ScriptedBranch(
        ScriptedModel(script), make_strategy(name, options), **(branch or {})
    )
    return run_virtual(scripted_branch.think(problem)), scripted_branch


def prompts_of(branch: ScriptedBranch, label: str) -> list[str]:
    return [
        request.messages[-1].content for name, request in branch.requests if name.startswith(label)
    ]


def answers(*texts: str) -> Callable[[Request], str]:
    """A script that gives the texts in order, then repeats the last one."""
    remaining = list(texts)
    return lambda _: remaining.pop(0) if len(remaining) > 1 else remaining[0]


ALL = {
    "pdr": {"width": 2},
    "parathinker": {},
    "hogwild": {},
    "multiverse": {},
    "parallel_r1": {},
    "moa": {},
    "rsa": {"width": 3, "rounds": 1},
}


@pytest.mark.parametrize("name", ALL)
def test_every_strategy_comes_to_an_answer_and_marks_its_path(name: str) -> None:
    result, branch = think(name, lambda _: "6 * 7 = 42\nAnswer: 42", **ALL[name])
    assert result.answer == "42"
    assert branch.accepted
    assert {candidate.call for candidate in branch.accepted} <= {call.id for call in branch.started}


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_asks_the_same(name: str) -> None:
    def requests() -> list[tuple[str, Request]]:
        return think(name, lambda _: "6 * 7 = 42\nAnswer: 42", **ALL[name])[1].requests

    assert requests() == requests()


@pytest.mark.parametrize("name", ALL)
def test_a_budget_that_ends_gives_what_there_is(name: str) -> None:
    call_count = len(think(name, lambda _: "so\nAnswer: 42", **ALL[name])[1].requests)
    if call_count > 4:
        result, branch = think(
            name, lambda _: "so\nAnswer: 42", branch={"calls": call_count - 1}, **ALL[name]
        )
        assert result.answer == "42"
        assert len(branch.requests) == call_count - 1


@pytest.mark.parametrize("name", ALL)
def test_the_problem_stands_before_what_differs_between_calls(name: str) -> None:
    _, branch = think(name, lambda _: "so\nAnswer: 42", **ALL[name])
    assert all(PROBLEM in request.messages[0].content[:200] for _, request in branch.requests)


class TestPdr:
    @settings(deadline=None, max_examples=25)
    @given(
        width=st.integers(1, 12),
        kappa=st.integers(8, 200),
        length=st.integers(1, 3000),
        distiller=st.sampled_from(["summary", "shared_top_k", "per_sample_top_k", "random_k"]),
        k=st.integers(1, 4),
    )
    def test_what_a_round_hands_on_is_bounded_whatever_the_width(
        self, width: int, kappa: int, length: int, distiller: str, k: int
    ) -> None:
        def model(request: Request) -> Answer:
            text = "Best: 2, 1" if "Which" in request.messages[-1].content else "word " * length
            text = text[: 4 * (request.max_tokens or 10**9)]
            return Answer(text, usage=Usage(1, 0, -(-len(text) // 4), 1))

        _, branch = think(
            "pdr", model, width=width, rounds=2, kappa=kappa, distiller=distiller, k=k, problem="P?"
        )
        plain = prompts_of(branch, "round 1 draft")[0]
        for prompt in prompts_of(branch, "round 2 draft") + prompts_of(branch, "final draft"):
            frame_length = len(branch.prompt("workspace", workspace=""))
            numbering = 8 * k
            assert (len(prompt) - len(plain) - frame_length - numbering) / 4 <= kappa + k

    @given(st.integers(1, 16))
    @settings(deadline=None, max_examples=10)
    def test_the_accepted_path_does_not_grow_with_the_width(self, width: int) -> None:
        def sequential(wide: int) -> int:
            _, branch = think("pdr", lambda _: "so\nAnswer: 42", width=wide, rounds=2)
            return sum(candidate.usage.completion_tokens for candidate in branch.accepted)

        assert sequential(width) == sequential(1)

    def test_the_workspace_is_rebuilt_and_never_appended_to(self) -> None:
        notes = iter(["NOTES-1", "NOTES-2"])
        _, branch = think(
            "pdr",
            lambda r: next(notes) if "short notes" in r.messages[-1].content else "Answer: 4",
            width=2, rounds=2,
        )  # fmt: skip
        assert all("NOTES-1" in prompt for prompt in prompts_of(branch, "round 2 draft"))
        final = prompts_of(branch, "final")[0]
        assert "NOTES-2" in final
        assert "NOTES-1" not in final

    def test_drafts_share_one_prompt_where_the_workspace_is_shared(self) -> None:
        _, branch = think("pdr", lambda _: "Answer: 4", width=4, rounds=2)
        assert len(set(prompts_of(branch, "round 2 draft"))) == 1

    def test_random_subsets_differ_and_follow_the_seed(self) -> None:
        def prompts(seed: int) -> list[str]:
            drafts = iter(f"draft {number}\nAnswer: 4" for number in range(99))
            _, branch = think(
                "pdr", lambda _: next(drafts), width=8, rounds=2, distiller="random_k",
                branch={"seed": seed},
            )  # fmt: skip
            return prompts_of(branch, "round 2 draft")

        assert len(set(prompts(1))) > 1
        assert prompts(1) == prompts(1) != prompts(2)

    def test_thinking_is_dropped_and_candidates_are_called_possibly_wrong(self) -> None:
        _, branch = think("pdr", lambda _: "<think>SECRET</think>\nAnswer: 4", width=2)
        distil, final = prompts_of(branch, "round 1 distil")[0], prompts_of(branch, "final")[0]
        assert "SECRET" not in distil + final
        assert "possibly wrong" in distil
        assert "take another route" in final

    def test_a_selection_that_names_nothing_is_said(self) -> None:
        result, _ = think("pdr", lambda _: "Answer: 4", width=3, distiller="shared_top_k")
        assert "named no attempt" in result.notes[0]

    def test_a_schedule_overrides_width_and_rounds(self) -> None:
        _, branch = think("pdr", lambda _: "Answer: 4", schedule=(3, 2))
        assert [len(prompts_of(branch, f"round {number} draft")) for number in (1, 2)] == [3, 2]

    @pytest.mark.parametrize(
        ("text", "positions"),
        [("Best: 2, 1", [1, 0]), ("**Best:** 3 and 9", [2]), ("2 is best", []), ("none", [])],
    )
    def test_selections_are_read_leniently(self, text: str, positions: list[int]) -> None:
        assert parse_selection(text, 3) == positions


class TestParaThinker:
    @pytest.mark.parametrize(("termination", "cut"), [("first", 3), ("half", 2), ("last", 0)])
    def test_paths_are_cut_once_enough_have_ended(self, termination: str, cut: int) -> None:
        number = iter(range(9))

        def model(request: Request) -> Answer:
            return Answer("step " * 10 + "\nAnswer: 4", chunk=5, delay=1.0 + next(number))

        result, branch = think("parathinker", model, width=4, termination=termination)
        assert result.data["cut"] == cut
        summary = prompts_of(branch, "summary")[0]
        assert summary.count("[") == 4
        assert summary.count("step") > 10

    def test_every_path_is_begun_in_its_own_way_after_a_shared_beginning(self) -> None:
        _, branch = think("parathinker", lambda _: "Answer: 4", width=4)
        paths = prompts_of(branch, "path")
        assert len(set(paths)) == 4
        assert len({path.partition("<think")[0] for path in paths}) == 1

    def test_it_says_that_paths_are_read_again(self) -> None:
        result, _ = think("parathinker", lambda _: "Answer: 4")
        assert "reads the paths again" in result.notes[0]


class TestHogwild:
    def test_the_log_is_only_appended_to_and_stands_before_the_cue(self) -> None:
        words = iter(f"chunk-{number}" for number in range(99))
        _, branch = think("hogwild", lambda _: next(words), width=3, rounds=4, check_every=0)
        rounds = [prompts_of(branch, f"round {number}") for number in range(1, 5)]
        logs = [round_prompts[0].partition("\nYou are worker")[0] for round_prompts in rounds]
        for prompts, log in zip(rounds, logs, strict=True):
            assert [prompt.partition("\nYou are worker")[0] for prompt in prompts] == [log] * 3
        assert all(later.startswith(earlier) for earlier, later in pairwise(logs))
        assert prompts_of(branch, "forced")[0].startswith(logs[-1])
        assert logs[-1].count("chunk-") == 9

    def test_it_stops_when_a_worker_states_the_answer(self) -> None:
        result, branch = think("hogwild", answers("6 * 7", "hm", "so", "Answer: 42"), width=2)
        assert (result.answer, result.data["rounds"]) == ("42", 2)
        assert not prompts_of(branch, "forced")

    def test_without_an_answer_one_is_forced(self) -> None:
        result, branch = think("hogwild", answers(*["hm"] * 4, "Answer: 7"), rounds=2)
        assert (result.answer, result.why) == ("7", "forced from the log")
        assert len(prompts_of(branch, "forced")) == 1

    def test_who_does_redundant_work_is_told_to_change(self) -> None:
        def model(request: Request) -> Answer:
            redundant = "redundant work" in request.messages[-1].content
            return Answer("Yes." if redundant else "hm", usage=Usage(1, 0, 50, 1))

        result, branch = think("hogwild", model, width=2, rounds=3, check_every=100)
        assert result.data["checks"] == 2
        redirected = [
            prompt for prompt in prompts_of(branch, "round") if "take another part" in prompt
        ]
        assert [prompt.split("You are worker ")[1][0] for prompt in redirected] == ["1", "2"]

    def test_it_is_called_what_it_is(self) -> None:
        assert think("hogwild", lambda _: "Answer: 4")[0].notes == ("hogwild (chunk-synced)",)

    def test_workers_may_take_turns(self) -> None:
        _, branch = think("hogwild", lambda _: "hm", rounds=2, together=False, check_every=0)
        assert len(prompts_of(branch, "round")) == 4


class TestMultiverse:
    DIVIDED = json.dumps({"parallel": True, "goal": "g", "outlines": ["three times", "four times"]})

    def test_paths_run_at_once_and_a_conclusion_merges_them(self) -> None:
        result, branch = think("multiverse", answers(self.DIVIDED, "18", "24", "Answer: 42"))
        assert (result.answer, result.data["paths"]) == ("42", 2)
        assert "18" in prompts_of(branch, "conclude")[0]
        assert "24" in prompts_of(branch, "conclude")[0]

    def test_a_part_may_divide_again(self) -> None:
        texts = [self.DIVIDED] * 3 + ["1", "2", "3", "4", "part", "part", "Answer: 42"]
        result, branch = think("multiverse", answers(*texts), depth=2)
        assert result.answer == "42"
        assert [len(prompts_of(branch, f"divide {level}")) for level in (1, 2)] == [1, 2]

    def test_what_does_not_divide_is_solved_plainly(self) -> None:
        undivided = json.dumps({"parallel": False, "goal": "", "outlines": []})
        result, branch = think("multiverse", answers(undivided, "Answer: 42"))
        assert result.notes == ("the model did not divide it",)
        assert len(branch.requests) == 2

    @pytest.mark.parametrize(
        ("text", "flaw"),
        [
            ("Let us think", "no JSON"),
            ('{"parallel": true, "goal": "g"}', "no JSON"),
            ('{"parallel": true, "goal": "g", "outlines": ["one"]}', "two parts"),
            ('{"parallel": true, "goal": "g", "outlines": ["a", "a"]}', "two parts"),
            ('{"parallel": true, "goal": "g", "outlines": ["a", "double path 1"]}', "refers"),
            ('{"parallel": true, "goal": "g", "outlines": ["a", "the previous step"]}', "refers"),
        ],
    )
    def test_an_unusable_division_falls_back_and_says_why(self, text: str, flaw: str) -> None:
        assert flaw in multiverse.parse_division(text)[2]
        result, branch = think("multiverse", answers(text, "Answer: 42"), width=3)
        assert flaw in result.notes[0]
        assert len(prompts_of(branch, "solve")) == 3

    def test_depth_is_bounded(self) -> None:
        with pytest.raises(UsageError, match="depth"):
            make_strategy("multiverse", {"depth": 6})


class TestMultiverseInTags:
    """One text, continued; ThreadWeaver's five phases."""

    OUTLINES = (
        "Let me see.\n<Parallel>\n<Outlines>\n<Outline>1: three times</Outline>\n"
        "<Outline>2: four times</Outline>\n"
    )

    @staticmethod
    def woven(*texts: str, **options: Any) -> tuple[StrategyResult, ScriptedBranch]:
        setup = {"capabilities": ["continuation"]}
        return think("multiverse", answers(*texts), form="tags", branch=setup, **options)

    def test_it_needs_an_endpoint_that_continues(self) -> None:
        with pytest.raises(UsageError, match="needs continuation"):
            think("multiverse", answers("Answer: 42"), form="tags")

    def test_the_text_is_continued_once_a_path_and_then_behind_all_of_them(self) -> None:
        result, branch = self.woven(self.OUTLINES, " 18", " 24", "Answer: 42")
        divided_text = self.OUTLINES + "</Outlines>\n"
        assert prompts_of(branch, "block 1 path") == [
            f"{divided_text}<Path>1:",
            f"{divided_text}<Path>2:",
        ]
        woven = f"{divided_text}<Path>1: 18</Path>\n<Path>2: 24</Path>\n</Parallel>\n"
        assert prompts_of(branch, "go on")[1] == woven
        assert [request.stop for _, request in branch.requests] == [
            ("</Outlines>",), ("</Path>",), ("</Path>",), (),
        ]  # fmt: skip
        assert len({request.seed for _, request in branch.requests}) == 4
        assert (result.answer, result.text) == ("42", f"{woven}Answer: 42")
        assert result.data["paths"] == 2

    def test_a_text_may_have_several_blocks(self) -> None:
        texts = [self.OUTLINES, "18", "24", self.OUTLINES, "1", "2", "Answer: 42"]
        result, _ = self.woven(*texts, depth=2)
        assert (result.answer, result.data["paths"]) == ("42", 4)

    def test_a_text_without_a_block_is_the_solution(self) -> None:
        result, branch = self.woven("Answer: 42")
        assert result.notes == ("the model did not divide it",)
        assert len(branch.requests) == 1

    @pytest.mark.parametrize(
        ("texts", "flaw"),
        [
            (["<Outlines><Outline>1: a</Outline>"], "two parts"),
            (["<Outlines><Outline>1: a</Outline><Outline>2: b"], "form"),
            (["<Outlines><Outline>1: a</Outline><Outline>3: b</Outline>"], "numbered"),
            (["<Outlines><Outline>1: a</Outline><Outline>2: as path 1</Outline>"], "refers"),
            (["</Parallel> Answer: 42"], "wrong place"),
            ([OUTLINES, "18 <Path>2:", "24"], "wrong place"),
            ([OUTLINES, "18", "24", "<Conclusion> 42"], "wrong place"),
        ],
    )
    def test_tags_that_cannot_be_used_fall_back_and_say_why(
        self, texts: list[str], flaw: str
    ) -> None:
        result, branch = self.woven(*texts, "Answer: 42", width=2)
        assert flaw in result.notes[0]
        assert result.answer == "42"
        assert len(prompts_of(branch, "solve")) == 2


class TestParallelR1:
    def test_a_block_is_opened_worked_on_and_closed(self) -> None:
        script = answers(
            "Six is 2 * 3.\n<Parallel>\n", "view a", "view b", "both hold", "Answer: 42"
        )
        result, branch = think("parallel_r1", script)
        assert (result.answer, result.data["blocks"]) == ("42", 1)
        assert result.text == "Six is 2 * 3.\nboth hold\nAnswer: 42"
        assert (
            "<Path>view a</Path>\n<Path>view b</Path>" in prompts_of(branch, "block 1 summary")[0]
        )

    def test_no_block_is_needed(self) -> None:
        result, branch = think("parallel_r1", answers("Answer: 42"))
        assert result.notes == ("the model opened no block",)
        assert len(branch.requests) == 1

    @pytest.mark.parametrize(
        "texts",
        [
            ["</Parallel> then", "Answer: 42"],
            ["a\n<Path>b", "Answer: 42"],
            ["Answer: 41\n<Parallel>", "Answer: 42"],
            ["a\n<Parallel>", "view", "view</Path>", "sum", "Answer: 42"],
        ],
    )
    def test_bad_tags_fall_back_to_plain_solutions(self, texts: list[str]) -> None:
        result, branch = think("parallel_r1", answers(*texts))
        assert result.answer == "42"
        assert "fell back" in result.notes[0]
        assert len(prompts_of(branch, "solve")) == 2

    def test_after_four_blocks_it_is_finished(self) -> None:
        def model(request: Request) -> str:
            text = request.messages[-1].content
            if "Finish the solution now" in text:
                return "Answer: 42"
            noting = "\nView " in text or "Sum up in a few" in text
            return "note" if noting else "go\n<Parallel>"

        result, _ = think("parallel_r1", model)
        assert (result.answer, result.data["blocks"]) == ("42", 4)


class TestMoaAndRsa:
    def test_every_agent_reads_the_whole_layer_before(self) -> None:
        words = iter(f"word-{number}" for number in range(99))
        _, branch = think("moa", lambda _: next(words), width=3, layers=2)
        second_layer = prompts_of(branch, "layer 2")
        assert len(set(second_layer)) == 1
        assert all(f"word-{number}" in second_layer[0] for number in range(3))
        assert all(f"word-{number}" in prompts_of(branch, "sum up")[0] for number in (3, 4, 5))

    def test_agents_may_be_different_models(self) -> None:
        models = {name: ScriptedModel(lambda _: "Answer: 4") for name in ("branch", "other")}
        strategy = make_strategy("moa", {"width": 3, "layers": 1, "models": ("branch", "other")})
        run_virtual(ScriptedBranch(models, strategy).think())
        assert [len(models[name].requests) for name in ("branch", "other")] == [3, 1]

    def test_an_aggregation_sees_a_random_subset(self) -> None:
        words = iter(f"word-{number}\nAnswer: 4" for number in range(99))
        _, branch = think("rsa", lambda _: next(words), width=8, k=3, rounds=2)
        prompts = prompts_of(branch, "aggregation 1")
        assert len(prompts) == 8
        assert all(prompt.count("word-") == 3 for prompt in prompts)
        assert len(set(prompts)) > 1

    def test_the_last_population_votes(self) -> None:
        script = answers(
            "Answer: 1", "Answer: 1", "Answer: 1", "Answer: 2", "Answer: 2", "Answer: 1"
        )
        assert think("rsa", script, width=3, k=2, rounds=1)[0].answer == "2"


class Target(ScriptedModel):
    """A target that also scores: the more often ``bad`` occurs, the worse."""

    def score(self, chat: Any) -> Logprobs | None:
        text = chat[-1].content
        return None if "unscored" in text else Logprobs((-0.1 - text.count("bad"),) * 3)


class TestAtts:
    CALIBRATION = {turn: tuple(0.1 + 0.01 * number for number in range(20)) for turn in (1, 2, 3)}  # noqa: RUF012

    def think(
        self,
        drafts: list[str],
        target: Script = (),
        capabilities: Any = ("prompt_logprobs",),
        **options: Any,
    ) -> tuple[StrategyResult, dict[str, Any]]:
        models = {"draft": ScriptedModel(drafts), "branch": Target(target)}
        options = {"calibration": self.CALIBRATION, **options}
        branch = ScriptedBranch(models, make_strategy("atts", options), capabilities=capabilities)
        return run_virtual(branch.think()), models

    def test_likely_drafts_stand_and_the_target_takes_over_the_rest(self) -> None:
        result, models = self.think(["6 * 7", "a bad step", "Answer: 42"], ["a good step"])
        assert result.text == "6 * 7\na good step\nAnswer: 42"
        assert (result.data["taken"], result.data["turns"]) == (1, 3)
        assert len(models["branch"].requests) == 1

    def test_a_draft_without_a_score_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="turn 1 no score"):
            self.think(["unscored"])

    def test_a_turn_without_calibration_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="turn 4 is not calibrated"):
            self.think(["a", "b", "c", "d"])

    def test_a_judge_scores_where_there_are_no_log_probabilities(self) -> None:
        calibration = {1: tuple(float(number) for number in range(8))}
        result, _ = self.think(
            ["Answer: 42"], ["Score: 9"], capabilities=(), calibration=calibration
        )
        assert (result.answer, result.data["scores"]) == ("42", [1.0])
        with pytest.raises(UsageError, match="no score"):
            self.think(["Answer: 42"], ["fine"], capabilities=(), calibration=calibration)

    def test_scores_are_collected_to_calibrate_with(self) -> None:
        result, _ = self.think(["so", "bad\nAnswer: 42"], calibration=None, collect=True)
        assert result.data["scores"] == pytest.approx([0.1, 1.1])
        assert result.data["taken"] == 0

    def test_it_is_not_run_without_calibration(self) -> None:
        with pytest.raises(UsageError, match="give calibration scores"):
            make_strategy("atts", {})


@pytest.mark.skipif(bool(missing_guards()), reason="code cannot be contained here")
class TestCodeMonkeys:
    GOOD = "```python\ndef double(x):\n    return (x + x)\n```"
    SQUARE = "```python\ndef double(x):\n    return x ** 2\n```"
    HOSTILE = "```python\nimport socket\nsocket.socket()\n```"

    async def think(self, *texts: str, **options: Any) -> tuple[StrategyResult, ScriptedBranch]:
        model = ScriptedModel(list(texts))
        branch = ScriptedBranch(model, make_strategy("codemonkeys", options))
        return await branch.think("Write double(x)."), branch

    async def test_the_selection_decides_between_the_best_by_tests(self) -> None:
        probe = "What about 3?\n```python\nprint(double(3))\n```"
        result, branch = await self.think(
            self.SQUARE, self.GOOD, self.HOSTILE,
            *["```python\nassert double(2) == 4\n```"] * 3, probe, "so Choice: 2",
            width=3, keep=2,
        )  # fmt: skip
        assert result.text == "def double(x):\n    return (x + x)"
        assert result.data["votes"] == [3, 3, 0]
        assert result.data["selection_calls"] == 2
        assert "network: socket.__new__" in result.data["hostile"]
        second_prompt = prompts_of(branch, "selection")[1]
        assert "Candidate 1: 9" in second_prompt
        assert "Candidate 2: 6" in second_prompt

    async def test_equal_programs_need_no_selection(self) -> None:
        result, branch = await self.think(*[self.GOOD] * 2, *["assert double(2) == 4"] * 2, width=2)
        assert result.why == "passes 2 of 2 tests"
        assert not prompts_of(branch, "selection")

    async def test_without_a_choice_tests_decide(self) -> None:
        result, _ = await self.think(
            self.SQUARE, self.GOOD, *["assert double(3) == 6"] * 2, *["hm"] * 2, width=2, calls=2
        )
        assert result.text.endswith("(x + x)")
        assert "no choice was made" in result.why


def test_a_failing_endpoint_is_the_error() -> None:
    with pytest.raises(ModelError):
        think("pdr", [ModelError("down")] * 4)
