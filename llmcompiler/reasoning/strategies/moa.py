"""Mixture of Agents: layers of answers; each agent reads all answers of the layer before.

Wang et al., "Mixture-of-Agents Enhances Large Language Model Capabilities" (arXiv 2406.04692). The
agents of a layer may be different models, or one model sampled several times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.reducers import concat


class Moa(BaseModel):
    """``layers`` layers of ``width`` agents, then one agent that sums up.

    Attributes:
        width: agents in a layer.
        layers: number of layers, without the agent that sums up.
        models: names of the branch's models, used by agents in turn; the first one sums up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "moa"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "solve": (
            "{context}{problem}\n\n{earlier}"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
        "earlier": (
            "Others answered:\n\n{answers}\n\nSome of this may be wrong, and what most say need "
            "not be right. Check it, take over what holds, and write a better answer. If all seem "
            "wrong, take another route.\n\n"
        ),
    }

    width: int = Field(default=3, ge=1)
    layers: int = Field(default=2, ge=1)
    models: tuple[str, ...] = Field(default=("branch",), min_length=1)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        context_part = context_prefix(context)

        def build_prompt(earlier_answers: list[Candidate]) -> str:
            answers_text = (
                concat([without_thinking(answer.text) for answer in earlier_answers]).text
                if earlier_answers
                else ""
            )
            earlier_part = branch.prompt("earlier", answers=answers_text) if earlier_answers else ""
            return branch.prompt(
                "solve", context=context_part, problem=problem, earlier=earlier_part
            )

        layer: list[Candidate] = []
        for number in range(1, self.layers + 1):
            layer = await self._layer(branch, build_prompt(layer), f"layer {number}")
            branch.accept(layer[0])
            branch.keep(
                StrategyResult(layer[0].text, layer[0].answer, tuple(layer), f"layer {number}")
            )
        summary = (
            await branch.generate(build_prompt(layer), label="sum up", model=self.models[0])
        )[0]
        branch.accept(summary)
        why = f"summed up from {self.layers} layers of {self.width}"
        return StrategyResult(summary.text, summary.answer, (summary, *layer), why)

    async def _layer(self, branch: Branch, prompt: str, label: str) -> list[Candidate]:
        counts = {
            model: len(range(position, self.width, len(self.models)))
            for position, model in enumerate(self.models)
        }
        groups = await branch.gather(
            *(
                branch.generate(prompt, n=count, label=label, model=model)
                for model, count in counts.items()
                if count
            )
        )
        return [candidate for group in groups for candidate in group]
