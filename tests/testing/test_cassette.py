"""Cassettes in an application's tests: played back offline, recorded on demand, strict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmcompiler.compiler import LLMCompiler
from llmcompiler.errors import LogError
from llmcompiler.history.decisions import DivergenceError
from llmcompiler.joiners.model import Decision
from llmcompiler.language import parse_plan
from llmcompiler.log.export import export_run
from llmcompiler.testing import ScriptedModel
from llmcompiler.testing.cassette import Cassette, CassetteMiss
from llmcompiler.tools.base import Tool, tool

pytest_plugins = ["pytester"]

CALLS: list[str] = []


def lookup(name: str = "search", answer: int = 0) -> Tool:
    @tool(name=name)
    def search(entity: str, limit: int = 3) -> int:
        """Find the size of an entity."""
        CALLS.append(entity)
        if entity == "Oz":
            raise LookupError("no Oz")
        return answer or len(entity)

    return search


@tool
def add(a: float, b: float) -> float:
    """Add two numbers."""
    CALLS.append("add")
    return a + b


PLAN = '1. search("Japan")\n2. search("Peru")\n3. add($1, $2)\n4. join()'
ANSWER = json.dumps({"action": "answer", "text": "nine"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A run of two searches and a sum, exported."""
    return record_run(tmp_path, PLAN)


def record_run(folder: Path, plan: str) -> Path:
    agent = LLMCompiler([lookup(), add], ScriptedModel([plan, ANSWER]), store=":memory:")
    agent.run_sync("How big?")
    export_run(agent.store, "last", folder / "run.jsonl.gz")
    CALLS.clear()
    return folder / "run.jsonl.gz"


def test_a_run_is_played_back_and_nothing_is_called(file: Path) -> None:
    result = Cassette(file).replay(tools=[lookup(), add])
    assert (result.answer, result.observations[3].value) == ("nine", 9)
    assert CALLS == []


def test_the_applications_own_compiler_is_played_back(file: Path) -> None:
    tape = Cassette(file)
    compiler = LLMCompiler(**tape.parts([lookup(), add], model="openai:none"))  # type: ignore[arg-type]
    assert compiler.run_sync("How big?").answer == "nine"
    tape.finish()


def test_another_question_is_a_miss_that_shows_what_differs(file: Path) -> None:
    tape = Cassette(file)
    with pytest.raises(CassetteMiss, match="How small"):
        tape.compiler([lookup(), add]).run_sync("How small?")
    with pytest.raises(CassetteMiss, match=r"the closest recorded request has .*How big"):
        tape.finish()


def test_a_tool_that_changed_its_description_changes_the_request(file: Path) -> None:
    @tool(name="add")
    def described(a: float, b: float) -> float:
        """Add up."""
        raise AssertionError("never called")

    with pytest.raises(CassetteMiss, match="Add up"):
        Cassette(file).replay([lookup(), described])


def test_a_call_with_other_arguments_is_a_miss_even_if_the_run_goes_on(tmp_path: Path) -> None:
    file = record_run(tmp_path, PLAN)
    tape = Cassette(file)
    compiler = tape.compiler([lookup(), add])
    result = compiler.execute_sync(parse_plan('1. search("Fiji")\n2. join()'))
    assert result.status == "failed"
    with pytest.raises(CassetteMiss, match=r'a result of search for {"entity": "Fiji"'):
        tape.finish()


def test_a_recorded_failure_fails_alike(tmp_path: Path) -> None:
    file = record_run(tmp_path, '1. search("Japan")\n2. search("Oz")\n3. join()')
    result = Cassette(file).replay([lookup(), add])
    failure = result.observations[2].failure
    assert failure is not None
    assert (failure.type, failure.message, failure.retryable) == ("LookupError", "no Oz", False)


def test_another_end_is_a_divergence(file: Path) -> None:
    class Contrary:
        async def join(self, context: object) -> object:
            return Decision("answer", "ten")

    with pytest.raises(DivergenceError, match="answer is 'ten', but the log holds 'nine'"):
        Cassette(file).replay([lookup(), add], joiner=Contrary())


def test_a_recording_replaces_the_file_only_in_the_end(file: Path) -> None:
    before = file.read_bytes()
    tape = Cassette(file, record=True)
    model = ScriptedModel([PLAN, ANSWER.replace("nine", "fourteen")])
    tape.replay([lookup(answer=7), add], model)
    assert sorted(CALLS) == ["Japan", "Peru", "add"]  # two look-ups run side by side
    assert file.read_bytes() == before
    tape.finish()
    assert Cassette(file).replay([lookup(), add]).answer == "fourteen"


def test_a_cassette_holds_one_run(tmp_path: Path) -> None:
    tape = Cassette(tmp_path / "new" / "run.jsonl.gz", record=True)
    with pytest.raises(LogError, match="holds one run, and 0 were made"):
        tape.finish()
    with pytest.raises(LogError, match="not known what to ask"):
        tape.replay([lookup()])


def test_a_redacted_file_cannot_be_played_back(tmp_path: Path) -> None:
    agent = LLMCompiler([lookup(), add], ScriptedModel([PLAN, ANSWER]), store=":memory:")
    agent.run_sync("How big?")
    export_run(agent.store, "last", tmp_path / "run", redact=True)
    with pytest.raises(LogError, match="is redacted"):
        Cassette(tmp_path / "run")


# The plugin, in the tests of an application.

APP = '''
import json
from llmcompiler.testing import ScriptedModel
from llmcompiler.tools.base import tool

@tool
def search(entity: str) -> int:
    """Find the size of an entity."""
    with open("calls", "a") as calls:
        calls.write(entity)
    return len(entity)

def model():
    return ScriptedModel(['1. search("Japan")\\n2. join()',
                          json.dumps({"action": "answer", "text": "five"})])
'''

TEST = """
from app import model, search

def test_size(cassette):
    compiler = cassette("cassettes/size.jsonl.gz").compiler([search], model())
    assert compiler.run_sync("How big is %s?").answer == "%s"
"""


@pytest.fixture
def app(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(app=APP)
    pytester.makepyfile(test_app=TEST % ("Japan", "five"))
    return pytester


def run(app: pytest.Pytester, *options: str) -> pytest.RunResult:
    return app.runpytest_inprocess("-p", "llmcompiler.testing.pytest_plugin", *options)


def test_a_test_records_once_and_plays_back_ever_after(app: pytest.Pytester) -> None:
    run(app, "--record-cassettes").assert_outcomes(passed=1)
    assert (app.path / "calls").read_text() == "Japan"
    run(app).assert_outcomes(passed=1)
    assert (app.path / "calls").read_text() == "Japan", "nothing was called"


def test_a_missing_cassette_fails_and_says_how_to_record_it(app: pytest.Pytester) -> None:
    result = run(app)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no cassette*record it: pytest --record-cassettes"])


def test_a_call_that_is_not_on_the_cassette_fails_the_test(app: pytest.Pytester) -> None:
    run(app, "--record-cassettes").assert_outcomes(passed=1)
    app.makepyfile(test_app=TEST % ("Peru", "five"))
    result = run(app)
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*CassetteMiss*"])


def test_a_test_that_fails_keeps_its_cassette(app: pytest.Pytester) -> None:
    run(app, "--record-cassettes").assert_outcomes(passed=1)
    file = app.path / "cassettes" / "size.jsonl.gz"
    before = file.read_bytes()
    app.makepyfile(test_app=TEST % ("Japan", "six"))
    run(app, "--record-cassettes").assert_outcomes(failed=1)
    assert file.read_bytes() == before


def test_of_long_values_a_divergence_shows_where_they_part() -> None:
    error = DivergenceError("task 3", "value", "x" * 5000 + "then" + "y" * 900, "x" * 5000 + "now")
    message = str(error)
    assert "xnow'" in message
    assert "xthenyyy" in message
    assert len(message) < 500
