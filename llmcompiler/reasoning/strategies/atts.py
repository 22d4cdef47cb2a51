"""ATTS: a small model drafts every turn, and a large model takes over the turns it finds unlikely.

"Asynchronous Test-Time Scaling via Conformal Prediction" (arXiv 2509.15148). The large model, the
target, scores each draft. The rank of the score among calibration scores of the same turn is a
p-value, and a draft stands if its p-value is above alpha. Alpha is chosen so that the target takes
over a given share of turns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llmcompiler.errors import UsageError
from llmcompiler.llm.messages import Message
from llmcompiler.reasoning.answers import extract_answer, without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.conformal import Calibration

_SCORE = re.compile(r"score\W{0,6}(\d+(?:\.\d+)?)", re.IGNORECASE)


class Atts(BaseModel):
    """A draft model writes turns, and the target, the branch's own model, accepts or replaces them.

    Attributes:
        draft: name of the branch's model that drafts.
        turns: most turns; the solution ends earlier if it states its answer.
        turn_tokens: most tokens of a turn.
        budget: the share of turns that the target may take over.
        calibration: turn, from 1 -> scores of drafts on similar problems, as reported in
            ``data["scores"]`` by runs with ``collect``.
        collect: accept every draft and only report scores, for a calibration.
        scoring: ``logprobs`` for the mean negative log-probability that the target gives the draft
            (needs ``prompt_logprobs``); ``judge`` for the target's grade, 0 to 10; ``auto`` for
            ``logprobs`` if the endpoint has them, else ``judge``.
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
        problem_parts = {"context": context_prefix(context), "problem": problem}
        gate = None
        if self.calibration is not None:
            gate = Calibration.for_budget(self.calibration, self.budget)
        by_logprobs = self.scoring == "logprobs" or (
            self.scoring == "auto" and branch.has("prompt_logprobs")
        )
        text, takeovers, result = "", 0, None
        scores: list[float] = []
        steps: list[Candidate] = []
        for turn in range(1, self.turns + 1):
            steps_part = branch.prompt("written", text=text) if text else ""
            prompt = branch.prompt("turn", written=steps_part, **problem_parts)
            step = await self._write(branch, prompt, self.draft, f"draft {turn}")
            score = await self._score(branch, prompt, step, by_logprobs, turn)
            scores.append(score)
            if gate is not None and not gate.accepts(turn, score):
                step = await self._write(branch, prompt, "branch", f"takeover {turn}")
                takeovers += 1
            branch.accept(step)
            steps.append(step)
            text = f"{text}\n{without_thinking(step.text)}".strip()
            result = StrategyResult(
                text,
                branch.answer(text),
                tuple(reversed(steps)),
                f"the target took over {takeovers} of {turn} turns",
                ("collected: every draft stands",) if self.collect else (),
                {"scores": scores, "taken": takeovers, "turns": turn},
            )
            branch.keep(result)
            if extract_answer(step.text, "marked") is not None:
                break
        assert result is not None
        return result

    async def _write(self, branch: Branch, prompt: str, model: str, label: str) -> Candidate:
        candidates = await branch.generate(
            prompt,
            label=label,
            model=model,
            max_tokens=self.turn_tokens,
        )
        return candidates[0]

    async def _score(
        self, branch: Branch, prompt: str, step: Candidate, by_logprobs: bool, turn: int
    ) -> float:
        """The target's score of a draft; a higher score is a worse draft."""
        if by_logprobs:
            chat = (Message("user", prompt), Message("assistant", step.text))
            scored = (await branch.score(chat)).logprobs
            if scored is None or not scored.chosen:
                raise _no_score(turn)
            return -sum(scored.chosen) / len(scored.chosen)
        judgements = await branch.generate(
            prompt + branch.prompt("judge", draft=step.text),
            label=f"score {turn}",
            max_tokens=16,
            temperature=0.0,
        )
        match = _SCORE.search(judgements[0].text)
        if match is None:
            raise _no_score(turn)
        return 10.0 - float(match[1])


def _no_score(turn: int) -> UsageError:
    return UsageError(
        f"the target gave the draft of turn {turn} no score",
        hint="a draft without a score is never accepted; take another target or way of scoring",
    )
