"""The reference for shared attention: one forward pass over all tokens, written down plainly.

All tokens stand in one sequence, unturned. Two tables say who sees whom, and at what distance.
Queries are turned pair by pair. No code of the engine is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface

NAME = "reference_pairs"


class Pairs(NamedTuple):
    """``sees[q, k]``, and ``distance[q, k]``: the query's position less the key's, as q sees it."""

    sees: torch.Tensor
    distance: torch.Tensor


def exact_rotary(model: Any) -> Any:
    """Have a model compute its rotary tables in float64, which transformers does in float32."""
    rotary = model.get_decoder().rotary_emb
    frequencies = rotary.inv_freq.double()

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * frequencies
        angles = torch.cat((angles, angles), -1)
        scaling = rotary.attention_scaling
        return (angles.cos() * scaling).to(x), (angles.sin() * scaling).to(x)

    rotary.forward = forward
    return model


def _attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    *,
    scaling: float,
    pairs: Pairs,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1)[0] for x in (key, value))
    angles = pairs.distance[..., None].double() * module.frequencies
    cos, sin = angles.cos().to(query), angles.sin().to(query)
    first, second = query[0].chunk(2, -1)
    # In each plane, each pair's query is turned by the pair's distance.
    first, second = first[:, :, None], second[:, :, None]
    turned_query = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    scores = torch.einsum("hqkd,hkd->hqk", turned_query, key) * scaling
    weights = scores.masked_fill(~pairs.sees, float("-inf")).softmax(-1)
    return (weights @ value).transpose(0, 1)[None], None


AttentionInterface.register(NAME, _attend)


def joint(model: Any, tokens: list[int], pairs: Pairs) -> torch.Tensor:
    """Scores behind every token of the sequence."""
    model.set_attn_implementation(NAME)
    for layer in model.get_decoder().layers:
        layer.self_attn.frequencies = model.get_decoder().rotary_emb.inv_freq.double()
    ids = torch.tensor([tokens])
    with torch.no_grad():
        # At position 0 the model turns nothing, and scales attention once.
        out = model(input_ids=ids, position_ids=torch.zeros_like(ids), use_cache=False, pairs=pairs)
    return out.logits[0]
