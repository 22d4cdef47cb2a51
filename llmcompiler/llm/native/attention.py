"""Attention over blocks, registered with transformers under a name of its own.

A model loaded with ``attn_implementation=NAME`` computes its own projections, norms and rotary
positions, and hands queries, keys and values here. The ``ForwardPass`` stands where the model
expects its cache: it writes all rows' new keys and values first and only then lets the rows attend,
so that tokens of one pass see each other. Queries are turned to where each block starts for them,
and one softmax goes over all scores. Two strategies build on this: Hogwild! Inference (arXiv
2504.06261, section 3) and ParaThinker (arXiv 2509.04475).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from llmcompiler.llm.native.rotary import Tensor, quarter_turn, rotate
from llmcompiler.llm.native.views import BankView, RowGroup

NAME = "llmcompiler_blocks"


class ForwardPass:
    """One forward pass: what is written, and what each row sees.

    Args:
        groups: the rows in order; the rows of a group see the same banks.
    """

    is_compileable = False

    def __init__(self, groups: Sequence[RowGroup]) -> None:
        self.groups = tuple(groups)

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values (the model calls this before it attends)."""
        row = 0
        for group in self.groups:
            rows = slice(row, row := row + len(group.counts))
            group.own_bank.write(
                layer, group.slots, group.starts, group.counts, keys[rows], values[rows]
            )
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        """Always 0: the model gets its positions by argument, not from the length of a cache."""
        return 0


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    forward_pass: ForwardPass,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend to the blocks that each row sees (an attention function of transformers).

    Args:
        module: the layer's attention.
        query: of shape (rows, heads, tokens, size); turned from the start of the row's own block.
        key: the new keys, which ``ForwardPass.update`` has written.
        value: likewise.
        attention_mask: not used; the forward pass holds what each row sees.
        scaling: the factor of scores.
        forward_pass: what is written and seen.

    Returns:
        The attention's output, of shape (rows, tokens, heads, size).
    """
    layer, heads = module.layer_idx, key.shape[1]
    outputs = []
    row = 0
    for group in forward_pass.groups:
        rows = query[row : (row := row + len(group.counts))]
        views = group.bank_views
        if len(views) == 1 and len(group.counts) == 1 and views[0].turn is None:
            outputs.append(_attend_alone(rows, views[0], layer, scaling))
        else:
            outputs.append(_attend_together(rows, views, layer, heads, scaling))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), None


def _attend_alone(query: Tensor, view: BankView, layer: int, scaling: float) -> Tensor:
    """One row that sees one bank unturned: torch's own attention."""
    blocks = slice(view.first_slot, view.end_slot)
    visible = None if view.hidden is None else ~view.hidden[:, None]
    out = scaled_dot_product_attention(
        query,
        view.bank.keys[layer][blocks, :, : view.length],
        view.bank.values[layer][blocks, :, : view.length],
        attn_mask=visible,
        scale=scaling,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


def _attend_together(
    query: Tensor, views: Sequence[BankView], layer: int, heads: int, scaling: float
) -> Tensor:
    rows, queries, tokens, size = query.shape
    # Query heads that share a key head are more rows of one product.
    sharing_heads = queries // heads
    query = (query * scaling).view(rows, heads, sharing_heads, tokens, size)
    has_turns = any(view.turn is not None for view in views)
    quarter_turned = quarter_turn(query) if has_turns else query
    scores = torch.cat([_scores(query, quarter_turned, view, layer) for view in views], dim=-1)
    weights = scores.softmax(dim=-1, dtype=_softmax_dtype(scores.dtype)).to(scores.dtype)
    out: Tensor | None = None
    start = 0
    for view in views:
        width = view.length * (1 if view.one_block_a_row else view.end_slot - view.first_slot)
        mixed = _mix_values(weights[..., start : start + width], view, layer)
        out = mixed if out is None else out + mixed
        start += width
    assert out is not None
    return out.permute(0, 3, 1, 2, 4).reshape(rows, tokens, queries, size)


def _scores(query: Tensor, quarter_turned: Tensor, view: BankView, layer: int) -> Tensor:
    """Scores of shape (rows, heads, sharing_heads, tokens, keys)."""
    rows, heads, sharing_heads, tokens, size = query.shape
    slots = slice(view.first_slot, view.end_slot)
    keys = view.bank.keys[layer][slots, :, : view.length].transpose(-1, -2)
    if view.one_block_a_row:
        if view.turn is not None:
            cos, sin = view.turn
            query = rotate(query, quarter_turned, (cos[:, None, None], sin[:, None, None]))
        scores = query.reshape(rows, heads, sharing_heads * tokens, size) @ keys
        scores = scores.view(rows, heads, sharing_heads, tokens, view.length)
    else:
        blocks = view.end_slot - view.first_slot
        query, quarter_turned = query.transpose(0, 1), quarter_turned.transpose(0, 1)
        if view.turn is not None:
            cos, sin = view.turn
            query = rotate(query, quarter_turned, (cos[:, None, :, None], sin[:, None, :, None]))
        else:
            query = query.expand(blocks, *query.shape)
        scores = query.reshape(blocks, heads, rows * sharing_heads * tokens, size) @ keys
        scores = scores.view(blocks, heads, rows, sharing_heads, tokens, view.length)
        scores = scores.permute(2, 1, 3, 4, 0, 5).flatten(4)
    if view.hidden is not None:
        scores = scores.masked_fill(view.hidden[:, None, None], float("-inf"))
    return scores


def _mix_values(weights: Tensor, view: BankView, layer: int) -> Tensor:
    """The weighted sum of values, of shape (rows, heads, sharing_heads, tokens, size)."""
    rows, heads, sharing_heads, tokens, _ = weights.shape
    values = view.bank.values[layer][view.first_slot : view.end_slot, :, : view.length]
    if view.one_block_a_row:
        mixed = weights.reshape(rows, heads, sharing_heads * tokens, view.length) @ values
        return mixed.view(rows, heads, sharing_heads, tokens, -1)
    blocks = view.end_slot - view.first_slot
    weights = weights.unflatten(-1, (blocks, view.length)).permute(4, 1, 0, 2, 3, 5)
    mixed = weights.reshape(blocks, heads, rows * sharing_heads * tokens, view.length) @ values
    mixed = mixed.sum(0).view(heads, rows, sharing_heads, tokens, -1)
    return mixed.transpose(0, 1)


def _softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


AttentionInterface.register(NAME, attend)
