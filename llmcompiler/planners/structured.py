"""The structured planner: a model writes the plan as JSON, held to a schema of the tools.

It serves endpoints that hold models to a JSON schema, but not to a grammar. Tasks start when the
JSON is complete, and not one by one as with the text planner.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmcompiler.errors import PlanError
from llmcompiler.language import parse_plan
from llmcompiler.language.lazy_grammar import shared_plan_schema
from llmcompiler.language.plan_schema import REFERENCE
from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.json_text import find_json
from llmcompiler.llm.messages import Message
from llmcompiler.passes.check import check_task
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import expr_from_json, expr_to_json
from llmcompiler.plan.model import Join, Task
from llmcompiler.planners.base import PlanItem, PlanningContext
from llmcompiler.planners.bounds import check_not_cut, describe_cut
from llmcompiler.planners.examples import select_examples, written_examples
from llmcompiler.planners.json_limits import bounded_json, load_bounded_json
from llmcompiler.planners.text import (
    describe_tools,
    earlier_result_types,
    format_guidelines,
    question_text,
    with_relevant_tools,
)
from llmcompiler.prompting.prompts import Prompts, fill
from llmcompiler.tools.base import Tool
from llmcompiler.tools.schema import Schema

_LEVELS_AROUND = 4
"""Levels of JSON around an argument: the plan, its tasks, the task, its arguments."""


class StructuredPlanner:
    """A planner that reads a model's JSON (a ``Planner``).

    Args:
        prompts: the texts that the model reads; it reads the examples as JSON.
    """

    name = "structured"

    def __init__(self, prompts: Prompts | None = None) -> None:
        self._prompts = prompts or Prompts()

    async def plan(self, context: PlanningContext) -> AsyncGenerator[PlanItem, None]:
        """See ``Planner.plan``."""
        context = with_relevant_tools(context)
        prefix = self._prefix(context)
        question = question_text(self._prompts, context)
        dialogue: tuple[Message, ...] = (Message("user", question),)
        errors: list[Diagnostic] = []
        for attempt in range(context.repairs + 1):
            request = Request(
                (*prefix, *dialogue), purpose="plan", schema=shared_plan_schema(context.tools)
            )
            text = cut = ""
            async for piece in context.ask(request):
                if isinstance(piece, Completion):
                    check_not_cut(piece, "plan")
                    text, cut = piece.text, describe_cut(piece, "plan")
            tasks, diagnostics = _read_plan(text, context)
            if cut and not tasks:
                diagnostics = [Diagnostic("E401", f"the plan is not complete: {cut}")]
            errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
            for diagnostic in diagnostics:
                yield diagnostic
            if not errors or (attempt == context.repairs and tasks):
                for task in tasks:
                    yield task
                yield Join(id=max((task.id for task in tasks), default=context.next_id - 1) + 1)
                return
            problems = "\n".join(diagnostic.render() for diagnostic in errors)
            complaint = fill(self._prompts.structured_repair, problems=problems)
            dialogue = (
                Message("user", question),
                Message("assistant", text),
                Message("user", complaint),
            )
        raise PlanError(
            "the planner wrote no plan that can be executed",
            diagnostics=tuple(errors),
            hint="ask in other words, or use a larger model",
        )

    def _prefix(self, context: PlanningContext) -> tuple[Message, ...]:
        system = fill(
            self._prompts.structured,
            tools=describe_tools(context.tools, context.profile),
            guidelines=format_guidelines(self._prompts, context.tools),
            today=context.today,
        )
        messages = [Message("system", system)]
        choose = select_examples if context.profile.invents_examples else written_examples
        for example in choose(self._prompts, context.tools):
            question = fill(self._prompts.question, question=example.question)
            plan = json.dumps(_as_json(parse_plan(example.plan).tasks, context.tools))
            messages += [Message("user", question), Message("assistant", plan)]
        return tuple(messages)


def _as_json(tasks: Iterable[Task], tools: Mapping[str, Tool]) -> Schema:
    """Tasks in the form of the schema, in which a reference is a string."""
    entries = []
    for task in tasks:
        names = tools[task.tool].parameters_schema.get("properties", {})
        arguments = task.named_arguments(names)
        args = {name: _without_markers(expr_to_json(expr)) for name, expr in arguments.items()}
        entries.append({"id": task.id, "tool": task.tool, "args": args})
    return {"tasks": entries}


def _without_markers(value: Any) -> Any:
    """An argument's JSON form with references as strings; a dict that is protected stays so."""
    if isinstance(value, dict):
        if value.keys() == {"$ref"}:
            return value["$ref"]
        if value.keys() == {"$literal"}:
            entries = value["$literal"].items()
            return {"$literal": {key: _without_markers(item) for key, item in entries}}
        return {key: _without_markers(item) for key, item in value.items()}
    return [_without_markers(item) for item in value] if isinstance(value, list) else value


def _read_plan(text: str, context: PlanningContext) -> tuple[list[Task], list[Diagnostic]]:
    """The sound tasks of the JSON, and all diagnostics."""
    produced = earlier_result_types(context)
    try:
        entries = _find_entries(text)
        calls = [(int(entry["id"]), str(entry["tool"]), dict(entry["args"])) for entry in entries]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        why = "the plan is not JSON of the form that was asked for"
        return [], [Diagnostic("E401", f"{why}: {error}")]
    tasks: list[Task] = []
    all_diagnostics: list[Diagnostic] = []
    for task_id, tool, args in calls:
        if task_id in produced or task_id < 1:
            hint = f"the next free number is {max(produced, default=0) + 1}"
            message = f"task number {task_id} cannot be used"
            all_diagnostics.append(Diagnostic("E201", message, task=task_id, hint=hint))
            continue
        try:
            kwargs = {
                name: expr_from_json(value, produced.__contains__, lambda _: False)
                for name, value in args.items()
            }
        except ValueError as error:
            all_diagnostics.append(Diagnostic("E202", f"{tool}: {error}", task=task_id))
            continue
        task, diagnostics = check_task(
            Task(id=task_id, tool=tool, kwargs=kwargs), tools=context.tools, result_types=produced
        )
        numbers = [number for number, _, _ in calls]
        diagnostics += [
            _reference_error(text, task_id, numbers)
            for text in _references_in(args)
            if _referenced_task(text) not in produced or _referenced_task(text) == task_id
        ]
        all_diagnostics += diagnostics
        if any(diagnostic.severity == "error" for diagnostic in diagnostics):
            produced.pop(task_id, None)
        else:
            tasks.append(task)
    return tasks, all_diagnostics


def _find_entries(text: str) -> list[Any]:
    """The tasks in a model's text, which may hold other words around the JSON.

    Raises:
        ValueError: there is no such JSON, or it is nested too deeply.
    """
    data = find_json(text, lambda value: isinstance(value, dict) and "tasks" in value)
    if data is None:
        data = load_bounded_json(text, _LEVELS_AROUND)
    tasks: list[Any] = bounded_json(data, _LEVELS_AROUND)["tasks"]
    return tasks


def _references_in(value: Any) -> Iterator[str]:
    """The strings in a value that are a reference as a whole."""
    if isinstance(value, str) and re.fullmatch(REFERENCE, value):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _references_in(inner)


def _referenced_task(reference: str) -> int:
    return int(re.split(r"[.\[]", reference[1:], maxsplit=1)[0])


def _reference_error(reference: str, task: int, numbers: Sequence[int]) -> Diagnostic:
    """The error of a reference to no task above.

    Without it, the reference would pass as text in silence.
    """
    number = _referenced_task(reference)
    subject = f"task {task} uses {reference}, but"
    if number not in numbers:
        return Diagnostic("E202", f"{subject} there is no task {number}", task=task)
    if task in numbers and numbers.index(number) < numbers.index(task):
        return Diagnostic("E207", f"{subject} task {number} was refused", task=task)
    return Diagnostic("E204", f"{subject} task {number} does not stand above it", task=task)
