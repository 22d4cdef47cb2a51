"""Which writer sees which blocks, and at what distance: the geometry of one forward pass.

A view is a writer's line-up of blocks, its own block last. The line-up has places one after the
other, each as long as the longest block in it (parallel paths share a place). At step t a writer
sees its own tokens up to t, and the others' tokens up to t *of the same step included*, because all
tokens are written before any is read. From this follow, for each query and block, how much of the
block is visible and by how much the query is turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from llmcompiler.llm.native.blocks import Bank
from llmcompiler.llm.native.rotary import CosSin, Rotation, Tensor


class BlockId(NamedTuple):
    """A block of a bank."""

    bank: Bank
    slot: int


View: TypeAlias = tuple[tuple[BlockId, ...], ...]
"""Places in order, each of blocks that start together; the last place is the writer's own block."""

_Counts: TypeAlias = dict[tuple[int, Bank, int], np.ndarray]
"""By row, bank and slot: one number for each new token."""


@dataclass(frozen=True, slots=True)
class BankView:
    """One bank, as the rows of a group see it.

    Attributes:
        bank: the bank.
        first_slot: the first slot that is read.
        end_slot: the slot behind the last one that is read.
        length: tokens that are read of each block.
        one_block_a_row: True if row i reads only the block ``first_slot + i``; otherwise all rows
            read all blocks.
        turn: the angles by which queries are turned; ``None`` for no turn. Of shape (rows, tokens,
            size) if ``one_block_a_row``, else (blocks, rows, tokens, size).
        hidden: True where a query must not look, of shape (rows, tokens, blocks times length);
            ``None`` if everything is visible.
    """

    bank: Bank
    first_slot: int
    end_slot: int
    length: int
    one_block_a_row: bool
    turn: CosSin | None
    hidden: Tensor | None


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a forward pass that see the same banks.

    Attributes:
        views: the view of each row.
        counts: new tokens of each row.
        starts: the place in its own block where each row's new tokens begin.
        bank_views: what the rows see.
    """

    views: tuple[View, ...]
    counts: tuple[int, ...]
    starts: tuple[int, ...]
    bank_views: tuple[BankView, ...]

    @property
    def own_bank(self) -> Bank:
        """The bank that the rows write to."""
        return self.views[0][-1][0].bank

    @property
    def slots(self) -> list[int]:
        """The block of that bank that each row writes to."""
        return [view[-1][0].slot for view in self.views]


def plan_group(views: Sequence[View], counts: Sequence[int], rotation: Rotation) -> RowGroup:
    """Make room for new tokens, and compute what they will see.

    From here on, the blocks' lengths include the new tokens.

    Args:
        views: the view of each row; the rows' own blocks are different slots of one bank.
        counts: new tokens of each row, which all come in one pass.
        rotation: the model's rotation.
    """
    tokens = max(counts)
    own_blocks = [view[-1][0] for view in views]
    own_bank = own_blocks[0].bank
    starts = tuple(own_bank.lengths[block.slot] for block in own_blocks)
    new = {(own_bank, block.slot): count for block, count in zip(own_blocks, counts, strict=True)}
    for (_, slot), count in new.items():
        own_bank.lengths[slot] += count
    own_bank.reserve(max(own_bank.lengths))
    banks: dict[Bank, None] = {}
    for view in views:
        for place in view:
            banks |= dict.fromkeys(block.bank for block in place)
    steps = np.arange(1, tokens + 1)
    lengths_by_block: dict[tuple[Bank, int], np.ndarray] = {}
    for bank in banks:
        for slot, length in enumerate(bank.lengths):
            count = new.get((bank, slot), 0)
            lengths_by_block[bank, slot] = length - count + np.minimum(steps, count)
    visible: _Counts = {}
    distance: _Counts = {}
    for row, view in enumerate(views):
        start = np.zeros(tokens, dtype=np.int64)
        place_starts = []
        for place in view:
            place_starts.append(start)
            start = start + np.maximum.reduce(
                [lengths_by_block[block.bank, block.slot] for block in place]
            )
        for place, place_start in zip(view, place_starts, strict=True):
            for block in place:
                key = (row, block.bank, block.slot)
                visible[key] = lengths_by_block[block.bank, block.slot]
                # The query is turned from its own block's start already.
                distance[key] = place_starts[-1] - place_start
    bank_views = tuple(
        bank_view
        for bank in banks
        if (bank_view := _bank_view(bank, len(views), tokens, visible, distance, rotation))
        is not None
    )
    return RowGroup(tuple(views), tuple(counts), starts, bank_views)


def _bank_view(
    bank: Bank,
    rows: int,
    tokens: int,
    visible: _Counts,
    distance: _Counts,
    rotation: Rotation,
) -> BankView | None:
    slots_by_row = [
        [slot for slot in range(len(bank.lengths)) if (row, bank, slot) in visible]
        for row in range(rows)
    ]
    used_slots = sorted({slot for slots in slots_by_row for slot in slots})
    length = max(bank.lengths[slot] for slot in used_slots)
    if not length:
        return None
    first_slot, end_slot = used_slots[0], used_slots[-1] + 1
    one_block_a_row = rows > 1 and slots_by_row == [[first_slot + row] for row in range(rows)]
    blocks = 1 if one_block_a_row else end_slot - first_slot
    visible_lengths = np.zeros((rows, tokens, blocks), dtype=np.int64)
    distances = np.zeros((rows, tokens, blocks), dtype=np.int64)
    for row, slots in enumerate(slots_by_row):
        for slot in slots:
            block = 0 if one_block_a_row else slot - first_slot
            visible_lengths[row, :, block] = visible[row, bank, slot]
            distances[row, :, block] = distance[row, bank, slot]
    device = bank.shape.device
    hidden = None
    if (visible_lengths < length).any():
        limits = torch.from_numpy(visible_lengths).to(device)
        hidden = (torch.arange(length, device=device) >= limits[..., None]).flatten(2)
    turn = None
    if distances.any():
        cos, sin = rotation.cos_sin(torch.from_numpy(distances).to(device))
        if one_block_a_row:
            turn = cos[:, :, 0], sin[:, :, 0]
        else:
            turn = cos.permute(2, 0, 1, 3), sin.permute(2, 0, 1, 3)
    return BankView(bank, first_slot, end_slot, length, one_block_a_row, turn, hidden)


def visible_tokens(view: View) -> int:
    """The length of a view's line-up in tokens, as its writer sees it."""
    return sum(max(block.bank.lengths[block.slot] for block in place) for place in view)
