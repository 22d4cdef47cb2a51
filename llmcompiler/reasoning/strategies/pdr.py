"""Parallel-Distill-Refine: rounds of parallel drafts; each round reads a digest of the last one.

arXiv 2510.01123. A round passes on a workspace of bounded size, rebuilt from the drafts of that
round alone. So the prompts of drafts stay short for any width, and the longest chain of calls does
not grow with the width. The known failure of the method is anchoring on a wrong draft; prompts
therefore call drafts possibly wrong and offer another route.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.answers import without_thinking
from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.reducers import concat

Distiller = Literal["summary", "shared_top_k", "per_sample_top_k", "random_k"]


class Pdr(BaseModel):
    """``rounds`` rounds of ``width`` drafts, then one final call.

    Attributes:
        width: drafts in a round; ignored if ``schedule`` is set.
        rounds: number of rounds; ignored if ``schedule`` is set.
        schedule: number of drafts of each round; the paper uses 16, 8, 4.
        distiller: how a round's drafts become a workspace. ``summary``: a model's digest of all
            drafts; ``shared_top_k``: the k drafts that a model finds best, for all next drafts;
            ``per_sample_top_k``: one such selection for each next draft; ``random_k``: a random
            subset for each next draft. With the first two, all drafts of a round share one prompt.
        k: number of drafts in a selection or subset.
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
        context_part = context_prefix(context)
        sizes = self.schedule or (self.width,) * self.rounds
        workspaces: list[str] = [""] * sizes[0]
        notes: list[str] = []
        drafts: list[Candidate] = []
        for round_number, next_size in enumerate((*sizes[1:], 1), 1):
            drafts = await self._round(
                branch, problem, context_part, workspaces, f"round {round_number}"
            )
            branch.accept(drafts[0])
            branch.keep(StrategyResult(drafts[0].text, drafts[0].answer, tuple(drafts), "a draft"))
            workspaces = await self._distil(
                branch, problem, context_part, drafts, next_size, f"round {round_number}", notes
            )
        final_draft = (await self._round(branch, problem, context_part, workspaces, "final"))[0]
        branch.accept(final_draft)
        why = f"{len(sizes)} rounds of {', '.join(map(str, sizes))} drafts by {self.distiller}"
        return StrategyResult(
            final_draft.text,
            final_draft.answer,
            (final_draft, *drafts),
            why,
            tuple(dict.fromkeys(notes)),
        )

    async def _round(
        self, branch: Branch, problem: str, context_part: str, workspaces: Sequence[str], label: str
    ) -> list[Candidate]:
        def build_prompt(workspace: str) -> str:
            workspace_part = branch.prompt("workspace", workspace=workspace) if workspace else ""
            return branch.prompt(
                "solve", context=context_part, problem=problem, workspace=workspace_part
            )

        options: dict[str, Any] = {
            "label": f"{label} draft",
            "top_p": 1.0,
        }
        if len(set(workspaces)) == 1:
            return await branch.generate(build_prompt(workspaces[0]), n=len(workspaces), **options)
        return await branch.generate_each(
            [build_prompt(workspace) for workspace in workspaces], **options
        )

    async def _distil(
        self,
        branch: Branch,
        problem: str,
        context_part: str,
        drafts: Sequence[Candidate],
        next_size: int,
        label: str,
        notes: list[str],
    ) -> list[str]:
        """Make the workspace of each next draft; a shared workspace is the same object for all.

        Args:
            branch: the branch.
            problem: the problem.
            context_part: the context in front of it.
            drafts: the drafts of this round.
            next_size: number of drafts of the next round.
            label: prefix of the calls' labels.
            notes: takes a note for each selection that names no draft.
        """
        if self.distiller == "random_k":
            subsets = [
                sorted(branch.random.sample(range(len(drafts)), min(self.k, len(drafts))))
                for _ in range(next_size)
            ]
            return [
                self._join_drafts([drafts[position] for position in subset]) for subset in subsets
            ]
        texts = [without_thinking(draft.text) for draft in drafts]
        prompt_values = {
            "context": context_part,
            "problem": problem,
            "count": len(drafts),
            "drafts": concat(texts).text,
        }
        if self.distiller == "summary":
            replies = await branch.generate(
                branch.prompt("summarise", **prompt_values),
                label=f"{label} distil",
                max_tokens=self.kappa,
            )
            branch.accept(replies[0])
            return [without_thinking(replies[0].text)] * next_size
        prompt = branch.prompt("select", k=self.k, **prompt_values)
        count = next_size if self.distiller == "per_sample_top_k" else 1
        replies = await branch.generate(prompt, n=count, label=f"{label} select")
        branch.accept(replies[0])
        workspaces = []
        for reply in replies:
            positions = parse_selection(reply.text, len(drafts))[: self.k]
            if not positions:
                notes.append("a selection named no attempt: the first ones were taken")
                positions = list(range(min(self.k, len(drafts))))
            workspaces.append(self._join_drafts([drafts[position] for position in positions]))
        if len(workspaces) < next_size:
            workspaces += [workspaces[0]] * (next_size - len(workspaces))
        return workspaces

    def _join_drafts(self, drafts: Sequence[Candidate]) -> str:
        """Join drafts within kappa tokens: each gets an equal share, filled with its end."""
        share = self.kappa // len(drafts)
        return concat([_cut_to_end(draft, share) for draft in drafts]).text


def _cut_to_end(draft: Candidate, max_tokens: int) -> str:
    """Cut a draft to its end, where the answer is; its own characters per token set the length."""
    text = without_thinking(draft.text)
    decoded_tokens = draft.usage.completion_tokens
    if decoded_tokens <= max_tokens:
        return text
    return text[-max(1, len(draft.text) * max_tokens // decoded_tokens) :]


def parse_selection(text: str, count: int) -> list[int]:
    """The positions in the last line ``Best: 2, 3`` of a reply; empty if it has no such line."""
    lines = re.findall(r"best\W{0,6}([^\n]*)", text, re.IGNORECASE)
    positions = [int(number) - 1 for number in re.findall(r"\d+", lines[-1])] if lines else []
    return list(dict.fromkeys(position for position in positions if 0 <= position < count))
