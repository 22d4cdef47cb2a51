"""The plan in the making: calls, joins and headers whose text is complete become items.

Where a call ends is known by now; here it is read, numbered, and given out, or refused with a
diagnostic. The module must not know how text arrives, nor what a line looks like before its call.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import get_args

from llmcompiler.language.arguments import ArgumentReader
from llmcompiler.language.items import CallSource, Item, Question, Thought, span_of
from llmcompiler.language.spelling import (
    BROKEN_INPUT,
    DOLLAR,
    INPUT,
    QUESTION,
    THOUGHT,
    USUAL,
)
from llmcompiler.language.symbols import Inputs, Names
from llmcompiler.language.syntax_issue import Note, Offsets, Refusal
from llmcompiler.plan.diagnostics import Diagnostic, Span, did_you_mean
from llmcompiler.plan.expressions import Expr, Input, Literal, Reference, references
from llmcompiler.plan.model import InputType, Join, Plan, PlanInput, Task


class PlanBuilder:
    """Everything of a plan that was read so far.

    Args:
        known: ids of tasks of the run's earlier plans.
        inputs: whether the plan can have inputs.
        first_id: the id that the plan should go on counting from.

    Attributes:
        names: what is known by name.
        tasks: those given out.
        diagnostics: everything found so far.
        spans: where each task given out stands in the text, by id.
        finished: whether a join or the end marker was read.
        line: number of the line that is being read.
    """

    def __init__(self, known: Iterable[int], inputs: Inputs, first_id: int) -> None:
        self._earlier = tuple(known)
        self._inputs = inputs
        self.names = Names(self._earlier, inputs, first_id)
        self.tasks: list[Task] = []
        self.diagnostics: list[Diagnostic] = []
        self.spans: dict[int, CallSource] = {}
        self.finished = False
        self.line = 1
        self._out: list[Item] = []
        self._join: Join | None = None
        self._thought: list[str] = []
        self._refused_at: dict[int, Span] = {}
        self._later: list[tuple[int, int, Span]] = []
        self._question: Expr | None = None
        self._question_line: tuple[str, int, int] | None = None

    def take(self) -> list[Item]:
        """What came out since the last time."""
        items, self._out = self._out, []
        return items

    def plan(self) -> Plan:
        """The plan made of everything that was given out."""
        return Plan(
            question=self._question,
            inputs=tuple(self.names.inputs.values()),
            tasks=tuple(self.tasks),
            join=self._join,
            earlier=self._earlier,
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
        """Note what is wrong or unusual."""
        found = Diagnostic.at(span, code, message, hint=hint, expected=expected, task=task)
        self.diagnostics.append(found)
        self._out.append(found)

    def accept_thought(self, text: str) -> None:
        """A line of prose."""
        if label := THOUGHT.match(text):
            text = text[label.end() :]
        if len(text) > 1 and text[0] == text[-1] == '"':
            with contextlib.suppress(ValueError):
                text = str(json.loads(text))
        elif not text:
            return
        self._thought.append(text)
        self._out.append(Thought(text))

    def complete(
        self, raw: str, head: re.Match[str], end: int, missing: Span | None = None
    ) -> None:
        """Read a call whose arguments end at ``end``, and give the task out."""
        self.settle_headers()
        names = self.names
        start = head.start() + len(head[0]) - len(head[0].lstrip())
        number = int(head["id"]) if head["number"] else names.next
        if head["name"] == "join":
            self._accept_join(raw, head, end, number, missing)
            return
        try:
            task_id, renumbered = names.begin(number, (start, head.end("name")))
        except Refusal as refusal:
            self._report(raw, refusal, number)
            return
        if renumbered:
            self.diagnose(
                span_of(raw, self.line, (start, head.end("name"))),
                "W109",
                f"the plan should go on at {task_id}, so its tasks were renumbered",
                hint=f"task {number} became {task_id}",
                task=task_id,
            )
        try:
            found = ArgumentReader(raw, head.end() + 1, end, names).arguments()
        except Refusal as refusal:
            self.refuse_call(raw, head, refusal)
            return
        self._note_slips(raw, head, missing, task_id)
        self._note(raw, found.notes, task_id)
        for later, offsets in found.later:
            self._later.append((task_id, later, span_of(raw, self.line, offsets)))
        task = Task(
            id=task_id,
            tool=head["name"],
            args=tuple(found.args),
            kwargs=found.kwargs,
            thought="\n".join(self._thought) if self._thought else None,
        )
        self._thought.clear()
        if self._inputs == "declare":
            self._declare_used(task.references())
        self.spans[task_id] = CallSource(
            raw, self.line, head.span("name"), tuple(found.arg_spans), found.kwarg_spans
        )
        names.accept(number, task_id, head["target"])
        self.tasks.append(task)
        self._out.append(task)

    def refuse_call(self, raw: str, head: re.Match[str], refusal: Refusal) -> None:
        """A call that yields no task."""
        number = int(head["id"]) if head["number"] else self.names.next
        if head["name"] != "join":
            self.names.refuse(number, map(int, DOLLAR.findall(raw, head.end())))
            self._refused_at.setdefault(number, span_of(raw, self.line, head.span("name")))
        self._thought.clear()
        self._report(raw, refusal, number)

    def _report(self, raw: str, refusal: Refusal, number: int | None) -> None:
        self.diagnose(
            span_of(raw, self.line, refusal.span),
            refusal.code,
            refusal.message,
            hint=refusal.hint,
            expected=refusal.expected,
            task=number,
        )

    def _note_slips(
        self, raw: str, head: re.Match[str], missing: Span | None, task_id: int | None
    ) -> None:
        """Warn of an unusual way to write a call."""
        written = raw[head.start() : head.end("name")]
        if missing is None and not head["space"] and USUAL.fullmatch(written):
            return
        usual = f"{task_id or 'N'}. {head['name']}(…)"
        written = raw[head.start() : head.end("name")]
        span = span_of(raw, self.line, (head.end("name") - len(written.lstrip()), head.end("name")))
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
        elif not USUAL.fullmatch(written):
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
        if missing is not None:
            self.diagnose(missing, "W103", "the closing parenthesis is missing", task=task_id)

    def _note(self, raw: str, notes: Iterable[Note], task_id: int | None) -> None:
        for note in notes:
            span = span_of(raw, self.line, note.span)
            self.diagnose(span, note.code, note.message, hint=note.hint, task=task_id)

    def _accept_join(
        self, raw: str, head: re.Match[str], end: int, number: int, missing: Span | None
    ) -> None:
        try:
            found = ArgumentReader(raw, head.end() + 1, end, self.names).arguments()
        except Refusal as refusal:
            self.refuse_call(raw, head, refusal)
            return
        self._note_slips(raw, head, missing, None)
        self._note(raw, found.notes, None)
        on: dict[int, None] = {}
        usual = not found.kwargs
        for expr in (*found.args, *found.kwargs.values()):
            usual &= isinstance(expr, Reference) and not expr.path
            for ref in references([expr]):
                if isinstance(ref, Reference):
                    on[ref.task] = None
            if isinstance(expr, Literal) and self.names.known(expr.value):
                shifted = self.names.resolve(Reference(task=expr.value))
                assert isinstance(shifted, Reference)
                on[shifted.task] = None
        if not usual:
            self.diagnose(
                span_of(raw, self.line, (head.start("name"), end)),
                "W107",
                "join takes references to tasks only",
                expected="join() or join($5, $6)",
            )
        self._finish(number, tuple(on))

    def accept_bare_join(self, line: str, join: re.Match[str]) -> None:
        """A join without parentheses."""
        self.settle_headers()
        span = span_of(line, self.line, join.span("join"))
        self.diagnose(span, "W108", "join without parentheses", expected="join()")
        self._finish(int(join["id"]) if join["id"] else self.names.next, ())

    def _finish(self, number: int, on: tuple[int, ...]) -> None:
        self._join = Join(id=self.names.join_id(number), on=on)
        self._out.append(self._join)
        self._thought.clear()
        self.finished = True

    def header(self, line: str) -> bool:
        """Read a header line, if it is one."""
        if question := QUESTION.match(line):
            if self._question_line is not None or self.tasks:
                self.diagnose(
                    self._whole(line), "E119", "the question stands once, before the first task"
                )
            else:
                self._question_line = (line, self.line, question.end())
            return True
        declared = INPUT.match(line)
        if declared is None and not BROKEN_INPUT.match(line):
            return False
        try:
            self._declare(line, declared)
        except Refusal as refusal:
            self._report(line, refusal, None)
        return True

    def _declare(self, line: str, match: re.Match[str] | None) -> None:
        whole = (len(line) - len(line.lstrip()), len(line.rstrip()))
        expected = "input name: type = default"
        if match is None:
            raise Refusal("E118", "an input cannot be read", whole, expected=expected)
        name = match["name"]
        if self.tasks or name in self.names.inputs:
            raise Refusal("E119", f"input {name!r} is declared once, before the first task", whole)
        kind = match["type"] or match["type2"] or "any"
        kinds: dict[str, InputType] = {one: one for one in get_args(InputType)}
        if kind not in kinds:
            raise Refusal(
                "E118",
                f"{kind!r} is not a type of input",
                match.span("type" if match["type"] else "type2"),
                hint=did_you_mean(kind, kinds),
                expected=", ".join(kinds),
            )
        if match[0].endswith("=") and match["end"] is None and match["end2"] is None:
            value = ArgumentReader(line, match.end(), len(line), _NOTHING_KNOWN).value()
            assert isinstance(value, Literal)
            given = PlanInput(name=name, type=kinds[kind], required=False, default=value.value)
        else:
            given = PlanInput(name=name, type=kinds[kind])
        self.names.inputs[name] = given
        self.names.declared = True
        self._out.append(given)

    def settle_headers(self) -> None:
        """The first task is here: now it is known which inputs the question can name."""
        if self._question_line is None or self._question is not None:
            return
        line, number, start = self._question_line
        here, self.line = self.line, number
        try:
            reader = ArgumentReader(line, start, len(line), self.names)
            self._question = reader.value()
        except Refusal as refusal:
            self._question = Literal(value="")
            self._report(line, refusal, None)
        else:
            self._note(line, reader.notes, None)
            self._declare_used(references([self._question]))
            self._out.append(Question(self._question))
        self.line = here

    def _declare_used(self, used: Iterable[Reference | Input]) -> None:
        """In a plan without ``input`` lines, using an input declares it."""
        for ref in used:
            if isinstance(ref, Input) and ref.name not in self.names.inputs:
                given = self.names.inputs[ref.name] = PlanInput(name=ref.name)
                self._out.append(given)

    def _whole(self, line: str) -> Span:
        return span_of(line, self.line, (len(line) - len(line.lstrip()), len(line.rstrip())))

    def end(self) -> None:
        """Nothing follows: what could only be known now is said."""
        self.settle_headers()
        for task_id, number, span in self._later:
            if self.names.in_plan(number):
                self.diagnose(
                    span,
                    "W111",
                    f"${number} in this string is text, since task {number} does not come before",
                    hint=f"put task {number} before this one, or write $${number}",
                    task=task_id,
                )
        for cycle in self.names.cycles():
            self.diagnose(
                self._refused_at[cycle[0]],
                "E205",
                f"tasks wait for each other: {' -> '.join(map(str, cycle))}",
                hint="one of them must do without the other's result",
                task=cycle[0],
            )


class _NothingKnown:
    """A scope for constants."""

    renumbered = False

    def known(self, number: int) -> bool:
        return False

    def named(self, name: str) -> bool:
        return False

    def resolve(self, ref: Reference | Input) -> Reference | Input:
        return ref

    def bare(self, ref: Reference | Input, span: Offsets) -> Reference | Input:
        raise Refusal("E118", f"a default is a constant, and {ref} is none", span)

    def word_hint(self, word: str) -> str:
        return "put text into quotes"


_NOTHING_KNOWN = _NothingKnown()
