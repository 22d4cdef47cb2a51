"""The engine's thread: one forward pass a step for every text that can go on.

Requests join and leave the batch between steps; long prompts are read a chunk at a time, so that
nobody waits for a newcomer. Writers of one workspace go in lock-step with their readers: the next
step is taken when everybody who listens has taken in the last one. So a call that is cut ends at
that very token, and what the others see of it is what was recorded. The module must not know runs.
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
from llmcompiler.llm.native.chat import Chat
from llmcompiler.llm.native.session import Session
from llmcompiler.llm.native.views import BlockId, Group, View, plan_group, tokens_seen
from llmcompiler.llm.native.writer import Deliver, Writer, read
from llmcompiler.llm.workspace import Seat, Workspace

ROWS = 8
"""Plain requests that are written at once; more wait their turn."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """One call.

    Attributes:
        request: what is asked.
        deliver: takes pieces, then a ``Completion``, or an error; called from the engine's thread.
        seat: where it writes, if at a workspace.
        hungry: whether the reader has taken in all that it was given.
        left: whether nobody reads any more.
    """

    request: Request
    deliver: Deliver
    seat: Seat | None = None
    hungry: bool = False
    left: bool = False
    writer: Writer | None = None

    def give(self, item: str | Completion | BaseException) -> None:
        """Hand something to the reader."""
        self.hungry = False
        if not self.left:
            self.deliver(item)


@dataclass(eq=False, slots=True)
class _Preparation:
    """Reading that must be done before some calls can be written."""

    steps: Iterator[None]
    jobs: Sequence[Job]
    then: Callable[[], None] = lambda: None


@dataclass(eq=False, slots=True)
class _Table:
    """A workspace's calls, and its caches once all who are to write are there."""

    jobs: dict[Seat, Job] = field(default_factory=dict)
    session: Session | None = None
    behind: list[Job] = field(default_factory=list)
    busy: int = 0


class Engine:
    """Writes what it is asked, in a thread of its own.

    Args:
        chat: the model.
        name: of the model, in completions.
        threads: of torch's, in the engine's own; ``None`` for as many as torch sees fit.
    """

    def __init__(self, chat: Chat, name: str, threads: int | None = None) -> None:
        self._chat = chat
        self._threads = threads
        self._name = name
        self._changed = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._stopped = False
        self._waiting: deque[Job] = deque()
        self._plain: list[Job] = []
        self._tables: dict[Workspace, _Table] = {}
        self._reading: deque[_Preparation] = deque()
        self._thread = threading.Thread(target=self._run, name=f"{name} engine", daemon=True)
        self._thread.start()

    @property
    def tables(self) -> int:
        """Workspaces that it keeps."""
        return len(self._tables)

    def submit(self, job: Job) -> None:
        """Have a call written."""
        self._tell(lambda: self._admit(job))

    def leave(self, job: Job) -> None:
        """Nobody reads a call any more."""
        job.left = True
        self._tell(lambda: self._drop(job))

    def feed(self, job: Job) -> None:
        """A reader has taken in all that it was given."""
        with self._changed:
            job.hungry = True
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, whatever it is doing, and wait for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # Everything below runs in the engine's thread.

    def _tell(self, news: Callable[[], None]) -> None:
        with self._changed:
            self._inbox.append(news)
            self._changed.notify()

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                while not (self._inbox or self._stopped or self._has_work()):
                    self._changed.wait()
                if self._stopped:
                    return
                news = list(self._inbox)
                self._inbox.clear()
            for one in news:
                one()
            self._read_on()
            self._write_on()

    def _has_work(self) -> bool:
        if self._reading or (self._waiting and len(self._plain) < ROWS):
            return True
        return bool(self._plain) or any(self._is_ready(one) for one in self._tables.values())

    def _is_ready(self, table: _Table) -> bool:
        """Whether all who write at a workspace can take the next step."""
        if table.session is None or table.busy:
            return False
        by_writer = {id(job.writer): job for job in table.jobs.values()}
        writers = table.session.writers()
        return bool(writers) and all(
            writer.script or by_writer[id(writer)].hungry for writer in writers
        )

    def _admit(self, job: Job) -> None:
        if job.left:
            return
        if job.seat is None:
            self._waiting.append(job)
            return
        workspace = job.seat.workspace
        if workspace not in self._tables:
            self._tables[workspace] = _Table()
            workspace.on_close(lambda: self._tell(lambda: self._close(workspace)))
        table = self._tables[workspace]
        table.jobs[job.seat] = job
        self._open(workspace, table)

    def _open(self, workspace: Workspace, table: _Table) -> None:
        """Begin with a workspace when everybody is there, or with what comes behind."""
        if table.session is None:
            if not all(seat.over or seat in table.jobs for seat in workspace.writers):
                return
            table.session = session = Session(self._chat, workspace, self._name)
            first = [job for seat, job in table.jobs.items() if seat.kind == "write"]
            asked: dict[int, tuple[Request, Deliver]] = {}
            for job in first:
                assert job.seat is not None
                asked[job.seat.number] = job.request, job.give
            table.busy += 1

            def seated() -> None:
                table.busy -= 1
                for job in first:
                    assert job.seat is not None
                    job.writer = session.writer(job.seat.number)
                    if job.left:
                        session.leave(job.writer, job.seat)

            self._reading.append(_Preparation(session.begin(asked), first, seated))
        for seat, job in table.jobs.items():
            if seat.kind != "write" and job not in table.behind and not job.left:
                table.behind.append(job)
                self._reading.append(_Preparation(self._follow(table, job), [job]))

    def _follow(self, table: _Table, job: Job) -> Iterator[None]:
        session = table.session
        assert session is not None and job.seat is not None
        # What an earlier process wrote comes first, and is being read by now.
        while table.busy or session.recalls:
            yield
        table.busy += 1
        job.writer = yield from session.follow(job.seat, job.request, job.give)
        table.busy -= 1
        if job.left:
            session.leave(job.writer, job.seat)

    def _drop(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        if job in self._plain:
            self._plain.remove(job)
        if job.seat is not None and (table := self._tables.get(job.seat.workspace)) is not None:
            job.seat.over = True
            if table.session is None:
                table.jobs.pop(job.seat, None)
                self._open(job.seat.workspace, table)
            elif job.writer is not None:
                table.session.leave(job.writer, job.seat)

    def _close(self, workspace: Workspace) -> None:
        self._tables.pop(workspace, None)

    def _read_on(self) -> None:
        """One chunk of what has to be read before it can be written on."""
        while self._waiting and len(self._plain) + len(self._reading) < ROWS:
            job = self._waiting.popleft()

            def join(job: Job = job) -> None:
                if not job.left:
                    self._plain.append(job)

            self._reading.append(_Preparation(self._begin(job), [job], join))
        if not self._reading:
            return
        preparation = self._reading[0]
        try:
            next(preparation.steps)
            self._reading.rotate(-1)
        except StopIteration:
            self._reading.popleft()
            preparation.then()
        except Exception as error:  # noqa: BLE001 - whose reader raises it
            self._reading.popleft()
            self._fail(preparation.jobs, error)

    def _begin(self, job: Job) -> Iterator[None]:
        tokens = self._chat.prompt(job.request.messages)
        matcher = self._chat.matcher(job.request)
        block = BlockId(Bank(self._chat.loaded.shape), 0)
        job.writer = writer = Writer(
            self._chat.loaded, job.request, block, job.give, self._name, matcher=matcher
        )
        writer.prompt_tokens = len(tokens)
        writer.queue = tokens[-1:]
        for _ in read(self._chat.loaded, ((block,),), tokens[:-1]):
            yield
            if job.left:
                return

    def _write_on(self) -> None:
        """One token for everybody who can take one."""
        rows: list[tuple[Writer, View, Session | None]] = []
        jobs = list(self._plain)
        for job in self._plain:
            assert job.writer is not None
            rows.append((job.writer, ((job.writer.block,),), None))
        tables = [table for table in self._tables.values() if self._is_ready(table)]
        for table in tables:
            assert table.session is not None
            jobs += table.jobs.values()
            session = table.session
            rows += [(writer, session.view(writer), session) for writer in session.writers()]
        if not rows:
            return
        try:
            self._step(rows)
        except Exception as error:  # noqa: BLE001 - whose readers raise it
            self._fail(jobs, error)
            return
        self._plain = [job for job in self._plain if job.writer and not job.writer.finish]
        for table in tables:
            assert table.session is not None
            table.busy += 1

            def done(table: _Table = table) -> None:
                table.busy -= 1

            preparation = _Preparation(table.session.settle(), list(table.jobs.values()), done)
            # Mostly nothing is to be read, and the next step can be taken at once.
            try:
                next(preparation.steps)
                self._reading.append(preparation)
            except StopIteration:
                done()
            except Exception as error:  # noqa: BLE001
                self._fail(preparation.jobs, error)

    def _step(self, rows: Sequence[tuple[Writer, View, Session | None]]) -> None:
        loaded = self._chat.loaded
        groups: list[Group] = []
        at = 0
        while at < len(rows):
            # Those who see the same banks and write to one go together.
            session, bank = rows[at][2], rows[at][0].block.bank
            end = at + 1
            while end < len(rows) and rows[end][2] is session and session is not None:
                if rows[end][0].block.bank is not bank:
                    break
                end += 1
            views = [view for _, view, _ in rows[at:end]]
            groups.append(plan_group(views, [1] * len(views), loaded.rotation))
            at = end
        scores = loaded.forward(
            groups, [writer.queue for writer, _, _ in rows], [row[0].thought for row in rows]
        )
        for (writer, view, session), said in zip(rows, scores, strict=True):
            if session is None:
                writer.took(said, tokens_seen(view))
            else:
                session.took(writer, said, tokens_seen(view))

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        _log.debug("a step failed", exc_info=error)
        for job in jobs:
            job.give(error)
            if job in self._plain:
                self._plain.remove(job)
            if job.seat is not None:
                self._tables.pop(job.seat.workspace, None)
