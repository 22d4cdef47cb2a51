"""What the checker and the passes use: how they see a tool, and which results of a plan count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from llmcompiler.plan.diagnostics import Span
from llmcompiler.plan.model import Plan


class ToolView(Protocol):
    """What the checker uses of a tool."""

    @property
    def name(self) -> str:
        """What plans call it."""
        ...

    @property
    def parameters_schema(self) -> dict[str, Any]:
        """JSON schema of an object: ``properties`` in positional order, and ``required``."""
        ...

    @property
    def return_schema(self) -> dict[str, Any] | None:
        """JSON schema of the result; ``None`` if it is not known."""
        ...

    @property
    def lint(self) -> Callable[[str, Sequence[str]], str | None] | None:
        """Returns what is wrong with a text argument, or ``None``.

        It is called with the parameter's name and the pieces of text between references.
        """
        ...


class TaskLocation(Protocol):
    """Where a task stands in a plan's text; the parser's ``CallSource`` is one."""

    @property
    def tool(self) -> tuple[int, int]:
        """Offsets of the tool's name."""
        ...

    @property
    def args(self) -> tuple[tuple[int, int], ...]:
        """Offsets of the positional arguments."""
        ...

    @property
    def kwargs(self) -> Mapping[str, tuple[int, int]]:
        """Offsets of the keyword arguments' values."""
        ...

    def span(self, offsets: tuple[int, int]) -> Span:
        """The place between two offsets."""
        ...


class PassTool(Protocol):
    """What the passes use of a tool; see ``Tool`` for what each attribute means."""

    @property
    def name(self) -> str:
        """What plans call it."""
        ...

    @property
    def parameters_schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, properties in positional order."""
        ...

    @property
    def effect(self) -> str:
        """``read``, or ``write`` if a call changes the world outside."""
        ...

    @property
    def pure(self) -> bool:
        """True if the same arguments always give the same result."""
        ...

    @property
    def approve(self) -> bool:
        """True if somebody has to agree to a call."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take; ``None`` without a limit."""
        ...

    @property
    def is_async(self) -> bool:
        """True if a call returns an awaitable."""
        ...

    @property
    def reasons(self) -> bool:
        """True if a call is a reasoning branch; the tool then has a parameter ``strategy``."""
        ...

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Checked arguments by parameter name."""
        ...

    def encode(self, value: Any) -> Any:
        """A result as JSON."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        ...


class PlanResults(NamedTuple):
    """Tasks by what the plan does with their results.

    Attributes:
        own: the plan gives the results of these tasks under their own numbers.
        unused: the tasks among ``own`` that are there because no other task uses their results.
        joined: whoever joins the plan is shown the results of these tasks.
    """

    own: frozenset[int]
    unused: frozenset[int]
    joined: frozenset[int]


def plan_results(plan: Plan) -> PlanResults:
    """Which results a plan gives.

    A join that names tasks gives the results of those. Otherwise, a plan with a question shows the
    joiner all results, of which equal ones need not stand twice; a plan without a question gives
    the results that no task uses.
    """
    if plan.join is not None and plan.join.on:
        task_ids = frozenset(plan.join.on)
        return PlanResults(task_ids, frozenset(), task_ids)
    if plan.question is not None:
        return PlanResults(frozenset(), frozenset(), frozenset(task.id for task in plan.tasks))
    sinks = frozenset(plan.sinks())
    return PlanResults(sinks, sinks, sinks)
