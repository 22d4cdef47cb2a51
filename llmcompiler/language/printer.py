"""The printer: from a plan to the text that the parser reads back as the same plan.

It writes everything in one way: strings in double quotes with JSON's escapes, references without
quotes, dollar signs of a text doubled.
"""

from __future__ import annotations

import json
import re

from llmcompiler.plan.expressions import (
    CodeExpr,
    DictExpr,
    Expr,
    ListExpr,
    Literal,
    Template,
    expr_to_json,
)
from llmcompiler.plan.model import Plan, PlanInput, Task
from llmcompiler.plan.program_text import program_text

_KEYWORD = re.compile(r"[^\W\d][\w.\-]*")


def print_plan(plan: Plan) -> str:
    """Print a plan; the ids of earlier plans' tasks (``plan.earlier``) are not part of the text.

    A plan that is a program is printed as Python.
    """
    if plan.program is not None:
        return program_text(plan)
    lines = [_input_text(plan_input) for plan_input in plan.inputs]
    if plan.question is not None:
        lines.append(f"question {print_expr(plan.question)}")
    lines += map(print_task, plan.tasks)
    if plan.join is not None:
        on = ", ".join(f"${task}" for task in plan.join.on)
        lines.append(f"{plan.join.id}. join({on})")
    return "".join(f"{line}\n" for line in lines)


def print_task(task: Task) -> str:
    """Print a task: the lines of its thought, if it has one, and the line of its call."""
    arguments = [print_expr(expr) for expr in task.args]
    arguments += [f"{_keyword(name)}={print_expr(expr)}" for name, expr in task.kwargs.items()]
    call = f"{task.id}. {task.tool}({', '.join(arguments)})"
    return call if task.thought is None else f"{_thought_text(task.thought)}\n{call}"


def print_expr(expr: Expr) -> str:
    """Print one argument."""
    match expr:
        case Literal():
            return _literal_text(expr.value)
        case Template():
            return _string(str(expr_to_json(expr)))
        case ListExpr():
            return f"[{', '.join(map(print_expr, expr.items))}]"
        case CodeExpr():
            return expr.source
        case DictExpr():
            inner = (f"{_string(key)}: {print_expr(value)}" for key, value in expr.entries)
            return f"{{{', '.join(inner)}}}"
        case _:
            return str(expr)


def _literal_text(value: object) -> str:
    if isinstance(value, str):
        return _string(value.replace("$", "$$"))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal_text, value))}]"
    if isinstance(value, dict):
        # Keys are never scanned for references, so their dollar signs stay single.
        inner = (f"{_string(str(key))}: {_literal_text(item)}" for key, item in value.items())
        return f"{{{', '.join(inner)}}}"
    return json.dumps(value)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _keyword(name: str) -> str:
    return name if _KEYWORD.fullmatch(name) else _string(name)


def _thought_text(thought: str) -> str:
    lines = thought.split("\n")
    if all(line and line.isprintable() and line == line.strip() for line in lines) and not any(
        line.startswith('"') or "<END" in line for line in lines
    ):
        return "\n".join(f"Thought: {line}" for line in lines)
    return f"Thought: {json.dumps(thought)}".replace("<", "\\u003c")


def _input_text(plan_input: PlanInput) -> str:
    kind = "" if plan_input.type == "any" else f": {plan_input.type}"
    default = "" if plan_input.required else f" = {_literal_text(plan_input.default)}"
    return f"input {plan_input.name}{kind}{default}"
