"""Hogwild!: workers write at the same time and see each other's work while they write.

arXiv 2504.06261. With a model that shares attention (``--model native:``) workers see each other
token by token. Over an endpoint they write in rounds of a few tokens: finished chunks stand in one
append-only log, and a worker's own text follows the log. An endpoint that caches prefixes therefore
reads every word of the log once: x + W c (R - 1) tokens for R rounds of W chunks of c tokens after
a prompt of x tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.llm.workspace import WorkspaceRules
from llmcompiler.reasoning.answers import extract_answer, without_thinking
from llmcompiler.reasoning.base import (
    Branch,
    BranchCall,
    Candidate,
    Capability,
    StrategyResult,
    context_prefix,
)

FORCED_TOKENS = 64
TEXT_NOTE = "hogwild (chunk-synced)"
SHARED_NOTE = "hogwild (shared attention, training-free)"
TAIL_CHARS = 400
"""Characters at the end of a running text in which an answer is searched."""


class Hogwild(BaseModel):
    """``width`` workers who see each other's work, until one of them states an answer.

    Attributes:
        width: number of workers.
        attention: ``auto``: share attention if the model can; ``text``: always use rounds of
            chunks.
        layout: with shared attention, what a worker sees before its own work. ``contiguous``: all
            that each other worker has written; ``interleaved``: finished steps in their order;
            ``combined``: finished steps, then the unfinished steps of the others.
        banned: with shared attention, tokens that no worker writes because they end its thinking.
        chunk: tokens that a worker writes before the others can read them.
        rounds: most rounds; then one call must answer from the log.
        check_every: tokens of all workers after which one worker is asked whether its work is
            redundant. With shared attention, tokens of each worker, who is asked at the end of a
            step. 0 for no checks.
        together: True if the workers of a round write in parallel. False is slower, but an endpoint
            that caches one prefix per slot then reads the log once, not once per worker.
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
            return await self._run_shared(problem, context, branch)
        context_part = context_prefix(context)
        log = branch.prompt("shared", context=context_part, problem=problem, width=self.width)
        candidates: list[Candidate] = []
        redundant: set[int] = set()
        check_count = 0
        for round_number in range(1, self.rounds + 1):
            chunks = await self._round(branch, log, f"round {round_number}", redundant)
            # In the order of workers, not of time: a replay then builds the same log.
            for worker, chunk in enumerate(chunks, 1):
                text = without_thinking(chunk.text)
                log += branch.prompt("entry", worker=worker, text=text)
            candidates += chunks
            longest = max(chunks, key=lambda chunk: chunk.usage.completion_tokens)
            answering_chunk = next(
                (chunk for chunk in chunks if extract_answer(chunk.text, "marked") is not None),
                None,
            )
            branch.accept(answering_chunk or longest)
            if answering_chunk is not None:
                return self._text_result(
                    answering_chunk,
                    candidates,
                    round_number,
                    check_count,
                    f"worker said so in round {round_number}",
                )
            redundant = set()
            if self.check_every and round_number < self.rounds:
                decoded_tokens = sum(chunk.usage.completion_tokens for chunk in candidates)
                if decoded_tokens // self.check_every > check_count:
                    worker = check_count % self.width + 1
                    check_count += 1
                    if await self._is_redundant(branch, log, worker):
                        redundant = {worker}
        forced_answer = (
            await branch.generate(log + branch.prompt("final"), label="forced answer")
        )[0]
        branch.accept(forced_answer)
        return self._text_result(
            forced_answer, candidates, self.rounds, check_count, "forced from the log"
        )

    async def _run_shared(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """Run the workers in one workspace; a forced answer continues from its caches."""
        worker_names = [branch.prompt("worker", worker=n + 1) for n in range(self.width)]
        prompt = branch.prompt(
            "together",
            context=context_prefix(context),
            problem=problem,
            width=self.width,
            names=", ".join(name.strip(" *:") for name in worker_names),
        )
        rules = WorkspaceRules(
            self.layout,
            tuple(worker_names),
            (branch.prompt("others"), branch.prompt("mine")),
            branch.prompt("self_check"),
            self.check_every,
            self.banned,
        )
        workspace = branch.workspace(prompt, rules)
        calls = [
            branch.start(workspace.messages, label=f"worker {seat.number + 1}", seat=seat)
            for seat in workspace.writers
        ]
        candidates = await branch.race(calls, lambda calls: any(map(_has_answered, calls)))
        answers = [extract_answer(candidate.text, "marked") for candidate in candidates]
        check_count = sum(candidate.text.count(rules.check) for candidate in candidates)
        for number, answer in enumerate(answers):
            if answer is not None:
                answering = dataclasses.replace(candidates[number], answer=answer)
                branch.accept(answering)
                other_candidates = tuple(
                    candidate for candidate in candidates if candidate.call != answering.call
                )
                return self._shared_result(
                    answering, other_candidates, check_count, f"worker {number + 1} said so"
                )
        longest_work = max(range(self.width), key=lambda n: len(candidates[n].text))
        branch.accept(candidates[longest_work])
        force_text = branch.prompt("force")
        forced_answer = await branch.start(
            workspace.messages,
            label="forced answer",
            max_tokens=FORCED_TOKENS,
            temperature=0.0,
            stop=("\n",),
            seat=workspace.append(longest_work, force_text),
        )
        branch.accept(forced_answer)
        forced_answer = dataclasses.replace(
            forced_answer, answer=branch.answer(f"Answer:{forced_answer.text}")
        )
        return self._shared_result(
            forced_answer, tuple(candidates), check_count, "forced from what the workers had"
        )

    def _shared_result(
        self, final: Candidate, other_candidates: tuple[Candidate, ...], check_count: int, why: str
    ) -> StrategyResult:
        data = {"checks": check_count, "workers": self.width, "layout": self.layout}
        return StrategyResult(
            final.text, final.answer, (final, *other_candidates), why, (SHARED_NOTE,), data
        )

    async def _round(
        self, branch: Branch, log: str, label: str, redundant: set[int]
    ) -> list[Candidate]:
        prompts = []
        for worker in range(1, self.width + 1):
            hint = branch.prompt("redirect") if worker in redundant else ""
            prompts.append(log + branch.prompt("cue", worker=worker, hint=hint))
        options: dict[str, Any] = {
            "label": label,
            "max_tokens": self.chunk,
        }
        if self.together:
            return await branch.generate_each(prompts, **options)
        return [(await branch.generate(prompt, **options))[0] for prompt in prompts]

    @staticmethod
    async def _is_redundant(branch: Branch, log: str, worker: int) -> bool:
        prompt = log + branch.prompt("check", worker=worker)
        replies = await branch.generate(
            prompt, label="redundancy check", max_tokens=4, temperature=0.0
        )
        return replies[0].text.strip().casefold().startswith("yes")

    def _text_result(
        self,
        final: Candidate,
        candidates: list[Candidate],
        round_count: int,
        check_count: int,
        why: str,
    ) -> StrategyResult:
        return StrategyResult(
            final.text,
            final.answer,
            (final, *(candidate for candidate in candidates if candidate is not final)),
            why,
            (TEXT_NOTE,),
            {"rounds": round_count, "checks": check_count, "workers": self.width},
        )


def _has_answered(call: BranchCall) -> bool:
    """True if the text has a complete line that states an answer."""
    tail = call.text[-TAIL_CHARS:]
    complete_lines = tail if call.has_ended else tail[: tail.rfind("\n") + 1]
    return extract_answer(complete_lines, "marked") is not None
