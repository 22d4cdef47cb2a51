"""Parallel paths woven into one text that the endpoint continues: ThreadWeaver's five phases.

Decode until the outlines are closed; parse the outlines; continue the text once for each path, in
parallel; append the paths to the text; continue. A trained model writes the tags by itself. Any
other model is told the form and often misses it, so the text is checked.
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
PART_REFERENCE = re.compile(
    r"\b(?:outline|path|part|step|task)s?\s*(?:#|no\.?\s*)?\d+\b"
    r"|\b(?:previous|preceding|other|first|second|above)\s+(?:outline|path|part|step|task)s?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class WovenText:
    """A text with parallel paths.

    Attributes:
        text: the whole text, including tags.
        last_candidate: the candidate that the text ends with.
        paths: number of paths in all blocks.
        flaw: why the text cannot be used; empty if it can.
    """

    text: str
    last_candidate: Candidate
    paths: int
    flaw: str = ""


async def weave(prompt: str, branch: Branch, blocks: int, max_paths: int) -> WovenText:
    """Write one text with up to ``blocks`` blocks of up to ``max_paths`` paths each.

    Raises:
        UsageError: the endpoint does not continue text.
    """
    text, paths = "", 0
    for number in range(1, blocks + 1):
        step = await _continue(branch, prompt, text, "go on", (CLOSING,))
        text += step.text
        text_before, opening, block = step.text.partition(OPENING)
        if not opening:
            return WovenText(text, step, paths, _find_stray_tag(text_before))
        outlines, flaw = parse_outlines(block)
        flaw = flaw or _find_stray_tag(text_before.removesuffix("\n").removesuffix("<Parallel>"))
        if flaw:
            return WovenText(text, step, paths, flaw)
        text += CLOSING + "\n"
        count = len(outlines[:max_paths])
        candidates = await branch.generate_each(
            [_chat(prompt, f"{text}<Path>{path}:") for path in range(1, count + 1)],
            label=f"block {number} path",
            stop=("</Path>",),
        )
        branch.accept(candidates[0])
        flaw = next(filter(None, (_find_stray_tag(path.text) for path in candidates)), "")
        if flaw:
            return WovenText(text, step, paths, flaw)
        paths += len(candidates)
        text += "".join(
            f"<Path>{path}: {candidate.text.strip()}</Path>\n"
            for path, candidate in enumerate(candidates, 1)
        )
        text += "</Parallel>\n"
    step = await _continue(branch, prompt, text, "go on", ())
    return WovenText(text + step.text, step, paths, _find_stray_tag(step.text))


def parse_outlines(block: str) -> tuple[list[str], str]:
    """The outlines of a block, and their flaw; the flaw is empty if they can be used."""
    matches = _OUTLINE.findall(block)
    outlines = [text for _, text in matches]
    if _OUTLINE.sub("", block).strip():
        return [], "the outlines are not of the form that was asked for"
    if len(outlines) < 2:
        return [], "a division needs two parts"
    if [int(number) for number, _ in matches] != [*range(1, len(matches) + 1)]:
        return [], "the outlines are not numbered 1, 2, …"
    return outlines, find_reference(outlines)


def find_reference(outlines: Sequence[str]) -> str:
    """A message about the first part that refers to another part; empty if none does."""
    outline = next((outline for outline in outlines if PART_REFERENCE.search(outline)), None)
    return "" if outline is None else f"a part refers to another: {outline[:80]!r}"


def _find_stray_tag(text: str) -> str:
    tag = _TAG.search(text)
    return "" if tag is None else f"a tag in the wrong place: {tag[0]}"


async def _continue(
    branch: Branch, prompt: str, text: str, label: str, stop: tuple[str, ...]
) -> Candidate:
    candidates = await branch.generate(_chat(prompt, text), label=label, stop=stop)
    branch.accept(candidates[0])
    return candidates[0]


def _chat(prompt: str, text: str) -> list[Message]:
    chat = [Message("user", prompt)]
    return [*chat, Message("assistant", text)] if text else chat
