"""Recursive self-aggregation: new solutions, each made from a few others, replace the population.

Venkatraman et al., "Recursive Self-Aggregation Unlocks Deep Thinking in Large Language Models"
(arXiv 2509.26626). The paper uses a population of 16 and subsets of 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.reducers import concat
from llmcompiler.reasoning.strategies.vote import elect


class Rsa(BaseModel):
    """``width`` candidates, ``rounds`` rounds of aggregating random subsets, then a vote.

    Attributes:
        width: size of the population.
        k: number of candidates in one aggregation.
        rounds: rounds of aggregation.
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
        context_part = context_prefix(context)

        def build_prompt(others_part: str) -> str:
            return branch.prompt("solve", context=context_part, problem=problem, others=others_part)

        population = await branch.generate(build_prompt(""), n=self.width, label="candidate")
        result = elect(population)
        for number in range(1, self.rounds + 1):
            branch.accept(result.candidates[0])
            branch.keep(result)
            prompts = []
            for _ in range(self.width):
                size = min(self.k, len(population))
                subset = sorted(branch.random.sample(range(len(population)), size))
                candidates_text = concat(
                    [without_thinking(population[position].text) for position in subset]
                ).text
                prompts.append(build_prompt(branch.prompt("others", candidates=candidates_text)))
            population = await branch.generate_each(prompts, label=f"aggregation {number}")
            result = elect(population)
        branch.accept(result.candidates[0])
        return result
