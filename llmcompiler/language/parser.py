"""The incremental parser: text in, in any pieces; tasks out, each at its closing parenthesis.

The parser does no I/O. ``feed`` takes the next piece of text and returns what it completed,
``close`` says that no more will come. However the text is cut into pieces, the same items come out
in the same order, because every decision is made at a fixed character and looks at nothing behind
it. Each character is scanned once; the text of a call is read once more when it is complete.

Theory of operation. There are two modes. In *line* mode text is collected up to a line break, or up
to a line's first ``(`` if a tool's name and number stand before it. That starts *call* mode, in
which ``CallScanner`` looks for the end of the call. When it comes, ``ArgumentReader`` reads the
arguments and the task is given out. After a mistake reading goes on at the next line that starts a
task, so that its siblings are still read.

A reference can only name a task that was given out before, hence what comes out is a DAG by
construction. The module must not know tools: ``passes.check`` does.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, get_args

from llmcompiler.errors import PlanError
from llmcompiler.expressions import (
    Expr,
    Input,
    Literal,
    Reference,
    references,
)
from llmcompiler.language.arguments import ArgumentReader, Note, Offsets, Refusal
from llmcompiler.language.diagnostics import Diagnostic, Span, did_you_mean
from llmcompiler.language.names import Inputs, Names
from llmcompiler.language.scanner import CallScanner, Open, Stop
from llmcompiler.plan import InputType, Join, Plan, PlanInput, Task

END_MARKER = "<END_OF_PLAN>"
"""Everything behind it is ignored, as in LLMCompiler."""

MAX_LINE = 10_000
"""Characters of a line on which a further call may follow another."""

_NAME = r"[^\W\d][\w.\-]*"
_NUMBER = r"(?:\$\{?)?(?P<id>[0-9]{1,9})\}?[*`]*\s*(?:[.):]|=(?!=)|-(?=\s))[*`]*\s*"
_HEAD = re.compile(
    rf"""\s*(?:[-*+•>]\s+)?[*`]*(?:(?i:step|task|action)\s+(?=[$0-9]))?
    (?P<number>{_NUMBER})?[*`]*
    (?:\$?(?P<target>[^\W\d]\w*)\s*=(?!=)\s*)?[*`]*
    (?P<name>{_NAME})[*`]*(?P<space>\s*)""",
    re.VERBOSE,
)
_USUAL = re.compile(rf"\s*[0-9]+\.\s*{_NAME}")
_RESTART = re.compile(rf"^[ \t]*(?:[-*+•]\s+)?[*`]*{_NUMBER}[*`]*{_NAME}[ \t]*\(", re.MULTILINE)
_BARE_JOIN = re.compile(
    rf"\s*(?:[-*+•]\s+)?[*`]*(?P<number>{_NUMBER})?(?P<join>join)[*`]*\s*\.?\s*(?:\#.*)?"
)
_NUMBERED = re.compile(
    r"\s*(?:[-*+•]\s+)?[*`]*\$?[0-9]{1,9}[*`]*\s*[.):](?!\d)[*`]*\s*(?P<rest>.*)"
)
_THOUGHT = re.compile(r"\s*[*_]*thoughts?[*_]*\s*:[*_]*\s*", re.IGNORECASE)
_BREAK = re.compile(
    rf"\s*(?:```|{END_MARKER}|(?:[0-9]+\s*[.):]\s*)?join\s*\.?\s*$)|{_THOUGHT.pattern}",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"[\s.;,*`]*(?:#.*)?")
_GOES_ON = re.compile(r"[\s;,.*`]*")
_CONTINUED = re.compile(r"\s*(?:\.[^\W\d]|\[|\(|-\s*[$\d]|[+*/%<>]\s*[$\w(])")
_QUESTION = re.compile(r"\s*question\s*:?\s*(?=[\"'“‘$])")
_INPUT = re.compile(
    r"\s*input\s+(?P<name>[^\W\d]\w*)\s*"
    r"(?:(?P<end>\#.*)?$|:\s*(?P<type>\w+)\s*(?P<end2>\#.*)?$|(?::\s*(?P<type2>\w+)\s*)?=)"
)
_BROKEN_INPUT = re.compile(r"\s*input\s+[^\W\d]\w*\s*[:=]")
_DOLLAR = re.compile(r"\$\{?([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Thought:
    """A line of prose between tasks."""

    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a saved plan answers."""

    expr: Expr


Item: TypeAlias = Task | Join | Diagnostic | Thought | PlanInput | Question
"""What the parser gives out."""


@dataclass(frozen=True, slots=True)
class CallSource:
    """Where a call and its parts stand in the plan's text.

    Attributes:
        text: the call, from the start of its first line.
        line: number of that line.
        tool: offsets of the tool's name in ``text``.
        args: offsets of the positional arguments.
        kwargs: offsets of the keyword arguments' values.
    """

    text: str
    line: int
    tool: Offsets
    args: tuple[Offsets, ...]
    kwargs: Mapping[str, Offsets]

    def span(self, offsets: Offsets) -> Span:
        """The place of a part of the call; of its first line, if it has several."""
        return _span(self.text, self.line, offsets)


def _span(text: str, first_line: int, offsets: Offsets) -> Span:
    """The place of a piece of ``text``: what of it stands on its first line."""
    start, end = offsets
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", begin)
    line = (text[begin:] if stop < 0 else text[begin:stop]).rstrip("\r")
    column = min(start - begin, len(line))
    return Span(
        line=first_line + text.count("\n", 0, begin),
        column=column + 1,
        end_column=max(min(end - begin, len(line)), column + 1) + 1,
        source_line=line,
    )


class Parser:
    """Reads one plan.

    Args:
        known: ids of tasks of the run's earlier plans, which this one may refer to.
        inputs: ``declare`` for saved plans: they have headers, and ``$city`` is an input;
            ``none`` for plans that answer a question at hand.
        first_id: the id that the plan should go on counting from.

    Attributes:
        diagnostics: everything found so far.
        spans: where each task given out stands in the text, by id.
        finished: whether a join or the end marker was read; what follows is ignored.
    """

    def __init__(
        self, *, known: Iterable[int] = (), inputs: Inputs = "none", first_id: int = 1
    ) -> None:
        self._earlier = tuple(known)
        self._inputs = inputs
        self._names = Names(self._earlier, inputs, first_id)
        self.diagnostics: list[Diagnostic] = []
        self.spans: dict[int, CallSource] = {}
        self.finished = False

        self._out: list[Item] = []
        self._todo: list[tuple[str, int]] = []
        self._buffer: list[str] = []
        self._line = 1
        self._segment = 0
        self._paren = False
        self._loose_call = False
        self._lost = False
        self._skipping = False
        self._scanner: CallScanner | None = None
        self._head: re.Match[str] | None = None
        self._call_line: list[str] = []
        self._call_line_start = 0

        self._tasks: list[Task] = []
        self._join: Join | None = None
        self._thought: list[str] = []
        self._refused_at: dict[int, Span] = {}
        self._later: list[tuple[int, int, Span]] = []
        self._question: Expr | None = None
        self._question_line: tuple[str, int, int] | None = None

    # What callers use.

    def feed(self, text: str) -> list[Item]:
        """Take in the next piece of text.

        Returns:
            What it completed: tasks, the join, lines of prose, headers, diagnostics.
        """
        self._todo.append((text, 0))
        while self._todo:
            piece, position = self._todo.pop()
            while position < len(piece) and not self.finished:
                if self._skipping:
                    position = self._skip_line(piece, position)
                elif self._scanner is not None:
                    position = self._scan_call(piece, position)
                else:
                    position = self._scan_line(piece, position)
        return self._take()

    def close(self) -> list[Item]:
        """No more text will come.

        Returns:
            What the end completed.
        """
        items: list[Item] = []
        while not self.finished and (self._scanner is not None or self._buffer):
            if self._scanner is not None:
                self._end_in_call()
            else:
                self._end_line()
                self._buffer = []
            items += self.feed("")
        self._settle_headers()
        self._end_of_plan()
        self.finished = True
        return items + self._take()

    def plan(self) -> Plan:
        """The plan made of everything that was given out."""
        return Plan(
            question=self._question,
            inputs=tuple(self._names.inputs.values()),
            tasks=tuple(self._tasks),
            join=self._join,
            earlier=self._earlier,
        )

    def _take(self) -> list[Item]:
        items, self._out = self._out, []
        return items

    def _diagnose(
        self,
        span: Span,
        code: str,
        message: str,
        *,
        hint: str = "",
        expected: str = "",
        task: int | None = None,
    ) -> None:
        found = Diagnostic.at(span, code, message, hint=hint, expected=expected, task=task)
        self.diagnostics.append(found)
        self._out.append(found)

    # Line mode.

    def _skip_line(self, text: str, position: int) -> int:
        found = text.find("\n", position)
        if found < 0:
            return len(text)
        self._next_line()
        return found + 1

    def _next_line(self) -> None:
        self._buffer = []
        self._segment = 0
        self._line += 1
        self._paren = self._loose_call = self._skipping = False

    def _scan_line(self, text: str, position: int) -> int:
        line_break = text.find("\n", position)
        end = len(text) if line_break < 0 else line_break
        paren = -1 if self._paren else text.find("(", position, end)
        if paren >= 0:
            self._buffer.append(text[position:paren])
            self._paren = True
            self._start_call()
            self._buffer.append("(")
            return paren + 1
        self._buffer.append(text[position:end])
        if line_break < 0:
            return end
        self._end_line()
        self._next_line()
        return end + 1

    def _start_call(self) -> None:
        """At a line's first parenthesis: is it a call?"""
        line = "".join(self._buffer)
        self._buffer = [line]
        start = self._segment
        if start:
            skipped = _GOES_ON.match(line, start)
            start = skipped.end() if skipped else start
        head = _HEAD.fullmatch(line, start)
        if head is None:
            return
        if head["number"] is None:
            self._loose_call = not self._segment
            return
        self._begin_call(head)

    def _begin_call(self, head: re.Match[str]) -> None:
        self._lost = False
        self._head = head
        self._scanner = CallScanner(head.end())
        self._call_line = []
        self._call_line_start = -1

    def _end_line(self) -> None:
        line = "".join(self._buffer)
        self._buffer = [line]
        if self._inputs == "declare" and not self._segment and self._header(line):
            return
        marker = line.find(END_MARKER, self._segment)
        if marker >= 0:
            line = line[:marker]
        if self._segment:
            self._rest_of_call(line)
        elif line.strip():
            self._whole_line(line)
        if marker >= 0:
            self.finished = True

    def _rest_of_call(self, line: str) -> None:
        """What stands behind a call on its line."""
        rest = line[self._segment :]
        if _NOTHING.fullmatch(rest):
            return
        start = self._segment + len(rest) - len(rest.lstrip())
        span = _span(line, self._line, (start, len(line.rstrip())))
        task = self._tasks[-1].id if self._tasks else None
        if join := _BARE_JOIN.fullmatch(line, self._segment):
            self._accept_bare_join(line, join)
        elif _CONTINUED.match(rest) or _RESTART.match(rest.strip()):
            self._diagnose(
                span,
                "E115",
                f"{rest.strip()!r} follows a call",
                hint="refer to a part of the result in a later task, as in $1.population",
                task=task,
            )
        else:
            self._diagnose(span, "W110", "words after a call were left out", task=task)

    def _whole_line(self, line: str) -> None:
        if join := _BARE_JOIN.fullmatch(line):
            self._accept_bare_join(line, join)
            return
        stripped = line.strip()
        if stripped.startswith(("```", "#")):
            return
        if self._loose_call and self._accept_loose_call(line):
            return
        if self._lost:
            return
        if (numbered := _NUMBERED.fullmatch(line.rstrip())) and not _THOUGHT.match(line):
            if numbered["rest"]:
                span = _span(line, self._line, (len(line) - len(line.lstrip()), len(line.rstrip())))
                self._diagnose(
                    span,
                    "E114",
                    "a numbered line is not a call",
                    hint="prose stands in lines that start with Thought:",
                    expected="N. tool(arguments)",
                )
            return
        self._accept_thought(stripped)

    def _accept_thought(self, text: str) -> None:
        if label := _THOUGHT.match(text):
            text = text[label.end() :]
        if len(text) > 1 and text[0] == text[-1] == '"':
            with contextlib.suppress(ValueError):
                text = str(json.loads(text))
        elif not text:
            return
        self._thought.append(text)
        self._out.append(Thought(text))

    def _accept_loose_call(self, line: str) -> bool:
        """A call without a number, if the line is nothing else."""
        head = _HEAD.fullmatch(line, 0, line.index("("))
        assert head is not None
        scanner = CallScanner(head.end())
        stop, end = scanner.scan(line, head.end() + 1)
        if stop is not Stop.CLOSED or not _NOTHING.fullmatch(line, end):
            return False
        self._lost = False
        self._complete(line[:end], head, end - 1)
        return True

    # Call mode.

    def _scan_call(self, text: str, position: int) -> int:
        scanner = self._scanner
        assert scanner is not None
        stop, end = scanner.scan(text, position)
        piece = text[position:end]
        self._buffer.append(piece)
        if self._call_line_start >= 0:
            self._call_line.append(piece)
        match stop:
            case None:
                pass
            case Stop.CLOSED:
                raw = "".join(self._buffer)
                assert self._head is not None
                self._complete(raw, self._head, len(raw) - 1)
                self._behind_call(raw)
            case Stop.LINE | Stop.LINE_START:
                if self._cut_here(text[end] if stop is Stop.LINE_START else "\n"):
                    self._cut(text, end)
                    return len(text)
                if stop is Stop.LINE:
                    self._call_line = []
                    self._call_line_start = scanner.offset
            case _:
                self._broken(stop, text, end)
                return len(text)
        return end

    def _cut_here(self, char: str) -> bool:
        """Whether the call's current line belongs to something else already."""
        if self._call_line_start < 0:
            return False
        line = "".join(self._call_line)
        self._call_line = [line]
        if char == "(":
            head = _HEAD.fullmatch(line)
            return head is not None and (head["number"] is not None or head["name"] == "join")
        return _BREAK.match(line + char) is not None

    def _cut(self, text: str, position: int) -> None:
        """End the call before its current line, and read that line again as a line."""
        raw = "".join(self._buffer)
        start = self._call_line_start
        self._todo.append((text, position))
        self._todo.append((raw[start:], 0))
        self._unfinished(raw[:start])

    def _unfinished(self, raw: str) -> None:
        """A call that has no closing parenthesis; its lines are complete."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        self._scanner = None
        whole = raw.rstrip()
        comment = raw[scanner.last_comment :] if scanner.last_comment else ""
        if ")" in comment:
            start = scanner.last_comment
            self._refuse_call(
                raw,
                head,
                Refusal(
                    "E101",
                    "the closing parenthesis stands in a comment",
                    (start, start + len(comment.split("\n", 1)[0])),
                    hint="# starts a comment; text stands in quotes, a result is $N",
                ),
            )
        elif _one_reading(whole, head, scanner.opened_before(len(raw))):
            span = _span(whole, self._line, (len(whole) - 1, len(whole)))
            self._complete(whole, head, len(whole), missing=span)
        else:
            opened = scanner.opened_before(len(raw))[-1]
            in_string = opened is scanner.string
            self._refuse_call(
                raw,
                head,
                Refusal(
                    "E102" if in_string else "E101",
                    "the string that starts here has no end"
                    if in_string
                    else f"{opened.char!r} is not closed",
                    (opened.offset, opened.offset + 1),
                    hint="close it before the next task starts",
                ),
            )
        self._line += raw.count("\n") - 1
        self._next_line()

    def _broken(self, stop: Stop, text: str, position: int) -> None:
        """The call cannot be read on: say why, and go on at the next line that starts a task."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        self._scanner = None
        raw = "".join(self._buffer)
        last = len(raw) - 1
        restart = _restart(raw)
        if stop is Stop.MISMATCH:
            opened = scanner.brackets[-1]
            refusal = Refusal(
                "E103",
                f"{raw[last]!r} closes {opened.char!r}",
                (last, last + 1),
                hint=f"close {opened.char!r} first",
            )
        elif stop is Stop.BEFORE_STRING:
            word = re.search(r"[\w.\-]*.\Z", raw)
            start = word.start() if word else last
            refusal = Refusal(
                "E105",
                f"{raw[start:last]!r} stands outside of the quotes",
                (start, last),
                hint="put the whole text into quotes",
            )
        elif restart is not None and scanner.last_string is not None:
            opened = scanner.last_string
            refusal = Refusal(
                "E102",
                "the string that starts here has no end",
                (opened.offset, opened.offset + 1),
                hint="close it before the next task starts",
            )
        else:
            refusal = _text_after_string(
                raw, scanner.last_string.char if scanner.last_string else '"'
            )
        self._refuse_call(raw, head, refusal)
        self._todo.append((text, position))
        if restart is not None:
            self._todo.append((raw[restart:], 0))
            self._line += raw.count("\n", 0, restart) - 1
            self._next_line()
            self._lost = False
        else:
            self._line += raw.count("\n")
            self._buffer = []
            self._skipping = self._lost = True

    def _behind_call(self, raw: str) -> None:
        """After a call, its line goes on."""
        self._scanner = None
        self._line += raw.count("\n")
        line = raw[raw.rfind("\n") + 1 :]
        self._buffer = [line]
        self._segment = len(line)
        self._paren = len(line) > MAX_LINE
        self._loose_call = False

    def _end_in_call(self) -> None:
        """The plan ends inside a call."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        if self._cut_here("\n"):
            self._cut("", 0)
            return
        scanner.finish()
        raw = "".join(self._buffer)
        restart = _restart(raw)
        if restart is not None:
            self._todo.append((raw[restart:], 0))
        # A last word, number or reference may be cut short itself: that has two readings.
        complete = raw[-1] == "\n" or not (raw[-1].isalnum() or raw[-1] in "_$.-")
        if restart is not None or not complete:
            opened = scanner.string or scanner.brackets[-1]
            self._scanner = None
            self._refuse_call(
                raw,
                head,
                Refusal(
                    "E102" if scanner.string else "E101",
                    "the string that starts here has no end"
                    if scanner.string
                    else "the plan ends inside a call",
                    (opened.offset, opened.offset + 1),
                    hint="close it before the next task starts" if restart else "",
                ),
            )
            self._line += raw.count("\n", 0, restart or len(raw)) - 1
            self._next_line()
            return
        self._unfinished(raw)

    # A complete call.

    def _complete(
        self, raw: str, head: re.Match[str], end: int, missing: Span | None = None
    ) -> None:
        """Read a call whose arguments end at ``end``, and give the task out."""
        self._settle_headers()
        names = self._names
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
            self._diagnose(
                _span(raw, self._line, (start, head.end("name"))),
                "W109",
                f"the plan should go on at {task_id}, so its tasks were renumbered",
                hint=f"task {number} became {task_id}",
                task=task_id,
            )
        try:
            found = ArgumentReader(raw, head.end() + 1, end, names).arguments()
        except Refusal as refusal:
            self._refuse_call(raw, head, refusal)
            return
        self._note_slips(raw, head, missing, task_id)
        self._note(raw, found.notes, task_id)
        for later, offsets in found.later:
            self._later.append((task_id, later, _span(raw, self._line, offsets)))
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
            raw, self._line, head.span("name"), tuple(found.arg_spans), found.kwarg_spans
        )
        names.accept(number, task_id, head["target"])
        self._tasks.append(task)
        self._out.append(task)

    def _refuse_call(self, raw: str, head: re.Match[str], refusal: Refusal) -> None:
        """A call that yields no task."""
        number = int(head["id"]) if head["number"] else self._names.next
        if head["name"] != "join":
            self._names.refuse(number, map(int, _DOLLAR.findall(raw, head.end())))
            self._refused_at.setdefault(number, _span(raw, self._line, head.span("name")))
        self._thought.clear()
        self._report(raw, refusal, number)

    def _report(self, raw: str, refusal: Refusal, number: int | None) -> None:
        self._diagnose(
            _span(raw, self._line, refusal.span),
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
        if missing is None and not head["space"] and _USUAL.fullmatch(written):
            return
        usual = f"{task_id or 'N'}. {head['name']}(…)"
        written = raw[head.start() : head.end("name")]
        span = _span(raw, self._line, (head.end("name") - len(written.lstrip()), head.end("name")))
        if head["number"] is None:
            self._diagnose(span, "W104", "a call without a number", expected=usual, task=task_id)
        elif head["target"] is not None:
            self._diagnose(
                span,
                "W105",
                f"the result is assigned to {head['target']}",
                expected=usual,
                task=task_id,
            )
        elif not _USUAL.fullmatch(written):
            self._diagnose(span, "W101", "unusual task number", expected=usual, task=task_id)
        if head["space"]:
            offsets = head.span("space")
            self._diagnose(
                _span(raw, self._line, offsets),
                "W102",
                "space before the parenthesis",
                expected=usual,
                task=task_id,
            )
        if missing is not None:
            self._diagnose(missing, "W103", "the closing parenthesis is missing", task=task_id)

    def _note(self, raw: str, notes: Iterable[Note], task_id: int | None) -> None:
        for note in notes:
            span = _span(raw, self._line, note.span)
            self._diagnose(span, note.code, note.message, hint=note.hint, task=task_id)

    # Join.

    def _accept_join(
        self, raw: str, head: re.Match[str], end: int, number: int, missing: Span | None
    ) -> None:
        try:
            found = ArgumentReader(raw, head.end() + 1, end, self._names).arguments()
        except Refusal as refusal:
            self._refuse_call(raw, head, refusal)
            return
        self._note_slips(raw, head, missing, None)
        self._note(raw, found.notes, None)
        on: dict[int, None] = {}
        usual = not found.kwargs
        for expr in (*found.args, *found.kwargs.values()):
            usual &= isinstance(expr, Reference) and not expr.path
            for ref in references(expr):
                if isinstance(ref, Reference):
                    on[ref.task] = None
            if isinstance(expr, Literal) and self._names.known(expr.value):
                shifted = self._names.resolve(Reference(task=expr.value))
                assert isinstance(shifted, Reference)
                on[shifted.task] = None
        if not usual:
            self._diagnose(
                _span(raw, self._line, (head.start("name"), end)),
                "W107",
                "join takes references to tasks only",
                expected="join() or join($5, $6)",
            )
        self._finish(number, tuple(on))

    def _accept_bare_join(self, line: str, join: re.Match[str]) -> None:
        self._settle_headers()
        span = _span(line, self._line, join.span("join"))
        self._diagnose(span, "W108", "join without parentheses", expected="join()")
        self._finish(int(join["id"]) if join["id"] else self._names.next, ())

    def _finish(self, number: int, on: tuple[int, ...]) -> None:
        self._join = Join(id=self._names.join_id(number), on=on)
        self._out.append(self._join)
        self._thought.clear()
        self.finished = True

    # Headers.

    def _header(self, line: str) -> bool:
        """Read a header line, if it is one."""
        if question := _QUESTION.match(line):
            if self._question_line is not None or self._tasks:
                self._diagnose(
                    self._whole(line), "E119", "the question stands once, before the first task"
                )
            else:
                self._question_line = (line, self._line, question.end())
            return True
        declared = _INPUT.match(line)
        if declared is None and not _BROKEN_INPUT.match(line):
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
        if self._tasks or name in self._names.inputs:
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
        self._names.inputs[name] = given
        self._names.declared = True
        self._out.append(given)

    def _settle_headers(self) -> None:
        """The first task is here: now it is known which inputs the question can name."""
        if self._question_line is None or self._question is not None:
            return
        line, number, start = self._question_line
        here, self._line = self._line, number
        try:
            reader = ArgumentReader(line, start, len(line), self._names)
            self._question = reader.value()
        except Refusal as refusal:
            self._question = Literal(value="")
            self._report(line, refusal, None)
        else:
            self._note(line, reader.notes, None)
            self._declare_used(references(self._question))
            self._out.append(Question(self._question))
        self._line = here

    def _declare_used(self, used: Iterable[Reference | Input]) -> None:
        """In a plan without ``input`` lines, using an input declares it."""
        for ref in used:
            if isinstance(ref, Input) and ref.name not in self._names.inputs:
                given = self._names.inputs[ref.name] = PlanInput(name=ref.name)
                self._out.append(given)

    def _whole(self, line: str) -> Span:
        return _span(line, self._line, (len(line) - len(line.lstrip()), len(line.rstrip())))

    # The end.

    def _end_of_plan(self) -> None:
        for task_id, number, span in self._later:
            if self._names.in_plan(number):
                self._diagnose(
                    span,
                    "W111",
                    f"${number} in this string is text, since task {number} does not come before",
                    hint=f"put task {number} before this one, or write $${number}",
                    task=task_id,
                )
        for cycle in self._names.cycles():
            self._diagnose(
                self._refused_at[cycle[0]],
                "E205",
                f"tasks wait for each other: {' -> '.join(map(str, cycle))}",
                hint="one of them must do without the other's result",
                task=cycle[0],
            )


def _one_reading(whole: str, head: re.Match[str], opened: Sequence[Open]) -> bool:
    """Whether all that a call without its end can lack is the closing parenthesis."""
    if len(opened) > 1:
        return False
    return whole[-1] not in "(," or (head["name"] == "join" and whole[-1] == "(")


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


def _restart(raw: str) -> int | None:
    """Where in a broken call the next task starts, its own first line left out."""
    first = raw.find("\n") + 1
    match = _RESTART.search(raw, first) if first else None
    return match.start() if match else None


def _text_after_string(raw: str, quote: str) -> Refusal:
    last = len(raw) - 1
    char = raw[last]
    if char in "+-*/%<>":
        return Refusal(
            "E106",
            f"{char!r} after a string would compute something, which an argument cannot",
            (last, last + 1),
            hint="references are filled in inside of strings: write them there",
        )
    other = "'" if quote == '"' else '"'
    escape = f"a {quote} inside of a string is written \\{quote}; or put the string into {other}"
    return Refusal(
        "E104",
        f"{char!r} follows right after a string",
        (last, last + 1),
        hint=f"if the string goes on here, {escape}" if char != ";" else "",
        expected="a comma or a closing bracket",
    )


def read_plan(
    text: str, *, known: Iterable[int] = (), inputs: Inputs = "declare", first_id: int = 1
) -> tuple[Plan, list[Diagnostic]]:
    """Read a whole plan, and whatever there is to say about it.

    Args:
        text: in the plan language.
        known: see ``Parser``.
        inputs: see ``Parser``.
        first_id: see ``Parser``.

    Returns:
        The plan made of what could be read, and the diagnostics; it is sound if none is an error.
    """
    parser = Parser(known=known, inputs=inputs, first_id=first_id)
    parser.feed(text)
    parser.close()
    return parser.plan(), parser.diagnostics


def parse_plan(
    text: str, *, known: Iterable[int] = (), inputs: Inputs = "declare", first_id: int = 1
) -> Plan:
    """Read a whole plan in which there is no error; arguments as for ``read_plan``.

    Raises:
        PlanError: something is wrong with it; ``diagnostics`` says what and where.
    """
    plan, diagnostics = read_plan(text, known=known, inputs=inputs, first_id=first_id)
    errors = [found for found in diagnostics if found.severity == "error"]
    if errors:
        count = f"{len(errors)} errors" if len(errors) > 1 else "an error"
        raise PlanError(f"the plan has {count}", diagnostics=errors)
    return plan
