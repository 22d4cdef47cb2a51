"""Rotary positions as rotations by a distance, so that keys stay where they were written.

RoPE turns a query and a key by angles that grow with their positions; their product depends on the
difference alone. So keys are kept as turned from the start of their own block, and a *query* is
turned further by how far that block starts from where the query thinks that it starts. Scaling of
attention (yarn) is in the model's own tables once, and never here. The module must not know models.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Tables: TypeAlias = tuple[Tensor, Tensor]


class Rotation:
    """Turns vectors by distances.

    Args:
        frequencies: the model's inverse frequencies (its ``inv_freq``), half a head's size.
        dtype: of the vectors.
    """

    def __init__(self, frequencies: Tensor, dtype: torch.dtype) -> None:
        # Angles of thousands of radians need all the digits that there are.
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self._frequencies = frequencies.to(exact)
        self._dtype = dtype

    def tables(self, distances: Tensor) -> Tables:
        """Cosines and sines for distances in tokens, of shape ``(*distances.shape, head)``."""
        angles = distances.to(self._frequencies)[..., None] * self._frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(self._dtype), angles.sin().to(self._dtype)


def half(vectors: Tensor) -> Tensor:
    """A quarter turn in each plane, where a head's halves are the planes' axes."""
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def turned(vectors: Tensor, quarter: Tensor, tables: Tables) -> Tensor:
    """The vectors, turned; ``quarter`` is ``half(vectors)``."""
    cos, sin = tables
    return torch.addcmul(vectors * cos, quarter, sin)
