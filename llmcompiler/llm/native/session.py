"""A workspace in caches: blocks for what was asked and for each writer's work, and their line-ups.

Layouts are Hogwild!'s (arXiv 2504.06261, section 3.2) and ParaThinker's (arXiv 2509.04475). Steps
that end are moved into the common past where a layout has one. What an earlier process wrote is
read token by token in the same course, so that every token sees what it saw then. The module must
not know threads, nor why anything is written.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.native.blocks import Bank
from llmcompiler.llm.native.chat import Chat
from llmcompiler.llm.native.rotary import Tensor
from llmcompiler.llm.native.views import BlockId, View
from llmcompiler.llm.native.writer import Deliver, Writer, read
from llmcompiler.llm.workspace import Seat, StepDetector, Workspace


@dataclass(slots=True)
class _Desk:
    """A writer's place: what it wrote last, and where it is with its steps."""

    writer: Writer
    steps: StepDetector = field(default_factory=StepDetector)
    since_check: int = 0
    closing: bool = False


class Session:
    """One workspace.

    Args:
        chat: the model, and how it is talked to.
        workspace: what is written.
        name: of the model.
    """

    def __init__(self, chat: Chat, workspace: Workspace, name: str) -> None:
        self._chat = chat
        self._loaded = chat.loaded
        self._name = name
        self.workspace = workspace
        rules = workspace.rules
        shape = self._loaded.shape
        self._prompt = BlockId(Bank(shape), 0)
        self._common = BlockId(Bank(shape), 0)
        self._heads = Bank(shape, 2)
        self._bank = Bank(shape, len(rules.openings))
        self._openings = [chat.tokens(text) for text in rules.openings]
        self._check = chat.tokens(rules.check)
        self._banned = chat.known(rules.banned)
        self._asked = 0
        self._desks: dict[int, _Desk] = {}
        self._layout = rules.layout
        self._behind: list[Writer] = []
        self._unread: deque[Writer] = deque()

    @property
    def bytes(self) -> int:
        """Memory that the caches take."""
        banks = [self._prompt.bank, self._common.bank, self._heads, self._bank]
        banks += [one.block.bank for one in self._behind if one.block.bank is not self._bank]
        return sum(bank.bytes for bank in banks)

    def begin(self, asked: dict[int, tuple[Request, Deliver]]) -> Iterator[None]:
        """Read what was asked and how each writer begins; one step each time it is advanced.

        Args:
            asked: by writer; one who is not here has ended in an earlier process.
        """
        rules = self.workspace.rules
        prompt = self._chat.prompt(self.workspace.messages)
        self._asked = len(prompt)
        for _ in read(self._loaded, ((self._prompt,),), prompt):
            yield
        if rules.layout == "combined":
            for slot, heading in enumerate(rules.headings):
                view = ((self._prompt,), (BlockId(self._heads, slot),))
                for _ in read(self._loaded, view, self._chat.tokens(heading)):
                    yield
        for number, opening in enumerate(self._openings):
            request, deliver = asked.get(number, (Request(()), _nobody))
            block = BlockId(self._bank, number)
            writer = Writer(self._loaded, request, block, deliver, self._name, banned=self._banned)
            writer.prompt_tokens = self._asked + len(opening)
            writer.cached_tokens = self._asked if number else 0
            writer.thought = number + 1
            writer.queue = list(opening)
            self._recall(writer, self.workspace.writers[number])
            if number not in asked:
                writer.finish = "over"
            self._desks[number] = _Desk(writer)
        for desk in self._desks.values():
            yield from self._feed(desk.writer)

    def follow(
        self, seat: Seat, request: Request, deliver: Deliver
    ) -> Generator[None, None, Writer]:
        """Begin what comes when all have written: behind one writer's work, or behind all."""
        text = self._chat.tokens(seat.text)
        seen = self._asked + sum(self._bank.lengths) + self._common.bank.lengths[0]
        if seat.kind == "append":
            before = self._desks[seat.number].writer
            block, thought = before.block, before.thought
            # What was picked last has not been fed yet, unless it was the end of the answer.
            text = [t for t in before.queue if t not in self._loaded.ends] + text
        else:
            block, thought = BlockId(Bank(self._loaded.shape), 0), 0
            yield from self._catch_up()
        writer = Writer(self._loaded, request, block, deliver, self._name)
        writer.prompt_tokens = seen + len(text)
        writer.cached_tokens = seen
        writer.thought = thought
        writer.queue = text
        self._recall(writer, seat)
        self._behind.append(writer)
        yield from self._feed(writer)
        return writer

    def settle(self) -> Iterator[None]:
        """Read what the last step has put into writers' texts, besides what they wrote."""
        while self._unread:
            yield from self._feed(self._unread.popleft())

    def _catch_up(self) -> Iterator[None]:
        """Feed what each writer picked last, so that a conclusion sees all of it."""
        for desk in self._desks.values():
            writer = desk.writer
            last = [t for t in writer.queue if t not in self._loaded.ends]
            writer.queue = []
            for _ in read(self._loaded, self.view(writer), last, writer.thought):
                yield

    def _recall(self, writer: Writer, seat: Seat) -> None:
        """What an earlier process wrote there is known already."""
        for piece in seat.pieces:
            if piece == self.workspace.rules.check:
                writer.script += self._check
            else:
                known = self._chat.written([piece])
                writer.script += known
                writer.recalled += len(known)
        if seat.finish == "stop":
            # It came to this end when all that it had written was in its block.
            writer.script.append(min(self._loaded.ends))

    @property
    def recalls(self) -> bool:
        """Whether an earlier process wrote more than has been read yet."""
        return any(desk.writer.script for desk in self._desks.values())

    def writer(self, number: int) -> Writer:
        """Who writes there."""
        return self._desks[number].writer

    def writers(self) -> list[Writer]:
        """Those who write on; those who write to the same bank come together."""
        everybody = [desk.writer for desk in self._desks.values()] + self._behind
        return [writer for writer in everybody if not writer.finish or writer.script]

    def leave(self, writer: Writer, seat: Seat) -> None:
        """A writer writes no more; what its reader took in stays."""
        if not writer.finish:
            writer.finish = "cut"
            if writer.pieces > len(seat.pieces):
                writer.queue = []

    def view(self, writer: Writer) -> View:
        """What a writer has before it, its own work last."""
        own = writer.block
        if own.bank is not self._bank:
            paths = tuple(BlockId(self._bank, slot) for slot in range(len(self._openings)))
            return (self._prompt,), paths, (own,)
        others = [
            (BlockId(self._bank, slot),) for slot in range(len(self._openings)) if slot != own.slot
        ]
        match self._layout:
            case "contiguous":
                return ((self._prompt,), *others, (own,))
            case "interleaved":
                return (self._prompt,), (self._common,), (own,)
            case "combined":
                theirs, mine = (BlockId(self._heads, slot) for slot in range(2))
                return ((self._prompt,), (self._common,), (theirs,), *others, (mine,), (own,))
        return (self._prompt,), (own,)

    def took(self, writer: Writer, scores: Tensor, seen: int) -> None:
        """Take the scores behind a writer's last token, and see to what its step means."""
        desk = self._desks.get(writer.block.slot)
        if desk is None or desk.writer is not writer:
            writer.took(scores, seen)
            return
        desk.since_check += 1
        if desk.closing:
            # The step's last token is in its block now; what it leads to is left to the next step.
            desk.closing = False
            self._common.bank.absorb(self._bank, writer.block.slot, self._loaded.rotation)
            writer.queue = list(self._openings[writer.block.slot])
            self._ask_itself(desk)
            self._unread.append(writer)
            return
        new = writer.took(scores, seen)
        if self._layout == "paths" or not desk.steps.take(new):
            return
        if self._layout == "contiguous":
            if self._ask_itself(desk):
                self._unread.append(writer)
        else:
            desk.closing = True

    def _ask_itself(self, desk: _Desk) -> bool:
        """Put the check into a writer's text, where it is due."""
        rules, writer = self.workspace.rules, desk.writer
        if not rules.check_every or desk.since_check < rules.check_every or writer.finish == "cut":
            return False
        desk.since_check = 0
        writer.queue += self._check
        known = list(itertools.islice(writer.script, len(self._check)))
        if known == self._check:
            for _ in known:
                writer.script.popleft()
        else:
            writer.tell(rules.check)
        return True

    def _feed(self, writer: Writer) -> Iterator[None]:
        """Feed all but the last of what waits; the last goes with everybody's next step."""
        *first, last = writer.queue
        writer.queue = [last]
        for _ in read(self._loaded, self.view(writer), first, writer.thought):
            yield


def _nobody(_: str | Completion | BaseException) -> None:
    """Reads what an earlier process has handed on already."""
