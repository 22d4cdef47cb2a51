"""How many tokens of prompts the embedded server reads for hogwild, by its own cache counts.

    python benchmarks/hogwild_prefill.py

Chunk-synced hogwild puts everything that is finished in one log in front of what is a worker's own.
An endpoint that keeps prefixes then reads x + W c (R - 1) tokens for R rounds of W workers' chunks
of c after a prompt of x. The naive layout puts the worker's own cue in front, as a system message,
and so shares nothing between workers. Both run here on the same server with the same chunks: the
model is made to decode c tokens a call, and what it read is prompt_tokens - cached_tokens.

The embedded server keeps one prefix a slot. So workers who write one after the other share one, and
workers who write at once each read the log into a slot of their own; both are measured.
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
    """The embedded model, held to chunks of one length, so that c is exact.

    Args:
        model: the embedded one.
        naive: whether what is a worker's own is put in front of what all share.
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
        whole = await complete(
            self._model,
            Request(messages, request.max_tokens, seed=request.seed, extra={"ignore_eos": True}),
        )
        self.completions.append(whole)
        # A worker that states an answer would end the rounds.
        text = re.sub("nswer|####|boxed", "-", whole.text)
        yield text
        yield dataclasses.replace(whole, text=text)

    async def aclose(self) -> None:
        """The model is its owner's."""


async def measure(
    model: ChatModel, given: argparse.Namespace, naive: bool, together: bool, mark: str
) -> tuple[int, int, int]:
    """Tokens of the rounds' prompts that were read, of the first prompt, and of all prompts."""
    padded = Padded(model, naive)
    # A beginning of its own keeps what an earlier measurement left in the cache out of this one.
    async with LLMCompiler((), padded, store=":memory:") as compiler:
        await compiler.think(
            f"Run {mark}. How many nails are there in all?",
            context=f"{mark}: {FILLER[: given.facts]}",
            strategy="hogwild",
            seed=1,
            # The last call, which forces an answer, is none of the rounds'.
            budget=BranchBudget(calls=given.width * given.rounds),
            width=given.width,
            chunk=given.chunk,
            rounds=given.rounds,
            check_every=0,
            together=together,
        )
    used = [one.usage for one in padded.completions]
    assert len(used) == given.width * given.rounds, "a worker ended the rounds"
    read = sum(one.prompt_tokens - one.cached_tokens for one in used)
    return read, used[0].prompt_tokens, sum(one.prompt_tokens for one in used)


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--facts", type=int, default=2000, help="characters of context")
    given = parser.parse_args()
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
            read, x, prompts = await measure(model, given, naive, together, mark)
            if not formula:
                formula = x + given.width * given.chunk * (given.rounds - 1)
                size = f"W={given.width} c={given.chunk} R={given.rounds} x={x}"
                print(f"{size}: x + W c (R - 1) = {formula}\n")
                print("| layout | read | against the formula | prompts in all |")
                print("|---|---|---|---|")
            print(f"| {label} | {read} | {100 * (read / formula - 1):+.1f} % | {prompts} |")
    finally:
        await model.aclose()


if __name__ == "__main__":
    asyncio.run(main())
