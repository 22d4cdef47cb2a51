"""A small world for runs that are stopped: tools whose effects are counted, a model, plans."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmcompiler.llm.base import Request
from llmcompiler.reasoning.tool import think_tool
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve
from llmcompiler.testing.doubles import Answer, ScriptedModel
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.context import current_call


class World:
    """What is outside a run: tools whose effects are counted, and a model that knows its part.

    Args:
        plans: what the planner writes, round by round.
        chunk: characters of a piece of a plan.
    """

    def __init__(self, plans: Sequence[str], chunk: int = 4) -> None:
        self.effects: Counter[str] = Counter()
        self.plans = plans
        self.chunk = chunk
        self.requests: list[Request] = []

    def effect(self, key: str) -> None:
        """Note that the call ``task/index`` did what it does."""
        self.effects[key] += 1

    def tools(self) -> list[Tool]:
        @tool
        async def work(value: Any, seconds: float = 1) -> Any:
            """Give the value back, after some time, and count it."""
            await asyncio.sleep(seconds)
            self.effect(current_call().key.partition("/")[2])
            return value

        @tool
        async def spoil(value: Any) -> Any:
            """Never works."""
            self.effect(current_call().key.partition("/")[2])
            raise RuntimeError(f"no {value}")

        @tool(effect="write", approve=True)
        async def sign(value: Any) -> Any:
            """Give the value back, once somebody agreed, and count it."""
            self.written(current_call().key.partition("/")[2])
            return value

        @tool(effect="write")
        async def note(value: Any) -> Any:
            """Give the value back, after a second, and count it."""
            await asyncio.sleep(1)
            self.written(current_call().key.partition("/")[2])
            return value

        return [work, spoil, sign, note, think_tool()]

    def written(self, key: str) -> None:
        """Note that the call ``task/index`` of a tool that writes did what it does."""
        self.effect(key)

    async def approve(self, request: ApprovalRequest) -> ApprovalDecision:
        """Think for a second, and agree; being asked is an effect as well."""
        await asyncio.sleep(1)
        self.effect("/".join(map(str, ("ask", request.task, *request.index))))
        return Approve()

    def model(self) -> ScriptedModel:
        return ScriptedModel(self._answer)

    def _answer(self, request: Request) -> Answer:
        """Writes plan n after n - 1 replans, going on where it broke off; then answers."""
        self.requests.append(request)
        last = request.messages[-1].content
        if request.schema is not None:
            is_final = last.count("FINAL")
            text = "the answer" if is_final or len(self.plans) == 1 else "more is needed"
            action = "answer" if text == "the answer" else "replan"
            return Answer(json.dumps({"action": action, "text": text}), delay=0.1)
        if request.temperature:  # of a branch; planner and joiner ask for the likeliest text
            return Answer("Hm.\nAnswer: 7", chunk=8, delay=0.1)
        number = 1 if "more is needed" in last else 0
        plan = self.plans[number]
        if "The plan so far" in last:
            done = [line for line in plan.splitlines() if line.split("(")[0] in last]
            plan = "\n".join(plan.splitlines()[len(done) :])
        return Answer(plan, chunk=self.chunk, delay=0.1)


SHAPES = {
    "chain": ["1. work(1)\n2. work([$1])\n3. work([$2])\n4. join()"],
    "wide": ["1. work(1)\n2. work(2)\n3. work(3)\n4. work(4)\n5. join()"],
    "diamond": ["1. work(1)\n2. work([$1])\n3. work({'a': $1})\n4. work([$2, $3])\n5. join()"],
    "fan-out": ["1. work([3, 1, 2])\n2. work($1[*], seconds=$1[*])\n3. work($2[*])\n4. join()"],
    "failure": ["1. spoil(1)\n2. work(2)\n3. work($1)\n4. work($2)\n5. join()"],
    "approval": [
        "1. work(1)\n2. sign([$1])\n3. sign(2)\n4. work(3, seconds=3)\n5. work([$2, $3])\n6. join()"
    ],
    "reasoning": [
        "1. work(1)\n2. think('?', [$1], 'pdr', 2, 2)\n3. work(3)\n4. work([$2, $3])\n5. join()"
    ],
    "replan": ["1. work('a')\n2. join()", "3. work(['FINAL', $1])\n4. work($3)\n5. join()"],
}

PROGRAMS = {
    "independent loop": """
out = []
for n in [3, 1, 2]:
    first = work(n, n)
    if first > 1:
        out.append(work([first, n]))
late = work(len(out), 4)
answer = [out, late]
""",
    "nested loops": """
out = []
for n in work([2, 1]):
    for k in range(n):
        if n + k == 2:
            continue
        out.append(work(n * 10 + k, k + 1))
answer = [out, [work(x) for x in out if x > 10]]
""",
    "carried loop": """
total = 1
for n in range(3):
    total = work(total * 2 + n)
while total < 40:
    total += work(total)
    if total % 7 == 0:
        break
else:
    work("no break")
answer = total
""",
    "conditions": """
slow = work(1, 3)
quick = work(2)
if quick > 1 and work(quick) == 2:
    x = work("yes")
else:
    x = work("no")
y = work(slow) if slow > 1 else work(x)
answer = [x, y]
""",
    "helper function": """
def grow(x, by=2):
    y = work(x)
    if y > 1:
        return work(y * by)
    return y


answer = [grow(n) for n in [1, 2, 3]] + [grow(5, by=3)]
""",
    "writes": """
for n in [2, 1]:
    got = work(n, n)
    note(got)
    if got > 1:
        note(work(["behind", got]))
note("last")
answer = sign(work(3))
""",
    "caught failures": """
out = []
for n in [1, 2]:
    try:
        out.append(work(n, 3 - n))
        out.append(spoil(n))
        note("never")
    except ToolError as error:
        out.append(work(str(error)))
    finally:
        note(n)
answer = out
""",
    "a failure": """
a = work(1)
b = work(2, 5)
note(a)
c = [1][a]
note(b)
""",
}
"""Programs over the same tools; the last one fails."""
