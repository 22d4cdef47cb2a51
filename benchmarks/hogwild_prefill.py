"""How many prompt tokens the embedded server reads for hogwild, by its own counts of cached tokens.

    python benchmarks/hogwild_prefill.py

Chunk-synced hogwild puts everything that is finished in one log, before the worker's own words. An
endpoint that caches prefixes then reads x + W c (R - 1) tokens for R rounds of W workers' chunks of
c tokens after a prompt of x tokens. The naive layout puts the worker's own cue first, as a system
message, and so shares nothing between workers. Both layouts run on the same server with the same
chunks: the model has to decode c tokens a call, and it reads prompt_tokens - cached_tokens.

The embedded server caches one prefix a slot. So workers who write one after the other share one
prefix, and workers who write at once each read the log into a slot of their own. Both are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator

from llmcompiler import ChatModel, Completion, LLMCompiler, Message, Request, open_model
from llmcompiler.llm.base import complete
from llmcompiler.reasoning.base import BranchBudget

CUE = "\nYou are worker"
FILLER = "Facts: " + " ".join(f"Box {n} holds {n * 7 % 90 + 10} nails." for n in range(1, 200))


class Padded:
    """The embedded model, made to write chunks of exactly one length.

    Args:
        model: the embedded model.
        naive: True to put the worker's own cue before the shared log.
    """

    def __init__(self, model: ChatModel, naive: bool) -> None:
        self.name = model.name
        self.completions: list[Completion] = []
        self._model = model
        self._naive = naive

    async def stream(self, request: Request) -> AsyncIterator[str | Completion]:
        """One chunk of exactly ``max_tokens``."""
        messages = request.messages
        if self._naive:
            shared, _, cue = messages[0].content.rpartition(CUE)
            messages = (Message("system", CUE + cue), Message("user", shared))
        completion = await complete(
            self._model,
            Request(messages, request.max_tokens, seed=request.seed, extra={"ignore_eos": True}),
        )
        self.completions.append(completion)
        # A worker that states an answer would end the rounds.
        text = re.sub("nswer|####|boxed", "-", completion.text)
        yield text
        yield dataclasses.replace(completion, text=text)

    async def aclose(self) -> None:
        """Do nothing: the caller closes the model."""


async def measure(
    model: ChatModel, arguments: argparse.Namespace, naive: bool, together: bool, mark: str
) -> tuple[int, int, int]:
    """Tokens read of the rounds' prompts, tokens of the first prompt, tokens of all prompts."""
    padded = Padded(model, naive)
    # Each measurement has a beginning of its own, so that it finds nothing in the cache.
    async with LLMCompiler((), padded, store=":memory:") as compiler:
        await compiler.think(
            f"Run {mark}. How many nails are there in all?",
            context=f"{mark}: {FILLER[: arguments.facts]}",
            strategy="hogwild",
            seed=1,
            # The budget leaves out the last call, which forces an answer and is in no round.
            budget=BranchBudget(calls=arguments.width * arguments.rounds),
            width=arguments.width,
            chunk=arguments.chunk,
            rounds=arguments.rounds,
            check_every=0,
            together=together,
        )
    usages = [completion.usage for completion in padded.completions]
    assert len(usages) == arguments.width * arguments.rounds, "a worker ended the rounds"
    tokens_read = sum(usage.prompt_tokens - usage.cached_tokens for usage in usages)
    return tokens_read, usages[0].prompt_tokens, sum(usage.prompt_tokens for usage in usages)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--facts", type=int, default=2000, help="characters of context")
    arguments = parser.parse_args()
    model = open_model("local")
    formula = 0
    try:
        for number, (label, naive, together) in enumerate(
            [
                ("shared log, in turns", False, False),
                ("naive: own cue first, in turns", True, False),
                ("shared log, at once", False, True),
                ("naive: own cue first, at once", True, True),
            ]
        ):
            mark = "ABCD"[number] * 5
            tokens_read, x, prompts = await measure(model, arguments, naive, together, mark)
            if not formula:
                formula = x + arguments.width * arguments.chunk * (arguments.rounds - 1)
                size = f"W={arguments.width} c={arguments.chunk} R={arguments.rounds} x={x}"
                print(f"{size}: x + W c (R - 1) = {formula}\n")
                print("| layout | read | against the formula | prompts in all |")
                print("|---|---|---|---|")
            excess = 100 * (tokens_read / formula - 1)
            print(f"| {label} | {tokens_read} | {excess:+.1f} % | {prompts} |")
    finally:
        await model.aclose()


if __name__ == "__main__":
    asyncio.run(main())
