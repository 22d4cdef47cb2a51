"""Values too large to pass through the driver: kept as files, and spoken of by their hash.

A directory that every machine of a cluster sees holds each such value once, as JSON, under the hash
of its bytes. In the log, in prompts and in arguments stands a note in its place: hash, size, type
and beginning. A note says what the value is as exactly as the value would, so a run with notes is
replayed, compared and resumed like any other; what is needed to go on with it is the directory.
The module must not know who keeps values, or when.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from llmcompiler.errors import ToolError

HELD = "$held"
"""The key that marks a note."""

_BEGINS = 200


def note_in(value: Any) -> str | None:
    """The hash in a note; ``None`` for any other value."""
    return value[HELD] if type(value) is dict and HELD in value else None


def holds(arguments: Mapping[str, Any]) -> bool:
    """Whether a note stands for an argument, or for an element of one that is a list."""
    for value in arguments.values():
        kind = type(value)
        if kind is dict and HELD in value:
            return True
        if kind is list and any(type(one) is dict and HELD in one for one in value):
            return True
    return False


def replaced(arguments: Mapping[str, Any], value_of: Callable[[str], Any]) -> dict[str, Any]:
    """The arguments with what ``value_of`` gives for each hash in place of the notes."""

    def one(value: Any) -> Any:
        digest = note_in(value)
        return value if digest is None else value_of(digest)

    return {
        name: [one(each) for each in value] if type(value) is list else one(value)
        for name, value in arguments.items()
    }


class HeldValues:
    """A directory of values.

    Args:
        directory: seen under the same path by every machine of the cluster; made if need be.
        above: bytes of JSON above which a value is kept here.
    """

    def __init__(self, directory: str | os.PathLike[str], above: int) -> None:
        self.directory = Path(directory).absolute()
        self.above = above

    def keep(self, value: Any) -> dict[str, Any] | None:
        """Keep a value if it is large.

        Args:
            value: as JSON.

        Returns:
            The note; ``None`` if the value is small, and then nothing is kept.
        """
        encoded = to_json(value)
        if len(encoded) <= self.above:
            return None
        digest = blake2b(encoded, digest_size=16).hexdigest()
        path = self._path(digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whoever looks, on whatever machine, finds all of it or nothing.
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
            with os.fdopen(handle, "wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        return {
            HELD: digest,
            "bytes": len(encoded),
            "type": _kind(value),
            "begins": encoded[:_BEGINS].decode(errors="replace"),
        }

    def load(self, digest: str) -> Any:
        """The value with this hash.

        Raises:
            ToolError: it is not in the directory, or not what was put there.
        """
        path = self._path(digest)
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise ToolError(
                f"the value {digest} is not in {self.directory} ({error.strerror})",
                hint="bring the directory back, or fork the run from the task that made the value",
            ) from error
        if blake2b(encoded, digest_size=16).hexdigest() != digest:
            raise ToolError(
                f"{path} is not what was kept there",
                hint="fork the run from the task that made the value",
            )
        return from_json(encoded)

    def _path(self, digest: str) -> Path:
        return self.directory / digest[:2] / f"{digest}.json"


def _kind(value: Any) -> str:
    match value:
        case list():
            return f"list of {len(value)}"
        case dict():
            return f"object of {len(value)}"
        case str():
            return f"text of {len(value)}"
    return type(value).__name__
