"""The committed programs of the pages are what their source gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ASSETS = ROOT / "llmcompiler" / "view" / "assets"


def test_what_is_committed_is_what_the_source_gives(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which builds the pages")
    source = tmp_path / "web"
    shutil.copytree(ROOT / "web", source, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"needs npm's packages: {installed.stderr.strip()[-300:]}")
    node = shutil.which("node")
    assert node is not None
    subprocess.run([node, "build.mjs", str(tmp_path / "built")], cwd=source, check=True)
    built = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    committed = {path.name: path.read_bytes() for path in ASSETS.iterdir()}
    assert built.keys() == committed.keys()
    stale = [name for name in built if built[name] != committed[name]]
    assert stale == [], "run `make web` and commit what it changes"


def test_each_program_says_under_which_licences_its_parts_are() -> None:
    for path in ASSETS.glob("*.js"):
        head = path.read_text(encoding="utf-8").partition("*/")[0]
        for part in ("cytoscape", "d3-dag", "d3-scale", "preact"):
            assert f"\n{part} " in head
        assert "Permission is hereby granted" in head
        assert path.stat().st_size < 1_000_000
