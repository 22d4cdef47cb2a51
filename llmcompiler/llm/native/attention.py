"""Attention over blocks, registered with transformers under a name of its own.

A model loaded with ``attn_implementation=NAME`` computes its own projections, norms and rotary
positions, and hands queries, keys and values here. The ``Step`` stands where the model expects its
cache: it takes in all rows' new keys and values first, then lets every row look, so that tokens of
one step see each other. Queries are turned to where each block starts for them, and one softmax
goes over all scores. Hogwild! Inference, arXiv 2504.06261, section 3, and ParaThinker, arXiv
2509.04475, are what this serves. The module must not know what is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from llmcompiler.llm.native.rotary import Tensor, half, turned
from llmcompiler.llm.native.views import Group, Part

NAME = "llmcompiler_blocks"


class Step:
    """One forward pass: what is written and what each row sees.

    Args:
        groups: rows in their order; those of a group see the same banks.
    """

    is_compileable = False

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Take in a layer's new keys and values (called by the model, before it attends)."""
        row = 0
        for group in self.groups:
            rows = slice(row, row := row + len(group.counts))
            group.own.write(
                layer, group.slots, group.starts, group.counts, keys[rows], values[rows]
            )
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        """Nothing, in the model's words: positions are given to it."""
        return 0


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    step: Step,
    **_: Any,
) -> tuple[Tensor, None]:
    """What each row makes of the blocks that it sees (an attention function of transformers).

    Args:
        module: the layer's attention.
        query: rows, heads, tokens, size; turned from the start of the row's own block.
        key: the new keys, which ``Step.update`` has written.
        value: likewise.
        attention_mask: none; the step says who sees what.
        scaling: of scores.
        step: what is written and seen.

    Returns:
        Rows, tokens, heads, size.
    """
    layer, heads = module.layer_idx, key.shape[1]
    found = []
    row = 0
    for group in step.groups:
        rows = query[row : (row := row + len(group.counts))]
        if len(group.parts) == 1 and len(group.counts) == 1 and group.parts[0].turn is None:
            found.append(_alone(rows, group.parts[0], layer, scaling))
        else:
            found.append(_together(rows, group.parts, layer, heads, scaling))
    return (found[0] if len(found) == 1 else torch.cat(found)), None


def _alone(query: Tensor, part: Part, layer: int, scaling: float) -> Tensor:
    """One row that sees one block: torch's own attention."""
    blocks = slice(part.first, part.last)
    seen = None if part.hidden is None else ~part.hidden[:, None]
    out = scaled_dot_product_attention(
        query,
        part.bank.keys[layer][blocks, :, : part.length],
        part.bank.values[layer][blocks, :, : part.length],
        attn_mask=seen,
        scale=scaling,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


def _together(
    query: Tensor, parts: Sequence[Part], layer: int, heads: int, scaling: float
) -> Tensor:
    rows, queries, tokens, size = query.shape
    # Query heads that share a key head are more rows of one product.
    shared = queries // heads
    query = (query * scaling).view(rows, heads, shared, tokens, size)
    quarter = half(query) if any(part.turn is not None for part in parts) else query
    scores = torch.cat([_scores(query, quarter, part, layer) for part in parts], dim=-1)
    weights = scores.softmax(dim=-1, dtype=_wide(scores.dtype)).to(scores.dtype)
    out: Tensor | None = None
    at = 0
    for part in parts:
        width = part.length * (1 if part.each else part.last - part.first)
        mixed = _mixed(weights[..., at : at + width], part, layer)
        out = mixed if out is None else out + mixed
        at += width
    assert out is not None
    return out.permute(0, 3, 1, 2, 4).reshape(rows, tokens, queries, size)


def _scores(query: Tensor, quarter: Tensor, part: Part, layer: int) -> Tensor:
    """Rows, heads, shared, tokens, keys."""
    rows, heads, shared, tokens, size = query.shape
    keys = part.bank.keys[layer][part.first : part.last, :, : part.length].transpose(-1, -2)
    if part.each:
        if part.turn is not None:
            cos, sin = part.turn
            query = turned(query, quarter, (cos[:, None, None], sin[:, None, None]))
        scores = query.reshape(rows, heads, shared * tokens, size) @ keys
        scores = scores.view(rows, heads, shared, tokens, part.length)
    else:
        blocks = part.last - part.first
        query, quarter = query.transpose(0, 1), quarter.transpose(0, 1)
        if part.turn is not None:
            cos, sin = part.turn
            query = turned(query, quarter, (cos[:, None, :, None], sin[:, None, :, None]))
        else:
            query = query.expand(blocks, *query.shape)
        scores = query.reshape(blocks, heads, rows * shared * tokens, size) @ keys
        scores = scores.view(blocks, heads, rows, shared, tokens, part.length)
        scores = scores.permute(2, 1, 3, 4, 0, 5).flatten(4)
    if part.hidden is not None:
        scores = scores.masked_fill(part.hidden[:, None, None], float("-inf"))
    return scores


def _mixed(weights: Tensor, part: Part, layer: int) -> Tensor:
    """Values in the weights' proportions: rows, heads, shared, tokens, size."""
    rows, heads, shared, tokens, _ = weights.shape
    values = part.bank.values[layer][part.first : part.last, :, : part.length]
    if part.each:
        mixed = weights.reshape(rows, heads, shared * tokens, part.length) @ values
        return mixed.view(rows, heads, shared, tokens, -1)
    blocks = part.last - part.first
    weights = weights.unflatten(-1, (blocks, part.length)).permute(4, 1, 0, 2, 3, 5)
    mixed = weights.reshape(blocks, heads, rows * shared * tokens, part.length) @ values
    mixed = mixed.sum(0).view(heads, rows, shared, tokens, -1)
    return mixed.transpose(0, 1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


AttentionInterface.register(NAME, attend)
