"""The stage of a run that executes a program, statement by statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmcompiler.errors import LLMCompilerError
from llmcompiler.log.journal import Journal
from llmcompiler.programs.program import CompiledStatement
from llmcompiler.programs.session import ProgramSession, failure_of_program, plain_value
from llmcompiler.run.config import RunConfig
from llmcompiler.runtime.binding import render_value
from llmcompiler.runtime.engine import Engine


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """What a program came to.

    Attributes:
        failure: why it failed; ``None`` if it ran to its end.
        is_open: True if it ended without an answer.
        value: the answer as data.
        text: the answer as text.
    """

    failure: LLMCompilerError | None
    is_open: bool
    value: Any
    text: str


class ProgramStage:
    """Executes one program after the other.

    Args:
        engine: executes the calls.
        journal: takes in the run's events.
        config: the run's tools and limits.
        inputs: values of the program's inputs.
    """

    def __init__(
        self, engine: Engine, journal: Journal, config: RunConfig, inputs: Mapping[str, Any]
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._config = config
        self._inputs = inputs
        self._plan = 0
        self._session: ProgramSession | None = None

    @property
    def has_started(self) -> bool:
        """True once the current program has a statement."""
        return self._session is not None

    def begin(self, plan: int) -> None:
        """Statements from now on belong to plan ``plan``."""
        self._plan = plan
        self._session = None

    def add(self, statement: CompiledStatement) -> None:
        """Run a statement; the first one starts the program."""
        if self._session is None:
            self._session = ProgramSession(
                self._engine,
                self._journal,
                self._plan,
                statement.program,
                self._config.tools,
                self._inputs,
                max_iterations=self._config.limits.loop_iterations,
            )
        self._session.add(statement)

    def close(self) -> None:
        """No statement follows."""
        if self._session is not None:
            self._session.close()

    async def outcome(self) -> ProgramOutcome:
        """Wait for the end of a program that has started."""
        assert self._session is not None
        ended = await self._session.wait()
        failure = failure_of_program(ended)
        if failure is not None:
            return ProgramOutcome(failure, ended.is_open, None, "")
        value = plain_value(ended.value)
        return ProgramOutcome(None, ended.is_open, value, render_value(value))
