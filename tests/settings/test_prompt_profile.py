"""The profile in settings, and where it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmcompiler.cli.app import app


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    return tmp_path / "llmcompiler.toml"


def shown(*command: str) -> str:
    result = CliRunner().invoke(app, [*command])
    return result.output


def test_the_models_name_decides(project: Path) -> None:
    project.write_text('model = "openai:m"\n')
    assert "auto (strong)" in shown("config")
    assert "128000" in shown("config")
    assert "prompt profile: strong (from the name openai:m)" in shown("doctor", "--offline")


def test_settings_decide(project: Path) -> None:
    project.write_text('model = "openai:m"\nprompt_profile = "small"\ncontext_tokens = 8000\n')
    assert "8000" in shown("config")
    report = shown("doctor", "--offline")
    assert "prompt profile: small (set by" in report
    assert "4,000 of 8,000 tokens for results" in report


def test_an_endpoint_has_a_profile_of_its_own(project: Path) -> None:
    project.write_text(
        '[profiles.team]\nmodel = "openai:m"\nprompt_profile = "small"\ncontext_tokens = 9000\n'
    )
    assert "small" in shown("doctor", "--offline", "--profile", "team")


def test_another_word_is_refused(project: Path) -> None:
    project.write_text('prompt_profile = "large"\n')
    assert "prompt_profile" in shown("doctor", "--offline")
