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

import gc
import re
from collections.abc import Iterable

from llmcompiler.errors import PlanError
from llmcompiler.language.building import PlanBuilder
from llmcompiler.language.items import Item, span_of
from llmcompiler.language.mistakes import (
    broken_off,
    one_reading,
    plan_ends,
    restart_in,
    unclosed,
)
from llmcompiler.language.scanner import CallScanner, Stop, end_of_calm_call
from llmcompiler.language.spelling import (
    BARE_JOIN,
    BREAK,
    BYTE_ORDER_MARK,
    CALL_SHAPED,
    CONTINUED,
    END_MARKER,
    GOES_ON,
    HEAD,
    NOTHING,
    NUMBERED,
    RESTART,
    THOUGHT,
)
from llmcompiler.language.symbols import Inputs
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Plan

MAX_LINE = 10_000
"""Characters of a line on which a further call may follow another."""

LONG = 100_000
"""Characters of a piece from which on means pay that are dear at first."""


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
    """

    def __init__(
        self, *, known: Iterable[int] = (), inputs: Inputs = "none", first_id: int = 1
    ) -> None:
        self._inputs = inputs
        self._plan = PlanBuilder(known, inputs, first_id)
        self.diagnostics = self._plan.diagnostics
        self.spans = self._plan.spans
        self._todo: list[tuple[str, int]] = []
        self._buffer: list[str] = []
        self._segment = 0
        self._paren = False
        self._loose_call = False
        self._lost = False
        self._skipping = False
        self._in_bulk = False
        self._is_new = True
        self._scanner: CallScanner | None = None
        self._head: re.Match[str] | None = None
        self._call_line: list[str] = []
        self._call_line_start = 0

    # What callers use.

    @property
    def finished(self) -> bool:
        """Whether a join or the end marker was read; what follows is ignored."""
        return self._plan.finished

    def feed(self, text: str) -> list[Item]:
        """Take in the next piece of text.

        Returns:
            What it completed: tasks, the join, lines of prose, headers, diagnostics.
        """
        self._in_bulk = len(text) >= LONG
        if not self._in_bulk or not gc.isenabled():
            return self._feed(text)
        # What is read is kept, so all the collector would do is to look at it again and again.
        gc.disable()
        try:
            return self._feed(text)
        finally:
            gc.enable()

    def _feed(self, text: str) -> list[Item]:
        if self._is_new and text:
            self._is_new = False
            text = text.removeprefix(BYTE_ORDER_MARK)
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
        return self._plan.take()

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
        self._plan.end()
        self._plan.finished = True
        return items + self._plan.take()

    def plan(self) -> Plan:
        """The plan made of everything that was given out."""
        return self._plan.plan()

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
        self._plan.line += 1
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
            skipped = GOES_ON.match(line, start)
            start = skipped.end() if skipped else start
        head = HEAD.fullmatch(line, start)
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
        if self._inputs == "declare" and not self._segment and self._plan.header(line):
            return
        marker = line.find(END_MARKER, self._segment)
        if marker >= 0:
            line = line[:marker]
        if self._segment:
            self._rest_of_call(line)
        elif line.strip():
            self._whole_line(line)
        if marker >= 0:
            self._plan.finished = True

    def _rest_of_call(self, line: str) -> None:
        """What stands behind a call on its line."""
        rest = line[self._segment :]
        if NOTHING.fullmatch(rest):
            return
        start = self._segment + len(rest) - len(rest.lstrip())
        span = span_of(line, self._plan.line, (start, len(line.rstrip())))
        task = self._plan.tasks[-1].id if self._plan.tasks else None
        if join := BARE_JOIN.fullmatch(line, self._segment):
            self._plan.accept_bare_join(line, join)
        elif CONTINUED.match(rest) or RESTART.match(rest.strip()):
            self._plan.diagnose(
                span,
                "E115",
                f"{rest.strip()!r} follows a call",
                hint="refer to a part of the result in a later task, as in $1.population",
                task=task,
            )
        else:
            self._plan.diagnose(span, "W110", "words after a call were left out", task=task)

    def _whole_line(self, line: str) -> None:
        if join := BARE_JOIN.fullmatch(line):
            self._plan.accept_bare_join(line, join)
            return
        stripped = line.strip()
        if stripped.startswith(("```", "#")):
            return
        if self._loose_call and self._accept_loose_call(line):
            return
        if self._lost:
            return
        if (numbered := NUMBERED.fullmatch(line.rstrip())) and not THOUGHT.match(line):
            if numbered["rest"]:
                span = span_of(
                    line, self._plan.line, (len(line) - len(line.lstrip()), len(line.rstrip()))
                )
                self._plan.diagnose(
                    span,
                    "E114",
                    "a numbered line is not a call",
                    hint="prose stands in lines that start with Thought:",
                    expected="N. tool(arguments)",
                )
            return
        if self._inputs == "declare" and not THOUGHT.match(line):
            self._report_odd_line(line)
        self._plan.accept_thought(stripped)

    def _report_odd_line(self, line: str) -> None:
        """In a saved plan, what is no task was hardly meant to be left out in silence."""
        stop = len(line.rstrip())
        span = span_of(line, self._plan.line, (len(line) - len(line.lstrip()), stop))
        if CALL_SHAPED.fullmatch(line):
            self._plan.diagnose(
                span, "E120", "the line is not read as a call", expected="N. tool(arguments)"
            )
        else:
            self._plan.diagnose(
                span, "W114", "the line is no part of the plan", hint="remarks follow a #"
            )

    def _accept_loose_call(self, line: str) -> bool:
        """A call without a number, if the line is nothing else."""
        head = HEAD.fullmatch(line, 0, line.index("("))
        assert head is not None
        scanner = CallScanner(head.end())
        stop, end = scanner.scan(line, head.end() + 1)
        if stop is not Stop.CLOSED or not NOTHING.fullmatch(line, end):
            return False
        self._lost = False
        self._plan.complete(line[:end], head, end - 1)
        return True

    # Call mode.

    def _scan_call(self, text: str, position: int) -> int:
        scanner = self._scanner
        assert scanner is not None
        stop: Stop | None = Stop.CLOSED
        end = -1
        if self._in_bulk and scanner.is_fresh:
            end = end_of_calm_call(text, position)
        if end < 0:
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
                self._plan.complete(raw, self._head, len(raw) - 1)
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
            head = HEAD.fullmatch(line)
            return head is not None and (head["number"] is not None or head["name"] == "join")
        return BREAK.match(line + char) is not None

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
        in_comment = scanner.last_comment and ")" in raw[scanner.last_comment :]
        if not in_comment and one_reading(whole, head, scanner.opened_before(len(raw))):
            span = span_of(whole, self._plan.line, (len(whole) - 1, len(whole)))
            self._plan.complete(whole, head, len(whole), missing=span)
        else:
            self._plan.refuse_call(raw, head, unclosed(raw, scanner))
        self._plan.line += raw.count("\n") - 1
        self._next_line()

    def _broken(self, stop: Stop, text: str, position: int) -> None:
        """The call cannot be read on: say why, and go on at the next line that starts a task."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        self._scanner = None
        raw = "".join(self._buffer)
        restart = restart_in(raw)
        refusal = broken_off(stop, raw, scanner, restart is not None)
        self._plan.refuse_call(raw, head, refusal)
        self._todo.append((text, position))
        if restart is not None:
            self._todo.append((raw[restart:], 0))
            self._plan.line += raw.count("\n", 0, restart) - 1
            self._next_line()
            self._lost = False
        else:
            self._plan.line += raw.count("\n")
            self._buffer = []
            self._skipping = self._lost = True

    def _behind_call(self, raw: str) -> None:
        """After a call, its line goes on."""
        self._scanner = None
        self._plan.line += raw.count("\n")
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
        restart = restart_in(raw)
        if restart is not None:
            self._todo.append((raw[restart:], 0))
        # A last word, number or reference may be cut short itself: that has two readings.
        complete = raw[-1] == "\n" or not (raw[-1].isalnum() or raw[-1] in "_$.-")
        if restart is not None or not complete:
            self._scanner = None
            self._plan.refuse_call(raw, head, plan_ends(scanner, restart is not None))
            self._plan.line += raw.count("\n", 0, restart or len(raw)) - 1
            self._next_line()
            return
        self._unfinished(raw)


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
