"""Planner and joiner with the embedded model: the default prompts suit a small model."""

from __future__ import annotations

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.plan.model import Plan

pytestmark = pytest.mark.model


async def test_the_embedded_model_plans_a_comparison() -> None:
    async with LLMCompiler(store=":memory:") as compiler:
        plan = await compiler.plan("What is the ratio of the populations of Sweden and Norway?")
    assert isinstance(plan, Plan)
    looked_up = [task for task in plan.tasks if task.tool == "country"]
    assert len(looked_up) == 2
    assert all(task.dependencies == () for task in looked_up)
    dependencies = {task_id for task in plan.tasks for task_id in task.dependencies}
    assert dependencies == {task.id for task in looked_up}


async def test_the_embedded_model_answers_with_the_right_entity_and_number() -> None:
    question = "Which is more densely populated, Japan or Germany, and by what factor?"
    async with LLMCompiler(store=":memory:") as compiler:
        result = await compiler.run(question)
    assert result.answer is not None
    assert result.answer.index("Japan") < (result.answer + "Germany").index("Germany")
    assert "1.4" in result.answer
