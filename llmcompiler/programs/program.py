"""A program: text that is compiled while it is written."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.expressions import CodeExpr, Literal
from llmcompiler.plan.model import Task
from llmcompiler.programs.analysis import Analysis
from llmcompiler.programs.checks import ProgramChecks
from llmcompiler.programs.facts import HelperSource, ProgramIssue, ToolFacts
from llmcompiler.programs.findings import Finding
from llmcompiler.programs.lowering import Lowering
from llmcompiler.programs.reader import ProgramReader, node_span
from llmcompiler.programs.spelling import spell
from llmcompiler.programs.statements import Compute, Each, Exit, Invoke, Loop, Statement, walk
from llmcompiler.tools.base import Tool


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement of a program's top level, ready to run.

    Attributes:
        statements: what it was lowered to.
        tasks: the calls in it, as tasks whose arguments are code.
        depths: how many loops each task's call stands in, by task id.
        text: the statement as written.
        line: its first line.
        program: the program that it belongs to.
    """

    statements: Sequence[Statement]
    tasks: tuple[Task, ...]
    depths: Mapping[int, int]
    text: str
    line: int
    program: ProgramCompiler


class ProgramCompiler:
    """Compiles a program piece by piece.

    Args:
        tools: what it may call, by name.
        first_id: the id of its first task.
        inputs: names that have a value at the start.
        is_saved: True for a program from a file, which may stand in a function ``main``.
        collects: True to go on behind a mistake, and find all of them.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        *,
        first_id: int = 1,
        inputs: Sequence[str] = (),
        is_saved: bool = False,
        collects: bool = False,
    ) -> None:
        self._is_saved = is_saved
        self._collects = collects
        self._tools = tools
        self._reader = ProgramReader()
        self._lowering = Lowering(tool_facts(tools), first_id, inputs)
        self._checks = ProgramChecks(
            spelled_tools(tools), self._lowering.helpers, inputs, lambda: self._reader.lines
        )
        self.analysis = Analysis(self._lowering.helpers)
        self._producers: dict[str, frozenset[int]] = {}
        self.failed = False
        """True once the program holds a mistake; nothing behind it is compiled."""
        self.source = ""
        """The text of the program up to the last statement that was compiled."""
        self._accepted: list[str] = []  # the statements that were compiled
        self._repeatable: list[str] = []  # those that the text may begin with again

    @property
    def helpers(self) -> Mapping[str, HelperSource]:
        """The program's helper functions."""
        return self._lowering.helpers

    def mark(self) -> Callable[[], None]:
        """Note how far the program has come.

        Returns:
            A function that forgets what was compiled since. It must not have been run.
        """
        source, count = self.source, len(self._accepted)
        names, variables = self._lowering.snapshot(), self._checks.snapshot()

        def rewind() -> None:
            self.source = source
            del self._accepted[count:]
            self._lowering.restore(names)
            self._checks.restore(variables)

        return rewind

    def reopen(self) -> None:
        """Go on behind the last statement that was compiled, with new text.

        Text that begins the program anew is understood: statements that are there already are left
        out.
        """
        self.failed = False
        self._reader = ProgramReader(self.source)
        self._repeatable = list(reversed(self._accepted))

    def feed(self, text: str) -> Iterator[CompiledStatement | Diagnostic]:
        """Take in a piece of text; yields what it completes."""
        for item in self._reader.feed(text):
            yield from self._compile(item)

    def finish(self) -> Iterator[CompiledStatement | Diagnostic]:
        """The text has ended."""
        for item in self._reader.finish():
            yield from self._compile(item)

    def _compile(self, item: ast.stmt | Diagnostic) -> Iterator[CompiledStatement | Diagnostic]:
        if self.failed and not self._collects:
            return
        if isinstance(item, Diagnostic):
            self.failed = self.failed or item.severity == "error"
            yield item
            return
        if self._is_repeated(item):
            if len(self._repeatable) == len(self._accepted) - 1:
                yield Diagnostic("W402", "the program begins anew; what it has is not run again")
            self._reader.drop(item)
            return
        names, variables = self._lowering.snapshot(), self._checks.snapshot()
        statements, diagnostics = self._lower(item)
        yield from diagnostics
        if any(diagnostic.severity == "error" for diagnostic in diagnostics):
            self.failed = True
            if not self._collects:
                self._lowering.restore(names)
                self._checks.restore(variables)
                return
        self.source = self._reader.source_until(item)
        self._accepted.append(ast.dump(item))
        self.analysis.analyse(statements)
        invokes = [statement for statement in walk(statements) if isinstance(statement, Invoke)]
        self._trace(statements)
        tasks = tuple(self._task(invoke) for invoke in invokes)
        yield CompiledStatement(
            statements,
            tasks,
            {invoke.site: invoke.depth for invoke in invokes},
            ast.unparse(item),
            item.lineno,
            self,
        )

    def _lower(self, item: ast.stmt) -> tuple[list[Statement], list[Diagnostic]]:
        """Lower and check a statement; behind a mistake only if all are to be found."""
        statements: list[Statement] = []
        diagnostics: list[Diagnostic] = []
        for node in self._parts(item):
            try:
                lowered = self._lowering.lower(node)
            except ProgramIssue as issue:
                diagnostics.append(self.diagnostic(issue, node))
                if not self._collects:
                    return statements, diagnostics
                self._declare(_stored_names(node))
                continue
            diagnostics += [
                self._of_finding(finding, node) for finding in self._checks.check(lowered)
            ]
            statements += lowered
        return statements, diagnostics

    def _declare(self, names: Iterable[str]) -> None:
        names = list(names)
        self._lowering.assigned.update(names)
        self._checks.declare(names)

    def _is_repeated(self, item: ast.stmt) -> bool:
        if self._repeatable and self._repeatable[-1] == ast.dump(item):
            self._repeatable.pop()
            return True
        self._repeatable.clear()
        return False

    @property
    def statements(self) -> Sequence[ast.stmt]:
        """The statements of the top level, as they were read."""
        return self._reader.statements

    def _parts(self, item: ast.stmt) -> list[ast.stmt]:
        """The statement; for the function ``main`` of a saved program, the statements in it."""
        if not (self._is_saved and isinstance(item, ast.FunctionDef) and item.name == "main"):
            return [item]
        arguments = item.args
        parameters = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        self._declare(parameter.arg for parameter in parameters)
        return item.body

    def diagnostic(self, issue: ProgramIssue, item: ast.stmt) -> Diagnostic:
        """What is wrong with a statement, with its place in the text."""
        return self._of_finding(Finding(issue.code, issue.message, issue.node, issue.hint), item)

    def _of_finding(self, finding: Finding, item: ast.stmt) -> Diagnostic:
        node = finding.node if hasattr(finding.node, "lineno") else item
        span = node_span(node, "\n".join(self._reader.lines))
        diagnostic = Diagnostic.at(
            span, finding.code, finding.message, hint=finding.hint, expected=finding.expected
        )
        return dataclasses.replace(diagnostic, linted=finding.linted)

    # Which tasks' results flow where, for the plan's edges.

    def _trace(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            match statement:
                case Invoke():
                    self._producers[statement.target] = frozenset({statement.site})
                case Compute():
                    used = self._uses(statement.reads)
                    for name in statement.writes:
                        self._producers[name] = used | (
                            self._producers.get(name, frozenset())
                            if name in statement.reads
                            else frozenset()
                        )
                    for name in _owners(statement):
                        self._producers[name] = self._producers.get(name, frozenset()) | used
                case Each():
                    self._producers[statement.item] = self._uses(statement.reads)
                case Exit() if statement.kind == "return":
                    self._producers["%return"] = self._uses(statement.reads)
                case _:
                    pass
            for _ in range(2 if isinstance(statement, Each | Loop) else 1):
                for block in statement.blocks:
                    self._trace(block)

    def _uses(self, names: frozenset[str]) -> frozenset[int]:
        out: frozenset[int] = frozenset()
        for name in names:
            out |= self._producers.get(name, frozenset())
        return out

    def answer_sources(self) -> tuple[int, ...]:
        """Ids of the tasks that the program's answer stands on."""
        for name in ("%return", "answer"):
            if name in self._producers:
                return tuple(sorted(self._producers[name]))
        return ()

    def _task(self, invoke: Invoke) -> Task:
        def argument(node: ast.expr) -> CodeExpr | Literal:
            if isinstance(node, ast.Constant):
                return Literal(value=node.value)
            names = frozenset(inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))
            # What a later iteration gets from a call further down is no edge: tasks are a DAG.
            earlier = (task for task in self._uses(names) if task < invoke.site)
            return CodeExpr(source=spell(node), uses=tuple(sorted(earlier)))

        return Task(
            id=invoke.site,
            tool=invoke.tool,
            args=tuple(argument(value) for value in invoke.args),
            kwargs={name: argument(value) for name, value in invoke.kwargs},
        )


def _stored_names(node: ast.stmt) -> set[str]:
    """Names that a statement assigns."""
    return {
        inner.id
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
    }


def _owners(statement: Compute) -> list[str]:
    """Variables whose value a statement may change in place."""
    out = []
    for top in statement.nodes:
        for node in ast.walk(top):
            if isinstance(node, ast.Subscript | ast.Attribute):
                root: ast.expr = node
                while isinstance(root, ast.Subscript | ast.Attribute):
                    root = root.value
                if isinstance(root, ast.Name):
                    out.append(root.id)
    return out


def spelled_tools(tools: Mapping[str, Tool]) -> dict[str, Tool]:
    """Tools by their names, and by the names that a program can spell."""
    out = dict(tools)
    for name, tool in tools.items():
        spelling = "".join(char if char.isalnum() or char in "_." else "_" for char in name)
        out.setdefault(spelling, tool)
    return out


def tool_facts(tools: Mapping[str, Tool]) -> dict[str, ToolFacts]:
    """What lowering needs to know of tools, by the names that a program can spell."""
    return {
        name: ToolFacts(
            tool.name, tuple(tool.parameters_schema.get("properties", ())), tool.effect == "write"
        )
        for name, tool in spelled_tools(tools).items()
    }
