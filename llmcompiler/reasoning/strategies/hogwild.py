"""Hogwild! in chunks: workers write at the same time and read each other's work between chunks.

arXiv 2504.06261. The original shares attention caches token by token; over an endpoint workers take
turns in rounds of a few tokens. All that is finished stands in one log that is only ever appended
to, in front of what is a worker's own, so that an endpoint that keeps prefixes reads every word of
it once: x + W c (R - 1) tokens for R rounds of W chunks of c after a prompt of x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import extract, without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, Outcome

LABEL = "hogwild (chunk-synced)"


class Hogwild(BaseModel):
    """``width`` workers in rounds of chunks, until one of them states an answer.

    Attributes:
        width: workers.
        chunk: tokens that each writes before the others can read it.
        rounds: most rounds; then one call has to answer from the log.
        check_every: tokens of all workers after which one is asked whether its work is redundant;
            0 never asks.
        together: workers of a round write at once. Otherwise one after the other, which is slower
            and lets an endpoint that keeps one prefix a slot read the log once instead of once a
            worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "hogwild"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "shared": (
            "{context}{problem}\n\n"
            "{width} workers solve this together. Split the work: worker 1 begins with the first "
            "step, worker 2 with the second; later take a part that nobody has done, react to what "
            "the others write, correct their mistakes. Write short steps. As soon as the log has "
            "all that the result needs, whoever is asked writes only one line "
            '"Answer: ..." that holds only the answer.\n\nThe shared log:\n'
        ),
        "entry": "\n[worker {worker}] {text}\n",
        # Short, because it is all that each call reads anew besides what the log has gained.
        "cue": "\nYou are worker {worker}. {hint}Go on:",
        "redirect": "What you did was redundant: take another part, or check a result. ",
        "check": ("\nYou are worker {worker}. Quick check: am I doing redundant work? (yes/no): "),
        "final": (
            "\nThe time is up. From the log, which may contain mistakes, write the final result "
            'as one line "Answer: ...":'
        ),
    }

    width: int = Field(default=2, ge=1)
    chunk: int = Field(default=256, ge=1)
    rounds: int = Field(default=8, ge=1)
    check_every: int = Field(default=1024, ge=0)
    together: bool = True

    async def run(self, problem: str, context: str, branch: Branch) -> Outcome:
        """See ``Strategy.run``."""
        known = f"{context}\n\n" if context else ""
        log = branch.prompt("shared", context=known, problem=problem, width=self.width)
        written: list[Candidate] = []
        redundant: set[int] = set()
        checks = 0
        for number in range(1, self.rounds + 1):
            chunks = await self._round(branch, log, f"round {number}", redundant)
            # One after the other in workers' order, whoever was first: the log is the same again.
            for worker, chunk in enumerate(chunks, 1):
                text = without_thinking(chunk.text)
                log += branch.prompt("entry", worker=worker, text=text)
            written += chunks
            longest = max(chunks, key=lambda chunk: chunk.usage.completion_tokens)
            done = next((one for one in chunks if extract(one.text, "marked") is not None), None)
            branch.accept(done or longest)
            if done is not None:
                return self._outcome(
                    done, written, number, checks, f"worker said so in round {number}"
                )
            redundant = set()
            if self.check_every and number < self.rounds:
                spent = sum(one.usage.completion_tokens for one in written)
                if spent // self.check_every > checks:
                    worker = checks % self.width + 1
                    checks += 1
                    if await self._redundant(branch, log, worker):
                        redundant = {worker}
        final = (await branch.generate(log + branch.prompt("final"), label="forced answer"))[0]
        branch.accept(final)
        return self._outcome(final, written, self.rounds, checks, "forced from the log")

    async def _round(
        self, branch: Branch, log: str, label: str, redundant: set[int]
    ) -> list[Candidate]:
        asks = []
        for worker in range(1, self.width + 1):
            hint = branch.prompt("redirect") if worker in redundant else ""
            asks.append(log + branch.prompt("cue", worker=worker, hint=hint))
        options: dict[str, Any] = {
            "label": label,
            "max_tokens": self.chunk,
        }
        if self.together:
            return await branch.each(asks, **options)
        return [(await branch.generate(ask, **options))[0] for ask in asks]

    @staticmethod
    async def _redundant(branch: Branch, log: str, worker: int) -> bool:
        ask = log + branch.prompt("check", worker=worker)
        found = await branch.generate(ask, label="redundancy check", max_tokens=4, temperature=0.0)
        return found[0].text.strip().casefold().startswith("yes")

    def _outcome(
        self, last: Candidate, written: list[Candidate], rounds: int, checks: int, why: str
    ) -> Outcome:
        return Outcome(
            last.text,
            last.answer,
            (last, *(one for one in written if one is not last)),
            why,
            (LABEL,),
            {"rounds": rounds, "checks": checks, "workers": self.width},
        )
