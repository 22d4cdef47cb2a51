"""One model call of a branch: read to its end by its own task, or cut, or interrupted.

A call reports every piece and its end to its branch. A resumed branch makes an interrupted call
again, and never a call that was cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import aclosing
from typing import Any, Protocol

from llmcompiler.errors import LLMCompilerError, ModelError
from llmcompiler.llm.base import Completion, Usage
from llmcompiler.reasoning.base import Candidate
from llmcompiler.runtime.branch_order import BranchReplay
from llmcompiler.runtime.model_calls import RecordedCall


class CallOwner(Protocol):
    """The part of a branch that its calls use."""

    replay: BranchReplay

    def recorded_call(self, call_id: str) -> RecordedCall | None:
        """The recorded call of that id, or the last one that was made in its place."""
        ...

    def on_call_progress(self, call: LiveCall) -> None:
        """Handle a new piece or the end of a call."""
        ...

    def answer(self, text: str) -> str | None:
        """The answer in a text; ``None`` if it has none."""
        ...


class LiveCall:
    """One call of a branch (a ``BranchCall``).

    Args:
        branch: the branch that started the call.
        call_id: such as ``4/0``.
        label: what the strategy called it.
        model: the name of the model.
        prompt: the text of all messages, to find calls that share a beginning.

    Attributes:
        candidate: the result; ``None`` while the call runs.
        error: why the call failed.
        is_cut: True once the branch has cut the call.
        pieces: number of pieces of text so far.
        prompt_read: set once the endpoint has read the prompt (first piece), or the call ended.
        task: reads the model's stream.
    """

    def __init__(
        self, branch: CallOwner, call_id: str, label: str, model: str, prompt: str
    ) -> None:
        self.id = call_id
        self.label = label
        self.prompt = prompt
        self.candidate: Candidate | None = None
        self.error: LLMCompilerError | None = None
        self.is_cut = False
        self.pieces = 0
        self._branch = branch
        self.model = model
        self.task: asyncio.Task[None] | None = None
        self.prompt_read = asyncio.Event()
        self._text: list[str] = []
        self._is_reading = False
        self._is_interrupted = False

    @property
    def text(self) -> str:
        """See ``BranchCall``."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        return self._text[0] if self._text else ""

    @property
    def has_ended(self) -> bool:
        """See ``BranchCall``."""
        return self.candidate is not None

    def cut(self) -> None:
        """See ``BranchCall``."""
        if self.has_ended or self.is_cut:
            return
        recorded = self._branch.recorded_call(self.id)
        if recorded is not None and recorded.finish not in ("cut", "interrupted"):
            return  # in the log the call had ended by now
        self.is_cut = True
        if recorded is not None and recorded.finish == "cut":
            self._text, self.pieces = list(recorded.pieces), len(recorded.pieces)
        self._branch.replay.drop(self.id)
        if self._is_reading and self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def interrupt(self) -> None:
        """Stop reading; a resumed branch makes the call again."""
        self._is_interrupted = True
        if self._is_reading and self.task is not None:
            self.task.cancel()

    def __await__(self) -> Generator[Any, None, Candidate]:
        """See ``BranchCall``."""
        return self._wait().__await__()

    async def _wait(self) -> Candidate:
        await self.wait_ended()
        if isinstance(self.error, ModelError):
            raise self.error
        assert self.candidate is not None
        return self.candidate

    async def wait_ended(self) -> Candidate:
        """Wait for the end and return the candidate, also of a call that failed.

        Raises:
            LimitReached: a limit of the run stopped the call.
        """
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
        """Read the model's stream until its end, or until the call is cut."""
        completion: Completion | None = None
        self._is_reading = True
        task = asyncio.current_task()
        if (self.is_cut or self._is_interrupted) and task is not None:
            task.cancel()  # takes effect at the first await, so the end is recorded as usual
        try:
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        completion = piece
                        continue
                    if piece is None:
                        self._text, self.pieces = [], 0
                        continue
                    self._text.append(piece)
                    self.pieces += 1
                    self.prompt_read.set()
                    self._branch.on_call_progress(self)
                    if self.is_cut:
                        break
        except asyncio.CancelledError:
            if not self.is_cut:
                raise
        except LLMCompilerError as error:
            self.error = error
        self._end(completion)

    def _end(self, completion: Completion | None) -> None:
        branch, text = self._branch, self.text
        if self.is_cut:
            finish, usage = "cut", Usage(completion_tokens=self.pieces, calls=1)
        elif completion is None:
            finish, usage = "failed", Usage(calls=1)
        else:
            finish, usage, text = completion.finish, completion.usage, completion.text
        self.candidate = Candidate(
            text,
            # The last line of a text that breaks off is no answer.
            branch.answer(text) if finish not in ("cut", "failed") else None,
            finish,
            self.id,
            self.label,
            usage,
            completion.logprobs if completion is not None else None,
        )
        self.prompt_read.set()
        branch.on_call_progress(self)
