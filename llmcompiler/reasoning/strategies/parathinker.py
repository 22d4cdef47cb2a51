"""ParaThinker: several lines of thought in parallel, each with another beginning, then a summary.

arXiv 2509.04475. The trained model opens every path with a special token and sums up over the
attention caches of all paths. A model that shares attention (``--model native:``) does the same; if
it was not trained for it, cues in words replace the tokens. Over an endpoint the summary must read
the paths again. According to the paper, stopping at the first path that ends is cheapest and best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.errors import UsageError
from llmcompiler.llm.workspace import WorkspaceRules
from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import (
    Branch,
    BranchCall,
    Candidate,
    Capability,
    StrategyResult,
    context_prefix,
)
from llmcompiler.reasoning.reducers import concat

TRAINED_PATHS = 8
CUES = (
    "work forwards from what is given, one quantity at a time",
    "write down what is asked, and work backwards to what is given",
    "put the whole into one formula, then compute it",
    "estimate first, then compute exactly and compare",
    "draw up a table of every stage",
    "try the shortest route, then test its result against the problem",
    "look for the step that is most easily misread, and settle it first",
    "solve a simpler case, then the one that is asked",
)


class ParaThinker(BaseModel):
    """``width`` paths until enough of them have ended, then one summary over all.

    Attributes:
        width: number of paths.
        attention: ``auto``: the summary attends to the paths if the model can share attention;
            ``text``: the summary always reads them again.
        termination: when the running paths are cut: after the ``first`` path has ended, after
            ``half`` of them, or after the ``last``. The text of a path that was cut is used.
        cues: beginnings of the paths, used in turn.
        path_tokens: most tokens of a path; ``None`` for the branch's default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "parathinker"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "path": (
            "{context}{problem}\n\n"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
            "\n\n<think {number}> This time {cue}."
        ),
        "together": (
            "{context}{problem}\n\n"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
        "opening": "This time I {cue}.\n\n",
        "conclusion": (
            "\n\nNow I weigh these lines of thought against each other, recheck where they differ, "
            'and end with one line "Answer: ...".\n\n'
        ),
        "trained": (
            "{context}{problem} You FIRST think about the reasoning process as an internal "
            "monologue and then summarize the reasoning process to get the final answer. The "
            "summary process MUST BE enclosed within <summary> </summary> tags. The final answer "
            "MUST BE put in \\boxed{}."
        ),
        "trained_opening": "<think{number}>",
        "trained_conclusion": (
            "<summary>By analyzing multiple reasoning processes above, I concluded that: The final "
            "answer is"
        ),
        "summary": (
            "{context}{problem}\n\n"
            "{count} independent lines of thought, each possibly wrong, some broken off:\n\n"
            "{paths}\n\n"
            "<summary> Weigh them against each other: where they differ, recheck that step. If all "
            'seem wrong, take another route. End with one line "Answer: ..." that holds only the '
            "answer."
        ),
    }

    width: int = Field(default=4, ge=2)
    attention: Literal["auto", "text"] = "auto"
    termination: Literal["first", "half", "last"] = "first"
    cues: tuple[str, ...] = Field(default=CUES, min_length=1)
    path_tokens: int | None = Field(default=None, ge=1)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        if self.attention == "auto" and branch.has("shared_attention"):
            return await self._run_shared(problem, context, branch)
        context_part = context_prefix(context)
        calls = [
            branch.start(
                branch.prompt(
                    "path",
                    context=context_part,
                    problem=problem,
                    number=number + 1,
                    cue=self.cues[number % len(self.cues)],
                ),
                label=f"path {number + 1}",
                max_tokens=self.path_tokens,
            )
            for number in range(self.width)
        ]
        paths = await self._race_paths(branch, calls)
        paths_text = concat([without_thinking(path.text) or "(nothing yet)" for path in paths]).text
        summary = (
            await branch.generate(
                branch.prompt(
                    "summary",
                    context=context_part,
                    problem=problem,
                    count=len(paths),
                    paths=paths_text,
                ),
                label="summary",
            )
        )[0]
        return _build_result(
            branch, summary, paths, "prompt-level: the summary reads the paths again", {}
        )

    async def _run_shared(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """Run the paths over one prompt's cache; the summary attends to their caches."""
        is_trained = branch.has("thought_tokens")
        if is_trained and self.width > TRAINED_PATHS:
            raise UsageError(
                f"this model was trained for {TRAINED_PATHS} lines of thought, not {self.width}",
                hint=f"width={TRAINED_PATHS} at most",
            )
        prompt_name = "trained" if is_trained else "together"
        prompt = branch.prompt(prompt_name, context=context_prefix(context), problem=problem)
        openings = tuple(
            branch.prompt("trained_opening", number=number + 1)
            if is_trained
            else branch.prompt("opening", cue=self.cues[number % len(self.cues)])
            for number in range(self.width)
        )
        workspace = branch.workspace(prompt, WorkspaceRules("paths", openings))
        stop = ("</think",) if is_trained else ()
        calls = [
            branch.start(
                workspace.messages,
                label=f"path {seat.number + 1}",
                max_tokens=self.path_tokens,
                stop=stop,
                seat=seat,
            )
            for seat in workspace.writers
        ]
        paths = await self._race_paths(branch, calls)
        text = branch.prompt("trained_conclusion" if is_trained else "conclusion")
        seat = workspace.conclude(text)
        summary = await branch.start(
            workspace.messages,
            label="summary",
            stop=("</summary>",) if is_trained else (),
            seat=seat,
        )
        note = "parathinker (trained)" if is_trained else "parathinker (training-free)"
        return _build_result(branch, summary, paths, note, {"read_again": 0})

    async def _race_paths(self, branch: Branch, calls: Sequence[BranchCall]) -> list[Candidate]:
        """Run the paths until enough have ended, and return all of them."""
        path_count = {"first": 1, "half": (self.width + 1) // 2, "last": self.width}[
            self.termination
        ]
        paths = await branch.race(calls, path_count)
        finished = [path for path in paths if path.complete] or paths
        branch.accept(finished[0])
        branch.keep(StrategyResult(finished[0].text, finished[0].answer, tuple(paths), "a path"))
        return paths


def _build_result(
    branch: Branch, summary: Candidate, paths: list[Candidate], note: str, data: dict[str, Any]
) -> StrategyResult:
    branch.accept(summary)
    cut_count = sum(path.finish == "cut" for path in paths)
    return StrategyResult(
        summary.text,
        summary.answer,
        (summary, *paths),
        f"summary of {len(paths)} paths, {cut_count} of them cut",
        (note,),
        {"cut": cut_count, **data},
    )
