"""The plan builder: complete calls, joins and header lines become items of the plan.

The parser finds where a call ends. The builder reads the call, numbers it, and yields a task, or
refuses the call with a diagnostic.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import get_args

from llmcompiler.language.arguments import ArgumentReader
from llmcompiler.language.items import CallSource, ParsedItem, QuestionLine, ThoughtLine, span_of
from llmcompiler.language.spelling import (
    BROKEN_INPUT,
    DOLLAR,
    INPUT,
    QUESTION,
    THOUGHT,
    USUAL_HEAD,
)
from llmcompiler.language.symbols import InputMode, SymbolTable
from llmcompiler.language.syntax_issue import Offsets, Slip, SyntaxIssue
from llmcompiler.plan.diagnostics import Diagnostic, Span, did_you_mean
from llmcompiler.plan.expressions import Expr, Input, Literal, Reference, references
from llmcompiler.plan.model import InputType, Join, Plan, PlanInput, Task


class PlanBuilder:
    """Collects the plan as far as it was read.

    Args:
        earlier_ids: ids of tasks of the run's earlier plans.
        inputs: whether the plan can have inputs.
        first_id: the id that the plan's first task should have.

    Attributes:
        symbols: the tasks and inputs that calls can refer to.
        tasks: the tasks yielded so far.
        diagnostics: the diagnostics yielded so far.
        spans: the place of each yielded task in the text, by id.
        finished: True once a join or the end marker was read.
        line: number of the line that is being read.
    """

    def __init__(self, earlier_ids: Iterable[int], inputs: InputMode, first_id: int) -> None:
        self._earlier_ids = tuple(earlier_ids)
        self._inputs = inputs
        self.symbols = SymbolTable(self._earlier_ids, inputs, first_id)
        self.tasks: list[Task] = []
        self.diagnostics: list[Diagnostic] = []
        self.spans: dict[int, CallSource] = {}
        self.finished = False
        self.line = 1
        self._items: list[ParsedItem] = []
        self._join: Join | None = None
        self._thoughts: list[str] = []
        self._refused_at: dict[int, Span] = {}
        self._unknown_numbers: list[tuple[int, int, Span]] = []
        self._question: Expr | None = None
        self._question_line: tuple[str, int, int] | None = None

    def drain(self) -> list[ParsedItem]:
        """Return the items that were completed since the last call, and forget them."""
        items, self._items = self._items, []
        return items

    def plan(self) -> Plan:
        """The plan of everything that was yielded."""
        return Plan(
            question=self._question,
            inputs=tuple(self.symbols.inputs.values()),
            tasks=tuple(self.tasks),
            join=self._join,
            earlier=self._earlier_ids,
        )

    def diagnose(
        self,
        span: Span,
        code: str,
        message: str,
        *,
        hint: str = "",
        expected: str = "",
        task: int | None = None,
    ) -> None:
        """Yield a diagnostic."""
        diagnostic = Diagnostic.at(span, code, message, hint=hint, expected=expected, task=task)
        self.diagnostics.append(diagnostic)
        self._items.append(diagnostic)

    def accept_thought(self, text: str) -> None:
        """Take in a line of prose."""
        if label := THOUGHT.match(text):
            text = text[label.end() :]
        if len(text) > 1 and text[0] == text[-1] == '"':
            with contextlib.suppress(ValueError):
                text = str(json.loads(text))
        elif not text:
            return
        self._thoughts.append(text)
        self._items.append(ThoughtLine(text))

    def complete_call(
        self, raw: str, head: re.Match[str], end: int, missing_parenthesis: Span | None = None
    ) -> None:
        """Read a call, and yield its task.

        Args:
            raw: the text of the call's lines.
            head: the match of ``HEAD`` in it.
            end: offset behind the arguments.
            missing_parenthesis: place of a closing parenthesis that was filled in.
        """
        self.resolve_question()
        symbols = self.symbols
        start = head.start() + len(head[0]) - len(head[0].lstrip())
        number = int(head["id"]) if head["number"] else symbols.next_number
        if head["name"] == "join":
            self._accept_join(raw, head, end, number, missing_parenthesis)
            return
        try:
            task_id, is_renumbered = symbols.begin(number, (start, head.end("name")))
        except SyntaxIssue as issue:
            self._report_issue(raw, issue, number)
            return
        if is_renumbered:
            self.diagnose(
                span_of(raw, self.line, (start, head.end("name"))),
                "W109",
                f"the plan should go on at {task_id}, so its tasks were renumbered",
                hint=f"task {number} became {task_id}",
                task=task_id,
            )
        try:
            arguments = ArgumentReader(raw, head.end() + 1, end, symbols).read_arguments()
        except SyntaxIssue as issue:
            self.refuse_call(raw, head, issue)
            return
        self._report_spelling(raw, head, missing_parenthesis, task_id)
        self._report_slips(raw, arguments.slips, task_id)
        for unknown, offsets in arguments.unknown_numbers:
            self._unknown_numbers.append((task_id, unknown, span_of(raw, self.line, offsets)))
        task = Task(
            id=task_id,
            tool=head["name"],
            args=tuple(arguments.args),
            kwargs=arguments.kwargs,
            thought="\n".join(self._thoughts) if self._thoughts else None,
        )
        self._thoughts.clear()
        if self._inputs == "declare":
            self._declare_used(task.references())
        self.spans[task_id] = CallSource(
            raw, self.line, head.span("name"), tuple(arguments.arg_spans), arguments.kwarg_spans
        )
        symbols.accept(number, task_id, head["target"])
        self.tasks.append(task)
        self._items.append(task)

    def refuse_call(self, raw: str, head: re.Match[str], issue: SyntaxIssue) -> None:
        """Refuse a call: yield a diagnostic in place of its task."""
        number = int(head["id"]) if head["number"] else self.symbols.next_number
        if head["name"] != "join":
            self.symbols.refuse(number, map(int, DOLLAR.findall(raw, head.end())))
            self._refused_at.setdefault(number, span_of(raw, self.line, head.span("name")))
        self._thoughts.clear()
        self._report_issue(raw, issue, number)

    def _report_issue(self, raw: str, issue: SyntaxIssue, number: int | None) -> None:
        self.diagnose(
            span_of(raw, self.line, issue.span),
            issue.code,
            issue.message,
            hint=issue.hint,
            expected=issue.expected,
            task=number,
        )

    def _report_spelling(
        self, raw: str, head: re.Match[str], missing_parenthesis: Span | None, task_id: int | None
    ) -> None:
        """Warn of an unusual spelling of a call."""
        spelling = raw[head.start() : head.end("name")]
        if missing_parenthesis is None and not head["space"] and USUAL_HEAD.fullmatch(spelling):
            return
        usual = f"{task_id or 'N'}. {head['name']}(…)"
        span = span_of(
            raw, self.line, (head.end("name") - len(spelling.lstrip()), head.end("name"))
        )
        if head["number"] is None:
            self.diagnose(span, "W104", "a call without a number", expected=usual, task=task_id)
        elif head["target"] is not None:
            self.diagnose(
                span,
                "W105",
                f"the result is assigned to {head['target']}",
                expected=usual,
                task=task_id,
            )
        elif not USUAL_HEAD.fullmatch(spelling):
            self.diagnose(span, "W101", "unusual task number", expected=usual, task=task_id)
        if head["space"]:
            offsets = head.span("space")
            self.diagnose(
                span_of(raw, self.line, offsets),
                "W102",
                "space before the parenthesis",
                expected=usual,
                task=task_id,
            )
        if missing_parenthesis is not None:
            self.diagnose(
                missing_parenthesis, "W103", "the closing parenthesis is missing", task=task_id
            )

    def _report_slips(self, raw: str, slips: Iterable[Slip], task_id: int | None) -> None:
        for slip in slips:
            span = span_of(raw, self.line, slip.span)
            self.diagnose(span, slip.code, slip.message, hint=slip.hint, task=task_id)

    def _accept_join(
        self, raw: str, head: re.Match[str], end: int, number: int, missing_parenthesis: Span | None
    ) -> None:
        try:
            arguments = ArgumentReader(raw, head.end() + 1, end, self.symbols).read_arguments()
        except SyntaxIssue as issue:
            self.refuse_call(raw, head, issue)
            return
        self._report_spelling(raw, head, missing_parenthesis, None)
        self._report_slips(raw, arguments.slips, None)
        on: dict[int, None] = {}
        is_usual = not arguments.kwargs
        for expr in (*arguments.args, *arguments.kwargs.values()):
            is_usual &= isinstance(expr, Reference) and not expr.path
            for ref in references([expr]):
                if isinstance(ref, Reference):
                    on[ref.task] = None
            if isinstance(expr, Literal) and self.symbols.has_task(expr.value):
                resolved = self.symbols.resolve(Reference(task=expr.value))
                assert isinstance(resolved, Reference)
                on[resolved.task] = None
        if not is_usual:
            self.diagnose(
                span_of(raw, self.line, (head.start("name"), end)),
                "W107",
                "join takes references to tasks only",
                expected="join() or join($5, $6)",
            )
        self._accept_end(number, tuple(on))

    def accept_bare_join(self, line: str, join: re.Match[str]) -> None:
        """Take in a join without parentheses."""
        self.resolve_question()
        span = span_of(line, self.line, join.span("join"))
        self.diagnose(span, "W108", "join without parentheses", expected="join()")
        self._accept_end(int(join["id"]) if join["id"] else self.symbols.next_number, ())

    def _accept_end(self, number: int, on: tuple[int, ...]) -> None:
        self._join = Join(id=self.symbols.join_id(number), on=on)
        self._items.append(self._join)
        self._thoughts.clear()
        self.finished = True

    def read_header(self, line: str) -> bool:
        """Read the line if it is a header; False if it is something else."""
        if question := QUESTION.match(line):
            if self._question_line is not None or self.tasks:
                self.diagnose(
                    self._span_of_line(line),
                    "E119",
                    "the question stands once, before the first task",
                )
            else:
                self._question_line = (line, self.line, question.end())
            return True
        declaration = INPUT.match(line)
        if declaration is None and not BROKEN_INPUT.match(line):
            return False
        try:
            self._declare(line, declaration)
        except SyntaxIssue as issue:
            self._report_issue(line, issue, None)
        return True

    def _declare(self, line: str, match: re.Match[str] | None) -> None:
        span = (len(line) - len(line.lstrip()), len(line.rstrip()))
        expected = "input name: type = default"
        if match is None:
            raise SyntaxIssue("E118", "an input cannot be read", span, expected=expected)
        name = match["name"]
        if self.tasks or name in self.symbols.inputs:
            raise SyntaxIssue(
                "E119", f"input {name!r} is declared once, before the first task", span
            )
        kind = match["type"] or match["type2"] or "any"
        kinds: dict[str, InputType] = {kind: kind for kind in get_args(InputType)}
        if kind not in kinds:
            raise SyntaxIssue(
                "E118",
                f"{kind!r} is not a type of input",
                match.span("type" if match["type"] else "type2"),
                hint=did_you_mean(kind, kinds),
                expected=", ".join(kinds),
            )
        if match[0].endswith("=") and match["end"] is None and match["end2"] is None:
            value = ArgumentReader(line, match.end(), len(line), _EMPTY_SCOPE).read_value()
            assert isinstance(value, Literal)
            plan_input = PlanInput(name=name, type=kinds[kind], required=False, default=value.value)
        else:
            plan_input = PlanInput(name=name, type=kinds[kind])
        self.symbols.inputs[name] = plan_input
        self.symbols.declared = True
        self._items.append(plan_input)

    def resolve_question(self) -> None:
        """Read the question, once all ``input`` lines above the first task are read.

        The question can name the inputs that these lines declare.
        """
        if self._question_line is None or self._question is not None:
            return
        line, number, start = self._question_line
        current_line, self.line = self.line, number
        try:
            reader = ArgumentReader(line, start, len(line), self.symbols)
            self._question = reader.read_value()
        except SyntaxIssue as issue:
            self._question = Literal(value="")
            self._report_issue(line, issue, None)
        else:
            self._report_slips(line, reader.slips, None)
            self._declare_used(references([self._question]))
            self._items.append(QuestionLine(self._question))
        self.line = current_line

    def _declare_used(self, refs: Iterable[Reference | Input]) -> None:
        """Declare the inputs that are used: a plan without ``input`` lines needs no others."""
        for ref in refs:
            if isinstance(ref, Input) and ref.name not in self.symbols.inputs:
                plan_input = self.symbols.inputs[ref.name] = PlanInput(name=ref.name)
                self._items.append(plan_input)

    def _span_of_line(self, line: str) -> Span:
        return span_of(line, self.line, (len(line) - len(line.lstrip()), len(line.rstrip())))

    def end(self) -> None:
        """End the plan: yield the diagnostics that need the whole of it."""
        self.resolve_question()
        for task_id, number, span in self._unknown_numbers:
            if self.symbols.in_plan(number):
                self.diagnose(
                    span,
                    "W111",
                    f"${number} in this string is text, since task {number} does not come before",
                    hint=f"put task {number} before this one, or write $${number}",
                    task=task_id,
                )
        for cycle in self.symbols.cycles():
            self.diagnose(
                self._refused_at[cycle[0]],
                "E205",
                f"tasks wait for each other: {' -> '.join(map(str, cycle))}",
                hint="one of them must do without the other's result",
                task=cycle[0],
            )


class _EmptyScope:
    """The scope of constants: references name nothing."""

    is_renumbered = False

    def has_task(self, number: int) -> bool:
        return False

    def has_input(self, name: str) -> bool:
        return False

    def resolve(self, ref: Reference | Input) -> Reference | Input:
        return ref

    def resolve_bare(self, ref: Reference | Input, span: Offsets) -> Reference | Input:
        raise SyntaxIssue("E118", f"a default is a constant, and {ref} is none", span)

    def word_hint(self, word: str) -> str:
        return "put text into quotes"


_EMPTY_SCOPE = _EmptyScope()
