"""Multiverse: the model itself decides where its work divides, and what the parts are.

arXiv 2506.09991. A trained model writes ``<Parallel><Goal><Outline>...``; here any model writes the
outlines as JSON, the paths run at once, and a conclusion merges them. A path may divide again.
Where the endpoint continues text, all of it can be one text with tags instead (``weaving``).
What the model writes is checked; where it cannot be used, several plain solutions vote instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.errors import UsageError
from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Capability, StrategyResult
from llmcompiler.reasoning.reducers import concat
from llmcompiler.reasoning.strategies.vote import elect
from llmcompiler.reasoning.strategies.weaving import crossing, weave

DEEPEST = 5
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
    """Divide, work on the parts at once, conclude.

    Attributes:
        form: ``json`` for outlines as JSON, and calls that read what others wrote; ``tags`` for one
            text that is continued, which needs an endpoint that does so.
        depth: how often a part may divide again; 1 for never, at most 5. Of tags, how many blocks
            the text may have.
        most: paths of one division.
        width: plain solutions that vote where a division cannot be used.
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
    depth: int = Field(default=1, ge=1, le=DEEPEST)
    most: int = Field(default=4, ge=2)
    width: int = Field(default=3, ge=1)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        if self.form == "tags":
            return await self._weave(problem, context, branch)
        return await self._solve(problem, context, branch, 1)

    async def _weave(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        if not branch.has("continuation"):
            raise UsageError(
                'multiverse with form="tags" needs continuation, which the model does not have',
                hint='use form="json", or another model',
            )
        known = {"context": f"{context}\n\n" if context else "", "problem": problem}
        woven = await weave(branch.prompt("weave", **known), branch, self.depth, self.most)
        if woven.wrong:
            return await self._plainly(known, branch, woven.wrong, self.width)
        notes = () if woven.paths else ("the model did not divide it",)
        why = f"one text with {woven.paths} paths"
        answer = branch.answer(woven.last.text)
        data = {"paths": woven.paths}
        return StrategyResult(woven.text, answer, (woven.last,), why, notes, data)

    async def _solve(
        self, problem: str, context: str, branch: Branch, level: int
    ) -> StrategyResult:
        known = {"context": f"{context}\n\n" if context else "", "problem": problem}
        divided = (
            await branch.generate(
                branch.prompt("divide", **known),
                label=f"divide {level}",
                schema=SCHEMA,
            )
        )[0]
        goal, outlines, wrong = read(divided.text)
        if wrong or not outlines:
            return await self._plainly(known, branch, wrong, 1 if not wrong else self.width)
        branch.accept(divided)
        outlines = outlines[: self.most]

        async def follow(outline: str) -> str:
            ask = branch.prompt("path", goal=goal, outline=outline, **known)
            if level < self.depth:
                return (await self._solve(ask, "", branch, level + 1)).text
            path = await branch.generate(ask, label="path")
            if outline == outlines[0]:
                branch.accept(path[0])
            return path[0].text

        paths = await branch.gather(*(follow(outline) for outline in outlines))
        shown = concat(
            [
                f"{outline}\n{without_thinking(path)}"
                for outline, path in zip(outlines, paths, strict=True)
            ]
        ).text
        conclusion = (
            await branch.generate(
                branch.prompt("conclude", goal=goal, paths=shown, **known),
                label="conclude",
            )
        )[0]
        branch.accept(conclusion)
        why = f"concluded from {len(paths)} paths"
        outcome = StrategyResult(
            conclusion.text, conclusion.answer, (conclusion,), why, (), {"paths": len(paths)}
        )
        if level == 1:
            branch.keep(outcome)
        return outcome

    async def _plainly(
        self, known: Mapping[str, str], branch: Branch, wrong: str, width: int
    ) -> StrategyResult:
        """One solution where nothing divides; a vote of several where the division is unusable."""
        samples = await branch.generate(branch.prompt("solve", **known), n=width, label="solve")
        outcome = elect(samples)
        branch.accept(outcome.candidates[0])
        note = f"fell back to plain solutions: {wrong}" if wrong else "the model did not divide it"
        return StrategyResult(
            outcome.text, outcome.answer, outcome.candidates, outcome.why, (note,), {"paths": 0}
        )


def read(text: str) -> tuple[str, list[str], str]:
    """Goal and outlines of a division, and what is wrong with it; no outlines if none is wanted."""
    start, end = text.find("{"), text.rfind("}")
    try:
        data = json.loads(text[start : end + 1])
        goal, outlines = str(data["goal"]), [str(one).strip() for one in data["outlines"]]
        parallel = bool(data["parallel"])
    except (ValueError, KeyError, TypeError):
        return "", [], "the division is no JSON of the form that was asked for"
    if not parallel:
        return goal, [], ""
    outlines = [one for one in dict.fromkeys(outlines) if one]
    if len(outlines) < 2:
        return goal, [], "a division needs two parts"
    wrong = crossing(outlines)
    return goal, [] if wrong else outlines, wrong
