"""Settings: the precedence of their sources, and the messages about mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmcompiler.cli.app import app
from llmcompiler.errors import UsageError
from llmcompiler.settings.reading import read_settings, unknown_variables
from tests.cli.test_commands import cli, endpoint
from tests.support.fake_openai import Reply

TEAM = """
model = "local:smollm2-135m"
planner = "structured"

[limits]
replans = 4

[profiles.team]
model = "openai:team-model"
base_url = "https://models.example/v1"
api_key_variable = "TEAM_KEY"
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "llmcompiler" / "llmcompiler.toml"
    path.parent.mkdir(parents=True)
    return path


class TestPrecedence:
    def test_nothing_said(self) -> None:
        configuration = read_settings()
        assert (configuration.settings.model, configuration.settings.tools) == (
            "local",
            ["calc", "geo"],
        )
        assert configuration.origin("model") is None

    def test_flag_then_variable_then_project_then_user(
        self, directory: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user_file.write_text('model = "local:user"\n')
        project = directory / "llmcompiler.toml"
        assert read_settings().origin("model") == f"{user_file}:1"
        project.write_text('# ours\nmodel = "local:project"\n')
        configuration = read_settings()
        assert (configuration.settings.model, configuration.origin("model")) == (
            "local:project",
            f"{project}:2",
        )
        monkeypatch.setenv("LLMCOMPILER_MODEL", "local:variable")
        configuration = read_settings()
        assert (configuration.settings.model, configuration.origin("model")) == (
            "local:variable",
            "LLMCOMPILER_MODEL",
        )
        configuration = read_settings({"model": "local:flag"})
        assert (configuration.settings.model, configuration.origin("model")) == (
            "local:flag",
            "--model",
        )

    def test_tables_are_merged_key_by_key(
        self, directory: Path, user_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user_file.write_text("limits = { replans = 1, repairs = 1, cost = 1 }")
        (directory / "llmcompiler.toml").write_text("[limits]\nreplans = 2\nrepairs = 2\n")
        monkeypatch.setenv("LLMCOMPILER_LIMITS__REPLANS", "3")
        configuration = read_settings({"limits": {"deadline": "4"}})
        limits = configuration.settings.limits
        assert (limits.deadline, limits.replans, limits.repairs, limits.cost) == (4, 3, 2, 1)
        assert [
            configuration.origin("limits", key) for key in ("deadline", "replans", "repairs")
        ] == [
            "--limit",
            "LLMCOMPILER_LIMITS__REPLANS",
            f"{directory / 'llmcompiler.toml'}:3",
        ]

    def test_pyproject_serves_where_there_is_no_file_of_its_own(self, directory: Path) -> None:
        pyproject = directory / "pyproject.toml"
        pyproject.write_text('[project]\nname = "x"\n\n[tool.llmcompiler]\nplanner = "react"\n')
        configuration = read_settings()
        assert (configuration.settings.planner, configuration.origin("planner")) == (
            "react",
            f"{pyproject}:5",
        )
        (directory / "llmcompiler.toml").write_text('model = "local:own"\n')
        assert read_settings().settings.planner == "text"

    def test_a_profile_stands_where_it_was_named(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = directory / "llmcompiler.toml"
        file.write_text(TEAM)
        monkeypatch.setenv("LLMCOMPILER_MODEL", "local:variable")
        assert read_settings({"profile": "team"}).settings.model == "openai:team-model"
        monkeypatch.setenv("LLMCOMPILER_PROFILE", "team")
        assert read_settings().settings.model == "local:variable"
        monkeypatch.delenv("LLMCOMPILER_MODEL")
        configuration = read_settings()
        assert (configuration.settings.model, configuration.settings.planner) == (
            "openai:team-model",
            "structured",
        )
        assert configuration.origin("model") == f"profile team, {file}:9"
        assert read_settings({"model": "local:flag"}).settings.model == "local:flag"

    def test_several_tools_in_a_variable_are_a_json_list(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LLMCOMPILER_TOOLS", "calc,geo")
        assert read_settings().settings.tools == ["calc,geo"]
        monkeypatch.setenv("LLMCOMPILER_TOOLS", '["calc", "mcp:uvx it"]')
        assert read_settings().settings.tools == ["calc", "mcp:uvx it"]

    def test_paths_in_a_file_are_meant_from_the_file(self, user_file: Path) -> None:
        user_file.write_text('store = "runs.sqlite"\n')
        assert read_settings().settings.store == user_file.parent / "runs.sqlite"


class TestKeys:
    """A key goes only to the endpoint that it was meant for."""

    @pytest.fixture(autouse=True)
    def key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-general")

    def test_an_endpoint_of_the_environment_gets_the_key_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "https://any.example/v1")
        configuration = read_settings()
        assert configuration.origin("base_url") == "OPENAI_BASE_URL"
        assert configuration.api_key("openai:m") == "sk-general"
        assert configuration.api_key("local") == ""

    def test_an_endpoint_of_a_file_gets_the_key_that_is_named_beside_it(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (directory / "llmcompiler.toml").write_text(TEAM)
        configuration = read_settings({"profile": "team"})
        with pytest.raises(UsageError, match=r"models.example/v1 is to be in TEAM_KEY, which is"):
            configuration.api_key("openai:m")
        monkeypatch.setenv("TEAM_KEY", "sk-team")
        assert configuration.api_key("openai:m") == "sk-team"

    def test_an_endpoint_of_a_project_never_gets_the_key_of_the_user(
        self, directory: Path, user_file: Path
    ) -> None:
        (directory / "llmcompiler.toml").write_text('base_url = "https://elsewhere.example/v1"\n')
        assert read_settings().api_key("openai:m") == ""
        user_file.write_text('api_key_variable = "OPENAI_API_KEY"\n')
        assert read_settings().api_key("openai:m") == ""


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            ('modle = "x"', r"llmcompiler.toml:1: there is no setting 'modle'", "'model'"),
            ("\n[limits]\nreplan = 3", r"toml:3: .* 'limits.replan'", "'replans'"),
            ('[limits]\nreplans = "x"', r"toml:2: limits.replans: .*integer", "a number of"),
            ("[limits]\nrepairs = -1", r"toml:2: limits.repairs: .*greater", "0 or more"),
            ("[mcp.a]\ntimeot = 1", r"toml:2: .* 'mcp.a.timeot'", "'timeout'"),
            ('[profiles.a]\nbase = "x"', r"toml:2: .* 'profiles.a.base'", "'base_url'"),
            ("[[profiles]]", r"toml.*: profiles: should be a table", "endpoints"),
            ("model = local", r"llmcompiler.toml is not TOML: .*line 1", "quotes"),
            ("tools = 3", r"toml:1: tools: .*list", "what --tools takes"),
        ],
    )
    def test_a_file_that_is_wrong_is_named_with_line_and_key(
        self, directory: Path, text: str, message: str, hint: str
    ) -> None:
        (directory / "llmcompiler.toml").write_text(text)
        with pytest.raises(UsageError, match=message) as refused:
            read_settings()
        assert hint in refused.value.hint

    def test_a_key_in_a_file_is_refused_and_not_repeated(self, directory: Path) -> None:
        file = directory / "llmcompiler.toml"
        file.write_text('[profiles.a]\napi_key = "sk-secret"\n')
        with pytest.raises(UsageError, match=r"no setting 'profiles.a.api_key'") as refused:
            read_settings()
        assert "api_key_variable" in refused.value.hint
        file.write_text('[profiles.a]\napi_key_variable = "sk-secret"\n')
        with pytest.raises(UsageError, match="no name of an environment variable") as refused:
            read_settings()
        assert "sk-secret" not in str(refused.value)

    def test_a_variable_that_is_wrong_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLMCOMPILER_LIMITS__DEADLINE", "soon")
        with pytest.raises(UsageError, match=r"^LLMCOMPILER_LIMITS__DEADLINE: limits.deadline"):
            read_settings()

    def test_a_variable_that_nobody_reads_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLMCOMPILER_MODLE", "x")
        monkeypatch.setenv("LLMCOMPILER_LIMITS__COST", "1")
        assert list(unknown_variables()) == [("LLMCOMPILER_MODLE", "LLMCOMPILER_MODEL")]

    def test_a_profile_that_is_not_there(self, directory: Path) -> None:
        with pytest.raises(UsageError, match="'tem', which --profile names") as refused:
            read_settings({"profile": "tem"})
        assert "[profiles.tem]" in refused.value.hint
        (directory / "llmcompiler.toml").write_text(TEAM)
        with pytest.raises(UsageError, match="no profile 'tem'") as refused:
            read_settings({"profile": "tem"})
        assert refused.value.hint == "did you mean 'team'?"


class TestCommands:
    def test_config_tells_where_each_value_is_from_and_no_secret(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEAM_KEY", "sk-1")
        monkeypatch.setenv("LLMCOMPILER_LIMITS__COST", "2")
        file = directory / "llmcompiler.toml"
        file.write_text(
            TEAM.replace("https://", "https://me:sk-2@").replace("/v1", "/v1?key=sk-3")
            + '[mcp.a]\ncommand = "tool --token sk-4"\nenv = { T = "sk-5" }\n'
            + '[mcp.b]\nurl = "https://b.example/?k=sk-6"\nheaders = { A = "sk-7" }\n'
        )
        text = CliRunner().invoke(app, ["config", "--profile", "team"])
        data = CliRunner().invoke(app, ["config", "--profile", "team", "--json"])
        assert "sk-" not in text.output + data.output
        settings = json.loads(data.stdout)["settings"]
        assert settings["model"] == {
            "value": "openai:team-model",
            "from": f"profile team, {file}:9",
        }
        assert settings["api_key_variable"]["value"] == "TEAM_KEY (set)"
        assert settings["limits.cost"] == {"value": 2, "from": "LLMCOMPILER_LIMITS__COST"}
        assert settings["limits.replans"]["from"] == f"{file}:6"
        assert settings["mcp.a.command"]["value"] == "tool …"
        assert settings["tools"] == {"value": ["calc", "geo"], "from": None}
        assert "https://models.example/v1?…" in text.stdout

    async def test_a_run_asks_the_endpoint_of_its_profile_with_its_key(
        self, directory: Path
    ) -> None:
        async with endpoint() as server:
            (directory / "llmcompiler.toml").write_text(
                'profile = "here"\nstore = "mine.sqlite"\n[profiles.here]\nmodel = "openai:m"\n'
                f'base_url = "{server.url}"\napi_key_variable = "HERE_KEY"\n'
            )
            done = await cli("run", "How dense is Japan?", HERE_KEY="sk-here")
        assert done.code == 0
        assert done.out.strip().endswith("335")
        assert {request.headers["authorization"] for request in server.requests} == {
            "Bearer sk-here"
        }
        assert (directory / "mine.sqlite").exists()
        assert "How dense" in (await cli("runs")).out

    async def test_a_bad_file_is_a_usage_error_of_every_command(self, directory: Path) -> None:
        (directory / "llmcompiler.toml").write_text("modle = 3")
        done = await cli("show", "last")
        assert done.code == 2
        assert "llmcompiler.toml:1: there is no setting 'modle'" in done.err
        assert "Traceback" not in done.err
        assert (await cli("show", "--help")).code == 0


class TestDoctor:
    def checks(self, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        done = CliRunner().invoke(app, ["doctor", "--json", *arguments])
        checks: dict[str, list[dict[str, str]]] = {}
        for check in json.loads(done.stdout)["checks"]:
            checks.setdefault(check["about"], []).append(check)
        return done.exit_code, checks

    async def test_an_endpoint_that_answers(self, directory: Path) -> None:
        async with endpoint([Reply(["Hello"])]) as server:
            done = await cli("doctor", OPENAI_BASE_URL=server.url, LLMCOMPILER_MODEL="openai:m")
        assert done.code == 0, done.out
        assert f"ok     endpoint: openai:m at {server.url} answers" in done.out
        assert "ok     capabilities: " in done.out

    async def test_an_endpoint_that_refuses_the_key(self) -> None:
        refusal = Reply(status=401, error={"message": "who are you"})
        async with endpoint([refusal]) as server:
            done = await cli(
                "doctor",
                OPENAI_BASE_URL=server.url,
                OPENAI_API_KEY="sk-wrong",
                LLMCOMPILER_MODEL="openai:m",
            )
        assert done.code == 1
        assert "answered 401: who are you\n       -> the key is wrong" in done.out
        assert "sk-wrong" not in done.out

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("LLMCOMPILER_MODEL", "openai:m")
        code, checks = self.checks()
        assert code == 1
        assert "cannot be reached" in checks["endpoint"][0]["said"]
        assert "OPENAI_BASE_URL" in checks["endpoint"][0]["hint"]
        code, checks = self.checks("--offline")
        assert (code, checks["endpoint"][0]["verdict"]) == (0, "ok")

    @pytest.mark.parametrize(
        ("text", "about", "message"),
        [
            ("modle = 3", "settings", "there is no setting 'modle'"),
            ('model = "lokal"', "model", "unknown model 'lokal'"),
            ('model = "local:./none.gguf"', "model", "No such file"),
            ('model = "local:./llmcompiler.toml.gguf"', "model", "is no GGUF file"),
            ('planner = "txt"', "planner", 'no planner "txt"'),
            ('reason = "vot"', "planner", "vot"),
            ('prompts = "none.toml"', "prompts", "none.toml"),
            ('tools = ["calc", "clac"]', "tools", "no tool set 'clac'"),
            ('store = "llmcompiler.toml"', "store", "llmcompiler.toml"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, directory: Path, text: str, about: str, message: str
    ) -> None:
        (directory / "llmcompiler.toml").write_text(text)
        (directory / "llmcompiler.toml.gguf").write_text("no weights")
        code, checks = self.checks("--offline")
        errors = [check for check in checks[about] if check["verdict"] == "wrong"]
        assert code == 1
        assert message in errors[0]["said"]

    def test_what_may_be_wrong_is_a_note(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LLMCOMPILER_STOER", "x")
        (directory / "llmcompiler.toml").write_text(
            'model = "local:./llmcompiler.gguf"\n'
            '[mcp.a]\ncommand = "no-such-program-here"\n'
            '[mcp.b]\nurl = "https://b.example"\nheaders = { A = "${NOT_SET_ANYWHERE}" }\n'
        )
        (directory / "llmcompiler.gguf").write_bytes(b"GGUF")
        code, checks = self.checks()
        assert code == 0
        assert checks["model"][0]["verdict"] == "ok"
        assert checks["settings"][1]["hint"] == "did you mean LLMCOMPILER_STORE?"
        assert [check["verdict"] for check in checks["mcp"]] == ["note", "note"]
        assert "no program 'no-such-program-here'" in checks["mcp"][0]["said"]
        assert "NOT_SET_ANYWHERE, which is not set" in checks["mcp"][1]["said"]


# --- options of models ----------------------------------------------------------------------------


def test_a_models_own_options_come_before_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM", "blue")
    (tmp_path / "llmcompiler.toml").write_text(
        '[models.default]\ntemperature = 0.5\nconnect_timeout = 3\n\n[models."openai:large"]\n'
        'temperature = 1\nmax_answer_tokens = 9000\nheaders = { X-Team = "${TEAM}" }\n'
    )
    configuration = read_settings(directory=tmp_path)
    large = configuration.model_options("openai:large")
    assert large is not None
    assert (large.temperature, large.connect_timeout, large.max_answer_tokens) == (1, 3, 9000)
    assert large.headers == {"X-Team": "blue"}
    other = configuration.model_options("openai:other")
    assert other is not None and other.temperature == 0.5


def test_an_option_that_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "llmcompiler.toml").write_text("[models.large]\nmax_answer_token = 5\n")
    with pytest.raises(UsageError) as caught:
        read_settings(directory=tmp_path)
    assert "llmcompiler.toml" in caught.value.message
    assert "max_answer_tokens" in caught.value.hint
