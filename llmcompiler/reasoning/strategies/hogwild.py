"""Hogwild!: workers write at the same time and see each other's work while they do.

arXiv 2504.06261. A model that shares attention (``--model native:``) takes the real form: workers
see each other token by token. Over an endpoint workers take turns in rounds of a few tokens. There,
all that is finished stands in one log that is only ever appended to, in front of what is a worker's
own, so that an endpoint that keeps prefixes reads every word of it once: x + W c (R - 1) tokens for
R rounds of W chunks of c after a prompt of x.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.llm.workspace import WorkspaceRules
from llmcompiler.reasoning.answers import extract, without_thinking
from llmcompiler.reasoning.base import Branch, BranchCall, Candidate, Capability, StrategyResult

FORCED_TOKENS = 64
LABEL = "hogwild (chunk-synced)"
SHARED_LABEL = "hogwild (shared attention, training-free)"
TAIL = 400
"""Characters at the end of a text in which an answer is looked for while it is written."""


class Hogwild(BaseModel):
    """``width`` workers who see each other's work, until one of them states an answer.

    Attributes:
        width: workers.
        attention: ``auto``: shared, where the model can; ``text``: by rounds of chunks in any case.
        layout: with shared attention, what a worker sees before its own work: ``contiguous``, what
            each of the others has written; ``interleaved``, finished steps in their order;
            ``combined``, those and then what the others are writing.
        banned: with shared attention, tokens that no worker writes, as they would end its thinking.
        chunk: tokens that each writes before the others can read it.
        rounds: most rounds; then one call has to answer from the log.
        check_every: tokens of all workers after which one is asked whether its work is redundant;
            with shared attention, of each worker, which is asked at the end of a step. 0 never
            asks.
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
        "together": (
            "{context}{problem}\n\n"
            "{width} workers solve this together and see each other's work while it is written: "
            "{names}. Split the work: each takes another part or another way, reacts to what the "
            "others write, uses their results instead of computing them again, and corrects their "
            "mistakes. Write short steps, each ending with a blank line. As soon as the result is "
            'known, write one line "Answer: ..." that holds only the answer.'
        ),
        "worker": "**Worker {worker}:** ",
        "others": "\n### What the others are writing now\n\n",
        "mine": "\n### What I write\n\n",
        "self_check": "Quick check: am I doing redundant work? (yes/no): ",
        "force": "\n\nThe time is up. The final result of all this work:\n\nAnswer:",
        "final": (
            "\nThe time is up. From the log, which may contain mistakes, write the final result "
            'as one line "Answer: ...":'
        ),
    }

    width: int = Field(default=2, ge=1)
    attention: Literal["auto", "text"] = "auto"
    layout: Literal["contiguous", "interleaved", "combined"] = "combined"
    banned: tuple[str, ...] = ("</think>",)
    chunk: int = Field(default=256, ge=1)
    rounds: int = Field(default=8, ge=1)
    check_every: int = Field(default=1024, ge=0)
    together: bool = True

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        if self.attention == "auto" and branch.has("shared_attention"):
            return await self._together(problem, context, branch)
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

    async def _together(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """Workers in one workspace; the call that is forced at the end goes on in its caches."""
        names = [branch.prompt("worker", worker=n + 1) for n in range(self.width)]
        asked = branch.prompt(
            "together",
            context=f"{context}\n\n" if context else "",
            problem=problem,
            width=self.width,
            names=", ".join(name.strip(" *:") for name in names),
        )
        rules = WorkspaceRules(
            self.layout,
            tuple(names),
            (branch.prompt("others"), branch.prompt("mine")),
            branch.prompt("self_check"),
            self.check_every,
            self.banned,
        )
        workspace = branch.workspace(asked, rules)
        calls = [
            branch.start(workspace.messages, label=f"worker {seat.number + 1}", seat=seat)
            for seat in workspace.writers
        ]
        written = await branch.race(calls, lambda calls: any(map(_has_answered, calls)))
        stated = [extract(one.text, "marked") for one in written]
        checks = sum(one.text.count(rules.check) for one in written)
        for number, answer in enumerate(stated):
            if answer is not None:
                last = dataclasses.replace(written[number], answer=answer)
                branch.accept(last)
                rest = tuple(one for one in written if one.call != last.call)
                return self._ended(last, rest, checks, f"worker {number + 1} said so")
        longest = max(range(self.width), key=lambda n: len(written[n].text))
        branch.accept(written[longest])
        force = branch.prompt("force")
        final = await branch.start(
            workspace.messages,
            label="forced answer",
            max_tokens=FORCED_TOKENS,
            temperature=0.0,
            stop=("\n",),
            seat=workspace.append(longest, force),
        )
        branch.accept(final)
        final = dataclasses.replace(final, answer=branch.answer(f"Answer:{final.text}"))
        return self._ended(final, tuple(written), checks, "forced from what the workers had")

    def _ended(
        self, last: Candidate, rest: tuple[Candidate, ...], checks: int, why: str
    ) -> StrategyResult:
        data = {"checks": checks, "workers": self.width, "layout": self.layout}
        return StrategyResult(last.text, last.answer, (last, *rest), why, (SHARED_LABEL,), data)

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
            return await branch.generate_each(asks, **options)
        return [(await branch.generate(ask, **options))[0] for ask in asks]

    @staticmethod
    async def _redundant(branch: Branch, log: str, worker: int) -> bool:
        ask = log + branch.prompt("check", worker=worker)
        found = await branch.generate(ask, label="redundancy check", max_tokens=4, temperature=0.0)
        return found[0].text.strip().casefold().startswith("yes")

    def _outcome(
        self, last: Candidate, written: list[Candidate], rounds: int, checks: int, why: str
    ) -> StrategyResult:
        return StrategyResult(
            last.text,
            last.answer,
            (last, *(one for one in written if one is not last)),
            why,
            (LABEL,),
            {"rounds": rounds, "checks": checks, "workers": self.width},
        )


def _has_answered(call: BranchCall) -> bool:
    """Whether a line that states an answer is whole."""
    tail = call.text[-TAIL:]
    whole = tail if call.has_ended else tail[: tail.rfind("\n") + 1]
    return extract(whole, "marked") is not None
