"""From a model's name to a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcompiler.errors import UsageError
from llmcompiler.llm import weights
from llmcompiler.llm.embedded import EmbeddedModel
from llmcompiler.llm.endpoint import DEFAULT_BASE_URL, EndpointModel
from llmcompiler.llm.models import open_model
from llmcompiler.testing.doubles import ScriptedModel


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_model_is_given_back_as_it_is() -> None:
    model = ScriptedModel([])
    assert open_model(model) is model


@pytest.mark.parametrize(
    ("spec", "name"), [("local", weights.DEFAULT), ("local:smollm2-135m", "smollm2-135m")]
)
def test_local_pulls_the_weights_and_opens_them(
    spec: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pulled: list[str] = []

    def pull(name: str, progress: weights.Progress | None) -> Path:
        pulled.append(name)
        path = tmp_path / f"{name}.gguf"
        path.touch()
        return path

    monkeypatch.setattr(weights, "pull_weights", pull)
    model = open_model(spec)
    assert isinstance(model, EmbeddedModel)
    assert pulled == [name]
    assert model.name == f"local:{name}"


def test_local_with_a_path_takes_the_users_own_weights(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.touch()
    assert open_model(f"local:{path}").name == "local:mine"


def test_openai_takes_endpoint_and_key_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    model = open_model("openai:qwen:7b")
    assert isinstance(model, EndpointModel)
    assert (model.name, model.model) == ("openai:qwen:7b", "qwen:7b")
    assert model.base_url == "http://127.0.0.1:9/v1"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    model = open_model("openai:m", base_url="http://127.0.0.1:8/v1", api_key="k")
    assert isinstance(model, EndpointModel)
    assert model.base_url == "http://127.0.0.1:8/v1"


def test_a_key_is_enough_for_the_default_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    model = open_model("openai:m")
    assert isinstance(model, EndpointModel)
    assert model.base_url == DEFAULT_BASE_URL


@pytest.mark.parametrize(
    ("spec", "says", "hint"),
    [
        ("locl", "unknown model 'locl'", "did you mean local?"),
        ("smollm2-135m", "unknown model 'smollm2-135m'", "did you mean local:smollm2-135m?"),
        ("", "unknown model ''", "openai:NAME"),
        ("local:qwen2.5-coder-1.5", "unknown local model", "did you mean qwen2.5-coder-1.5b?"),
        ("local:zzz", "unknown local model 'zzz'", "there are qwen2.5-coder-1.5b"),
        ("local:./absent.gguf", "no weights at absent.gguf", ".gguf"),
        ("openai:", "lacks a model's name", "openai:"),
        ("openai:m", "needs a key", "OPENAI_API_KEY"),
    ],
)
def test_mistakes_are_named_with_a_way_out(spec: str, says: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_model(spec)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_a_base_url_must_be_a_url() -> None:
    with pytest.raises(UsageError, match="not http or https"):
        open_model("openai:m", base_url="localhost:8000/v1")


def test_a_native_model_without_its_extra_is_refused_before_weights_are_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(weights, "pull_weights", lambda *_: pytest.fail("weights were pulled"))
    with pytest.raises(UsageError, match="needs torch, which is not installed") as caught:
        open_model(f"native:{weights.DEFAULT}")
    assert "llmcompiler-dag[native]" in caught.value.hint
