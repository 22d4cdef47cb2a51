"""Progress of a download: a bar on a terminal, a line for every tenth elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from llmcompiler.cli.output import can_redraw, stderr_console

if TYPE_CHECKING:
    from rich.console import Console

    from llmcompiler.llm.weights import Progress

_STEPS = 10
"""Lines for one download where no bar can be drawn."""


@contextmanager
def download_progress() -> Iterator[Progress]:
    """A callback for the progress of a download. Nothing is shown before its first call."""
    console = stderr_console()
    if not can_redraw(console):
        yield _lines()
        return
    with _bar(console) as progress:
        yield progress


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress as Bars,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    stages = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            bars.start()
            stages[stage] = bars.add_task(stage, total=total, completed=done)
        bars.update(stages[stage], completed=done)

    try:
        yield on_progress
    finally:
        if stages:
            bars.stop()


def _lines() -> Progress:
    printed_steps: dict[str, int] = {}

    def on_progress(stage: str, done: int, total: int) -> None:
        step = done * _STEPS // max(total, 1)
        if printed_steps.get(stage) != step:
            printed_steps[stage] = step
            megabytes = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            typer.echo(f"{stage}: {megabytes}", err=True)

    return on_progress
