"""Save: a run's plans become one plan that can be run again, perhaps with other inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.history.run_history import RunHistory
from llmcompiler.history.state import RunState
from llmcompiler.log.store import RunStore
from llmcompiler.plan.expressions import (
    DictExpr,
    Expr,
    Input,
    ListExpr,
    Literal,
    Reference,
    Template,
    is_identifier,
    make_dict,
    make_list,
)
from llmcompiler.plan.model import InputType, Join, Plan, PlanInput, Task, ToolPin
from llmcompiler.plan.types import SchemaType, json_types


def save_run(store: RunStore, run: str, *, parameterise: bool = False) -> Plan:
    """One plan that does what a run did, question included.

    All plans of the run are merged, and tasks keep their numbers. Failed tasks of earlier plans are
    left out, because a later plan made up for them.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.
        parameterise: True to make inputs of the strings and numbers that stand in the question;
            the run's values become their defaults. Each input is named after the first argument in
            which its value stands.

    Raises:
        UsageError: the run did not end, has no tasks, or no question to take inputs from.
        LogError: there is no such run, or its log is damaged.
    """
    history = RunHistory.load(store, run)
    state = history.state
    if state.status == "running":
        raise UsageError(f"run {history.run} did not end", hint=f"llmcompiler resume {history.run}")
    if not state.tasks:
        raise UsageError(
            f"run {history.run} has no tasks that could be saved", hint="save another run"
        )
    plan = _merge_plans(history)
    if parameterise:
        if plan.program is not None:
            raise UsageError(
                f"run {history.run} is one of a program, whose constants are not made inputs",
                hint="save it as it is, and name the inputs as parameters of main",
            )
        if plan.question is None:
            raise UsageError(
                f"run {history.run} has no question from which inputs could be taken",
                hint="save it without making inputs",
            )
        plan = _ConstantsToInputs(plan).apply()
    return plan


def _merge_plans(history: RunHistory) -> Plan:
    state, catalogue = history.state, history.start.catalogue
    task_ids = _saved_tasks(state)
    tasks = tuple(task.task for task_id, task in state.tasks.items() if task_id in task_ids)
    last = state.plans[-1]
    join = None
    if last.join is not None:
        join = Join(id=max(state.tasks) + 1, on=last.join)
    question: Expr | None = Literal(value=state.question) if state.question is not None else None
    inputs: tuple[PlanInput, ...] = ()
    executed_plan = history.saved_plan()
    if executed_plan is not None:
        question = executed_plan.question
        inputs = tuple(
            plan_input.model_copy(
                update={"required": False, "default": state.inputs[plan_input.name]}
            )
            for plan_input in executed_plan.inputs
        )
    programs = [plan for plan in state.plans if plan.program is not None]
    if programs and len(state.plans) > 1:
        raise UsageError(
            f"run {history.run} has several plans, and one of them is a program",
            hint="save a run that needed one plan",
        )
    return Plan(
        program=programs[0].program if programs else None,
        question=question,
        inputs=inputs,
        tasks=tasks,
        join=join,
        tools=tool_pins(tasks, catalogue),
    )


def _saved_tasks(state: RunState) -> set[int]:
    """Ids of the tasks of the last plan, of all that succeeded, and of what these depend on."""
    last = state.plans[-1]
    task_ids = {*last.tasks, *(last.join or ())}
    task_ids |= {task_id for task_id, task in state.tasks.items() if task.status == "done"}
    for task_id in sorted(state.tasks, reverse=True):
        if task_id in task_ids:
            task_ids.update(state.tasks[task_id].dependencies)
    return task_ids


def tool_pins(tasks: Sequence[Task], catalogue: Mapping[str, Any]) -> dict[str, ToolPin]:
    """What a saved plan records of the tools that its tasks call.

    Args:
        tasks: of the plan.
        catalogue: descriptions of the tools (``Tool.describe``), by name.
    """
    names = dict.fromkeys(task.tool for task in tasks)
    return {
        name: ToolPin(**{field: catalogue[name][field] for field in ToolPin.model_fields})
        for name in names
        if name in catalogue
    }


# Constants of the question become inputs.


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant of a call.

    Attributes:
        value: the constant.
        argument: the name of the argument in which it stands.
        kind: the type of the input that it becomes.
    """

    value: str | int | float
    argument: str
    kind: InputType

    @property
    def key(self) -> tuple[type, Any]:
        return type(self.value), self.value

    def pattern(self) -> str:
        """A pattern that finds it in the question, but not inside a longer word or number."""
        if isinstance(self.value, str):
            before = r"(?<!\w)" if self.value[0].isalnum() else ""
            after = r"(?!\w)" if self.value[-1].isalnum() else ""
            return f"{before}{re.escape(self.value)}{after}"
        return rf"(?<![\w.,\-]){re.escape(repr(self.value))}(?!\w|[.,]\d)"


class _ConstantsToInputs:
    """Turns those constants of a plan that stand in its question into inputs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._inputs: dict[tuple[type, Any], PlanInput] = {}

    def apply(self) -> Plan:
        """The plan with inputs. May be called once."""
        plan = self._plan
        assert plan.question is not None
        question = self._replace_in_question(plan.question)
        tasks = tuple(
            task.model_copy(
                update={
                    "args": tuple(map(self._replace, task.args)),
                    "kwargs": {name: self._replace(expr) for name, expr in task.kwargs.items()},
                }
            )
            for task in plan.tasks
        )
        inputs = (*plan.inputs, *self._inputs.values())
        return Plan(
            **{name: getattr(plan, name) for name in ("join", "earlier", "tools")},
            question=question,
            tasks=tasks,
            inputs=inputs,
        )

    def _replace_in_question(self, question: Expr) -> Expr:
        # The first argument with a constant names it, so the earliest comes last and wins.
        constants = {constant.key: constant for constant in reversed(list(self._constants()))}
        # The longest first: "New York" is one constant, not a "York" behind a word.
        candidates = sorted(constants.values(), key=lambda c: len(str(c.value)), reverse=True)
        if not candidates:
            return question
        pattern = re.compile("|".join(f"({constant.pattern()})" for constant in candidates))
        parts: list[str | Reference | Input] = []
        for part in (
            question.parts if isinstance(question, Template) else (_literal_text(question),)
        ):
            if not isinstance(part, str):
                parts.append(part)
                continue
            position = 0
            for match in pattern.finditer(part):
                assert match.lastindex is not None
                parts.append(part[position : match.start()])
                parts.append(Input(name=self._input(candidates[match.lastindex - 1])))
                position = match.end()
            parts.append(part[position:])
        if all(isinstance(part, str) for part in parts):
            return question
        return Template(parts=tuple(part for part in parts if part != ""))

    def _input(self, constant: _Constant) -> str:
        """The name of the constant's input, which is added if it is new."""
        if constant.key not in self._inputs:
            names = {used.name for used in (*self._plan.inputs, *self._inputs.values())}
            base = constant.argument if is_identifier(constant.argument) else "value"
            name, number = base, 1
            while name in names:
                number += 1
                name = f"{base}_{number}"
            self._inputs[constant.key] = PlanInput(
                name=name, type=constant.kind, required=False, default=constant.value
            )
        return self._inputs[constant.key].name

    def _constants(self) -> Iterator[_Constant]:
        for task in self._plan.tasks:
            pin = self._plan.tools.get(task.tool)
            schema: Mapping[str, Any] = pin.parameters_schema if pin is not None else {}
            properties: Mapping[str, Any] = schema.get("properties", {})
            names = (*properties, *("value" for _ in task.args))
            for name, expr in (*zip(names, task.args, strict=False), *task.kwargs.items()):
                is_numeric = "number" in json_types(SchemaType(properties.get(name, {}), schema))
                for value in _scalars(expr):
                    yield _Constant(value, name, _input_type(value, is_numeric))

    def _replace(self, expr: Expr) -> Expr:
        """The expression with inputs in place of constants."""
        match expr:
            case Literal(value=list() as items):
                return make_list([self._replace(Literal(value=item)) for item in items])
            case Literal(value=dict() as entries):
                return make_dict(
                    {key: self._replace(Literal(value=item)) for key, item in entries.items()}
                )
            case Literal(value=str() | int() | float() as value):
                plan_input = self._inputs.get((type(value), value))
                return Input(name=plan_input.name) if plan_input is not None else expr
            case ListExpr():
                return make_list([self._replace(item) for item in expr.items])
            case DictExpr():
                return make_dict({key: self._replace(item) for key, item in expr.entries})
        return expr


def _input_type(value: str | float, is_numeric: bool) -> InputType:
    if isinstance(value, str):
        return "string"
    return "integer" if isinstance(value, int) and not is_numeric else "number"


def _literal_text(question: Expr) -> str:
    assert isinstance(question, Literal)
    return str(question.value)


def _scalars(expr: Expr) -> Iterator[str | int | float]:
    """Yield the strings and numbers in an expression."""
    match expr:
        case Literal(value=bool()):
            return
        case Literal(value=str() | int() | float() as value) if value != "":
            yield value
        case Literal(value=list() as items):
            for item in items:
                yield from _scalars(Literal(value=item))
        case Literal(value=dict() as entries):
            for item in entries.values():
                yield from _scalars(Literal(value=item))
        case ListExpr():
            for item in expr.items:
                yield from _scalars(item)
        case DictExpr():
            for _, item in expr.entries:
                yield from _scalars(item)
