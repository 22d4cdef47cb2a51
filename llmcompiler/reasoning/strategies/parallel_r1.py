"""Parallel-R1: one line of thought that opens a block of several views where a step gains from it.

arXiv 2509.07980. The trained model writes ``<Parallel>`` itself; any other is told to. The text is
written up to each opening, the paths of the block are sampled at once, a summary closes it, and the
line of thought goes on. Prompting alone often yields bad tags: what was written is checked, and
several plain solutions vote where it cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import extract, without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult
from llmcompiler.reasoning.strategies.vote import elect

OPENING = "<Parallel>"
_TAG = re.compile(r"</?(?:Parallel|Path|Summary)\b", re.IGNORECASE)


class ParallelR1(BaseModel):
    """A line of thought with up to ``blocks`` blocks of ``width`` paths.

    Attributes:
        width: paths of a block.
        blocks: most blocks; then the solution is finished without.
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
        known = {"context": f"{context}\n\n" if context else "", "problem": problem}
        text, blocks, wrong = "", 0, ""
        steps: list[Candidate] = []

        def ask(tail: str = "") -> str:
            written = branch.prompt("written", text=text) if text else ""
            return branch.prompt("solve", written=written, **known) + tail

        async def one(tail: str, label: str) -> Candidate:
            found = await branch.generate(ask(tail), label=label)
            branch.accept(found[0])
            return found[0]

        while not wrong:
            last = blocks >= self.blocks
            step = await one(branch.prompt("finish") if last else "", "go on")
            steps.insert(0, step)
            before, opened, _ = without_thinking(step.text).partition(OPENING)
            wrong = self._fault(before, bool(opened), last)
            text = f"{text}\n{before}".strip()
            if wrong or not opened:
                break
            blocks += 1
            paths = await branch.generate_each(
                [ask(branch.prompt("path", number=n)) for n in range(1, self.width + 1)],
                label=f"block {blocks} path",
            )
            branch.accept(paths[0])
            views = [without_thinking(path.text) for path in paths]
            shown = "\n".join(f"<Path>{view}</Path>" for view in views)
            summary = await one(branch.prompt("summary", paths=shown), f"block {blocks} summary")
            said = without_thinking(summary.text)
            wrong = self._fault(said + "".join(views), False, False)
            text = f"{text}\n{said}".strip()
        if wrong:
            return await self._plainly(known, branch, wrong)
        return StrategyResult(
            text,
            branch.answer(text),
            tuple(steps),
            f"one line of thought with {blocks} blocks",
            () if blocks else ("the model opened no block",),
            {"blocks": blocks},
        )

    @staticmethod
    def _fault(text: str, opened: bool, last: bool) -> str:
        """What is wrong with a piece of the text; empty for nothing."""
        tag = _TAG.search(text)
        if tag is not None:
            return f"a tag in the wrong place: {tag[0]}"
        if opened and last:
            return "a block was opened when the solution was to be finished"
        if opened and extract(text, "marked") is not None:
            return "a block was opened behind the answer"
        return ""

    async def _plainly(
        self, known: Mapping[str, str], branch: Branch, wrong: str
    ) -> StrategyResult:
        ask = branch.prompt("solve", written="", **known) + branch.prompt("finish")
        samples = await branch.generate(ask, n=self.width, label="solve")
        outcome = elect(samples)
        branch.accept(outcome.candidates[0])
        return StrategyResult(
            outcome.text,
            outcome.answer,
            outcome.candidates,
            outcome.why,
            (f"fell back to plain solutions: {wrong}",),
            {"blocks": 0},
        )
