"""ParaThinker: several lines of thought at once, each begun differently, then a summary of all.

arXiv 2509.04475. The trained model opens every path by a token of its own and sums up over their
attention caches; a model that shares attention (``--model native:``) does the same, with cues in
words for the tokens where it was not trained so. Over an endpoint the summary has to read the paths
again. Stopping at the first path that ends was found both cheapest and best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.errors import UsageError
from llmcompiler.llm.workspace import WorkspaceRules
from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, BranchCall, Candidate, Capability, StrategyResult
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
        width: paths.
        attention: ``auto``: the summary attends to the paths, where the model can share attention;
            ``text``: it reads them again in any case.
        termination: when the paths that still run are cut; what they wrote is kept. ``first``,
            ``half`` or ``last`` to finish.
        cues: how paths are begun, in turn.
        path_tokens: most tokens of a path; ``None`` for the caller's bound.
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
            return await self._together(problem, context, branch)
        known = f"{context}\n\n" if context else ""
        calls = [
            branch.start(
                branch.prompt(
                    "path",
                    context=known,
                    problem=problem,
                    number=number + 1,
                    cue=self.cues[number % len(self.cues)],
                ),
                label=f"path {number + 1}",
                max_tokens=self.path_tokens,
            )
            for number in range(self.width)
        ]
        paths = await self._until_enough(branch, calls)
        shown = concat([without_thinking(path.text) or "(nothing yet)" for path in paths]).text
        summary = (
            await branch.generate(
                branch.prompt(
                    "summary", context=known, problem=problem, count=len(paths), paths=shown
                ),
                label="summary",
            )
        )[0]
        return _summed_up(
            branch, summary, paths, "prompt-level: the summary reads the paths again", {}
        )

    async def _together(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """Paths over one prompt's cache; the summary attends to all of them where they are."""
        trained = branch.has("thought_tokens")
        if trained and self.width > TRAINED_PATHS:
            raise UsageError(
                f"this model was trained for {TRAINED_PATHS} lines of thought, not {self.width}",
                hint=f"width={TRAINED_PATHS} at most",
            )
        kind = "trained" if trained else "together"
        asked = branch.prompt(kind, context=f"{context}\n\n" if context else "", problem=problem)
        openings = tuple(
            branch.prompt("trained_opening", number=number + 1)
            if trained
            else branch.prompt("opening", cue=self.cues[number % len(self.cues)])
            for number in range(self.width)
        )
        workspace = branch.workspace(asked, WorkspaceRules("paths", openings))
        stop = ("</think",) if trained else ()
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
        paths = await self._until_enough(branch, calls)
        text = branch.prompt("trained_conclusion" if trained else "conclusion")
        seat = workspace.conclude(text)
        summary = await branch.start(
            workspace.messages,
            label="summary",
            stop=("</summary>",) if trained else (),
            seat=seat,
        )
        form = "parathinker (trained)" if trained else "parathinker (training-free)"
        return _summed_up(branch, summary, paths, form, {"read_again": 0})

    async def _until_enough(self, branch: Branch, calls: Sequence[BranchCall]) -> list[Candidate]:
        """What the paths have when enough of them have ended."""
        enough = {"first": 1, "half": (self.width + 1) // 2, "last": self.width}[self.termination]
        paths = await branch.race(calls, enough)
        finished = [path for path in paths if path.complete] or paths
        branch.accept(finished[0])
        branch.keep(StrategyResult(finished[0].text, finished[0].answer, tuple(paths), "a path"))
        return paths


def _summed_up(
    branch: Branch, summary: Candidate, paths: list[Candidate], form: str, data: dict[str, Any]
) -> StrategyResult:
    branch.accept(summary)
    cut = sum(path.finish == "cut" for path in paths)
    return StrategyResult(
        summary.text,
        summary.answer,
        (summary, *paths),
        f"summary of {len(paths)} paths, {cut} of them cut",
        (form,),
        {"cut": cut, **data},
    )
