"""CodeMonkeys: many programs, tests written by the model, and a selection that runs both.

arXiv 2501.14723. The model writes a test for every candidate, and all candidates run against all
tests. The best few enter a selection: a model writes code that tells them apart and sees what each
one prints. A test is only evidence, because a model wrote it. Programs run in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult, context_prefix
from llmcompiler.reasoning.reducers import rank_programs, run_tests
from llmcompiler.reasoning.sandbox import SECONDS, Execution, Sandbox, SandboxLimits

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CHOICE = re.compile(r"choice\W{0,6}(\d+)", re.IGNORECASE)


class CodeMonkeys(BaseModel):
    """``width`` candidates with a test each; a selection decides between the best ``keep``.

    Attributes:
        width: number of candidates.
        keep: number of candidates in the selection.
        calls: most calls of the selection; without a choice, the best by tests is taken.
        original: code that the problem is about; the selection sees its output as well.
        seconds: time limit of one run of a program.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "codemonkeys"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    prompts: ClassVar[Mapping[str, str]] = {
        "write": (
            "{context}{problem}\n\nWrite the Python code, complete with its imports, in one "
            "```python block. No examples, no input, no output."
        ),
        "test": (
            "{context}{problem}\n\nA solution, which may be wrong:\n\n```python\n{code}\n```\n\n"
            "Write a test of what the problem asks for, in one ```python block: only assert "
            "statements on values that you are sure of. The solution stands above it already."
        ),
        "select": (
            "{context}{problem}\n\n{count} candidate solutions:\n\n{candidates}\n\n{seen}"
            'Decide which is right. Either end with one line "Choice: N", or write a ```python '
            "block that is run after each candidate and prints what tells them apart."
        ),
        "seen": "This was run after each of them:\n```python\n{code}\n```\n{outputs}\n\n",
    }

    width: int = Field(default=4, ge=1)
    keep: int = Field(default=3, ge=1)
    calls: int = Field(default=10, ge=0)
    original: str = ""
    seconds: float = Field(default=SECONDS, gt=0)

    async def run(self, problem: str, context: str, branch: Branch) -> StrategyResult:
        """See ``Strategy.run``.

        Raises:
            UsageError: code cannot be contained on this machine.
        """
        sandbox = Sandbox(SandboxLimits(seconds=self.seconds))
        problem_parts = {"context": context_prefix(context), "problem": problem}
        candidates = await branch.generate(
            branch.prompt("write", **problem_parts),
            n=self.width,
            label="candidate",
        )
        programs = [extract_code(candidate.text) for candidate in candidates]
        branch.keep(_build_result(candidates, programs, (0,), "the first candidate", {}))
        test_candidates = await branch.generate_each(
            [branch.prompt("test", code=program, **problem_parts) for program in programs],
            label="test",
        )
        checks = [extract_code(candidate.text) for candidate in test_candidates]
        table = await run_tests(programs, checks, sandbox)
        votes = [sum(execution.passed for execution in row) for row in table]
        order = rank_programs(programs, votes)
        data = {"votes": votes, "tests": len(checks), "hostile": _hostile_actions(table)}
        branch.accept(candidates[order[0]], test_candidates[0])
        test_reason = f"passes {votes[order[0]]} of {len(checks)} tests"
        result = _build_result(candidates, programs, order, test_reason, data)
        branch.keep(result)
        finalists = order[: self.keep]
        if len(finalists) == 1:
            return result
        choice, calls = await self._select(
            branch, problem_parts, [programs[position] for position in finalists], sandbox
        )
        data["selection_calls"] = calls
        if choice is None:
            return _build_result(
                candidates, programs, order, f"{test_reason}; no choice was made", data
            )
        winner = finalists[choice]
        order = (winner, *(position for position in order if position != winner))
        return _build_result(candidates, programs, order, f"chosen in {calls} calls", data)

    async def _select(
        self,
        branch: Branch,
        problem_parts: Mapping[str, str],
        programs: Sequence[str],
        sandbox: Sandbox,
    ) -> tuple[int | None, int]:
        """The position that the model chooses (``None`` for no choice), and the calls it took."""
        programs_text = "\n\n".join(
            f"Candidate {number}:\n```python\n{program}\n```"
            for number, program in enumerate(programs, 1)
        )
        probe_history = ""
        for call in range(1, self.calls + 1):
            prompt = branch.prompt(
                "select",
                count=len(programs),
                candidates=programs_text,
                seen=probe_history,
                **problem_parts,
            )
            reply = (await branch.generate(prompt, label="selection"))[0]
            branch.accept(reply)
            choice = _CHOICE.findall(_BLOCK.sub("", reply.text))
            if choice and 1 <= int(choice[-1]) <= len(programs):
                return int(choice[-1]) - 1, call
            if not _BLOCK.search(reply.text):
                continue
            probe = extract_code(reply.text)
            rows = await run_tests([*programs, *filter(None, [self.original])], [probe], sandbox)
            names = [f"Candidate {number}" for number in range(1, len(programs) + 1)]
            outputs = "\n".join(
                f"{name}: {_describe_output(row[0])}"
                for name, row in zip([*names, "The original"], rows, strict=False)
            )
            probe_history += branch.prompt("seen", code=probe, outputs=outputs)
        return None, self.calls


def extract_code(text: str) -> str:
    """The last code block of a text; the whole text if it has none."""
    blocks = _BLOCK.findall(text)
    return (blocks[-1] if blocks else text).strip()


def _build_result(
    candidates: Sequence[Candidate],
    programs: Sequence[str],
    order: Sequence[int],
    why: str,
    data: Mapping[str, object],
) -> StrategyResult:
    program = programs[order[0]]
    return StrategyResult(
        program, program, tuple(candidates[position] for position in order), why, (), dict(data)
    )


def _hostile_actions(table: Sequence[Sequence[Execution]]) -> list[str]:
    """Forbidden actions that programs tried, and limits that ended them, without repetition."""
    actions = [line for row in table for execution in row for line in execution.denied_actions]
    actions += [
        f"limit: {execution.ending}"
        for row in table
        for execution in row
        if execution.ending not in ("passed", "failed")
    ]
    return list(dict.fromkeys(actions))


def _describe_output(execution: Execution) -> str:
    lines = execution.stderr.strip().splitlines()
    error = lines[-1] if lines else execution.ending
    return (
        execution.stdout.strip()
        if execution.passed
        else f"{execution.stdout.strip()} [{error}]".strip()
    )
