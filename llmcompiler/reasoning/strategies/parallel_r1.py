"""Parallel-R1: one line of thought that opens a block of several views at uncertain steps.

arXiv 2509.07980. The trained model writes ``<Parallel>`` by itself; any other model is told to. The
model writes up to an opening tag, the paths of the block are sampled in parallel, a summary closes
the block, and the line of thought continues. Untrained models often write bad tags, so the text is
checked; if it cannot be used, several plain solutions vote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import extract_answer, without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.strategies.vote import elect

OPENING = "<Parallel>"
_TAG = re.compile(r"</?(?:Parallel|Path|Summary)\b", re.IGNORECASE)


class ParallelR1(BaseModel):
    """A line of thought with up to ``blocks`` blocks of ``width`` paths.

    Attributes:
        width: paths in a block.
        blocks: most blocks; then the solution is finished without further blocks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "parallel_r1"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "solve": (
            "{context}{problem}\n\nSolve it step by step. Where a step is uncertain and several "
            "independent views would help, write <Parallel> alone on a line and stop. End with one "
            'line "Answer: ..." that holds only the answer.{written}'
        ),
        "written": "\n\nThe solution so far, which you go on with, repeating nothing:\n\n{text}",
        "path": "\n\nView {number} on the next step only, independent of other views:",
        "summary": (
            "\n\nIndependent views on the next step, any of which may be wrong:\n\n{paths}\n\n"
            "Sum up in a few lines what holds:"
        ),
        "finish": (
            "\n\nFinish the solution now, without <Parallel>, with the line "
            '"Answer: ..." at its end.'
        ),
    }

    width: int = Field(default=2, ge=2)
    blocks: int = Field(default=4, ge=0)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        problem_parts = {"context": context_prefix(context), "problem": problem}
        text, blocks, flaw = "", 0, ""
        steps: list[Candidate] = []

        def build_prompt(tail: str = "") -> str:
            text_part = branch.prompt("written", text=text) if text else ""
            return branch.prompt("solve", written=text_part, **problem_parts) + tail

        async def generate_one(tail: str, label: str) -> Candidate:
            candidates = await branch.generate(build_prompt(tail), label=label)
            branch.accept(candidates[0])
            return candidates[0]

        while not flaw:
            is_last = blocks >= self.blocks
            step = await generate_one(branch.prompt("finish") if is_last else "", "go on")
            steps.insert(0, step)
            text_before, opening, _ = without_thinking(step.text).partition(OPENING)
            flaw = self._find_flaw(text_before, bool(opening), is_last)
            text = f"{text}\n{text_before}".strip()
            if flaw or not opening:
                break
            blocks += 1
            paths = await branch.generate_each(
                [build_prompt(branch.prompt("path", number=n)) for n in range(1, self.width + 1)],
                label=f"block {blocks} path",
            )
            branch.accept(paths[0])
            views = [without_thinking(path.text) for path in paths]
            paths_text = "\n".join(f"<Path>{view}</Path>" for view in views)
            summary = await generate_one(
                branch.prompt("summary", paths=paths_text), f"block {blocks} summary"
            )
            summary_text = without_thinking(summary.text)
            flaw = self._find_flaw(summary_text + "".join(views), False, False)
            text = f"{text}\n{summary_text}".strip()
        if flaw:
            return await self._solve_plainly(problem_parts, branch, flaw)
        return StrategyResult(
            text,
            branch.answer(text),
            tuple(steps),
            f"one line of thought with {blocks} blocks",
            () if blocks else ("the model opened no block",),
            {"blocks": blocks},
        )

    @staticmethod
    def _find_flaw(text: str, opens_block: bool, is_last: bool) -> str:
        """The flaw of a piece of the text; empty if it can be used."""
        tag = _TAG.search(text)
        if tag is not None:
            return f"a tag in the wrong place: {tag[0]}"
        if opens_block and is_last:
            return "a block was opened when the solution was to be finished"
        if opens_block and extract_answer(text, "marked") is not None:
            return "a block was opened behind the answer"
        return ""

    async def _solve_plainly(
        self, problem_parts: Mapping[str, str], branch: Branch, flaw: str
    ) -> StrategyResult:
        prompt = branch.prompt("solve", written="", **problem_parts) + branch.prompt("finish")
        samples = await branch.generate(prompt, n=self.width, label="solve")
        elected = elect(samples)
        branch.accept(elected.candidates[0])
        return StrategyResult(
            elected.text,
            elected.answer,
            elected.candidates,
            elected.why,
            (f"fell back to plain solutions: {flaw}",),
            {"blocks": 0},
        )
