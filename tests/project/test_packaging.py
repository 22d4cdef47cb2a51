"""What is built holds the package, and not the signposts at the top of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SIGNPOSTS = ("planners", "executors", "tools")


@pytest.mark.parametrize("name", SIGNPOSTS)
def test_signposts_are_relative_links_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("llmcompiler") / name
    assert link.is_dir()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist and the wheel that is built from it, as for a release."""
    out = tmp_path_factory.mktemp("dist")
    arguments = ["--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(
        [sys.executable, "-m", "build", *arguments], check=True, capture_output=True, text=True
    )
    return out


def test_the_wheel_holds_the_package_and_nothing_beside_it(built: Path) -> None:
    (wheel,) = built.glob("llmcompiler_dag-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"llmcompiler"}
    assert "llmcompiler/py.typed" in names
    assert "llmcompiler/tools/base.py" in names
    assert {f"llmcompiler/view/assets/{name}" for name in ("page.js", "page.css")} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_the_tests_and_no_signposts(built: Path) -> None:
    (sdist,) = built.glob("llmcompiler_dag-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "tests/project/test_packaging.py", "Makefile"} <= names
    assert {"web/build.mjs", "web/package-lock.json", "web/src/page.tsx"} <= names
    assert not any("node_modules" in name for name in names)
    assert not {name.partition("/")[0] for name in names} & set(SIGNPOSTS)


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", str(wheel)]
    subprocess.run(install, check=True, stdin=subprocess.DEVNULL)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(venv / "bin" / "llmcompiler"), "run", '1. calc("6 * 7")\n2. join($1)', "--quiet"],
        cwd=tmp_path,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "42\n"
