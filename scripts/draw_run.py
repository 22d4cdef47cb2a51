"""Draw a recorded run as the terminal showed it: the picture of the README.

    python scripts/draw_run.py                       # docs/run.svg of examples/density.jsonl.gz
    python scripts/draw_run.py RUN.jsonl.gz OUT.svg  # of any run that `llmcompiler export` wrote

The picture shows the live view twice: while the planner writes its last call, and at the end.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from llmcompiler.events import Event, TaskPlanned
from llmcompiler.history.state import fold
from llmcompiler.log.export import read_run
from llmcompiler.view.live import Frame
from llmcompiler.view.steps import SharedSteps
from llmcompiler.view.text import seconds_text

ROOT = Path(__file__).parent.parent
RUN = ROOT / "examples" / "density.jsonl.gz"
PICTURE = ROOT / "docs" / "run.svg"
WIDTH, HEIGHT = 100, 40


def draw(run: Path) -> str:
    """Draw the picture as SVG; the same run gives the same picture."""
    events = list(read_run(run).events)
    console = Console(
        record=True,
        width=WIDTH,
        height=HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    state = fold(events)
    console.print(Text.assemble(("$ ", "green"), f'llmcompiler run "{state.question}"'))
    last_planned = max(
        number for number, event in enumerate(events) if isinstance(event, TaskPlanned)
    )
    look(console, events[:last_planned], "while the planner writes")
    look(console, events, "at the end")
    console.print()
    console.print(state.answer or "")
    # Without fonts from another host, so that the picture loads nothing.
    head, _, remainder = CONSOLE_SVG_FORMAT.partition("@font-face")
    form = head + remainder[remainder.rindex("}}", 0, remainder.index("-matrix")) + 2 :]
    return console.export_svg(title="llmcompiler", code_format=form, unique_id="run")


def look(console: Console, events: list[Event], when: str) -> None:
    """Print the live view after these events."""
    state = fold(events)
    console.print()
    console.print(Text(f"{when}, after {seconds_text(state.now)}", style="italic dim"))
    console.print(Frame(state, SharedSteps(), state.now, HEIGHT, WIDTH, ascii_only=False).draw())


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    source, target = paths or (RUN, PICTURE)
    target.write_text(draw(source), encoding="utf-8")
    print(f"written: {target}")
