"""Plans from networkx graphs; ``Plan.graph`` is the way there. It must not know tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llmcompiler.errors import UsageError
from llmcompiler.plan.model import Plan, Task

if TYPE_CHECKING:
    import networkx


def plan_from_graph(graph: networkx.DiGraph[Any]) -> Plan:
    """The plan that a graph describes.

    Args:
        graph: its nodes are task numbers with either a ``task`` (as ``Plan.graph`` has them) or a
            ``tool``, ``args`` and ``kwargs`` as in a plan's JSON form: ``{"$ref": "$1"}`` is task
            1's result, and ``"about $1"`` a text with it. Its edges say nothing that arguments do
            not.

    Raises:
        UsageError: the graph is no plan; says which node or edge is to blame.
    """
    import networkx as nx

    for node in graph:
        if not isinstance(node, int) or isinstance(node, bool) or node < 1:
            raise UsageError(f"the node {node!r} is no task number", hint="number nodes from 1")
    try:
        order = list(nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible as error:
        raise UsageError("the graph has a cycle", hint="a plan is a DAG") from error
    tasks = [_task(node, graph.nodes[node]) for node in order]
    try:
        plan = Plan.model_validate({"tasks": tasks})
    except ValidationError as error:
        raise UsageError(
            f"the graph is no plan: {error.errors(include_url=False)[0]['msg']}"
        ) from error
    carried = {(needed, task.id) for task in plan.tasks for needed in task.dependencies}
    for needed, node in graph.edges:
        if (needed, node) not in carried:
            raise UsageError(
                f"the edge from {needed} to {node} stands in no argument of {node}",
                hint=f'refer to it: {{"$ref": "${needed}"}}, or leave the edge out',
            )
    return plan


def _task(node: int, said: dict[str, Any]) -> dict[str, Any]:
    if isinstance(task := said.get("task"), Task):
        return task.to_json()
    if not isinstance(said.get("tool"), str):
        raise UsageError(f"the node {node} names no tool", hint="graph.add_node(1, tool=…)")
    return {
        "id": node,
        "tool": said["tool"],
        "args": list(said.get("args", ())),
        "kwargs": dict(said.get("kwargs", {})),
    }
