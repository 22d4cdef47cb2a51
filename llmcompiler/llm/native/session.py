"""A workspace in caches: blocks for the prompt and for each writer's work, and their line-ups.

Layouts are Hogwild!'s (arXiv 2504.06261, section 3.2) and ParaThinker's (arXiv 2509.04475). A step
that ends is moved into the common past where the layout has one. What an earlier process wrote is
fed again token by token in the same order, so that every token sees what it saw then.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from llmcompiler.llm.base import Completion, Request
from llmcompiler.llm.native.blocks import Bank
from llmcompiler.llm.native.chat import ChatTokenizer
from llmcompiler.llm.native.rotary import Tensor
from llmcompiler.llm.native.views import BlockId, View
from llmcompiler.llm.native.writer import Deliver, Writer, prefill
from llmcompiler.llm.workspace import Seat, StepDetector, Workspace


@dataclass(slots=True)
class _WriterState:
    """A writer, and where it stands in its steps.

    Attributes:
        writer: the writer.
        step_detector: finds the ends of its steps.
        since_check: tokens since the last check was inserted.
        is_closing_step: True from the end of a step until the step is moved to the common past.
    """

    writer: Writer
    step_detector: StepDetector = field(default_factory=StepDetector)
    since_check: int = 0
    is_closing_step: bool = False


class WorkspaceSession:
    """The caches and the writers of one workspace.

    Args:
        chat: the model's tokenizer.
        workspace: the workspace.
        name: the model's name.
    """

    def __init__(self, chat: ChatTokenizer, workspace: Workspace, name: str) -> None:
        self._chat = chat
        self._loaded = chat.loaded
        self._name = name
        self.workspace = workspace
        rules = workspace.rules
        shape = self._loaded.shape
        self._prompt = BlockId(Bank(shape), 0)
        self._common = BlockId(Bank(shape), 0)
        self._headings = Bank(shape, 2)
        self._bank = Bank(shape, len(rules.openings))
        self._openings = [chat.tokens(text) for text in rules.openings]
        self._check = chat.tokens(rules.check)
        self._banned = chat.single_tokens(rules.banned)
        self._prompt_tokens = 0
        self._states: dict[int, _WriterState] = {}
        self._layout = rules.layout
        self._later_writers: list[Writer] = []
        self._unread: deque[Writer] = deque()

    @property
    def bytes(self) -> int:
        """Bytes of memory that the caches take."""
        banks = [self._prompt.bank, self._common.bank, self._headings, self._bank]
        banks += [
            writer.block.bank
            for writer in self._later_writers
            if writer.block.bank is not self._bank
        ]
        return sum(bank.bytes for bank in banks)

    def begin(self, calls: dict[int, tuple[Request, Deliver]]) -> Iterator[None]:
        """Read the prompt and each writer's opening; one chunk each time it is advanced.

        Args:
            calls: the calls by writer; a writer without a call has ended in an earlier process.
        """
        rules = self.workspace.rules
        prompt = self._chat.prompt(self.workspace.messages)
        self._prompt_tokens = len(prompt)
        for _ in prefill(self._loaded, ((self._prompt,),), prompt):
            yield
        if rules.layout == "combined":
            for slot, heading in enumerate(rules.headings):
                view = ((self._prompt,), (BlockId(self._headings, slot),))
                for _ in prefill(self._loaded, view, self._chat.tokens(heading)):
                    yield
        for number, opening in enumerate(self._openings):
            request, deliver = calls.get(number, (Request(()), _discard))
            block = BlockId(self._bank, number)
            writer = Writer(self._loaded, request, block, deliver, self._name, banned=self._banned)
            writer.prompt_tokens = self._prompt_tokens + len(opening)
            writer.cached_tokens = self._prompt_tokens if number else 0
            writer.thought_number = number + 1
            writer.queue = list(opening)
            self._load_record(writer, self.workspace.writers[number])
            if number not in calls:
                writer.finish = "over"
            self._states[number] = _WriterState(writer)
        for state in self._states.values():
            yield from self._feed(state.writer)

    def begin_later(
        self, seat: Seat, request: Request, deliver: Deliver
    ) -> Generator[None, None, Writer]:
        """Begin a call that comes when all writers have ended (``append`` or ``conclude``)."""
        text = self._chat.tokens(seat.text)
        cached = self._prompt_tokens + sum(self._bank.lengths) + self._common.bank.lengths[0]
        if seat.kind == "append":
            before = self._states[seat.number].writer
            block, thought_number = before.block, before.thought_number
            # The last token has not been fed yet; an end of the answer is dropped.
            text = self._without_ends(before.queue) + text
        else:
            block, thought_number = BlockId(Bank(self._loaded.shape), 0), 0
            yield from self._feed_last_tokens()
        writer = Writer(self._loaded, request, block, deliver, self._name)
        writer.prompt_tokens = cached + len(text)
        writer.cached_tokens = cached
        writer.thought_number = thought_number
        writer.queue = text
        self._load_record(writer, seat)
        self._later_writers.append(writer)
        yield from self._feed(writer)
        return writer

    def feed_insertions(self) -> Iterator[None]:
        """Read the texts that the last step has inserted, such as openings and checks."""
        while self._unread:
            yield from self._feed(self._unread.popleft())

    def _feed_last_tokens(self) -> Iterator[None]:
        """Feed each writer's last token, so that a conclusion sees all of the writer's text."""
        for state in self._states.values():
            writer = state.writer
            last = self._without_ends(writer.queue)
            writer.queue = []
            for _ in prefill(self._loaded, self.view(writer), last, writer.thought_number):
                yield

    def _without_ends(self, tokens: list[int]) -> list[int]:
        return [token for token in tokens if token not in self._loaded.end_tokens]

    def _load_record(self, writer: Writer, seat: Seat) -> None:
        """Give a writer the tokens that an earlier process wrote at its seat."""
        for piece in seat.pieces:
            if piece == self.workspace.rules.check:
                writer.recorded_tokens += self._check
            else:
                tokens = self._chat.piece_tokens([piece])
                writer.recorded_tokens += tokens
                writer.recalled_tokens += len(tokens)
        if seat.finish == "stop":
            # The text ended only after its last token was in the block.
            writer.recorded_tokens.append(min(self._loaded.end_tokens))

    @property
    def is_recalling(self) -> bool:
        """True while some of what an earlier process wrote has not been fed yet."""
        return any(state.writer.recorded_tokens for state in self._states.values())

    def writer(self, number: int) -> Writer:
        """The writer of seat ``number``."""
        return self._states[number].writer

    def writers(self) -> list[Writer]:
        """The writers that go on; those that write to the same bank stand together."""
        everybody = [state.writer for state in self._states.values()] + self._later_writers
        return [writer for writer in everybody if not writer.finish or writer.recorded_tokens]

    def cut(self, writer: Writer, seat: Seat) -> None:
        """End a writer; the text that its reader has taken in stays."""
        if not writer.finish:
            writer.finish = "cut"
            if writer.pieces > len(seat.pieces):
                writer.queue = []

    def view(self, writer: Writer) -> View:
        """The blocks that a writer sees, its own work last."""
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
                others_heading, own_heading = (BlockId(self._headings, slot) for slot in range(2))
                return (
                    (self._prompt,),
                    (self._common,),
                    (others_heading,),
                    *others,
                    (own_heading,),
                    (own,),
                )
        return (self._prompt,), (own,)

    def take_scores(self, writer: Writer, scores: Tensor, visible: int) -> None:
        """Take the scores behind a writer's last token; close the step and insert the check if due.

        Args:
            writer: the writer.
            scores: one score for each token of the vocabulary.
            visible: tokens that the writer sees, its own included.
        """
        state = self._states.get(writer.block.slot)
        if state is None or state.writer is not writer:
            writer.take_scores(scores, visible)
            return
        state.since_check += 1
        if state.is_closing_step:
            # The block holds the step's last token now; the next step picks the next token.
            state.is_closing_step = False
            self._common.bank.absorb(self._bank, writer.block.slot, self._loaded.rotation)
            writer.queue = list(self._openings[writer.block.slot])
            self._insert_check(state)
            self._unread.append(writer)
            return
        text = writer.take_scores(scores, visible)
        if self._layout == "paths" or not state.step_detector.take(text):
            return
        if self._layout == "contiguous":
            if self._insert_check(state):
                self._unread.append(writer)
        else:
            state.is_closing_step = True

    def _insert_check(self, state: _WriterState) -> bool:
        """Put the check into a writer's text if it is due; True if it was."""
        rules, writer = self.workspace.rules, state.writer
        is_due = rules.check_every and state.since_check >= rules.check_every
        if not is_due or writer.finish == "cut":
            return False
        state.since_check = 0
        writer.queue += self._check
        recorded = list(itertools.islice(writer.recorded_tokens, len(self._check)))
        if recorded == self._check:
            for _ in recorded:
                writer.recorded_tokens.popleft()
        else:
            writer.deliver(rules.check)
        return True

    def _feed(self, writer: Writer) -> Iterator[None]:
        """Feed the queue but its last token, which goes with the next step of all writers."""
        *first, last = writer.queue
        writer.queue = [last]
        for _ in prefill(self._loaded, self.view(writer), first, writer.thought_number):
            yield


def _discard(_: str | Completion | BaseException) -> None:
    """Deliver nothing: an earlier process has delivered the text already."""
