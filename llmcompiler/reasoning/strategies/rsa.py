"""Recursive self-aggregation: a population of solutions, each replaced by one made of a few others.

Venkatraman et al., "Recursive Self-Aggregation Unlocks Deep Thinking in Large Language Models"
(arXiv 2509.26626). Published are a population of 16 and subsets of 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Capability, StrategyResult
from llmcompiler.reasoning.reducers import concat
from llmcompiler.reasoning.strategies.vote import elect


class Rsa(BaseModel):
    """``width`` candidates, ``rounds`` rounds of aggregating random subsets, then a vote.

    Attributes:
        width: the population.
        k: candidates that one aggregation sees.
        rounds: of aggregation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "rsa"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "solve": (
            "{context}{problem}\n\n{others}"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
        "others": (
            "Candidate solutions, any of which may be wrong:\n\n{candidates}\n\n"
            "Combine what is right in them into one better solution. If all seem wrong, take "
            "another route.\n\n"
        ),
    }

    width: int = Field(default=16, ge=1)
    k: int = Field(default=4, ge=1)
    rounds: int = Field(default=2, ge=0)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        known = f"{context}\n\n" if context else ""

        def ask(others: str) -> str:
            return branch.prompt("solve", context=known, problem=problem, others=others)

        population = await branch.generate(ask(""), n=self.width, label="candidate")
        outcome = elect(population)
        for number in range(1, self.rounds + 1):
            branch.accept(outcome.candidates[0])
            branch.keep(outcome)
            asks = []
            for _ in range(self.width):
                size = min(self.k, len(population))
                subset = sorted(branch.random.sample(range(len(population)), size))
                shown = concat([without_thinking(population[one].text) for one in subset]).text
                asks.append(ask(branch.prompt("others", candidates=shown)))
            population = await branch.generate_each(asks, label=f"aggregation {number}")
            outcome = elect(population)
        branch.accept(outcome.candidates[0])
        return outcome
