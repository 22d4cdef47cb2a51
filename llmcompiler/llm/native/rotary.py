"""Rotary positions as rotations by a distance, so that keys stay where they were written.

RoPE turns a query and a key by angles that grow with their positions; their product depends on the
difference alone. So the cache holds keys as turned from the start of their own block, and a *query*
is turned further, by the distance between its own block's start and the start of the key's block.
The scaling of attention (yarn) is applied once, by the model's own cosines and sines, and never
here.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
CosSin: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines of the angles of a rotation."""


class Rotation:
    """Computes the angles of rotations by distances.

    Args:
        frequencies: the model's inverse frequencies (its ``inv_freq``), half a head's size.
        dtype: of the vectors.
    """

    def __init__(self, frequencies: Tensor, dtype: torch.dtype) -> None:
        # Angles of thousands of radians need all available digits.
        angle_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self._frequencies = frequencies.to(angle_dtype)
        self._dtype = dtype

    def cos_sin(self, distances: Tensor) -> CosSin:
        """Cosines and sines for distances in tokens, of shape ``(*distances.shape, head size)``."""
        angles = distances.to(self._frequencies)[..., None] * self._frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(self._dtype), angles.sin().to(self._dtype)


def quarter_turn(vectors: Tensor) -> Tensor:
    """The vectors after a quarter turn in each plane; a head's halves are the planes' axes."""
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rotate(vectors: Tensor, quarter_turned: Tensor, angles: CosSin) -> Tensor:
    """The vectors after a rotation; ``quarter_turned`` is ``quarter_turn(vectors)``."""
    cos, sin = angles
    return torch.addcmul(vectors * cos, quarter_turned, sin)
