"""Files with the attention caches of an embedded server, for the next process.

Reading a planner's prompt takes a small model on a laptop ten seconds or more, and the prompt
begins the same every time. The server can write a slot's attention cache to a file and read the
file back in milliseconds, so the second ``llmcompiler run`` starts where the first one stopped
reading.

The files hold the last prompts of each slot, so only their owner may read them. No answer depends
on the files: where a file is absent or damaged, the server reads the prompt again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import urllib.request
from contextlib import suppress
from pathlib import Path

from llmcompiler.llm.weights import cache_dir

_SLOT_TIMEOUT_S = 10.0
"""Seconds for saving or restoring one slot; a slow disk delays nobody for longer."""


class SlotFiles:
    """The files of one server's slots.

    Args:
        weights: the server's weights; other weights, or another release of the server, have other
            files.
        settings: the settings that the layout of the caches depends on, as one text.
        slots: how many slots the server has.
    """

    def __init__(self, weights: Path, settings: str, slots: int) -> None:
        stat = weights.stat()
        release = importlib.metadata.version("xllamacpp")
        identity = f"{weights}\0{stat.st_size}\0{stat.st_mtime_ns}\0{release}\0{settings}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder = cache_dir() / "prompts" / name
        self._slots = slots
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def restore(self, address: str, key: str) -> None:
        """Load the caches of an earlier server into a server that has just started."""
        for slot in range(self._slots):
            for file in self.folder.glob(f"slot-{slot}.*"):
                # A damaged file would crash the server, so the file's name holds its hash.
                if file.suffix != f".{_digest(file)}" or not self._ask(
                    address, key, slot, "restore", file
                ):
                    file.unlink(missing_ok=True)

    def save(self, address: str, key: str) -> None:
        """Save the caches of a server that is about to stop."""
        for slot in range(self._slots):
            draft = self.folder / f".{os.getpid()}-{slot}"
            if self._ask(address, key, slot, "save", draft):
                old_files = set(self.folder.glob(f"slot-{slot}.*"))
                with suppress(OSError):
                    new_file = draft.rename(self.folder / f"slot-{slot}.{_digest(draft)}")
                    for file in old_files - {new_file}:
                        file.unlink(missing_ok=True)
            draft.unlink(missing_ok=True)

    def _ask(self, address: str, key: str, slot: int, action: str, file: Path) -> bool:
        """Ask the server to save or restore a slot; True if the slot holds any tokens."""
        request = urllib.request.Request(
            f"{address}/slots/{slot}?action={action}",
            json.dumps({"filename": file.name}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        try:
            with _direct.open(request, timeout=_SLOT_TIMEOUT_S) as answer:
                counts = json.load(answer)
                return int(counts.get("n_saved", counts.get("n_restored", 0))) > 0
        except (OSError, ValueError):
            return False


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens loopback addresses, whatever proxies the environment names."""


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "blake2b").hexdigest()[:32]
    except OSError:
        return ""
