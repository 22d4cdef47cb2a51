"""Plans to networkx graphs and back."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

from llmcompiler import Plan, UsageError, parse_plan, print_plan
from llmcompiler.plan.networkx import plan_from_graph


def test_to_networkx_and_back() -> None:
    plan = parse_plan('1. a("x")\n2. b($1.size, key=[$1])\n3. c("$2 and $1")')
    graph = plan.graph()
    assert set(graph.edges) == {(1, 2), (1, 3), (2, 3)}
    assert print_plan(plan_from_graph(graph)) == print_plan(plan)


def test_from_a_graph_of_ones_own() -> None:
    graph = nx.DiGraph()
    graph.add_node(2, tool="b", args=[{"$ref": "$1.size"}], kwargs={"key": 3})
    graph.add_node(1, tool="a")
    graph.add_edge(1, 2)
    plan = plan_from_graph(graph)
    assert isinstance(plan, Plan)
    assert print_plan(plan) == "1. a()\n2. b($1.size, key=3)\n"


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ({1: "a", 2: "b"}, [(1, 2)], "edge from 1 to 2 .* no argument"),
        ({1: "a", 2: "b"}, [(1, 2), (2, 1)], "cycle"),
        ({"x": "a"}, [], "'x' is no task number"),
        ({1: None}, [], "node 1 names no tool"),
    ],
)
def test_what_is_no_plan_is_refused(nodes: Any, edges: Any, message: str) -> None:
    graph = nx.DiGraph()
    for node, name in nodes.items():
        graph.add_node(node, **({"tool": name} if name else {}))
    graph.add_edges_from(edges)
    with pytest.raises(UsageError, match=message):
        plan_from_graph(graph)
