"""Write the golden file of the log's schema version: a run that every later release must replay.

    python scripts/make_golden_log.py

The file of a released version is never written again; a new schema version gets a new file.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from llmcompiler.compiler import LLMCompiler
from llmcompiler.log.sqlite_file import SCHEMA_VERSION
from llmcompiler.log.store import RunStore
from llmcompiler.testing.doubles import ScriptedModel
from llmcompiler.tools.base import tool

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


@tool(version="1")
async def search(entity: str) -> dict[str, Any]:
    """Find facts about an entity."""
    if entity == "Oz":
        raise LookupError("there is no Oz")
    return {"name": entity, "size": len(entity), "parts": ["a", "é", "\U0001f30d"]}


@tool(version="1")
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


SCRIPT = [
    # A mistake that is repaired, a failure with a dependent task, a fan-out, a replan.
    'Thought: look\n1. search("Japan")\n2. search("Oz")\n3. ad($1.size, 2)\n',
    "3. add($2.size, 2)\n4. search($1.parts[*])\n5. join()",
    json.dumps({"action": "replan", "text": "Oz is nowhere; take Peru"}),
    '6. search("Peru")\n7. add($1.size, $6.size)\n8. join($7)',
    json.dumps({"action": "answer", "text": "Nine – “together”."}),
]


async def make(path: Path) -> str:
    """Run the script with a new file as its store, and return the run's id."""
    store = RunStore(path)
    result = await LLMCompiler([search, add], ScriptedModel(SCRIPT), store=store).run("How big?")
    assert result.answer == "Nine – “together”.", result
    store.compact()
    store.close()
    return result.run


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    file = GOLDEN / f"log-v{SCHEMA_VERSION}.db"
    file.unlink(missing_ok=True)
    print(asyncio.run(make(file)), file.stat().st_size, "bytes")
