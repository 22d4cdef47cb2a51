"""An app with tools of its own, answered by the embedded model; no key, no account.

python examples/agent_app.py "How much do 3 lamps and 2 chairs cost together?"
"""

from __future__ import annotations

import asyncio
import sys

from llmcompiler import Example, LLMCompiler, Prompts, ToolError, events, tool

PRICES = {"chair": 49.0, "desk": 199.0, "lamp": 35.5}
QUESTION = "How much do 3 lamps and 2 chairs cost together?"

# A small model plans far better with an example that uses the tools at hand.
PROMPTS = Prompts(
    examples=(
        Example(
            question="What do 2 desks and 4 chairs cost?",
            plan='1. price("desk")\n2. price("chair")\n3. calc("2 * $1 + 4 * $2")\n4. join()',
        ),
    )
)


@tool
async def price(item: str) -> float:
    """Price of one piece of an item of the shop, in euros.

    Args:
        item: what it is, in the singular, for example "chair".
    """
    await asyncio.sleep(0.5)  # the shop's database
    amount = PRICES.get(item.lower().removesuffix("s"))
    if amount is None:
        raise ToolError(f"the shop has no {item!r}", hint=f"it has: {', '.join(PRICES)}")
    return amount


async def main(question: str) -> None:
    """Answer the question, and tell what happens meanwhile."""
    async with LLMCompiler([price, "calc"], "local", prompts=PROMPTS) as compiler:
        async for event in compiler.stream(question):
            match event:
                case events.TaskStarted():
                    print(f"{event.at:5.1f} s  task {event.task} starts with {event.arguments}")
                case events.TaskFinished():
                    print(f"{event.at:5.1f} s  task {event.task} gave {event.value}")
                case events.RunFinished(failure=None):
                    print(f"{event.at:5.1f} s  {event.answer}")
                case events.RunFinished(failure=events.Failure() as failure):
                    print(f"{event.at:5.1f} s  failed: {failure.message}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
