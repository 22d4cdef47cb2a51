"""Who sees which blocks, and from how far: the geometry of one step, before any tensor is touched.

A view is a worker's line-up of blocks, its own last: places one after the other, each as long as
the longest block in it (parallel paths share a place). At step t a worker sees its own tokens up to
t, and the others' up to t *of the same step included*, for all are written before any is read. From
that follow, for each query and block, how much of the block is visible and by how much the query is
to be turned. The module must not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from llmcompiler.llm.native.blocks import Bank
from llmcompiler.llm.native.rotary import Rotation, Tables, Tensor


class BlockId(NamedTuple):
    """A block of a bank."""

    bank: Bank
    slot: int


View: TypeAlias = tuple[tuple[BlockId, ...], ...]
"""Places in their order, each of blocks that start together; the last place is the worker's own."""


@dataclass(frozen=True, slots=True)
class Part:
    """One bank, as the rows of a group see it.

    Attributes:
        bank: the blocks.
        first: the first slot that is read.
        last: the slot behind the last.
        length: tokens that are read of each block.
        each: whether row i reads only the block ``first + i``; otherwise all rows read all blocks.
        turn: by what queries are turned; ``None`` where they are right as they are. Of shape
            rows, tokens, size if ``each``, else blocks, rows, tokens, size.
        hidden: where a query must not look: rows, tokens, blocks times length; ``None`` for
            nowhere.
    """

    bank: Bank
    first: int
    last: int
    length: int
    each: bool
    turn: Tables | None
    hidden: Tensor | None


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a step that see the same banks.

    Attributes:
        views: a view for each row.
        counts: new tokens of each row.
        starts: where in its own block each row's new tokens go.
        parts: what they see.
    """

    views: tuple[View, ...]
    counts: tuple[int, ...]
    starts: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def own(self) -> Bank:
        """The bank that the rows write to."""
        return self.views[0][-1][0].bank

    @property
    def slots(self) -> list[int]:
        """The block of that bank that each row writes to."""
        return [view[-1][0].slot for view in self.views]


def plan_group(views: Sequence[View], counts: Sequence[int], rotation: Rotation) -> Group:
    """Make room for new tokens, and find out what they will see.

    The blocks' lengths include the new tokens from here on.

    Args:
        views: of each row; their own blocks are different slots of one bank.
        counts: new tokens of each row, all at once.
        rotation: of the model.
    """
    tokens = max(counts)
    own = [view[-1][0] for view in views]
    bank = own[0].bank
    starts = tuple(bank.lengths[block.slot] for block in own)
    new = {(bank, block.slot): count for block, count in zip(own, counts, strict=True)}
    for (_, slot), count in new.items():
        bank.lengths[slot] += count
    bank.reserve(max(bank.lengths))
    banks: dict[Bank, None] = {}
    for view in views:
        for place in view:
            banks |= dict.fromkeys(block.bank for block in place)
    # What of each block can be seen at each of the new tokens, and from how far.
    steps = np.arange(1, tokens + 1)
    visible: dict[tuple[Bank, int], np.ndarray] = {}
    for one in banks:
        for slot, length in enumerate(one.lengths):
            count = new.get((one, slot), 0)
            visible[one, slot] = length - count + np.minimum(steps, count)
    seen: dict[tuple[int, Bank, int], np.ndarray] = {}
    distance: dict[tuple[int, Bank, int], np.ndarray] = {}
    for row, view in enumerate(views):
        begin = np.zeros(tokens, dtype=np.int64)
        begins = []
        for place in view:
            begins.append(begin)
            lengths = [visible[block.bank, block.slot] for block in place]
            begin = begin + np.maximum.reduce(lengths)
        for place, at in zip(view, begins, strict=True):
            for block in place:
                key = (row, block.bank, block.slot)
                seen[key] = visible[block.bank, block.slot]
                # The query is turned from its own block's start already.
                distance[key] = begins[-1] - at
    parts = tuple(
        part
        for one in banks
        if (part := _part(one, len(views), tokens, seen, distance, rotation)) is not None
    )
    return Group(tuple(views), tuple(counts), starts, parts)


def _part(
    bank: Bank,
    rows: int,
    tokens: int,
    seen: dict[tuple[int, Bank, int], np.ndarray],
    distance: dict[tuple[int, Bank, int], np.ndarray],
    rotation: Rotation,
) -> Part | None:
    reads = [
        [slot for slot in range(len(bank.lengths)) if (row, bank, slot) in seen]
        for row in range(rows)
    ]
    used = sorted({slot for slots in reads for slot in slots})
    length = max(bank.lengths[slot] for slot in used)
    if not length:
        return None
    first, last = used[0], used[-1] + 1
    each = rows > 1 and reads == [[first + row] for row in range(rows)]
    blocks = 1 if each else last - first
    shown = np.zeros((rows, tokens, blocks), dtype=np.int64)
    turns = np.zeros((rows, tokens, blocks), dtype=np.int64)
    for row, slots in enumerate(reads):
        for slot in slots:
            block = 0 if each else slot - first
            shown[row, :, block] = seen[row, bank, slot]
            turns[row, :, block] = distance[row, bank, slot]
    device = bank.shape.device
    hidden = None
    if (shown < length).any():
        limits = torch.from_numpy(shown).to(device)
        hidden = (torch.arange(length, device=device) >= limits[..., None]).flatten(2)
    turn = None
    if turns.any():
        turn = rotation.tables(torch.from_numpy(turns).to(device))
        if each:
            turn = turn[0][:, :, 0], turn[1][:, :, 0]
        else:
            turn = turn[0].permute(2, 0, 1, 3), turn[1].permute(2, 0, 1, 3)
    return Part(bank, first, last, length, each, turn, hidden)


def tokens_seen(view: View) -> int:
    """How long what a view lines up is, for who writes at its end."""
    return sum(max(block.bank.lengths[block.slot] for block in place) for place in view)
