"""Where a native model is, as users write it; torch is not imported for this."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from llmcompiler.errors import UsageError
from llmcompiler.extras import is_module_installed

DTYPES = ("float32", "bfloat16", "float16", "float64")


_MODULES = ("torch", "transformers")


def is_native_installed() -> bool:
    """True if native models can run here."""
    return all(map(is_module_installed, _MODULES))


def require_native() -> None:
    """Check that native models can run here, before weights are downloaded or a run begins.

    Raises:
        UsageError: torch or transformers is not installed.
    """
    for name in _MODULES:
        if not is_module_installed(name):
            raise UsageError(
                f"a native model needs {name}, which is not installed",
                hint="pip install 'llmcompiler-dag[native]', or --model local for the embedded "
                "model",
            )


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """Where a model is.

    Attributes:
        place: a directory, a ``.gguf`` file, or a name on the hub.
        dtype: the number type of weights and caches.
        device: ``auto`` for a GPU where there is one, else torch's name of a device.

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


def parse_location(text: str) -> ModelLocation:
    """Parse ``PLACE,dtype=bfloat16,device=cuda``.

    Raises:
        UsageError: ``text`` has another option, or no place.
    """
    place, *options = text.split(",")
    if not place:
        raise UsageError(
            "native: lacks a model's name", hint="for example native:qwen2.5-coder-0.5b"
        )
    values: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("dtype", "device") or not value:
            close = difflib.get_close_matches(key, ("dtype", "device"), 1)
            raise UsageError(
                f'a native model has no option "{option}"',
                hint=f"did you mean {close[0]}=?" if close else "there are dtype= and device=",
            )
        values[key] = value
    return ModelLocation(place, **values)
