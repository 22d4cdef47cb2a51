"""Programs that are saved: read from a file or from an app, checked as a whole before they run."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import InputType, Plan, PlanInput, Task, has_input_type
from llmcompiler.programs.facts import ProgramIssue
from llmcompiler.programs.program import CompiledStatement, ProgramCompiler
from llmcompiler.tools.base import Tool

MAIN = "main"
"""The function of a saved program whose parameters are the plan's inputs."""

_TYPES: Mapping[str, InputType] = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "Any": "any",
}


_KEPT_PROGRAMS = 8
"""Compiled programs that are kept, so that a program is not compiled once to be checked and once
more to be run."""

_compiled: dict[
    tuple[str, tuple[str, ...]],
    tuple[Mapping[str, Tool], ProgramCompiler, tuple[CompiledStatement | Diagnostic, ...]],
] = {}


def compile_saved(
    text: str, tools: Mapping[str, Tool], inputs: tuple[str, ...]
) -> tuple[ProgramCompiler, tuple[CompiledStatement | Diagnostic, ...]]:
    """Compile the text of a saved program, with every mistake in it.

    Args:
        text: the program.
        tools: what it may call, by name.
        inputs: names that have a value at the start.
    """
    key = text, inputs
    entry = _compiled.get(key)
    if entry is None or not _same_tools(entry[0], tools):
        compiler = ProgramCompiler(tools, inputs=inputs, is_saved=True, collects=True)
        items = (*compiler.feed(text), *compiler.finish())
        while len(_compiled) >= _KEPT_PROGRAMS:
            del _compiled[next(iter(_compiled))]
        entry = _compiled[key] = (dict(tools), compiler, items)
    return entry[1], entry[2]


def _same_tools(first: Mapping[str, Tool], second: Mapping[str, Tool]) -> bool:
    return first.keys() == second.keys() and all(first[name] is second[name] for name in first)


def check_program(plan: Plan, tools: Mapping[str, Tool]) -> tuple[Plan, list[Diagnostic]]:
    """Compile a plan that is a program.

    Args:
        plan: has a ``program``. Inputs that it declares have values when the program starts.
        tools: what the program may call, by name.

    Returns:
        The plan with the calls of its program as tasks, and with the parameters of ``main`` as
        inputs; and every mistake in the text. After a mistake, tasks may be missing.
    """
    assert plan.program is not None
    names = tuple(declared.name for declared in plan.inputs)
    compiler, items = compile_saved(plan.program, tools, names)
    tasks: list[Task] = []
    diagnostics: list[Diagnostic] = []
    inputs = {declared.name: declared for declared in plan.inputs}
    for item in items:
        if isinstance(item, Diagnostic):
            diagnostics.append(item)
        else:
            tasks.extend(item.tasks)
    for statement in compiler.statements:
        if isinstance(statement, ast.FunctionDef) and statement.name == MAIN:
            try:
                inputs = {declared.name: declared for declared in read_parameters(statement)}
            except ProgramIssue as issue:
                diagnostics.append(compiler.diagnostic(issue, statement))
    changes = {"tasks": tuple(tasks), "inputs": tuple(inputs.values())}
    return plan.model_copy(update=changes), sorted(diagnostics, key=lambda item: item.line)


def read_parameters(function: ast.FunctionDef) -> tuple[PlanInput, ...]:
    """The parameters of a function as inputs of a plan.

    Raises:
        ProgramIssue: a parameter has a type or a default that no input can have.
    """
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        raise ProgramIssue(
            "E506", "main takes * or **", function, "name each input: def main(n: int = 3):"
        )
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [
        *[None] * (len(plain) - len(arguments.defaults)),
        *arguments.defaults,
        *arguments.kw_defaults,
    ]
    parameters = [*plain, *arguments.kwonlyargs]
    return tuple(map(_read_parameter, parameters, defaults))


def _read_parameter(parameter: ast.arg, default: ast.expr | None) -> PlanInput:
    name, kind = parameter.arg, _input_type(parameter)
    if default is None:
        return PlanInput(name=name, type=kind)
    try:
        value = ast.literal_eval(default)
        declared = PlanInput(name=name, type=kind, required=False, default=value)
    except ValueError:
        raise ProgramIssue(
            "E506",
            f"the default of {name} is no constant",
            default,
            "write it out as JSON data: a number, a text, a list, a dict",
        ) from None
    if value is not None and not has_input_type(kind, value):
        raise ProgramIssue("E506", f"the default of {name} is not of its type", default)
    return declared


def _input_type(parameter: ast.arg) -> InputType:
    annotation = parameter.annotation
    if annotation is None:
        return "any"
    if isinstance(annotation, ast.Subscript):  # list[int]
        annotation = annotation.value
    kind = _TYPES.get(annotation.id) if isinstance(annotation, ast.Name) else None
    if kind is None:
        raise ProgramIssue(
            "E506",
            f"{parameter.arg} has a type that no input can have",
            annotation,
            f"one of: {', '.join(_TYPES)}; leave it out for any",
        )
    return kind
