"""Resume: a run that was stopped is derived again from its log and goes on where the log ends.

There is no saved state to restore. The run starts from its beginning with what the log holds of the
world: recorded answers and results are taken from there, events that the log holds are not written
again, and the first thing that it does not hold is done for real. The module must not know how a
run works inside.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket

from llmcompiler.errors import UsageError
from llmcompiler.events import RunResumed
from llmcompiler.history.fork import edits_of, given_by
from llmcompiler.history.recording import Recording
from llmcompiler.limits import Limits
from llmcompiler.log.journal import Journal, Listener
from llmcompiler.log.store import RunLog
from llmcompiler.run.run import Parts, Run, RunResult


async def resumed(
    recording: Recording,
    parts: Parts,
    log: RunLog,
    limits: Limits | None,
    on_event: Listener | None,
) -> RunResult:
    """Go on with the recorded run; see ``LLMCompiler.resume``.

    Raises:
        UsageError: the run is answered already, or the parts are not those that it had.
    """
    _check(recording, parts)
    started = recording.started
    limits = limits or Limits.model_validate(recording.limits)
    parts = dataclasses.replace(
        parts,
        limits=limits,
        answers=recording.calls_to_resume(),
        outcomes=recording.outcomes,
        branches=recording.branches,
        given=given_by(started.origin),
        attempts=recording.attempts,
        due=recording.due,
        approvals=recording.approvals,
        edits=edits_of(started.origin),
        origin=started.origin,
    )
    if on_event is not None:
        for event in recording.events:
            on_event(event)
    journal = Journal(
        asyncio.get_running_loop().time,
        log,
        (on_event,) if on_event is not None else (),
        elapsed=recording.events[-1].at,
        is_recorded=recording.is_recorded,
    )
    journal.emit(
        RunResumed,
        holder=f"{socket.gethostname()}:{os.getpid()}",
        limits=limits.model_dump(exclude_none=True),
        asked_again=recording.fatal_call(),
    )
    journal.flush()
    run = Run(
        recording.run,
        parts,
        started.question,
        started.inputs,
        journal=journal,
        wall=started.wall,
    )
    return await run.to_the_end(recording.saved_plan())


def _check(recording: Recording, parts: Parts) -> None:
    started = recording.started
    if not recording.is_open:
        raise UsageError(
            f"run {recording.run} is answered already", hint=f"llmcompiler show {recording.run}"
        )
    end = recording.finished
    if end is not None and end.failure is not None and end.failure.blame == "tool":
        raise UsageError(
            f"run {recording.run} failed, and what is recorded stays: {end.failure.message}",
            hint=f"try it with a change: llmcompiler fork {recording.run} --call 'TASK=…'",
        )
    if started.planner not in (None, parts.planner.name):
        raise UsageError(
            f'run {recording.run} was planned by the planner "{started.planner}"',
            hint=f"resume it with --planner {started.planner}",
        )
    for name in recording.tools_used():
        if name not in parts.tools:
            raise UsageError(
                f'run {recording.run} calls the tool "{name}", which is not at hand',
                hint="give the tools that it had with --tools",
            )
        was = started.catalogue[name]["parameters_schema"]
        if parts.tools[name].parameters_schema != was:
            raise UsageError(
                f'the tool "{name}" takes other arguments than when run {recording.run} began',
                hint="give the tool as it was, or ask again",
            )
