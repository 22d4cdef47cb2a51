"""CodeMonkeys: many programs, tests that models write, and a selection that runs both.

arXiv 2501.14723. Every candidate comes with a test of its own; all are run against all tests; the
few best then meet in a selection, in which a model writes tests that tell them apart and sees what
each prints. Tests are evidence and no oracles: a model wrote them. Programs run in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmcompiler.reasoning.base import Branch, Candidate, Capability, StrategyResult
from llmcompiler.reasoning.reducers import rank, run_tests
from llmcompiler.reasoning.sandbox import SECONDS, Execution, Sandbox, SandboxLimits

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CHOICE = re.compile(r"choice\W{0,6}(\d+)", re.IGNORECASE)


class CodeMonkeys(BaseModel):
    """``width`` candidates with a test each, the ``keep`` best of them in a selection.

    Attributes:
        width: candidates.
        keep: how many go into the selection.
        calls: most calls of the selection; then the best by tests is taken.
        original: code that the problem is about, whose output the selection is shown too.
        seconds: for one run of a program.
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
        known = {"context": f"{context}\n\n" if context else "", "problem": problem}
        written = await branch.generate(
            branch.prompt("write", **known),
            n=self.width,
            label="candidate",
        )
        programs = [code(one.text) for one in written]
        branch.keep(_outcome(written, programs, (0,), "the first candidate", {}))
        asked = await branch.generate_each(
            [branch.prompt("test", code=program, **known) for program in programs],
            label="test",
        )
        checks = [code(one.text) for one in asked]
        table = await run_tests(programs, checks, sandbox)
        votes = [sum(done.passed for done in row) for row in table]
        order = rank(programs, votes)
        data = {"votes": votes, "tests": len(checks), "hostile": _hostile(table)}
        branch.accept(written[order[0]], asked[0])
        by_tests = f"passes {votes[order[0]]} of {len(checks)} tests"
        outcome = _outcome(written, programs, order, by_tests, data)
        branch.keep(outcome)
        kept = order[: self.keep]
        if len(kept) == 1:
            return outcome
        chosen, calls = await self._select(
            branch, known, [programs[position] for position in kept], sandbox
        )
        data["selection_calls"] = calls
        if chosen is None:
            return _outcome(written, programs, order, f"{by_tests}; no choice was made", data)
        best = kept[chosen]
        order = (best, *(position for position in order if position != best))
        return _outcome(written, programs, order, f"chosen in {calls} calls", data)

    async def _select(
        self, branch: Branch, known: Mapping[str, str], programs: Sequence[str], sandbox: Sandbox
    ) -> tuple[int | None, int]:
        """The position that a model decides for, and how many calls that took."""
        shown = "\n\n".join(
            f"Candidate {number}:\n```python\n{program}\n```"
            for number, program in enumerate(programs, 1)
        )
        seen = ""
        for call in range(1, self.calls + 1):
            ask = branch.prompt("select", count=len(programs), candidates=shown, seen=seen, **known)
            said = (await branch.generate(ask, label="selection"))[0]
            branch.accept(said)
            choice = _CHOICE.findall(_BLOCK.sub("", said.text))
            if choice and 1 <= int(choice[-1]) <= len(programs):
                return int(choice[-1]) - 1, call
            if not _BLOCK.search(said.text):
                continue
            probe = code(said.text)
            rows = await run_tests([*programs, *filter(None, [self.original])], [probe], sandbox)
            names = [f"Candidate {number}" for number in range(1, len(programs) + 1)]
            outputs = "\n".join(
                f"{name}: {_printed(row[0])}"
                for name, row in zip([*names, "The original"], rows, strict=False)
            )
            seen += branch.prompt("seen", code=probe, outputs=outputs)
        return None, self.calls


def code(text: str) -> str:
    """The last code block of a text; the whole text where there is none."""
    blocks = _BLOCK.findall(text)
    return (blocks[-1] if blocks else text).strip()


def _outcome(
    written: Sequence[Candidate],
    programs: Sequence[str],
    order: Sequence[int],
    why: str,
    data: Mapping[str, object],
) -> StrategyResult:
    best = programs[order[0]]
    return StrategyResult(
        best, best, tuple(written[position] for position in order), why, (), dict(data)
    )


def _hostile(table: Sequence[Sequence[Execution]]) -> list[str]:
    """What programs tried and were denied, and limits that ended them; each once."""
    found = [line for row in table for done in row for line in done.denied]
    found += [
        f"limit: {done.ending}"
        for row in table
        for done in row
        if done.ending not in ("passed", "failed")
    ]
    return list(dict.fromkeys(found))


def _printed(done: Execution) -> str:
    lines = done.stderr.strip().splitlines()
    error = lines[-1] if lines else done.ending
    return done.stdout.strip() if done.passed else f"{done.stdout.strip()} [{error}]".strip()
