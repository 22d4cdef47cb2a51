"""Parallel-Distill-Refine: rounds of parallel drafts, each round told what the last one found.

arXiv 2510.01123. What a round hands on is a workspace of bounded size, rebuilt from that round's
drafts and never appended to: prompts of drafts stay short however wide the rounds are, and the
longest chain of calls does not grow with the width. Drafts are shown as possibly wrong, with a way
out, because anchoring on wrong ones is the method's known failure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult
from llmcompiler.reasoning.reducers import concat

Distiller = Literal["summary", "shared_top_k", "per_sample_top_k", "random_k"]


class Pdr(BaseModel):
    """``rounds`` rounds of ``width`` drafts, then one final call.

    Attributes:
        width: drafts a round; ignored where there is a ``schedule``.
        rounds: how many; ignored where there is a ``schedule``.
        schedule: drafts of each round; published are 16, 8, 4.
        distiller: what makes the workspace of a round's drafts. ``summary``: a model's digest of
            all; ``shared_top_k``: the k that a model finds best, for all next drafts;
            ``per_sample_top_k``: such a selection for each of them; ``random_k``: a different
            random subset for each. The first two share one prompt among all drafts of a round.
        k: drafts that a selection keeps.
        kappa: most tokens of a workspace.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "pdr"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "solve": (
            "{context}{problem}\n\n{workspace}"
            'Think step by step, then end with one line "Answer: ..." that holds only the answer.'
        ),
        "workspace": (
            "Notes on earlier attempts, which may be wrong:\n\n{workspace}\n\n"
            "Check them before you rely on them. If all of them seem wrong, take another route.\n\n"
        ),
        "summarise": (
            "{context}{problem}\n\n{count} attempts by others, each possibly wrong:\n\n{drafts}\n\n"
            "Write short notes for somebody who will solve the problem and does not see the "
            "attempts: 1. where they agree; 2. where they contradict each other; 3. what is "
            "certain; 4. what is open; 5. what to do next. Do not solve the problem."
        ),
        "select": (
            "{context}{problem}\n\n{count} attempts by others, each possibly wrong:\n\n{drafts}\n\n"
            "Which {k} are most likely right? Check their steps, then end with one line that names "
            'their numbers: "Best: ..."'
        ),
    }

    width: int = Field(default=4, ge=1)
    rounds: int = Field(default=1, ge=1)
    schedule: tuple[int, ...] | None = Field(default=None, min_length=1)
    distiller: Distiller = "summary"
    k: int = Field(default=2, ge=1)
    kappa: int = Field(default=2048, ge=1)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``."""
        known = f"{context}\n\n" if context else ""
        sizes = self.schedule or (self.width,) * self.rounds
        workspaces: list[str] = [""] * sizes[0]
        notes: list[str] = []
        drafts: list[Candidate] = []
        for number, following in enumerate((*sizes[1:], 1), 1):
            drafts = await self._round(branch, problem, known, workspaces, f"round {number}")
            branch.accept(drafts[0])
            branch.keep(StrategyResult(drafts[0].text, drafts[0].answer, tuple(drafts), "a draft"))
            workspaces = await self._distil(
                branch, problem, known, drafts, following, f"round {number}", notes
            )
        final = (await self._round(branch, problem, known, workspaces, "final"))[0]
        branch.accept(final)
        why = f"{len(sizes)} rounds of {', '.join(map(str, sizes))} drafts by {self.distiller}"
        return StrategyResult(
            final.text, final.answer, (final, *drafts), why, tuple(dict.fromkeys(notes))
        )

    async def _round(
        self, branch: Branch, problem: str, known: str, workspaces: Sequence[str], label: str
    ) -> list[Candidate]:
        def ask(workspace: str) -> str:
            shown = branch.prompt("workspace", workspace=workspace) if workspace else ""
            return branch.prompt("solve", context=known, problem=problem, workspace=shown)

        options: dict[str, Any] = {
            "label": f"{label} draft",
            "top_p": 1.0,
        }
        if len(set(workspaces)) == 1:
            return await branch.generate(ask(workspaces[0]), n=len(workspaces), **options)
        return await branch.generate_each([ask(workspace) for workspace in workspaces], **options)

    async def _distil(
        self,
        branch: Branch,
        problem: str,
        known: str,
        drafts: Sequence[Candidate],
        following: int,
        label: str,
        notes: list[str],
    ) -> list[str]:
        """A workspace for each of the next round's drafts, the same object where it is shared."""
        if self.distiller == "random_k":
            chosen = [
                sorted(branch.random.sample(range(len(drafts)), min(self.k, len(drafts))))
                for _ in range(following)
            ]
            return [self._shown([drafts[one] for one in subset]) for subset in chosen]
        texts = [without_thinking(draft.text) for draft in drafts]
        shown = {
            "context": known,
            "problem": problem,
            "count": len(drafts),
            "drafts": concat(texts).text,
        }
        if self.distiller == "summary":
            found = await branch.generate(
                branch.prompt("summarise", **shown),
                label=f"{label} distil",
                max_tokens=self.kappa,
            )
            branch.accept(found[0])
            return [without_thinking(found[0].text)] * following
        ask = branch.prompt("select", k=self.k, **shown)
        count = following if self.distiller == "per_sample_top_k" else 1
        found = await branch.generate(ask, n=count, label=f"{label} select")
        branch.accept(found[0])
        workspaces = []
        for one in found:
            picked = selected(one.text, len(drafts))[: self.k]
            if not picked:
                notes.append("a selection named no attempt: the first ones were taken")
                picked = list(range(min(self.k, len(drafts))))
            workspaces.append(self._shown([drafts[position] for position in picked]))
        if len(workspaces) < following:
            workspaces += [workspaces[0]] * (following - len(workspaces))
        return workspaces

    def _shown(self, drafts: Sequence[Candidate]) -> str:
        """Drafts within kappa tokens, each with an equal share; the ends, where answers are."""
        share = self.kappa // len(drafts)
        return concat([_ending(draft, share) for draft in drafts]).text


def _ending(draft: Candidate, tokens: int) -> str:
    """The end of a draft that has at most so many tokens, by the draft's own characters a token."""
    text = without_thinking(draft.text)
    used = draft.usage.completion_tokens
    if used <= tokens:
        return text
    return text[-max(1, len(draft.text) * tokens // used) :]


def selected(text: str, count: int) -> list[int]:
    """Positions that a selection names in its last line ``Best: 2, 3``; empty if in none."""
    lines = re.findall(r"best\W{0,6}([^\n]*)", text, re.IGNORECASE)
    named = [int(number) - 1 for number in re.findall(r"\d+", lines[-1])] if lines else []
    return list(dict.fromkeys(one for one in named if 0 <= one < count))
