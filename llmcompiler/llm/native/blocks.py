"""Keys and values of blocks of text, stored apart so that each writer can order them its own way.

A bank holds blocks of one kind (a prompt, a common past, the writers' current work) side by side in
one tensor a layer, so that one product reaches all of them. Keys are turned from the start of their
block, whatever stands before the block. Room grows ahead of need, by a sixteenth at a time: most
tokens cause no copy, and little memory stands empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llmcompiler.llm.native.rotary import Rotation, Tensor, quarter_turn, rotate

MIN_GROWTH_TOKENS = 32
"""Tokens by which a bank grows at least."""


@dataclass(frozen=True, slots=True)
class KeyValueShape:
    """The form of a token's keys and values.

    Attributes:
        layers: the model's layers.
        heads: heads of keys and values; several query heads may share one.
        size: numbers in a head.
        dtype: their number type.
        device: the device that holds them.
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
        shape: the form of a token's keys and values.
        slots: number of blocks.

    Attributes:
        lengths: tokens in each block.
        keys: one tensor a layer, of shape (slots, heads, tokens, size).
        values: likewise.
    """

    def __init__(self, shape: KeyValueShape, slots: int = 1) -> None:
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
        """Bytes of memory that the bank takes."""
        return self.room * len(self.lengths) * self.shape.token_bytes

    def reserve(self, length: int) -> None:
        """Make room for blocks of ``length`` tokens."""
        if length <= self.room:
            return
        room = max(length, self.room + max(MIN_GROWTH_TOKENS, self.room // 16))
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
        """Write tokens into blocks; ``reserve`` must have made the room.

        Args:
            layer: the layer's number.
            slots: the block of each row.
            starts: the place in its block where each row's tokens begin.
            counts: tokens of each row; what a row has behind them is padding.
            keys: the new keys, of shape (rows, heads, tokens, size).
            values: likewise.
        """
        first, last, start = slots[0], slots[-1], starts[0]
        is_one_slice = (
            list(slots) == list(range(first, last + 1))
            and len(set(starts)) == 1
            and len(set(counts)) == 1
        )
        for stored, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if is_one_slice:
                stored[first : last + 1, :, start : start + counts[0]] = new[:, :, : counts[0]]
                continue
            for row, (slot, place, count) in enumerate(zip(slots, starts, counts, strict=True)):
                stored[slot, :, place : place + count] = new[row, :, :count]

    def absorb(self, source: Bank, slot: int, rotation: Rotation) -> None:
        """Move a block of the bank ``source`` to the end of this bank's first block.

        Keys are turned by the number of tokens that the first block already has; values have no
        position.
        """
        count, start = source.lengths[slot], self.lengths[0]
        if not count:
            return
        self.reserve(start + count)
        angles = rotation.cos_sin(torch.tensor(start, device=self.shape.device))
        for layer in range(self.shape.layers):
            keys = source.keys[layer][slot, :, :count]
            self.keys[layer][0, :, start : start + count] = rotate(keys, quarter_turn(keys), angles)
            values = source.values[layer][slot, :, :count]
            self.values[layer][0, :, start : start + count] = values
        self.lengths[0] += count
        source.lengths[slot] = 0

    def _blank(self, room: int) -> Tensor:
        shape = self.shape
        size = (len(self.lengths), shape.heads, room, shape.size)
        # What is behind a block's end gets weight 0, and 0 times NaN would still be NaN.
        return torch.zeros(size, dtype=shape.dtype, device=shape.device)
