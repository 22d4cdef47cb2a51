"""ATTS: a small model drafts every turn, a large one takes over the turns that it finds unlikely.

"Asynchronous Test-Time Scaling via Conformal Prediction" (arXiv 2509.15148). The target scores a
draft; its rank among scores of calibration drafts of the same turn is a p-value, and a draft stands
while that is above alpha. With alpha chosen for a budget, the target takes over that share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmcompiler.errors import UsageError
from llmcompiler.llm.messages import Message
from llmcompiler.reasoning.answers import extract, without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult
from llmcompiler.reasoning.conformal import Calibration

_SCORE = re.compile(r"score\W{0,6}(\d+(?:\.\d+)?)", re.IGNORECASE)


class Atts(BaseModel):
    """Turns of a draft model behind a gate; the branch's own model is the target.

    Attributes:
        draft: which of the branch's models drafts.
        turns: most turns; the solution may end earlier, with its answer.
        turn_tokens: most tokens of a turn.
        budget: the share of turns that the target may take over.
        calibration: turn, from 1 -> scores of drafts on problems like these, as ``data["scores"]``
            of runs with ``collect`` gives them.
        collect: let every draft stand and only report scores, to calibrate with.
        scoring: ``logprobs`` for the mean negative log-probability that the target gives the draft
            (needs ``prompt_logprobs``); ``judge`` for its opinion, 0 to 10; ``auto`` for the first
            of these that its endpoint can do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "atts"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "turn": (
            "{context}{problem}\n\nSolve it step by step. Write only the next step, in a few short "
            'lines. If that completes the solution, end with one line "Answer: ..." that holds '
            "only the answer.{written}"
        ),
        "written": "\n\nThe steps so far:\n\n{text}",
        "judge": (
            "\n\nThe next step that somebody proposes:\n\n{draft}\n\nIs it right? Does it help? "
            'Reply with one line "Score: N", N from 0 (wrong) to 10 (certainly right).'
        ),
    }

    draft: str = "draft"
    turns: int = Field(default=8, ge=1)
    turn_tokens: int = Field(default=128, ge=1)
    budget: float = Field(default=0.2, ge=0, le=1)
    calibration: dict[int, tuple[float, ...]] | None = None
    collect: bool = False
    scoring: Literal["auto", "logprobs", "judge"] = "auto"

    @model_validator(mode="after")
    def _calibrated(self) -> Self:
        if (self.calibration is None) != self.collect:
            raise ValueError("give calibration scores, or collect=True to gather them")
        return self

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``.

        Raises:
            UsageError: a draft got no score, or its turn is not calibrated.
        """
        known = {"context": f"{context}\n\n" if context else "", "problem": problem}
        gate = None
        if self.calibration is not None:
            gate = Calibration.for_budget(self.calibration, self.budget)
        by_logprobs = self.scoring == "logprobs" or (
            self.scoring == "auto" and branch.has("prompt_logprobs")
        )
        text, taken, last = "", 0, None
        scores: list[float] = []
        steps: list[Candidate] = []
        for turn in range(1, self.turns + 1):
            written = branch.prompt("written", text=text) if text else ""
            ask = branch.prompt("turn", written=written, **known)
            step = await self._write(branch, ask, self.draft, f"draft {turn}")
            score = await self._score(branch, ask, step, by_logprobs, turn)
            scores.append(score)
            if gate is not None and not gate.accepts(turn, score):
                step = await self._write(branch, ask, "branch", f"takeover {turn}")
                taken += 1
            branch.accept(step)
            steps.append(step)
            text = f"{text}\n{without_thinking(step.text)}".strip()
            last = StrategyResult(
                text,
                branch.answer(text),
                tuple(reversed(steps)),
                f"the target took over {taken} of {turn} turns",
                ("collected: every draft stands",) if self.collect else (),
                {"scores": scores, "taken": taken, "turns": turn},
            )
            branch.keep(last)
            if extract(step.text, "marked") is not None:
                break
        assert last is not None
        return last

    async def _write(self, branch: Branch, ask: str, model: str, label: str) -> Candidate:
        found = await branch.generate(
            ask,
            label=label,
            model=model,
            max_tokens=self.turn_tokens,
        )
        return found[0]

    async def _score(
        self, branch: Branch, ask: str, step: Candidate, by_logprobs: bool, turn: int
    ) -> float:
        """How unlikely the target finds a draft; higher is worse."""
        if by_logprobs:
            chat = (Message("user", ask), Message("assistant", step.text))
            scored = (await branch.score(chat)).logprobs
            if scored is None or not scored.chosen:
                raise _no_score(turn)
            return -sum(scored.chosen) / len(scored.chosen)
        judged = await branch.generate(
            ask + branch.prompt("judge", draft=step.text),
            label=f"score {turn}",
            max_tokens=16,
            temperature=0.0,
        )
        found = _SCORE.search(judged[0].text)
        if found is None:
            raise _no_score(turn)
        return 10.0 - float(found[1])


def _no_score(turn: int) -> UsageError:
    return UsageError(
        f"the target gave the draft of turn {turn} no score",
        hint="a draft without a score is never accepted; take another target or way of scoring",
    )
