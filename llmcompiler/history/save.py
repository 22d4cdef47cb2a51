"""Save: a run's plans become one plan that can be run again, with other inputs if wanted.

The module must not know how plans are written to files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import UsageError
from llmcompiler.events import RunStarted
from llmcompiler.history.recording import Recording
from llmcompiler.history.state import RunState, fold
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
from llmcompiler.plan.types import Typed, types_of


def save_run(store: RunStore, run: str, *, parameterise: bool = False) -> Plan:
    """One plan that does what a run did, question included.

    All plans of the run are merged, and tasks keep their numbers. Of earlier plans, tasks that
    did not succeed are left out, as the plan that came after made up for them.

    Args:
        store: where the run is.
        run: its id, a unique prefix of it, or ``last``.
        parameterise: whether strings and numbers that stand in the question become inputs of the
            plan, with what the run had as defaults. Each is named after the first argument in which
            it stands.

    Raises:
        UsageError: the run did not end, has no tasks, or no question to take inputs from.
        LogError: there is no such run, or its log is damaged.
    """
    run = store.find(run)
    recording = Recording(run, list(store.events(run)))
    state = fold(recording.events)
    if state.status == "running":
        raise UsageError(f"run {run} did not end", hint=f"llmcompiler resume {run}")
    if not state.tasks:
        raise UsageError(f"run {run} has no tasks that could be saved", hint="save another run")
    plan = _merged(state, recording.started)
    if parameterise:
        if plan.question is None:
            raise UsageError(
                f"run {run} has no question from which inputs could be taken",
                hint="save it without making inputs",
            )
        plan = _Parameters(plan).applied()
    return plan


def _merged(state: RunState, started: RunStarted) -> Plan:
    kept = _kept(state)
    tasks = [task.task for number, task in state.tasks.items() if number in kept]
    last = state.plans[-1]
    join = None
    if last.join is not None:
        join = Join(id=max(state.tasks) + 1, on=last.join)
    question: Expr | None = Literal(value=state.question) if state.question is not None else None
    inputs: tuple[PlanInput, ...] = ()
    if started.plan is not None:
        saved = Plan.model_validate(started.plan)
        question = saved.question
        inputs = tuple(
            given.model_copy(update={"required": False, "default": state.inputs[given.name]})
            for given in saved.inputs
        )
    return Plan(
        question=question,
        inputs=inputs,
        tasks=tuple(tasks),
        join=join,
        tools=tool_pins(tasks, started.catalogue),
    )


def _kept(state: RunState) -> set[int]:
    last = state.plans[-1]
    kept = {*last.tasks, *(last.join or ())}
    kept |= {number for number, task in state.tasks.items() if task.status == "done"}
    for number in sorted(state.tasks, reverse=True):
        if number in kept:
            kept.update(state.tasks[number].dependencies)
    return kept


def tool_pins(tasks: Sequence[Task], catalogue: Mapping[str, Any]) -> dict[str, ToolPin]:
    """What a saved plan records of the tools that its tasks call.

    Args:
        tasks: of the plan.
        catalogue: what each tool says of itself (``Tool.describe``), by name.
    """
    names = dict.fromkeys(task.tool for task in tasks)
    return {
        name: ToolPin(**{field: catalogue[name][field] for field in ToolPin.model_fields})
        for name in names
        if name in catalogue
    }


# Inputs out of constants.


@dataclass(frozen=True, slots=True)
class _Constant:
    """A constant of a call.

    Attributes:
        argument: the name of the argument in which it stands.
        kind: type of the input that it becomes.
    """

    value: str | int | float
    argument: str
    kind: InputType

    @property
    def key(self) -> tuple[type, Any]:
        return type(self.value), self.value

    def pattern(self) -> str:
        """Finds it in the question, but not inside a longer word or number."""
        if isinstance(self.value, str):
            before = r"(?<!\w)" if self.value[0].isalnum() else ""
            after = r"(?!\w)" if self.value[-1].isalnum() else ""
            return f"{before}{re.escape(self.value)}{after}"
        return rf"(?<![\w.,\-]){re.escape(repr(self.value))}(?!\w|[.,]\d)"


class _Parameters:
    """Turns constants of a plan that stand in its question into inputs."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._inputs: dict[tuple[type, Any], PlanInput] = {}

    def applied(self) -> Plan:
        plan = self._plan
        assert plan.question is not None
        question = self._question(plan.question)
        tasks = tuple(
            task.model_copy(
                update={
                    "args": tuple(map(self._replaced, task.args)),
                    "kwargs": {name: self._replaced(expr) for name, expr in task.kwargs.items()},
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

    def _question(self, question: Expr) -> Expr:
        # The longest first, so that "New York" is not taken for a "York" with something before it.
        constants = {constant.key: constant for constant in reversed(list(self._constants()))}
        longest = sorted(constants.values(), key=lambda one: len(str(one.value)), reverse=True)
        if not longest:
            return question
        places = re.compile("|".join(f"({one.pattern()})" for one in longest))
        found: list[str | Reference | Input] = []
        given = question.parts if isinstance(question, Template) else (_text(question),)
        for part in given:
            if not isinstance(part, str):
                found.append(part)
                continue
            position = 0
            for match in places.finditer(part):
                assert match.lastindex is not None
                found.append(part[position : match.start()])
                found.append(Input(name=self._input(longest[match.lastindex - 1])))
                position = match.end()
            found.append(part[position:])
        parts = tuple(part for part in found if part != "")
        return question if all(isinstance(part, str) for part in parts) else Template(parts=parts)

    def _input(self, constant: _Constant) -> str:
        if constant.key not in self._inputs:
            taken = {given.name for given in (*self._plan.inputs, *self._inputs.values())}
            base = constant.argument if is_identifier(constant.argument) else "value"
            name, number = base, 1
            while name in taken:
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
                numeric = "number" in types_of(Typed(properties.get(name, {}), schema))
                for value in _scalars(expr):
                    kind = _input_type(value, numeric)
                    yield _Constant(value, name, kind)

    def _replaced(self, expr: Expr) -> Expr:
        match expr:
            case Literal(value=list() as items):
                return make_list([self._replaced(Literal(value=item)) for item in items])
            case Literal(value=dict() as entries):
                return make_dict(
                    {key: self._replaced(Literal(value=item)) for key, item in entries.items()}
                )
            case Literal(value=str() | int() | float() as value):
                given = self._inputs.get((type(value), value))
                return Input(name=given.name) if given is not None else expr
            case ListExpr():
                return make_list([self._replaced(item) for item in expr.items])
            case DictExpr():
                return make_dict({key: self._replaced(item) for key, item in expr.entries})
        return expr


def _input_type(value: str | float, numeric: bool) -> InputType:
    if isinstance(value, str):
        return "string"
    return "integer" if isinstance(value, int) and not numeric else "number"


def _text(question: Expr) -> str:
    assert isinstance(question, Literal)
    return str(question.value)


def _scalars(expr: Expr) -> Iterator[str | int | float]:
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
