"""The native engine's thread: one forward pass a step for every text that can go on.

Calls join and leave the batch between steps; long prompts are read a chunk at a time, so that no
call waits long for a newcomer. Writers of one workspace go in lock-step with their readers: the
next step is taken when every reader has taken in the last one. So a call that is cut ends at that
very token, and what the other writers see of it is what was recorded.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.native.blocks import Bank
from llmcompiler.llm.native.chat import ChatTokenizer
from llmcompiler.llm.native.session import WorkspaceSession
from llmcompiler.llm.native.views import BlockId, RowGroup, View, plan_group, visible_tokens
from llmcompiler.llm.native.writer import Deliver, Writer, prefill
from llmcompiler.llm.workspace import Seat, Workspace

ROWS = 8
"""Plain calls that are written at once; further calls wait."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class NativeCall:
    """One call.

    Attributes:
        request: the request.
        deliver: takes pieces, then a ``Completion``, or an error; called from the engine's thread.
        seat: the call's place at a workspace; ``None`` for a plain call.
        reader_is_ready: True if the reader has taken in everything that was delivered.
        reader_has_left: True if nobody reads the call any more.
        writer: the call's writer, once its prompt is read.
    """

    request: Request
    deliver: Deliver
    seat: Seat | None = None
    reader_is_ready: bool = False
    reader_has_left: bool = False
    writer: Writer | None = None

    def send(self, item: str | Completion | BaseException) -> None:
        """Deliver an item, unless the reader has left."""
        self.reader_is_ready = False
        if not self.reader_has_left:
            self.deliver(item)


@dataclass(eq=False, slots=True)
class _Reading:
    """Tokens to be read before some calls can be written.

    Attributes:
        steps: reads one chunk each time it is advanced.
        calls: the calls that fail if the reading fails.
        on_done: called when all is read.
    """

    steps: Iterator[None]
    calls: Sequence[NativeCall]
    on_done: Callable[[], None] = lambda: None


@dataclass(eq=False, slots=True)
class _WorkspaceCalls:
    """A workspace's calls.

    Attributes:
        calls: the calls by seat.
        session: the caches, once every writer's call is there.
        later_calls: calls that come when all writers have ended.
        readings: how many readings are running; no step is taken meanwhile.
    """

    calls: dict[Seat, NativeCall] = field(default_factory=dict)
    session: WorkspaceSession | None = None
    later_calls: list[NativeCall] = field(default_factory=list)
    readings: int = 0


class NativeEngine:
    """Writes the answers of calls, in a thread of its own.

    Args:
        chat: the model's tokenizer, with the model.
        name: the model's name, for completions.
        threads: torch's threads in the engine's thread; ``None`` for torch's own choice.
    """

    def __init__(self, chat: ChatTokenizer, name: str, threads: int | None = None) -> None:
        self._chat = chat
        self._threads = threads
        self._name = name
        self._changed = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._stopped = False
        self._waiting: deque[NativeCall] = deque()
        self._plain_calls: list[NativeCall] = []
        self._workspaces: dict[Workspace, _WorkspaceCalls] = {}
        self._readings: deque[_Reading] = deque()
        self._thread = threading.Thread(target=self._run, name=f"{name} engine", daemon=True)
        self._thread.start()

    @property
    def workspaces(self) -> int:
        """Number of open workspaces."""
        return len(self._workspaces)

    def submit(self, call: NativeCall) -> None:
        """Have a call written."""
        self._post(lambda: self._admit(call))

    def leave(self, call: NativeCall) -> None:
        """End a call that nobody reads any more."""
        call.reader_has_left = True
        self._post(lambda: self._drop(call))

    def set_reader_ready(self, call: NativeCall) -> None:
        """Note that the reader has taken in everything that was delivered."""
        with self._changed:
            call.reader_is_ready = True
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, whatever it is doing, and wait for its end."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _post(self, action: Callable[[], None]) -> None:
        """Have the engine's thread run ``action``."""
        with self._changed:
            self._inbox.append(action)
            self._changed.notify()

    # Everything below runs in the engine's thread.

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                while not (self._inbox or self._stopped or self._has_work()):
                    self._changed.wait()
                if self._stopped:
                    return
                actions = list(self._inbox)
                self._inbox.clear()
            for action in actions:
                action()
            self._read_chunk()
            self._write_tokens()

    def _has_work(self) -> bool:
        if self._readings or (self._waiting and len(self._plain_calls) < ROWS):
            return True
        return bool(self._plain_calls) or any(map(self._is_ready, self._workspaces.values()))

    def _is_ready(self, group: _WorkspaceCalls) -> bool:
        """True if all writers of a workspace can take the next step."""
        if group.session is None or group.readings:
            return False
        call_by_writer = {id(call.writer): call for call in group.calls.values()}
        writers = group.session.writers()
        return bool(writers) and all(
            writer.recorded_tokens or call_by_writer[id(writer)].reader_is_ready
            for writer in writers
        )

    def _admit(self, call: NativeCall) -> None:
        if call.reader_has_left:
            return
        if call.seat is None:
            self._waiting.append(call)
            return
        workspace = call.seat.workspace
        if workspace not in self._workspaces:
            self._workspaces[workspace] = _WorkspaceCalls()
            workspace.on_close(lambda: self._post(lambda: self._close(workspace)))
        group = self._workspaces[workspace]
        group.calls[call.seat] = call
        self._begin_calls(workspace, group)

    def _begin_calls(self, workspace: Workspace, group: _WorkspaceCalls) -> None:
        """Begin a workspace once every writer's call is there; begin calls that come later."""
        if group.session is None:
            if not all(seat.over or seat in group.calls for seat in workspace.writers):
                return
            group.session = session = WorkspaceSession(self._chat, workspace, self._name)
            first_calls = [call for seat, call in group.calls.items() if seat.kind == "write"]
            requests: dict[int, tuple[Request, Deliver]] = {}
            for call in first_calls:
                assert call.seat is not None
                requests[call.seat.number] = call.request, call.send
            group.readings += 1

            def assign_writers() -> None:
                group.readings -= 1
                for call in first_calls:
                    assert call.seat is not None
                    call.writer = session.writer(call.seat.number)
                    if call.reader_has_left:
                        session.cut(call.writer, call.seat)

            self._readings.append(_Reading(session.begin(requests), first_calls, assign_writers))
        for seat, call in group.calls.items():
            is_new = call not in group.later_calls and not call.reader_has_left
            if seat.kind != "write" and is_new:
                group.later_calls.append(call)
                self._readings.append(_Reading(self._begin_later(group, call), [call]))

    def _begin_later(self, group: _WorkspaceCalls, call: NativeCall) -> Iterator[None]:
        session = group.session
        assert session is not None and call.seat is not None
        # What an earlier process wrote comes first, and is being fed by now.
        while group.readings or session.is_recalling:
            yield
        group.readings += 1
        call.writer = yield from session.begin_later(call.seat, call.request, call.send)
        group.readings -= 1
        if call.reader_has_left:
            session.cut(call.writer, call.seat)

    def _drop(self, call: NativeCall) -> None:
        if call in self._waiting:
            self._waiting.remove(call)
        if call in self._plain_calls:
            self._plain_calls.remove(call)
        if call.seat is None:
            return
        workspace = call.seat.workspace
        if (group := self._workspaces.get(workspace)) is not None:
            call.seat.over = True
            if group.session is None:
                group.calls.pop(call.seat, None)
                self._begin_calls(workspace, group)
            elif call.writer is not None:
                group.session.cut(call.writer, call.seat)

    def _close(self, workspace: Workspace) -> None:
        self._workspaces.pop(workspace, None)

    def _read_chunk(self) -> None:
        """Read one chunk of the first reading, after readings were started for waiting calls."""
        while self._waiting and len(self._plain_calls) + len(self._readings) < ROWS:
            call = self._waiting.popleft()

            def join_batch(call: NativeCall = call) -> None:
                if not call.reader_has_left:
                    self._plain_calls.append(call)

            self._readings.append(_Reading(self._begin_plain(call), [call], join_batch))
        if not self._readings:
            return
        reading = self._readings[0]
        try:
            next(reading.steps)
            self._readings.rotate(-1)
        except StopIteration:
            self._readings.popleft()
            reading.on_done()
        except Exception as error:  # noqa: BLE001 - the calls' readers raise it
            self._readings.popleft()
            self._fail(reading.calls, error)

    def _begin_plain(self, call: NativeCall) -> Iterator[None]:
        tokens = self._chat.prompt(call.request.messages)
        matcher = self._chat.matcher(call.request)
        block = BlockId(Bank(self._chat.loaded.shape), 0)
        call.writer = writer = Writer(
            self._chat.loaded, call.request, block, call.send, self._name, matcher=matcher
        )
        writer.prompt_tokens = len(tokens)
        writer.queue = tokens[-1:]
        for _ in prefill(self._chat.loaded, ((block,),), tokens[:-1]):
            yield
            if call.reader_has_left:
                return

    def _write_tokens(self) -> None:
        """Write one token of every text that can go on."""
        rows: list[tuple[Writer, View, WorkspaceSession | None]] = []
        calls = list(self._plain_calls)
        for call in self._plain_calls:
            assert call.writer is not None
            rows.append((call.writer, ((call.writer.block,),), None))
        groups = [group for group in self._workspaces.values() if self._is_ready(group)]
        for group in groups:
            assert group.session is not None
            calls += group.calls.values()
            session = group.session
            rows += [(writer, session.view(writer), session) for writer in session.writers()]
        if not rows:
            return
        try:
            self._step(rows)
        except Exception as error:  # noqa: BLE001 - the calls' readers raise it
            self._fail(calls, error)
            return
        self._plain_calls = [
            call for call in self._plain_calls if call.writer and not call.writer.finish
        ]
        for group in groups:
            assert group.session is not None
            group.readings += 1

            def end_reading(group: _WorkspaceCalls = group) -> None:
                group.readings -= 1

            reading = _Reading(
                group.session.feed_insertions(), list(group.calls.values()), end_reading
            )
            # Mostly nothing was inserted, and the next step can be taken at once.
            try:
                next(reading.steps)
                self._readings.append(reading)
            except StopIteration:
                end_reading()
            except Exception as error:  # noqa: BLE001 - the calls' readers raise it
                self._fail(reading.calls, error)

    def _step(self, rows: Sequence[tuple[Writer, View, WorkspaceSession | None]]) -> None:
        loaded = self._chat.loaded
        groups: list[RowGroup] = []
        start = 0
        while start < len(rows):
            # Writers that see the same banks and write to one bank form a group.
            session, bank = rows[start][2], rows[start][0].block.bank
            end = start + 1
            while end < len(rows) and rows[end][2] is session and session is not None:
                if rows[end][0].block.bank is not bank:
                    break
                end += 1
            views = [view for _, view, _ in rows[start:end]]
            groups.append(plan_group(views, [1] * len(views), loaded.rotation))
            start = end
        scores = loaded.forward(
            groups,
            [writer.queue for writer, _, _ in rows],
            [writer.thought_number for writer, _, _ in rows],
        )
        for (writer, view, session), row_scores in zip(rows, scores, strict=True):
            if session is None:
                writer.take_scores(row_scores, visible_tokens(view))
            else:
                session.take_scores(writer, row_scores, visible_tokens(view))

    def _fail(self, calls: Sequence[NativeCall], error: Exception) -> None:
        _log.debug("a step failed", exc_info=error)
        for call in calls:
            call.send(error)
            if call in self._plain_calls:
                self._plain_calls.remove(call)
            if call.seat is not None:
                self._workspaces.pop(call.seat.workspace, None)
