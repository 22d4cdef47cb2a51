"""Parallel paths woven into one text that the endpoint continues: ThreadWeaver's five phases.

Decode until the outlines are closed; parse them; continue the text once for each path, at once;
put the paths behind the text; continue. A trained model does so by its own tags. Any other is told
the form and often misses it, so what is written is checked, and named where it cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmcompiler.llm.messages import Message
from llmcompiler.reasoning.base import Branch, Candidate

OPENING, CLOSING = "<Outlines>", "</Outlines>"
_OUTLINE = re.compile(r"<Outline>\s*(\d+)\s*:\s*(.*?)\s*</Outline>", re.DOTALL)
_TAG = re.compile(r"</?(?:Parallel|Outlines?|Path|Conclusion)\b", re.IGNORECASE)
REFERENCE = re.compile(
    r"\b(?:outline|path|part|step|task)s?\s*(?:#|no\.?\s*)?\d+\b"
    r"|\b(?:previous|preceding|other|first|second|above)\s+(?:outline|path|part|step|task)s?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Woven:
    """What came of it.

    Attributes:
        text: the whole text, tags and all.
        last: the piece that it ends with.
        paths: of all blocks together.
        wrong: why it cannot be used; empty if it can.
    """

    text: str
    last: Candidate
    paths: int
    wrong: str = ""


async def weave(ask: str, branch: Branch, blocks: int, most: int) -> Woven:
    """Write one text with up to ``blocks`` blocks of up to ``most`` paths each.

    Raises:
        UsageError: the endpoint does not continue text.
    """
    text, paths = "", 0
    for number in range(1, blocks + 1):
        step = await _continue(branch, ask, text, "go on", (CLOSING,))
        text += step.text
        before, opened, block = step.text.partition(OPENING)
        if not opened:
            return Woven(text, step, paths, _stray(before))
        outlines, wrong = parse(block)
        wrong = wrong or _stray(before.removesuffix("\n").removesuffix("<Parallel>"))
        if wrong:
            return Woven(text, step, paths, wrong)
        text += CLOSING + "\n"
        shown = text
        found = await branch.generate_each(
            [_chat(ask, f"{shown}<Path>{one}:") for one in range(1, len(outlines[:most]) + 1)],
            label=f"block {number} path",
            stop=("</Path>",),
        )
        branch.accept(found[0])
        wrong = next(filter(None, (_stray(one.text) for one in found)), "")
        if wrong:
            return Woven(text, step, paths, wrong)
        paths += len(found)
        text += "".join(
            f"<Path>{one}: {path.text.strip()}</Path>\n" for one, path in enumerate(found, 1)
        )
        text += "</Parallel>\n"
    step = await _continue(branch, ask, text, "go on", ())
    return Woven(text + step.text, step, paths, _stray(step.text))


def parse(block: str) -> tuple[list[str], str]:
    """The outlines of a block, and what is wrong with them."""
    found = _OUTLINE.findall(block)
    outlines = [text for _, text in found]
    if _OUTLINE.sub("", block).strip():
        return [], "the outlines are not of the form that was asked for"
    if len(outlines) < 2:
        return [], "a division needs two parts"
    if [int(number) for number, _ in found] != [*range(1, len(found) + 1)]:
        return [], "the outlines are not numbered 1, 2, …"
    return outlines, crossing(outlines)


def crossing(outlines: Sequence[str]) -> str:
    """Names the first part that refers to another one; empty if none does."""
    found = next((one for one in outlines if REFERENCE.search(one)), None)
    return "" if found is None else f"a part refers to another: {found[:80]!r}"


def _stray(text: str) -> str:
    tag = _TAG.search(text)
    return "" if tag is None else f"a tag in the wrong place: {tag[0]}"


async def _continue(
    branch: Branch, ask: str, text: str, label: str, stop: tuple[str, ...]
) -> Candidate:
    found = await branch.generate(_chat(ask, text), label=label, stop=stop)
    branch.accept(found[0])
    return found[0]


def _chat(ask: str, text: str) -> list[Message]:
    chat = [Message("user", ask)]
    return [*chat, Message("assistant", text)] if text else chat
