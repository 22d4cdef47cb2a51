"""Sequential refinement: each call reads the last draft and writes a better one.

Parallel-Distill-Refine (arXiv 2510.01123) with one draft in a round. The known failure is anchoring
on a wrong draft; prompts therefore call the draft possibly wrong and offer another route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix


class Refine(BaseModel):
    """One draft, then ``rounds`` revisions in sequence.

    Attributes:
        rounds: number of revisions after the first draft.
        analyse: ask for the draft's errors before each revision.
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
        context_part = context_prefix(context)
        prompt = branch.prompt("problem", context=context_part, problem=problem)
        result = StrategyResult("", None)
        drafts: list[Candidate] = []
        for number in range(self.rounds + 1):
            revision_part = (
                await self._revision(prompt, drafts[-1], number, branch) if drafts else ""
            )
            drafts += await branch.generate(
                prompt + revision_part,
                label="draft" if not drafts else f"revision {number}",
            )
            branch.accept(drafts[-1])
            # A revision without an answer is no better than an earlier draft with one.
            best = next(
                (draft for draft in reversed(drafts) if draft.answer is not None), drafts[-1]
            )
            why = f"draft {drafts.index(best) + 1} of {len(drafts)}"
            result = StrategyResult(best.text, best.answer, tuple(reversed(drafts)), why)
            branch.keep(result)
        return result

    async def _revision(self, prompt: str, draft: Candidate, number: int, branch: Branch) -> str:
        """The part of the prompt that follows the problem: the draft, and its analysis if any."""
        analysis = ""
        if self.analyse:
            analyses = await branch.generate(
                prompt + branch.prompt("analyse", draft=draft.text),
                label=f"analysis {number}",
            )
            branch.accept(analyses[0])
            analysis = branch.prompt("analysis", text=analyses[0].text)
        return branch.prompt("revise", draft=draft.text, analysis=analysis)
