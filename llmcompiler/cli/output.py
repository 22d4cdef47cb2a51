"""Output of the commands: JSON on stdout, views on stderr."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from llmcompiler.view.live import LiveView
    from llmcompiler.view.plain import PlainView


def print_json(data: Any) -> None:
    """Print one JSON object on stdout, indented."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that the user named.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def stderr_console() -> Console:
    """A rich console on stderr. It honours NO_COLOR and detects whether stderr is a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def can_redraw(console: Console) -> bool:
    """True if the console is a terminal that can redraw lines."""
    return console.is_terminal and not console.is_dumb_terminal


def open_view(quiet: bool) -> LiveView | PlainView:
    """The view that suits stderr; a silent view if ``quiet``."""
    from llmcompiler.view.plain import PlainView

    console = stderr_console()
    if quiet or not can_redraw(console):
        return PlainView(None if quiet else sys.stderr)
    from llmcompiler.view.live import LiveView

    return LiveView(console)


def log_to_stderr() -> None:
    """Print the package's own log warnings like its errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    logger = logging.getLogger("llmcompiler")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
