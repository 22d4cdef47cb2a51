"""A download's course: a bar on a terminal, a line now and then elsewhere."""

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
"""Lines a download gets where no bar can be drawn."""


@contextmanager
def download_progress() -> Iterator[Progress]:
    """Something to tell of a download's course; nothing is shown before it is told."""
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

    def tell(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            bars.start()
            stages[stage] = bars.add_task(stage, total=total, completed=done)
        bars.update(stages[stage], completed=done)

    try:
        yield tell
    finally:
        if stages:
            bars.stop()


def _lines() -> Progress:
    told: dict[str, int] = {}

    def tell(stage: str, done: int, total: int) -> None:
        step = done * _STEPS // max(total, 1)
        if told.get(stage) != step:
            told[stage] = step
            megabytes = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
            typer.echo(f"{stage}: {megabytes}", err=True)

    return tell
