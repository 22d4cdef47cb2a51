"""What a native model's name says, before torch is needed. The module must not import torch."""

from __future__ import annotations

import difflib
import importlib.util
from dataclasses import dataclass

from llmcompiler.errors import UsageError

DTYPES = ("float32", "bfloat16", "float16", "float64")


def check_installed() -> None:
    """Say that a native model cannot be had here, before weights are pulled or a run begins.

    Raises:
        UsageError: torch or transformers is not installed.
    """
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"a native model needs {name}, which is not installed",
                hint="pip install 'llmcompiler-dag[native]', or --model local for the embedded "
                "model",
            )


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model is.

    Attributes:
        place: a directory, a ``.gguf`` file, or a name on the hub.
        dtype: of weights and caches.
        device: ``auto`` for a GPU where there is one, else a name of torch's.

    Raises:
        UsageError: there is no such dtype.
    """

    place: str
    dtype: str = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(
                f'there is no dtype "{self.dtype}"', hint=f"one of: {', '.join(DTYPES)}"
            )


def read_source(text: str) -> Source:
    """``PLACE,dtype=bfloat16,device=cuda`` as a source.

    Raises:
        UsageError: it has another option, or no place.
    """
    place, *options = text.split(",")
    if not place:
        raise UsageError(
            "native: lacks a model's name", hint="for example native:qwen2.5-coder-0.5b"
        )
    given: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("dtype", "device") or not value:
            close = difflib.get_close_matches(key, ("dtype", "device"), 1)
            raise UsageError(
                f'a native model has no option "{option}"',
                hint=f"did you mean {close[0]}=?" if close else "there are dtype= and device=",
            )
        given[key] = value
    return Source(place, **given)
