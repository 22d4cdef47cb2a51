"""Plans from networkx graphs; ``Plan.graph`` is the way back."""

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
            ``tool``, ``args`` and ``kwargs`` as in a plan's JSON form: ``{"$ref": "$1"}`` is the
            result of task 1, and ``"about $1"`` a text with it. Each edge has to stand for a
            reference in an argument.

    Raises:
        UsageError: the graph is no plan; the message names the node or edge at fault.
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
    dependencies = {(source, task.id) for task in plan.tasks for source in task.dependencies}
    for source, node in graph.edges:
        if (source, node) not in dependencies:
            raise UsageError(
                f"the edge from {source} to {node} stands in no argument of {node}",
                hint=f'refer to it: {{"$ref": "${source}"}}, or leave the edge out',
            )
    return plan


def _task(node: int, attributes: dict[str, Any]) -> dict[str, Any]:
    if isinstance(task := attributes.get("task"), Task):
        return task.to_json()
    if not isinstance(attributes.get("tool"), str):
        raise UsageError(f"the node {node} names no tool", hint="graph.add_node(1, tool=…)")
    return {
        "id": node,
        "tool": attributes["tool"],
        "args": list(attributes.get("args", ())),
        "kwargs": dict(attributes.get("kwargs", {})),
    }
