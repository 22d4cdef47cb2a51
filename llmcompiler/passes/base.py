"""What the passes know of a plan and its tools: which results must be kept, and what a call does.

Must not know any pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from llmcompiler.plan.model import Plan


class PassTool(Protocol):
    """What the passes know of a tool; see ``Tool`` for what each means."""

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
        """Whether the same arguments always give the same result."""
        ...

    @property
    def approve(self) -> bool:
        """Whether somebody has to agree to a call."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may take; ``None`` for as long as it likes."""
        ...

    @property
    def is_async(self) -> bool:
        """Whether a call gives an awaitable."""
        ...

    @property
    def reasons(self) -> bool:
        """Whether a call is a reasoning branch; it has a parameter ``strategy`` then."""
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


class Results(NamedTuple):
    """Tasks by what becomes of their results.

    Attributes:
        own: those whose result the plan gives under their number.
        unused: those of them that are given because no other task uses them.
        shown: all that whoever joins the plan is shown.
    """

    own: frozenset[int]
    unused: frozenset[int]
    shown: frozenset[int]


def results_of(plan: Plan) -> Results:
    """What the plan gives.

    A join that names tasks gives these. Otherwise a plan with a question shows the joiner all of
    its results, in which equal ones need not stand twice, and one without gives its last ones.
    """
    if plan.join is not None and plan.join.on:
        named = frozenset(plan.join.on)
        return Results(named, frozenset(), named)
    if plan.question is not None:
        return Results(frozenset(), frozenset(), frozenset(task.id for task in plan.tasks))
    last = frozenset(plan.sinks())
    return Results(last, last, last)
