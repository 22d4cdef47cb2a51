"""What an embedded server had read of its prompts, kept for the next process.

Reading a planner's prompt takes a small model on a laptop ten seconds or more, and the prompt
begins the same every time. The server can write a slot's attention cache to a file and read it
back in milliseconds, so the second ``llmcompiler run`` starts where the first one stopped reading.

The files hold the last prompts of each slot, so only their owner may read them. Nothing here is
needed for a right answer: whatever goes wrong is as if there had been no file. The module must not
know what was asked.
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

_SECONDS = 10.0
"""Longest that one slot may take; a slow disk must not hold anybody up."""


class WarmSlots:
    """The files of one server's slots.

    Args:
        weights: what the server runs; other weights, or another release of the server, have other
            files.
        settings: what else the cache's layout depends on.
        slots: how many slots the server has.
    """

    def __init__(self, weights: Path, settings: str, slots: int) -> None:
        stat = weights.stat()
        release = importlib.metadata.version("xllamacpp")
        known = f"{weights}\0{stat.st_size}\0{stat.st_mtime_ns}\0{release}\0{settings}"
        name = hashlib.sha256(known.encode()).hexdigest()[:16]
        self.folder = cache_dir() / "prompts" / name
        self._slots = slots
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def restore(self, address: str, key: str) -> None:
        """Give a server that has just started what an earlier one had read."""
        for slot in range(self._slots):
            for file in self.folder.glob(f"slot-{slot}.*"):
                # The server trusts a file and dies of a damaged one, so its hash is its name.
                if file.suffix != f".{_digest(file)}" or not self._ask(
                    address, key, slot, "restore", file
                ):
                    file.unlink(missing_ok=True)

    def save(self, address: str, key: str) -> None:
        """Keep what a server that is about to stop has read."""
        for slot in range(self._slots):
            written = self.folder / f".{os.getpid()}-{slot}"
            if self._ask(address, key, slot, "save", written):
                old = set(self.folder.glob(f"slot-{slot}.*"))
                with suppress(OSError):
                    kept = written.rename(self.folder / f"slot-{slot}.{_digest(written)}")
                    for file in old - {kept}:
                        file.unlink(missing_ok=True)
            written.unlink(missing_ok=True)

    def _ask(self, address: str, key: str, slot: int, action: str, file: Path) -> bool:
        request = urllib.request.Request(
            f"{address}/slots/{slot}?action={action}",
            json.dumps({"filename": file.name}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        try:
            with _direct.open(request, timeout=_SECONDS) as answer:
                return _count(json.load(answer)) > 0
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


def _count(answer: dict[str, int]) -> int:
    """Tokens that were written or read; an empty slot is not worth a file."""
    return answer.get("n_saved", answer.get("n_restored", 0))
