"""Multiverse: the model itself divides the work into parts.

arXiv 2506.09991. A trained model writes ``<Parallel><Goal><Outline>...``. Here any model writes the
outlines as JSON, the paths run in parallel, and a conclusion merges them. A path may divide again.
If the endpoint continues text, one text with tags can hold all of it (``weaving``). A division is
checked; if it cannot be used, several plain solutions vote instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.errors import UsageError
from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.reducers import concat
from llmcompiler.reasoning.strategies.vote import elect
from llmcompiler.reasoning.strategies.weaving import find_reference, weave

MAX_DEPTH = 5
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "parallel": {"type": "boolean"},
        "goal": {"type": "string"},
        "outlines": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["parallel", "goal", "outlines"],
    "additionalProperties": False,
}


class Multiverse(BaseModel):
    """Divide the problem, work on the parts in parallel, conclude.

    Attributes:
        form: ``json`` for outlines as JSON, and a conclusion that reads the paths; ``tags`` for one
            text that is continued, which needs the capability ``continuation``.
        depth: levels of division, 1 to 5; at 1 no part divides again. With tags, most blocks of the
            text.
        most: most paths of one division.
        width: number of plain solutions that vote if a division cannot be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "multiverse"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "divide": (
            "{context}{problem}\n\n"
            "Can this be divided into parts that are worked on at the same time, none of which "
            'needs the result of another? Reply with JSON: "parallel" (true or false), "goal" '
            '(what the parts are for), "outlines" (a text for each part, complete in itself; [] if '
            "false)."
        ),
        "path": (
            "{context}{problem}\n\nTo reach the goal ({goal}), others work on the other parts. "
            "Your part only:\n{outline}\n\nWork it out step by step in short lines, and end with "
            "its result."
        ),
        "conclude": (
            "{context}{problem}\n\nGoal: {goal}\n\nWhat was worked out, any of which may be "
            "wrong:\n\n{paths}\n\nConclude from it, checking what looks odd. End with one line "
            '"Answer: ..." that holds only the answer.'
        ),
        "weave": (
            "{context}{problem}\n\n"
            "Think step by step. Where steps can be worked on at the same time, none of which "
            "needs the result of another, write\n<Parallel>\n<Outlines>\n<Outline>1: what the "
            "first is about</Outline>\n<Outline>2: what the second is about</Outline>\n"
            "</Outlines>\n"
            "<Path>1: the first, worked out</Path>\n<Path>2: the second, worked out</Path>\n"
            "</Parallel>\nand go on from there. End with one line "
            '"Answer: ..." that holds only the answer.'
        ),
        "solve": (
            "{context}{problem}\n\n"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
    }

    form: Literal["json", "tags"] = "json"
    depth: int = Field(default=1, ge=1, le=MAX_DEPTH)
    most: int = Field(default=4, ge=2)
    width: int = Field(default=3, ge=1)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        if self.form == "tags":
            return await self._run_woven(problem, context, branch)
        return await self._solve(problem, context, branch, 1)

    async def _run_woven(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        if not branch.has("continuation"):
            raise UsageError(
                'multiverse with form="tags" needs continuation, which the model does not have',
                hint='use form="json", or another model',
            )
        problem_parts = {"context": context_prefix(context), "problem": problem}
        woven = await weave(branch.prompt("weave", **problem_parts), branch, self.depth, self.most)
        if woven.flaw:
            return await self._solve_plainly(problem_parts, branch, woven.flaw, self.width)
        notes = () if woven.paths else ("the model did not divide it",)
        why = f"one text with {woven.paths} paths"
        answer = branch.answer(woven.last_candidate.text)
        data = {"paths": woven.paths}
        return StrategyResult(woven.text, answer, (woven.last_candidate,), why, notes, data)

    async def _solve(
        self, problem: str, context: str, branch: Branch, level: int
    ) -> StrategyResult:
        problem_parts = {"context": context_prefix(context), "problem": problem}
        division = (
            await branch.generate(
                branch.prompt("divide", **problem_parts),
                label=f"divide {level}",
                schema=SCHEMA,
            )
        )[0]
        goal, outlines, flaw = parse_division(division.text)
        if flaw or not outlines:
            return await self._solve_plainly(
                problem_parts, branch, flaw, 1 if not flaw else self.width
            )
        branch.accept(division)
        outlines = outlines[: self.most]

        async def work_on(outline: str) -> str:
            prompt = branch.prompt("path", goal=goal, outline=outline, **problem_parts)
            if level < self.depth:
                return (await self._solve(prompt, "", branch, level + 1)).text
            path = await branch.generate(prompt, label="path")
            if outline == outlines[0]:
                branch.accept(path[0])
            return path[0].text

        paths = await branch.gather(*(work_on(outline) for outline in outlines))
        paths_text = concat(
            [
                f"{outline}\n{without_thinking(path)}"
                for outline, path in zip(outlines, paths, strict=True)
            ]
        ).text
        conclusion = (
            await branch.generate(
                branch.prompt("conclude", goal=goal, paths=paths_text, **problem_parts),
                label="conclude",
            )
        )[0]
        branch.accept(conclusion)
        why = f"concluded from {len(paths)} paths"
        result = StrategyResult(
            conclusion.text, conclusion.answer, (conclusion,), why, (), {"paths": len(paths)}
        )
        if level == 1:
            branch.keep(result)
        return result

    async def _solve_plainly(
        self, problem_parts: Mapping[str, str], branch: Branch, flaw: str, width: int
    ) -> StrategyResult:
        """Solve without a division: one solution if none was wanted, a vote if it is unusable."""
        samples = await branch.generate(
            branch.prompt("solve", **problem_parts), n=width, label="solve"
        )
        elected = elect(samples)
        branch.accept(elected.candidates[0])
        note = f"fell back to plain solutions: {flaw}" if flaw else "the model did not divide it"
        return StrategyResult(
            elected.text, elected.answer, elected.candidates, elected.why, (note,), {"paths": 0}
        )


def parse_division(text: str) -> tuple[str, list[str], str]:
    """Goal, outlines and flaw of a division; no outlines and no flaw if the model wants none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        data = json.loads(text[start : end + 1])
        goal, outlines = str(data["goal"]), [str(outline).strip() for outline in data["outlines"]]
        is_parallel = bool(data["parallel"])
    except (ValueError, KeyError, TypeError):
        return "", [], "the division is no JSON of the form that was asked for"
    if not is_parallel:
        return goal, [], ""
    outlines = [outline for outline in dict.fromkeys(outlines) if outline]
    if len(outlines) < 2:
        return goal, [], "a division needs two parts"
    flaw = find_reference(outlines)
    return goal, [] if flaw else outlines, flaw
