"""One call of a branch: read to its end by a task of its own, or cut, or left to be made again.

What a call tells, it tells its branch. The module must not know strategies or budgets, nor how
calls are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import aclosing
from typing import Any, Protocol

from llmcompiler.errors import LLMCompilerError, ModelError
from llmcompiler.llm.base import Completion, Usage
from llmcompiler.reasoning.base import Candidate
from llmcompiler.runtime.branch_order import Tape
from llmcompiler.runtime.model_calls import RecordedCall


class Owner(Protocol):
    """What a call needs of its branch."""

    tape: Tape

    def recorded(self, call: str) -> RecordedCall | None:
        """What the log holds of a call, or of the last that was made in its place."""
        ...

    def took(self, call: LiveCall) -> None:
        """A call wrote a piece, or ended."""
        ...

    def answer(self, text: str) -> str | None:
        """The answer that a text states."""
        ...


class LiveCall:
    """One call of a branch (a ``Call``)."""

    def __init__(self, branch: Owner, name: str, label: str, model: str, prompt: str) -> None:
        self.id = name
        self.label = label
        self.prompt = prompt
        self.candidate: Candidate | None = None
        self.error: LLMCompilerError | None = None
        self.is_cut = False
        self.pieces = 0
        self._branch = branch
        self.model = model
        self.task: asyncio.Task[None] | None = None
        self.begun = asyncio.Event()
        self._text: list[str] = []
        self._reads = False
        self._is_left = False

    @property
    def text(self) -> str:
        """See ``Call``."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        return self._text[0] if self._text else ""

    @property
    def has_ended(self) -> bool:
        """See ``Call``."""
        return self.candidate is not None

    def cut(self) -> None:
        """See ``Call``."""
        if self.has_ended or self.is_cut:
            return
        recorded = self._branch.recorded(self.id)
        if recorded is not None and recorded.finish not in ("cut", "interrupted"):
            return  # as recorded, it had come to its end by now
        self.is_cut = True
        if recorded is not None and recorded.finish == "cut":
            self._text, self.pieces = list(recorded.pieces), len(recorded.pieces)
        self._branch.tape.drop(self.id)
        if self._reads and self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def leave(self) -> None:
        """Break off, to be made again if the branch is resumed."""
        self._is_left = True
        if self._reads and self.task is not None:
            self.task.cancel()

    def __await__(self) -> Generator[Any, None, Candidate]:
        """See ``Call``."""
        return self._wait().__await__()

    async def _wait(self) -> Candidate:
        await self.settled()
        if isinstance(self.error, ModelError):
            raise self.error
        assert self.candidate is not None
        return self.candidate

    async def settled(self) -> Candidate:
        """The candidate, also of a call that failed; limits of the run are raised."""
        assert self.task is not None
        await asyncio.wait((self.task,))
        if self.task.cancelled() and not self.is_cut:
            raise asyncio.CancelledError
        if not self.task.cancelled() and (bug := self.task.exception()) is not None:
            raise bug
        if self.error is not None and not isinstance(self.error, ModelError):
            raise self.error
        assert self.candidate is not None
        return self.candidate

    async def read(self, stream: Any) -> None:
        """Take in what the model writes, until its end or until the call is cut."""
        answer: Completion | None = None
        self._reads = True
        task = asyncio.current_task()
        if (self.is_cut or self._is_left) and task is not None:
            task.cancel()  # at its first wait, so that its end is noted like any other
        try:
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        answer = piece
                        continue
                    if piece is None:
                        self._text, self.pieces = [], 0
                        continue
                    self._text.append(piece)
                    self.pieces += 1
                    self.begun.set()
                    self._branch.took(self)
                    if self.is_cut:
                        break
        except asyncio.CancelledError:
            if not self.is_cut:
                raise
        except LLMCompilerError as error:
            self.error = error
        self._end(answer)

    def _end(self, answer: Completion | None) -> None:
        branch, text = self._branch, self.text
        if self.is_cut:
            finish, usage = "cut", Usage(completion_tokens=self.pieces, calls=1)
        elif answer is None:
            finish, usage = "failed", Usage(calls=1)
        else:
            finish, usage, text = answer.finish, answer.usage, answer.text
        self.candidate = Candidate(
            text,
            # The last line of a text that breaks off is not meant as an answer.
            branch.answer(text) if finish not in ("cut", "failed") else None,
            finish,
            self.id,
            self.label,
            usage,
            answer.logprobs if answer is not None else None,
        )
        self.begun.set()
        branch.took(self)
