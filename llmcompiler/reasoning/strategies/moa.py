"""Mixture of Agents: layers of answers, each written by somebody who has read the layer before.

Wang et al., "Mixture-of-Agents Enhances Large Language Model Capabilities" (arXiv 2406.04692). The
agents of a layer may be different models, or one model sampled several times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult
from llmcompiler.reasoning.reducers import concat


class Moa(BaseModel):
    """``layers`` layers of ``width`` agents, then one that sums up.

    Attributes:
        width: agents a layer.
        layers: of agents; the one that sums up is not counted.
        models: which of the branch's models the agents are, in turn; the first sums up.
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
        known = f"{context}\n\n" if context else ""

        def ask(answers: list[Candidate]) -> str:
            shown = concat([without_thinking(one.text) for one in answers]).text if answers else ""
            earlier = branch.prompt("earlier", answers=shown) if answers else ""
            return branch.prompt("solve", context=known, problem=problem, earlier=earlier)

        layer: list[Candidate] = []
        for number in range(1, self.layers + 1):
            layer = await self._layer(branch, ask(layer), f"layer {number}")
            branch.accept(layer[0])
            branch.keep(
                StrategyResult(layer[0].text, layer[0].answer, tuple(layer), f"layer {number}")
            )
        last = (await branch.generate(ask(layer), label="sum up", model=self.models[0]))[0]
        branch.accept(last)
        why = f"summed up from {self.layers} layers of {self.width}"
        return StrategyResult(last.text, last.answer, (last, *layer), why)

    async def _layer(self, branch: Branch, ask: str, label: str) -> list[Candidate]:
        counts = {
            model: len(range(position, self.width, len(self.models)))
            for position, model in enumerate(self.models)
        }
        groups = await branch.gather(
            *(
                branch.generate(ask, n=count, label=label, model=model)
                for model, count in counts.items()
                if count
            )
        )
        return [one for group in groups for one in group]
