"""ParaThinker in prompts: several lines of thought at once, each begun differently, then a summary.

arXiv 2509.04475. The trained model opens every path by a token of its own and sums up over their
attention caches. Over an endpoint a cue in words takes the token's place, and the summary has to
read the paths again. Stopping at the first path that ends was found both cheapest and best.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Capability, Outcome
from llmcompiler.reasoning.reducers import concat

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
    termination: Literal["first", "half", "last"] = "first"
    cues: tuple[str, ...] = Field(default=CUES, min_length=1)
    path_tokens: int | None = Field(default=None, ge=1)

    async def run(self, problem: str, context: str, branch: Branch) -> Outcome:
        """See ``Strategy.run``."""
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
        enough = {"first": 1, "half": (self.width + 1) // 2, "last": self.width}[self.termination]
        paths = await branch.race(calls, enough)
        ended = [path for path in paths if path.complete] or paths
        branch.accept(ended[0])
        branch.keep(Outcome(ended[0].text, ended[0].answer, tuple(paths), "a path"))
        shown = concat([without_thinking(path.text) or "(nothing yet)" for path in paths]).text
        summary = (
            await branch.generate(
                branch.prompt(
                    "summary", context=known, problem=problem, count=len(paths), paths=shown
                ),
                label="summary",
            )
        )[0]
        branch.accept(summary)
        cut = sum(path.finish == "cut" for path in paths)
        return Outcome(
            summary.text,
            summary.answer,
            (summary, *paths),
            f"summary of {len(paths)} paths, {cut} of them cut",
            ("prompt-level: the summary reads the paths again",),
            {"cut": cut},
        )
