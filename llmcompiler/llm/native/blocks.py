"""Keys and values of blocks of text, kept apart so that each worker can line them up its own way.

A bank holds blocks of one kind (a prompt, a common past, what workers are writing) side by side in
one tensor a layer, so that one product reaches all of them. Keys are turned from the start of their
block, whatever stands before it. Room is made ahead, in steps of a sixteenth: nothing is copied
when a token comes, and little stands empty. The module must not know who reads what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llmcompiler.llm.native.rotary import Rotation, Tensor, half, turned

LEAST_ROOM = 32
"""Tokens by which a bank grows at least."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model keeps of each token.

    Attributes:
        layers: of the model.
        heads: of keys and values, which several query heads may share.
        size: of a head.
        dtype: of keys and values.
        device: where they are.
    """

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values."""
        return int(2 * self.layers * self.heads * self.size * self.dtype.itemsize)


class Bank:
    """Blocks of one kind.

    Args:
        shape: of what is kept of a token.
        slots: how many blocks.

    Attributes:
        lengths: tokens in each block.
        keys: a tensor a layer: slots, heads, tokens, size.
        values: likewise.
    """

    def __init__(self, shape: Shape, slots: int = 1) -> None:
        self.shape = shape
        self.lengths = [0] * slots
        self.keys = [self._blank(0) for _ in range(shape.layers)]
        self.values = [self._blank(0) for _ in range(shape.layers)]

    @property
    def room(self) -> int:
        """Tokens that each block has room for."""
        return int(self.keys[0].shape[2])

    @property
    def bytes(self) -> int:
        """Memory that the bank takes."""
        return self.room * len(self.lengths) * self.shape.token_bytes

    def reserve(self, length: int) -> None:
        """Have room for blocks of so many tokens."""
        if length <= self.room:
            return
        room = max(length, self.room + max(LEAST_ROOM, self.room // 16))
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                tensors[layer] = new = self._blank(room)
                new[:, :, : old.shape[2]] = old

    def write(
        self,
        layer: int,
        slots: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
        keys: Tensor,
        values: Tensor,
    ) -> None:
        """Put tokens into blocks, at places that ``reserve`` has made.

        Args:
            layer: of the model.
            slots: a block for each row.
            starts: where in its block each row goes.
            counts: tokens of each row; what a row has behind them is padding.
            keys: rows, heads, tokens, size.
            values: likewise.
        """
        first, last, start = slots[0], slots[-1], starts[0]
        together = list(slots) == list(range(first, last + 1)) and len(set(starts)) == 1
        for kept, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if together and len(set(counts)) == 1:
                kept[first : last + 1, :, start : start + counts[0]] = new[:, :, : counts[0]]
                continue
            for row, (slot, place, count) in enumerate(zip(slots, starts, counts, strict=True)):
                kept[slot, :, place : place + count] = new[row, :, :count]

    def absorb(self, other: Bank, slot: int, rotation: Rotation) -> None:
        """Append another bank's block to this one's first, and leave that block empty.

        Keys are turned by the tokens that are here already; values have no position.
        """
        count, start = other.lengths[slot], self.lengths[0]
        if not count:
            return
        self.reserve(start + count)
        tables = rotation.tables(torch.tensor(start, device=self.shape.device))
        for layer in range(self.shape.layers):
            keys = other.keys[layer][slot, :, :count]
            self.keys[layer][0, :, start : start + count] = turned(keys, half(keys), tables)
            values = other.values[layer][slot, :, :count]
            self.values[layer][0, :, start : start + count] = values
        self.lengths[0] += count
        other.lengths[slot] = 0

    def _blank(self, room: int) -> Tensor:
        shape = self.shape
        size = (len(self.lengths), shape.heads, room, shape.size)
        # Nothing of what is behind a block's end counts, but nothing times NaN is NaN.
        return torch.zeros(size, dtype=shape.dtype, device=shape.device)
