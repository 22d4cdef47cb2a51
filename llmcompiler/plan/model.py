"""The intermediate representation: a plan is a DAG of tasks, and this is its one definition.

Planners write plans, passes change them, the engine runs them, the log stores them. Tasks stand in
an order in which every reference points back, so a plan cannot hold a cycle; the readers of text
and JSON refuse cycles with a diagnostic. Ids are unique within a *run*: a replan continues the
numbering, so that ``$3`` means the same result in every plan of the run.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal as OneOf

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from llmcompiler.errors import UsageError
from llmcompiler.plan.expressions import (
    STAR,
    Argument,
    Expr,
    Input,
    Reference,
    expr_from_json,
    expr_to_json,
    references,
)

if TYPE_CHECKING:
    import networkx

InputType = OneOf["any", "string", "number", "integer", "boolean", "array", "object"]


class PlanInput(BaseModel):
    """A named value that a saved plan asks for when it is run.

    Attributes:
        name: how the plan refers to it (``$name``).
        type: the JSON type that a given value is checked against before anything runs.
        required: whether a run must give a value.
        default: the value if a run gives none and ``required`` is false.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: InputType = "any"
    required: bool = True
    default: JsonValue = None


class Task(BaseModel):
    """One call of a tool.

    Attributes:
        id: positive, unique in the run.
        tool: the tool's name.
        args: positional arguments, in order.
        kwargs: keyword arguments, in the order written.
        thought: what the planner wrote before the call; for readers only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=1)
    tool: str
    args: tuple[Argument, ...] = ()
    kwargs: dict[str, Argument] = Field(default_factory=dict)
    thought: str | None = None

    def expressions(self) -> Iterator[Expr]:
        """Every argument, positional ones first."""
        yield from self.args
        yield from self.kwargs.values()

    def named_arguments(self, parameters: Iterable[str]) -> dict[str, Expr]:
        """The arguments by name.

        Args:
            parameters: names of the tool's parameters, in positional order. Positional arguments
                beyond them are left out.
        """
        return dict(zip(parameters, self.args, strict=False)) | self.kwargs

    def references(self) -> list[Reference | Input]:
        """Every reference in the arguments, in reading order."""
        refs = references(self.args)
        return refs + references(self.kwargs.values()) if self.kwargs else refs

    @property
    def dependencies(self) -> tuple[int, ...]:
        """Ids of the tasks whose results this one needs, in reading order, each once."""
        task_ids = (ref.task for ref in self.references() if isinstance(ref, Reference))
        return tuple(dict.fromkeys(task_ids))

    @property
    def rank(self) -> int:
        """How many fan-out dimensions the task has: 0 for an ordinary call."""
        return max((ref.path.count(STAR) for ref in self.references()), default=0)

    def to_json(self) -> dict[str, JsonValue]:
        """The task's JSON form: ``model_dump(mode="json")``, but faster, as every run logs it."""
        return {
            "id": self.id,
            "tool": self.tool,
            "args": [expr_to_json(expr) for expr in self.args],
            "kwargs": {name: expr_to_json(expr) for name, expr in self.kwargs.items()},
            "thought": self.thought,
        }


class Join(BaseModel):
    """The end of a plan: the results that its answer is made of.

    Attributes:
        id: the join's number in the plan's text.
        on: ids of the tasks whose results the joiner is shown; empty means all tasks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=1)
    on: tuple[int, ...] = ()


class ToolPin(BaseModel):
    """What a saved plan records of a tool that it calls, to tell later what changed.

    Attributes:
        parameters_schema: JSON schema of the arguments.
        return_schema: JSON schema of the result; ``None`` if it was not known.
        version: the tool's version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters_schema: dict[str, JsonValue]
    return_schema: dict[str, JsonValue] | None = None
    version: str = ""


class Plan(BaseModel):
    """A DAG of tasks in an order in which every reference points back.

    Attributes:
        tasks: the calls.
        join: the results that the answer is made of; ``None`` if the plan stops before a join.
        inputs: values that a run of the plan must or may give.
        question: the question that the plan answers; may refer to inputs.
        earlier: ids of tasks of the run's earlier plans, to which this plan may refer.
        tools: the tools that the plan was made for, by name. Its JSON has them, its text has not.
        program: the text of a plan that is a program. Its tasks are the places that call a tool;
            the program decides how often each is called.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Argument | None = None
    inputs: tuple[PlanInput, ...] = ()
    tasks: tuple[Task, ...] = ()
    join: Join | None = None
    earlier: tuple[int, ...] = ()
    tools: dict[str, ToolPin] = Field(default_factory=dict)
    program: str | None = Field(default=None, exclude_if=lambda text: text is None)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return _decode(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check(self) -> Plan:
        task_ids = set(self.earlier)
        input_names = {declared.name for declared in self.inputs}
        for task in self.tasks:
            if task.id in task_ids:
                raise ValueError(f"task id {task.id} is used twice")
            for ref in task.references():
                if isinstance(ref, Reference) and ref.task not in task_ids:
                    raise ValueError(
                        f"task {task.id} refers to {ref}, which is not an earlier task"
                    )
                if isinstance(ref, Input) and ref.name not in input_names:
                    raise ValueError(f"task {task.id} refers to {ref}, which is not a plan input")
            task_ids.add(task.id)
        if self.join:
            for task_id in self.join.on:
                if task_id not in task_ids:
                    raise ValueError(f"join names {task_id}, which is not a task of the plan")
        return self

    def task(self, task_id: int) -> Task:
        """The task with this id.

        Raises:
            KeyError: there is no such task.
        """
        for task in self.tasks:
            if task.id == task_id:
                return task
        raise KeyError(task_id)

    def sinks(self) -> tuple[int, ...]:
        """Ids of the tasks that no other task of the plan needs."""
        used = {dep for task in self.tasks for dep in task.dependencies}
        return tuple(task.id for task in self.tasks if task.id not in used)

    def graph(self) -> networkx.DiGraph[int]:
        """The plan for networkx: a node per task (attribute ``task``), an edge per dependency."""
        import networkx as nx

        view: networkx.DiGraph[int] = nx.DiGraph()
        for task in self.tasks:
            view.add_node(task.id, task=task)
            view.add_edges_from((dep, task.id) for dep in task.dependencies)
        return view

    def __str__(self) -> str:
        import llmcompiler

        return llmcompiler.print_plan(self)

    def _repr_html_(self) -> str:
        # Through the package's lazy names: ``view`` stands above this module in the import order.
        import llmcompiler

        return llmcompiler.plan_html(self)

    @classmethod
    def of(cls, tasks: Iterable[Task], **fields: Any) -> Plan:
        """A plan of tasks."""
        return cls(tasks=tuple(tasks), **fields)


def _decode(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a plan, the JSON forms of its arguments read as expressions."""
    out = dict(data)
    input_names = {
        declared.name if isinstance(declared, PlanInput) else declared.get("name")
        for declared in data.get("inputs") or ()
        if isinstance(declared, PlanInput | dict)
    }
    task_ids: set[int] = set(data.get("earlier") or ())

    def read_expr(value: Any) -> Any:
        if isinstance(value, Expr):
            return value
        return expr_from_json(value, task_ids.__contains__, input_names.__contains__)

    if out.get("question") is not None:
        out["question"] = read_expr(out["question"])
    tasks: list[Any] = []
    for raw in data.get("tasks") or ():
        if isinstance(raw, dict):
            task = dict(raw)
            try:
                if isinstance(task.get("args"), list | tuple):
                    task["args"] = tuple(read_expr(value) for value in task["args"])
                if isinstance(task.get("kwargs"), dict):
                    task["kwargs"] = {key: read_expr(v) for key, v in task["kwargs"].items()}
            except ValueError as error:
                raise ValueError(f"task {task.get('id')}: {error}") from None
            tasks.append(task)
            identifier = task.get("id")
        else:
            tasks.append(raw)
            identifier = getattr(raw, "id", None)
        if isinstance(identifier, int):
            task_ids.add(identifier)
    out["tasks"] = tuple(tasks)
    return out


_INPUT_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def bind_inputs(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every input of a plan, defaults filled in.

    Args:
        plan: any plan.
        values: by the input's name.

    Raises:
        UsageError: a value is missing, belongs to no input, or has another type than declared.
    """
    names = [declared.name for declared in plan.inputs]
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"its inputs are: {', '.join(names)}" if names else "it has no inputs"
            raise UsageError(
                f'the plan has no input "{name}"',
                hint=f'did you mean "{close[0]}"? {hint}' if close else hint,
            )
    bound: dict[str, Any] = {}
    for declared in plan.inputs:
        if declared.name in values:
            bound[declared.name] = _check_input(declared, values[declared.name])
        elif declared.required:
            raise UsageError(
                f'the plan needs a value for its input "{declared.name}"',
                hint=f"give it with --input {declared.name}=…",
            )
        else:
            bound[declared.name] = declared.default
    return bound


def has_input_type(kind: InputType, value: Any) -> bool:
    """Whether a value is of an input's type."""
    types = _INPUT_TYPES.get(kind)
    if types is None:
        return True
    # JSON has no booleans among its numbers; Python has.
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _check_input(declared: PlanInput, value: Any) -> Any:
    if not has_input_type(declared.type, value):
        raise UsageError(
            f'input "{declared.name}" must be of type {declared.type}, not {json.dumps(value)}',
            hint=f"give it with --input {declared.name}=…",
        )
    return value
