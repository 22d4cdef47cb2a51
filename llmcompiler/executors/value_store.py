"""Values too large to pass through the driver: kept as files, and spoken of by their hash.

A directory that every machine of a cluster sees holds each such value once, as JSON, under the hash
of its bytes. In the log, in prompts and in arguments stands a note in its place: hash, size, type,
beginning, and how long its lists are. A note says what the value is as exactly as the value would,
so a run with notes is replayed, compared and resumed like any other; what is needed to go on with
it is the directory. The module must not know who keeps values, or when.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from llmcompiler.errors import ToolError
from llmcompiler.executors.value_handles import HELD, LENGTH, LENGTHS, PATH, Note, is_note
from llmcompiler.plan.expressions import path_text

_BEGINS = 200

_FIELDS = 100
"""Fields of an object whose notes tells of their lengths: a record, not a table."""


def replaced(
    arguments: Mapping[str, Any], whole: Callable[[str], Any], shared: Callable[[str], Any]
) -> dict[str, Any]:
    """The arguments with the values that are meant in place of the notes.

    Args:
        arguments: of a call.
        whole: gives the value with a hash, for the call to do with as it likes.
        shared: gives one of which only a part is wanted; the call gets a copy of that.

    Raises:
        ToolError: a path does not fit the value.
    """

    def one(value: Any) -> Any:
        if not is_note(value):
            return value
        if not (path := value.get(PATH)):
            return whole(value[HELD])
        return from_json(to_json(_part(shared(value[HELD]), path)))  # faster than copy.deepcopy

    return {
        name: [one(each) for each in value] if type(value) is list else one(value)
        for name, value in arguments.items()
    }


def _part(value: Any, path: Sequence[str | int]) -> Any:
    for place, segment in enumerate(path):
        try:
            if isinstance(value, dict):
                value = value[str(segment)]
            elif isinstance(value, list) and isinstance(segment, int):
                value = value[segment]
            else:
                raise LookupError
        except LookupError:
            raise ToolError(
                f"a value that is kept on the cluster has no {path_text(tuple(path[: place + 1]))}",
                hint=f"fields: {', '.join(list(value)[:12])}"
                if isinstance(value, dict)
                else f"it is {_kind(value)} there",
            ) from None
    return value


class HeldValues:
    """A directory of values.

    Args:
        directory: seen under the same path by every machine of the cluster; made if need be.
        above: bytes of JSON above which a value is kept here.
    """

    def __init__(self, directory: str | os.PathLike[str], above: int) -> None:
        self.directory = Path(directory).absolute()
        self.above = above

    def keep(self, value: Any) -> Note | None:
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
            **_lengths(value),
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


def _lengths(value: Any) -> dict[str, Any]:
    """What a fan-out over the value needs to know of it."""
    if isinstance(value, list):
        return {LENGTH: len(value)}
    if not isinstance(value, dict) or len(value) > _FIELDS:
        return {}
    lists = {name: len(field) for name, field in value.items() if isinstance(field, list)}
    return {LENGTHS: lists} if lists else {}


def _kind(value: Any) -> str:
    match value:
        case list():
            return f"list of {len(value)}"
        case dict():
            return f"object of {len(value)}"
        case str():
            return f"text of {len(value)}"
    return type(value).__name__
