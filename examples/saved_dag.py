"""A saved DAG, run with several inputs at once. No model is asked.

python examples/saved_dag.py
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from llmcompiler import LLMCompiler, parse_plan

PLAN = Path(__file__).with_suffix(".plan")


async def main() -> None:
    """Compare the density of some countries with Germany's."""
    plan = parse_plan(PLAN.read_text(encoding="utf-8"))
    names = ["Japan", "Peru", "Kenya", "Netherlands"]
    async with LLMCompiler(tools=["calc", "geo"], store=":memory:") as compiler:
        runs = (compiler.execute(plan, {"first": name}) for name in names)
        for name, result in zip(names, await asyncio.gather(*runs), strict=True):
            print(f"{name} is {result.value} times as densely populated as Germany")


if __name__ == "__main__":
    asyncio.run(main())
