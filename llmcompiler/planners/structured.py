"""The structured planner: a model writes the plan as JSON, held to a schema of the tools.

For endpoints that hold models to a JSON schema but to no grammar. Tasks leave when the JSON is
complete, not one by one, which is what this form costs against the text planner's. The module must
not know who executes the tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmcompiler.errors import PlanError
from llmcompiler.language import parse_plan
from llmcompiler.language.plan_schema import REFERENCE, plan_schema
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.messages import Message
from llmcompiler.passes.check import check_task
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import expr_from_json, expr_to_json
from llmcompiler.plan.model import Join, Task
from llmcompiler.plan.types import Typed
from llmcompiler.planners.base import PlanItem, PlanningContext
from llmcompiler.planners.examples import choose_examples
from llmcompiler.planners.json_limits import read_written
from llmcompiler.planners.text import MAX_TOKENS, asked_of, catalogue, guidelines, relevant
from llmcompiler.prompting.prompts import Prompts, fill
from llmcompiler.tools.base import Tool
from llmcompiler.tools.schema import Schema

_AROUND = 4
"""Levels around an argument: the plan, its tasks, the task, its arguments."""


class StructuredPlanner:
    """A planner that reads a model's JSON (a ``Planner``).

    Args:
        prompts: texts that the model reads; the examples are shown as JSON.
    """

    name = "structured"

    def __init__(self, prompts: Prompts | None = None) -> None:
        self._prompts = prompts or Prompts()

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = relevant(context)
        prefix = self._prefix(context)
        question = asked_of(self._prompts, context)
        asked: tuple[Message, ...] = (Message("user", question),)
        errors: list[Diagnostic] = []
        for attempt in range(context.repairs + 1):
            request = Request(
                (*prefix, *asked), max_tokens=MAX_TOKENS, schema=plan_schema(context.tools)
            )
            text = ""
            async for piece in context.ask(request):
                if isinstance(piece, Completion):
                    text = piece.text
            tasks, found = _read(text, context)
            errors = [one for one in found if one.severity == "error"]
            for one in found:
                yield one
            if not errors or (attempt == context.repairs and tasks):
                for task in tasks:
                    yield task
                yield Join(id=max((task.id for task in tasks), default=context.next_id - 1) + 1)
                return
            problems = "\n".join(one.render() for one in errors)
            wrong = fill(self._prompts.structured_repair, problems=problems)
            asked = (Message("user", question), Message("assistant", text), Message("user", wrong))
        raise PlanError(
            "the planner wrote no plan that can be executed",
            diagnostics=tuple(errors),
            hint="ask in other words, or use a larger model",
        )

    def _prefix(self, context: PlanningContext) -> tuple[Message, ...]:
        system = fill(
            self._prompts.structured,
            tools=catalogue(context.tools),
            guidelines=guidelines(self._prompts, context.tools),
        )
        messages = [Message("system", system)]
        for example in choose_examples(self._prompts, context.tools):
            question = fill(self._prompts.question, question=example.question)
            plan = json.dumps(_as_json(parse_plan(example.plan).tasks, context.tools))
            messages += [Message("user", question), Message("assistant", plan)]
        return tuple(messages)


def _as_json(tasks: Iterable[Task], tools: Mapping[str, Tool]) -> Schema:
    """Tasks as the schema has them; a reference is a string, as in a template."""
    shown = []
    for task in tasks:
        names = tools[task.tool].parameters_schema.get("properties", {})
        given = dict(zip(names, task.args, strict=False)) | task.kwargs
        args = {name: _plain(expr_to_json(expr)) for name, expr in given.items()}
        shown.append({"id": task.id, "tool": task.tool, "args": args})
    return {"tasks": shown}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return value["$ref"] if "$ref" in value else {k: _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _read(text: str, context: PlanningContext) -> tuple[list[Task], list[Diagnostic]]:
    """The sound tasks of the JSON, and what is wrong with the others."""
    produced: dict[int, Typed | None] = {}
    for each in context.rounds:
        for task in each.plan.tasks:
            check_task(task, tools=context.tools, produced=produced)
    try:
        written = read_written(text, _AROUND)["tasks"]
        calls = [(int(one["id"]), str(one["tool"]), dict(one["args"])) for one in written]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        why = "the plan is not JSON of the form that was asked for"
        return [], [Diagnostic("E401", f"{why}: {error}")]
    tasks: list[Task] = []
    found: list[Diagnostic] = []
    for task_id, tool, args in calls:
        if task_id in produced or task_id < 1:
            hint = f"the next free number is {max(produced, default=0) + 1}"
            message = f"task number {task_id} cannot be used"
            found.append(Diagnostic("E201", message, task=task_id, hint=hint))
            continue
        try:
            kwargs = {
                name: expr_from_json(value, produced.__contains__, lambda _: False)
                for name, value in args.items()
            }
        except ValueError as error:
            found.append(Diagnostic("E202", f"{tool}: {error}", task=task_id))
            continue
        task, diagnostics = check_task(
            Task(id=task_id, tool=tool, kwargs=kwargs), tools=context.tools, produced=produced
        )
        numbers = [number for number, _, _ in calls]
        diagnostics += [
            _leads_nowhere(text, task_id, numbers)
            for text in _references_in(args)
            if _named(text) not in produced or _named(text) == task_id
        ]
        found += diagnostics
        if any(one.severity == "error" for one in diagnostics):
            produced.pop(task_id, None)
        else:
            tasks.append(task)
    return tasks, found


def _references_in(value: Any) -> Iterator[str]:
    """The strings in a value that are a reference from end to end."""
    if isinstance(value, str) and re.fullmatch(REFERENCE, value):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _references_in(inner)


def _named(reference: str) -> int:
    return int(re.split(r"[.\[]", reference[1:], maxsplit=1)[0])


def _leads_nowhere(reference: str, task: int, numbers: Sequence[int]) -> Diagnostic:
    """What is wrong with a reference to no task above: as text it would go wrong in silence."""
    named = _named(reference)
    what = f"task {task} uses {reference}, but"
    if named not in numbers:
        return Diagnostic("E202", f"{what} there is no task {named}", task=task)
    if task in numbers and numbers.index(named) < numbers.index(task):
        return Diagnostic("E207", f"{what} task {named} was refused", task=task)
    return Diagnostic("E204", f"{what} task {named} does not stand above it", task=task)
