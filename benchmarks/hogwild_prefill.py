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
import sys
from pathlib import Path
from typing import Any

from llmcompiler.llm.base import ChatModel, Completion, Message, Request, complete
from llmcompiler.llm.models import open_model
from llmcompiler.reasoning.base import Ask, Outcome
from llmcompiler.reasoning.registry import make_strategy

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.branches import ScriptedBranch

FILLER = "Facts: " + " ".join(f"Box {n} holds {n * 7 % 90 + 10} nails." for n in range(1, 200))


class Padded:
    """The embedded model, held to chunks of one length, so that c is exact."""

    def __init__(self, model: ChatModel) -> None:
        self.name = model.name
        self.completions: list[Completion] = []
        self._model = model

    async def stream(self, request: Request) -> Any:
        """One chunk of exactly ``max_tokens``."""
        fields = {name: getattr(request, name) for name in ("messages", "max_tokens", "seed")}
        whole = await complete(
            self._model, Request(**fields, temperature=0.0, extra={"ignore_eos": True})
        )
        self.completions.append(whole)
        # A worker that states an answer would end the rounds.
        yield whole.text.replace("nswer", "nsw")
        yield whole

    async def aclose(self) -> None:
        """The model is its owner's."""


class NaiveBranch(ScriptedBranch):
    """Puts what is a worker's own in front of what all share."""

    def start(self, ask: Ask, **options: Any) -> Any:
        """See ``Branch.start``."""
        shared, _, cue = str(ask).rpartition("\nYou are worker")
        chat = [Message("system", f"You are worker{cue}"), Message("user", shared)]
        return super().start(chat, **options)


async def measure(
    model: ChatModel, branch_class: Any, given: Any, together: bool, mark: str
) -> Any:
    """Unique prefill tokens of the rounds, the number of tokens of the first prompt, and c W."""
    options = {
        "width": given.width,
        "chunk": given.chunk,
        "rounds": given.rounds,
        "check_every": 0,
        "together": together,
    }
    padded = Padded(model)
    # The last call, which forces an answer, is none of the rounds'.
    branch = branch_class(
        padded, make_strategy("hogwild", options), calls=given.width * given.rounds
    )
    branch.keep(Outcome("", None))
    # A beginning of its own keeps what an earlier measurement left in the cache out of this one.
    facts = FILLER[: given.facts]
    await branch.think(f"Run {mark}. How many nails are there in all?", f"{mark}: {facts}")
    used = [one.usage for one in padded.completions]
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
        for number, (label, branch_class, together) in enumerate(
            [
                ("shared log, in turns", ScriptedBranch, False),
                ("own cue first, in turns", NaiveBranch, False),
                ("shared log, at once", ScriptedBranch, True),
            ]
        ):
            mark = "ABC"[number] * 5
            read, x, prompts = await measure(model, branch_class, given, together, mark)
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
