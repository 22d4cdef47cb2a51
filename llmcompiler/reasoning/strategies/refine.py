"""Sequential refinement: each call sees the last answer and writes a better one.

The case of Parallel-Distill-Refine (arXiv 2510.01123) with one draft a round. Anchoring on a wrong
draft is its known failure, so the draft is shown as possibly wrong, with a way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult


class Refine(BaseModel):
    """One draft, then ``rounds`` revisions of it, one after the other.

    Attributes:
        rounds: revisions after the first draft.
        analyse: ask what is wrong with the draft before each revision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "refine"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "problem": (
            "{context}{problem}\n\n"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
        "analyse": (
            "\n\nA draft of a solution, which may be wrong:\n\n{draft}\n\n"
            "Do not solve it anew yet. Check the draft line by line and list its errors; if there "
            "are none, say so."
        ),
        "revise": (
            "\n\nA draft of a solution, which may be wrong:\n\n{draft}\n\n{analysis}"
            "Check the draft, and write a solution that is right. Take over what holds. If the "
            "draft seems wrong as a whole, take another route."
        ),
        "analysis": "What a reviewer says of it, who may be wrong too:\n\n{text}\n\n",
    }

    rounds: int = Field(default=2, ge=1)
    analyse: bool = False

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        known = f"{context}\n\n" if context else ""
        asked = branch.prompt("problem", context=known, problem=problem)
        outcome = StrategyResult("", None)
        drafts: list[Candidate] = []
        for number in range(self.rounds + 1):
            tail = await self._revision(asked, drafts[-1], number, branch) if drafts else ""
            drafts += await branch.generate(
                asked + tail,
                label="draft" if not drafts else f"revision {number}",
            )
            branch.accept(drafts[-1])
            # A revision that lost the answer is no better than the draft that had one.
            best = next((one for one in reversed(drafts) if one.answer is not None), drafts[-1])
            why = f"draft {drafts.index(best) + 1} of {len(drafts)}"
            outcome = StrategyResult(best.text, best.answer, tuple(reversed(drafts)), why)
            branch.keep(outcome)
        return outcome

    async def _revision(self, asked: str, draft: Candidate, number: int, branch: Branch) -> str:
        """What follows the problem when the draft is to be revised."""
        analysis = ""
        if self.analyse:
            found = await branch.generate(
                asked + branch.prompt("analyse", draft=draft.text),
                label=f"analysis {number}",
            )
            branch.accept(found[0])
            analysis = branch.prompt("analysis", text=found[0].text)
        return branch.prompt("revise", draft=draft.text, analysis=analysis)
