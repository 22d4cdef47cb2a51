"""Values that are too large to pass through the driver: files, named by their hash.

A directory that every machine of a cluster sees holds each such value once, as JSON, under the hash
of its bytes. In the log, in prompts and in arguments a ``ValueHandle`` stands in its place. The
hash in a handle tells values apart as exactly as the values would, so a run with handles is
replayed, compared and resumed like any other. To go on with such a run, the directory is needed.
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
from llmcompiler.executors.value_handles import LENGTH, LENGTHS, MARK, ValueHandle
from llmcompiler.plan.expressions import path_text

_BEGINS = 200
"""Characters of a value's JSON that its handle shows."""

_FIELDS = 100
"""Most fields of an object whose handle tells the lengths of its lists."""


def resolve_handles(
    arguments: Mapping[str, Any], load: Callable[[str], Any], load_shared: Callable[[str], Any]
) -> dict[str, Any]:
    """The arguments with the values themselves in place of handles.

    Args:
        arguments: of a call.
        load: gives the value with a hash, for the call to do with as it likes.
        load_shared: gives a value of which the call gets a copy of one part.

    Raises:
        ToolError: a path does not fit the value.
    """

    def resolve(value: Any) -> Any:
        if type(value) is ValueHandle:
            if not value.path:
                return load(value.digest)
            # Faster than copy.deepcopy.
            return from_json(to_json(_part(load_shared(value.digest), value.path)))
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        return [resolve(item) for item in value] if isinstance(value, list) else value

    return {name: resolve(value) for name, value in arguments.items()}


def _part(value: Any, path: Sequence[str | int]) -> Any:
    for step, segment in enumerate(path):
        try:
            if isinstance(value, dict):
                value = value[str(segment)]
            elif isinstance(value, list) and isinstance(segment, int):
                value = value[segment]
            else:
                raise LookupError
        except LookupError:
            raise ToolError(
                f"a value that is kept on the cluster has no {path_text(tuple(path[: step + 1]))}",
                hint=f"fields: {', '.join(list(value)[:12])}"
                if isinstance(value, dict)
                else f"it is {_kind(value)} there",
            ) from None
    return value


class ValueStore:
    """A directory of large values.

    Args:
        directory: every machine of the cluster sees it under this path; made if need be.
        above: bytes of JSON above which a value is stored here.
    """

    def __init__(self, directory: str | os.PathLike[str], above: int) -> None:
        self.directory = Path(directory).absolute()
        self.above = above

    def store_if_large(self, value: Any) -> ValueHandle | None:
        """Write a value to the directory if it is large.

        Args:
            value: as JSON.

        Returns:
            The value's handle; ``None`` if the value is small, and nothing was written.
        """
        encoded = to_json(value)
        if len(encoded) <= self.above:
            return None
        digest = blake2b(encoded, digest_size=16).hexdigest()
        path = self._path(digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # A reader on any machine finds the whole file or none.
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
            with os.fdopen(descriptor, "wb") as file:
                file.write(encoded)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        return ValueHandle(
            {
                MARK: digest,
                "bytes": len(encoded),
                "type": _kind(value),
                "begins": encoded[:_BEGINS].decode(errors="replace"),
                **_lengths(value),
            }
        )

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
