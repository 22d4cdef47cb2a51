"""The incremental parser: text in, in any pieces; tasks out, each at its closing parenthesis.

The parser does no I/O. ``feed`` takes the next piece of text and returns the items that it
completes; ``close`` ends the text. The same items come out in the same order however the text is
cut into pieces: every decision is made at a fixed character, and looks at no character behind it.
Each character is scanned once; the text of a call is read once more when it is complete.

Theory of operation. There are two modes. In *line* mode the parser collects text up to a line
break, or up to a line's first ``(`` if a tool's name and number stand before it. That starts *call*
mode, in which ``CallScanner`` looks for the end of the call. When it comes, ``PlanBuilder`` reads
the arguments and yields the task. After a mistake, reading goes on at the next line that starts a
task, so that the other tasks are still read.

A reference can only name a task that was yielded before, so the tasks form a DAG by construction.
The parser knows no tools: ``passes.check`` checks the tasks against them.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable

from llmcompiler.errors import PlanError
from llmcompiler.language.building import PlanBuilder
from llmcompiler.language.items import ParsedItem, span_of
from llmcompiler.language.mistakes import (
    explain_plan_end,
    explain_stop,
    explain_unclosed,
    find_restart,
    lacks_only_parenthesis,
)
from llmcompiler.language.scanner import CallScanner, ScanStop, match_simple_call
from llmcompiler.language.spelling import (
    BARE_JOIN,
    BLANK_END,
    BYTE_ORDER_MARK,
    CALL_BREAK,
    CALL_SEPARATOR,
    CALL_SHAPED,
    CONTINUED,
    END_MARKER,
    HEAD,
    NUMBERED,
    RESTART,
    THOUGHT,
)
from llmcompiler.language.symbols import InputMode
from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.plan.model import Plan

MAX_LINE = 10_000
"""Characters of a line on which a further call may follow another."""

LONG_PIECE = 100_000
"""Characters from which on a piece counts as long.

Reading a long piece repays the cost of compiling the pattern of simple calls and of switching the
garbage collector off.
"""


class Parser:
    """Reads one plan.

    Args:
        earlier_ids: ids of tasks of the run's earlier plans, which this plan may refer to.
        inputs: ``declare`` for saved plans: they have header lines, and ``$city`` is an input;
            ``none`` for plans that answer a question at hand.
        first_id: the id that the plan's first task should have.

    Attributes:
        diagnostics: the diagnostics yielded so far.
        spans: the place of each yielded task in the text, by id.
    """

    def __init__(
        self, *, earlier_ids: Iterable[int] = (), inputs: InputMode = "none", first_id: int = 1
    ) -> None:
        self._inputs = inputs
        self._builder = PlanBuilder(earlier_ids, inputs, first_id)
        self.diagnostics = self._builder.diagnostics
        self.spans = self._builder.spans
        self._pushback: list[tuple[str, int]] = []
        self._buffer: list[str] = []
        self._segment_start = 0
        self._is_paren_found = False
        self._may_be_loose_call = False
        self._is_lost = False
        self._is_skipping_line = False
        self._is_long_piece = False
        self._is_new = True
        self._scanner: CallScanner | None = None
        self._head: re.Match[str] | None = None
        self._call_line: list[str] = []
        self._call_line_start = 0

    @property
    def finished(self) -> bool:
        """True once a join or the end marker was read; the parser ignores any further text."""
        return self._builder.finished

    def feed(self, text: str) -> list[ParsedItem]:
        """Take in the next piece of text.

        Returns:
            The items that it completes: tasks, the join, lines of prose, headers, diagnostics.
        """
        self._is_long_piece = len(text) >= LONG_PIECE
        if not self._is_long_piece or not gc.isenabled():
            return self._feed(text)
        # All that is read stays in memory, so the collector would only look at it again and again.
        gc.disable()
        try:
            return self._feed(text)
        finally:
            gc.enable()

    def _feed(self, text: str) -> list[ParsedItem]:
        if self._is_new and text:
            self._is_new = False
            text = text.removeprefix(BYTE_ORDER_MARK)
        self._pushback.append((text, 0))
        while self._pushback:
            piece, position = self._pushback.pop()
            while position < len(piece) and not self.finished:
                if self._is_skipping_line:
                    position = self._skip_line(piece, position)
                elif self._scanner is not None:
                    position = self._scan_call(piece, position)
                else:
                    position = self._scan_line(piece, position)
        return self._builder.drain()

    def close(self) -> list[ParsedItem]:
        """End the text.

        Returns:
            The items that the end completes.
        """
        items: list[ParsedItem] = []
        while not self.finished and (self._scanner is not None or self._buffer):
            if self._scanner is not None:
                self._end_plan_in_call()
            else:
                self._end_line()
                self._buffer = []
            items += self.feed("")
        self._builder.end()
        self._builder.finished = True
        return items + self._builder.drain()

    def plan(self) -> Plan:
        """The plan of everything that was yielded."""
        return self._builder.plan()

    # Line mode.

    def _skip_line(self, text: str, position: int) -> int:
        line_break = text.find("\n", position)
        if line_break < 0:
            return len(text)
        self._next_line()
        return line_break + 1

    def _next_line(self) -> None:
        self._buffer = []
        self._segment_start = 0
        self._builder.line += 1
        self._is_paren_found = self._may_be_loose_call = self._is_skipping_line = False

    def _scan_line(self, text: str, position: int) -> int:
        line_break = text.find("\n", position)
        end = len(text) if line_break < 0 else line_break
        paren = -1 if self._is_paren_found else text.find("(", position, end)
        if paren >= 0:
            self._buffer.append(text[position:paren])
            self._is_paren_found = True
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
        """At a line's first parenthesis, start call mode if a call begins there."""
        line = "".join(self._buffer)
        self._buffer = [line]
        start = self._segment_start
        if start:
            skipped = CALL_SEPARATOR.match(line, start)
            start = skipped.end() if skipped else start
        head = HEAD.fullmatch(line, start)
        if head is None:
            return
        if head["number"] is None:
            self._may_be_loose_call = not self._segment_start
            return
        self._begin_call(head)

    def _begin_call(self, head: re.Match[str]) -> None:
        self._is_lost = False
        self._head = head
        self._scanner = CallScanner(head.end())
        self._call_line = []
        self._call_line_start = -1

    def _end_line(self) -> None:
        line = "".join(self._buffer)
        self._buffer = [line]
        if (
            self._inputs == "declare"
            and not self._segment_start
            and self._builder.read_header(line)
        ):
            return
        marker = line.find(END_MARKER, self._segment_start)
        if marker >= 0:
            line = line[:marker]
        if self._segment_start:
            self._end_line_of_call(line)
        elif line.strip():
            self._read_line(line)
        if marker >= 0:
            self._builder.finished = True

    def _end_line_of_call(self, line: str) -> None:
        """Read the text behind a call on its line."""
        remainder = line[self._segment_start :]
        if BLANK_END.fullmatch(remainder):
            return
        start = self._segment_start + len(remainder) - len(remainder.lstrip())
        span = span_of(line, self._builder.line, (start, len(line.rstrip())))
        task = self._builder.tasks[-1].id if self._builder.tasks else None
        if join := BARE_JOIN.fullmatch(line, self._segment_start):
            self._builder.accept_bare_join(line, join)
        elif CONTINUED.match(remainder) or RESTART.match(remainder.strip()):
            self._builder.diagnose(
                span,
                "E115",
                f"{remainder.strip()!r} follows a call",
                hint="refer to a part of the result in a later task, as in $1.population",
                task=task,
            )
        else:
            self._builder.diagnose(span, "W110", "words after a call were left out", task=task)

    def _read_line(self, line: str) -> None:
        if join := BARE_JOIN.fullmatch(line):
            self._builder.accept_bare_join(line, join)
            return
        stripped = line.strip()
        if stripped.startswith(("```", "#")):
            return
        if self._may_be_loose_call and self._accept_loose_call(line):
            return
        if self._is_lost:
            return
        if (numbered := NUMBERED.fullmatch(line.rstrip())) and not THOUGHT.match(line):
            if numbered["prose"]:
                span = span_of(
                    line, self._builder.line, (len(line) - len(line.lstrip()), len(line.rstrip()))
                )
                self._builder.diagnose(
                    span,
                    "E114",
                    "a numbered line is not a call",
                    hint="prose stands in lines that start with Thought:",
                    expected="N. tool(arguments)",
                )
            return
        if self._inputs == "declare" and not THOUGHT.match(line):
            self._report_odd_line(line)
        self._builder.accept_thought(stripped)

    def _report_odd_line(self, line: str) -> None:
        """Report a line of a saved plan that is neither a task nor a header nor a thought."""
        stop = len(line.rstrip())
        span = span_of(line, self._builder.line, (len(line) - len(line.lstrip()), stop))
        if CALL_SHAPED.fullmatch(line):
            self._builder.diagnose(
                span, "E120", "the line is not read as a call", expected="N. tool(arguments)"
            )
        else:
            self._builder.diagnose(
                span, "W114", "the line is no part of the plan", hint="remarks follow a #"
            )

    def _accept_loose_call(self, line: str) -> bool:
        """Take in the line if it is a call without a number and nothing else."""
        head = HEAD.fullmatch(line, 0, line.index("("))
        assert head is not None
        scanner = CallScanner(head.end())
        stop, end = scanner.scan(line, head.end() + 1)
        if stop is not ScanStop.CLOSED or not BLANK_END.fullmatch(line, end):
            return False
        self._is_lost = False
        self._builder.complete_call(line[:end], head, end - 1)
        return True

    # Call mode.

    def _scan_call(self, text: str, position: int) -> int:
        scanner = self._scanner
        assert scanner is not None
        stop: ScanStop | None = ScanStop.CLOSED
        end = -1
        if self._is_long_piece and scanner.is_fresh:
            end = match_simple_call(text, position)
        if end < 0:
            stop, end = scanner.scan(text, position)
        piece = text[position:end]
        self._buffer.append(piece)
        if self._call_line_start >= 0:
            self._call_line.append(piece)
        match stop:
            case None:
                pass
            case ScanStop.CLOSED:
                raw = "".join(self._buffer)
                assert self._head is not None
                self._builder.complete_call(raw, self._head, len(raw) - 1)
                self._resume_line(raw)
            case ScanStop.LINE | ScanStop.LINE_START:
                if self._starts_something_else(text[end] if stop is ScanStop.LINE_START else "\n"):
                    self._end_call_before_line(text, end)
                    return len(text)
                if stop is ScanStop.LINE:
                    self._call_line = []
                    self._call_line_start = scanner.offset
            case _:
                self._refuse_call(stop, text, end)
                return len(text)
        return end

    def _starts_something_else(self, char: str) -> bool:
        """True if the line that follows an unclosed call starts something else."""
        if self._call_line_start < 0:
            return False
        line = "".join(self._call_line)
        self._call_line = [line]
        if char == "(":
            head = HEAD.fullmatch(line)
            return head is not None and (head["number"] is not None or head["name"] == "join")
        return CALL_BREAK.match(line + char) is not None

    def _end_call_before_line(self, text: str, position: int) -> None:
        """End the call before its current line, and read that line again as a line."""
        raw = "".join(self._buffer)
        start = self._call_line_start
        self._pushback.append((text, position))
        self._pushback.append((raw[start:], 0))
        self._end_unclosed_call(raw[:start])

    def _end_unclosed_call(self, raw: str) -> None:
        """Complete or refuse a call that has no closing parenthesis, but all its lines."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        self._scanner = None
        text = raw.rstrip()
        in_comment = scanner.last_comment and ")" in raw[scanner.last_comment :]
        if not in_comment and lacks_only_parenthesis(text, head, scanner.opened_before(len(raw))):
            span = span_of(text, self._builder.line, (len(text) - 1, len(text)))
            self._builder.complete_call(text, head, len(text), missing_parenthesis=span)
        else:
            self._builder.refuse_call(raw, head, explain_unclosed(raw, scanner))
        self._builder.line += raw.count("\n") - 1
        self._next_line()

    def _refuse_call(self, stop: ScanStop, text: str, position: int) -> None:
        """Refuse the call, and go on at the next line that starts a task."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        self._scanner = None
        raw = "".join(self._buffer)
        restart = find_restart(raw)
        issue = explain_stop(stop, raw, scanner, restart is not None)
        self._builder.refuse_call(raw, head, issue)
        self._pushback.append((text, position))
        if restart is not None:
            self._pushback.append((raw[restart:], 0))
            self._builder.line += raw.count("\n", 0, restart) - 1
            self._next_line()
            self._is_lost = False
        else:
            self._builder.line += raw.count("\n")
            self._buffer = []
            self._is_skipping_line = self._is_lost = True

    def _resume_line(self, raw: str) -> None:
        """Go back to line mode behind a call."""
        self._scanner = None
        self._builder.line += raw.count("\n")
        line = raw[raw.rfind("\n") + 1 :]
        self._buffer = [line]
        self._segment_start = len(line)
        self._is_paren_found = len(line) > MAX_LINE
        self._may_be_loose_call = False

    def _end_plan_in_call(self) -> None:
        """Complete or refuse the call in which the plan ends."""
        scanner, head = self._scanner, self._head
        assert scanner is not None and head is not None
        if self._starts_something_else("\n"):
            self._end_call_before_line("", 0)
            return
        scanner.finish()
        raw = "".join(self._buffer)
        restart = find_restart(raw)
        if restart is not None:
            self._pushback.append((raw[restart:], 0))
        # A last word, number or reference may itself be cut short, so it has two readings.
        is_complete = raw[-1] == "\n" or not (raw[-1].isalnum() or raw[-1] in "_$.-")
        if restart is not None or not is_complete:
            self._scanner = None
            self._builder.refuse_call(raw, head, explain_plan_end(scanner, restart is not None))
            self._builder.line += raw.count("\n", 0, restart or len(raw)) - 1
            self._next_line()
            return
        self._end_unclosed_call(raw)


def read_plan(
    text: str, *, earlier_ids: Iterable[int] = (), inputs: InputMode = "declare", first_id: int = 1
) -> tuple[Plan, list[Diagnostic]]:
    """Read a whole plan, errors included.

    Args:
        text: in the plan language.
        earlier_ids: see ``Parser``.
        inputs: see ``Parser``.
        first_id: see ``Parser``.

    Returns:
        The plan of all that can be read, and the diagnostics. The plan is sound if no diagnostic is
        an error.
    """
    parser = Parser(earlier_ids=earlier_ids, inputs=inputs, first_id=first_id)
    parser.feed(text)
    parser.close()
    return parser.plan(), parser.diagnostics


def parse_plan(
    text: str, *, earlier_ids: Iterable[int] = (), inputs: InputMode = "declare", first_id: int = 1
) -> Plan:
    """Read a whole plan that has no errors; arguments as for ``read_plan``.

    Raises:
        PlanError: the plan has errors; ``diagnostics`` lists them.
    """
    plan, diagnostics = read_plan(text, earlier_ids=earlier_ids, inputs=inputs, first_id=first_id)
    errors = [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
    if errors:
        count = f"{len(errors)} errors" if len(errors) > 1 else "an error"
        raise PlanError(f"the plan has {count}", diagnostics=errors)
    return plan
