"""Resume: a run that was stopped is derived again from its log and goes on where the log ends.

There is no saved state to restore. The run starts from its beginning. Recorded completions and
results are taken from the log, and events that the log holds are not written again. The first thing
that the log does not hold is done for real.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket

from llmcompiler.errors import UsageError
from llmcompiler.events import RunResumed
from llmcompiler.history.run_history import RunHistory
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal, Listener
from llmcompiler.log.store import RunLog
from llmcompiler.run.config import RecordedInputs, RunConfig
from llmcompiler.run.result import RunResult
from llmcompiler.run.run import Run


async def resume_run(
    history: RunHistory,
    config: RunConfig,
    log: RunLog,
    limits: Limits | None,
    on_event: Listener | None,
) -> RunResult:
    """Go on with a recorded run; see ``LLMCompiler.resume``.

    Args:
        history: what the run's log holds.
        config: tools, models and texts of the run.
        log: takes in further events.
        limits: bounds from here on; ``None`` for those that the run had.
        on_event: called with the recorded events, then with each new one.

    Raises:
        UsageError: the run is answered already, or the tools or the planner are not its own.
    """
    _check_can_resume(history)
    _check_same_config(history, config)
    limits = limits or Limits.model_validate(history.limits)
    if on_event is not None:
        for event in history.events:
            on_event(event)
    journal = Journal(
        asyncio.get_running_loop().time,
        log,
        (on_event,) if on_event is not None else (),
        elapsed=history.events[-1].at,
        is_recorded=history.is_recorded,
    )
    journal.emit(
        RunResumed,
        holder=f"{socket.gethostname()}:{os.getpid()}",
        limits=limits.model_dump(exclude_none=True),
        asked_again=history.fatal_call(),
    )
    journal.flush()
    run = Run(
        history.run,
        dataclasses.replace(config, limits=limits),
        history.start.question,
        history.start.inputs,
        journal=journal,
        wall=history.start.wall,
        record=resume_inputs(history),
    )
    return await run.complete(history.saved_plan())


def resume_inputs(history: RunHistory) -> RecordedInputs:
    """All that is on record of the run; a model call that ended it is marked to be made again."""
    asked_again = {
        call: dataclasses.replace(history.completions[call], was_repeated=True)
        for call in history.fatal_call()
    }
    return dataclasses.replace(
        history.recorded_inputs(),
        recorded_completions=history.completions | asked_again,
        attempts=history.attempts,
        retry_at=history.retry_at,
    )


def _check_can_resume(history: RunHistory) -> None:
    if not history.is_open:
        raise UsageError(
            f"run {history.run} is answered already", hint=f"llmcompiler show {history.run}"
        )
    end = history.end
    if end is not None and end.failure is not None and end.failure.blame == "tool":
        raise UsageError(
            f"run {history.run} failed, and what is recorded stays: {end.failure.message}",
            hint=f"try it with a change: llmcompiler fork {history.run} --call 'TASK=…'",
        )


def _check_same_config(history: RunHistory, config: RunConfig) -> None:
    start = history.start
    if start.planner not in (None, config.planner.name):
        raise UsageError(
            f'run {history.run} was planned by the planner "{start.planner}"',
            hint=f"resume it with --planner {start.planner}",
        )
    for name in history.tools_used():
        if name not in config.tools:
            raise UsageError(
                f'run {history.run} calls the tool "{name}", which is not at hand',
                hint="give the tools that it had with --tools",
            )
        recorded_schema = start.catalogue[name]["parameters_schema"]
        if config.tools[name].parameters_schema != recorded_schema:
            raise UsageError(
                f'the tool "{name}" takes other arguments than when run {history.run} began',
                hint="give the tool as it was, or ask again",
            )
