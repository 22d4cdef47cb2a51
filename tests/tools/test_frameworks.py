"""Tools of other frameworks, tested with their real packages."""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any, NamedTuple

import pytest

from llmcompiler import (
    ApprovalRequest,
    Approve,
    LLMCompiler,
    PlanError,
    UsageError,
    parse_plan,
    tool,
)
from llmcompiler.run.result import RunResult
from llmcompiler.tools.adapters import from_pydantic_ai
from llmcompiler.tools.loading import load_tools
from llmcompiler.tools.openai import openai_tool, tools_from_openai


def run(tools: Any, plan: str) -> RunResult:
    async def main() -> RunResult:
        async with LLMCompiler(tools, store=":memory:") as compiler:
            return await compiler.execute(parse_plan(plan))

    return asyncio.run(main())


class TestOpenAI:
    def test_out_and_in_again_is_the_same(self) -> None:
        @tool
        def area(width: int, height: int = 2) -> int:
            """The area."""
            return width * height

        description = openai_tool(area)
        assert description["type"] == "function"
        assert description["function"]["parameters"]["required"] == ["width"]
        calls: list[tuple[str, dict[str, Any]]] = []

        async def call(name: str, arguments: dict[str, Any]) -> Any:
            calls.append((name, arguments))
            return area(**arguments)

        (same_tool,) = tools_from_openai([description], call)
        assert openai_tool(same_tool) == description
        assert run([same_tool], '1. area("3")\n2. area($1, height=5)\n3. join($2)').value == 30
        assert calls == [("area", {"width": 3}), ("area", {"width": 6, "height": 5})]

    def test_the_flat_form_and_sync_calls(self) -> None:
        flat = {"type": "function", "name": "now", "description": "The time."}
        (now,) = tools_from_openai([flat], lambda name, arguments: f"{name}{arguments}")
        assert run([now], "1. now()").value == "now{}"

    def test_what_is_no_function_is_refused(self) -> None:
        with pytest.raises(UsageError, match="describes no function"):
            tools_from_openai([{"type": "web_search"}], print)


def test_langchain_tools_sync_async_and_failing() -> None:
    langchain = importlib.import_module("langchain_core.tools")

    @langchain.tool
    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    @langchain.tool
    async def spell(word: str, times: int = 1) -> list[str]:
        """The letters of a word."""
        if not word:
            raise langchain.ToolException("there is no word")
        return list(word) * times

    tools = load_tools([double, spell])
    assert tools["spell"].signature() == "spell(word: str, times: int = 1)"
    assert tools["double"].effect == "write"
    result = run([double, spell], '1. double(4)\n2. spell("ab", times=$1)\n3. spell("")\n4. join()')
    assert result.observations[2].value == ["a", "b"] * 8
    failure = result.observations[3].failure
    assert failure is not None
    assert (failure.blame, failure.message) == ("tool", "there is no word")


def test_llama_index_tools_sync_and_async() -> None:
    llama_index = importlib.import_module("llama_index.core.tools")

    def double(number: int) -> int:
        """Twice a number."""
        return 2 * number

    async def spell(word: str, times: int = 1) -> list[str]:
        """The letters of a word."""
        return list(word) * times

    tools = [
        llama_index.FunctionTool.from_defaults(fn=double),
        llama_index.FunctionTool.from_defaults(async_fn=spell),
    ]
    assert load_tools(tools)["spell"].signature() == "spell(word: str, times: int = 1)"
    assert run(tools, '1. double(2)\n2. spell("ab", times=$1)\n3. join($2)').value == ["a", "b"] * 4


def test_a_pydantic_ai_toolset_with_dependencies_and_a_retry() -> None:
    pydantic_ai = importlib.import_module("pydantic_ai")
    toolsets = importlib.import_module("pydantic_ai.toolsets")

    def scaled(ctx: Any, number: int) -> int:
        """A number, scaled."""
        if number < 0:
            raise pydantic_ai.ModelRetry("give a number from 0")
        return ctx.deps * number

    scaled.__annotations__["ctx"] = pydantic_ai.RunContext[int]
    toolset = toolsets.FunctionToolset()
    toolset.add_function(scaled, takes_ctx=True)
    tools = asyncio.run(from_pydantic_ai(toolset, deps=10))
    assert tools[0].signature() == "scaled(number: int)"
    result = run(tools, "1. scaled(4)\n2. scaled(-1)\n3. join()")
    assert result.observations[1].value == 40
    failure = result.observations[2].failure
    assert failure is not None
    assert failure.message == "give a number from 0"


class TestSchemasOfOthers:
    def run(self, schema: dict[str, Any], call: str) -> tuple[RunResult, list[dict[str, Any]]]:
        got: list[dict[str, Any]] = []

        def note(name: str, arguments: dict[str, Any]) -> str:
            got.append(arguments)
            return "ok"

        function = {"name": "f", "parameters": {"type": "object", **schema}}
        tools = tools_from_openai([{"type": "function", "function": function}], note)

        @tool
        def value(text: str) -> Any:
            """A value that the plan does not show, so that only the call checks it."""
            return json.loads(text)

        return run([*tools, value], f"{call}\njoin()"), got

    @pytest.mark.parametrize("number", [2**53 + 1, 2**60 + 1, -(2**63), 1, 1.5])
    def test_a_number_arrives_as_it_was_planned(self, number: float) -> None:
        schema = {"properties": {"x": {"type": "number"}, "y": {"items": {"type": "number"}}}}
        _, got = self.run(schema, f"1. f({number}, [{number}])")
        assert got == [{"x": number, "y": [number]}]
        assert type(got[0]["x"]) is type(number)

    def test_further_arguments_arrive_and_are_checked(self) -> None:
        schema = {"properties": {"q": {}}, "additionalProperties": {"type": "integer"}}
        _, got = self.run(schema, '1. f("a", limit=5, argument_0=6)')
        assert got == [{"q": "a", "limit": 5, "argument_0": 6}]
        result, got = self.run(schema, '1. value("[]")\n2. f("a", limit=$1)')
        assert got == []
        assert "'limit'" in result.observations[2].failure.message  # type: ignore[union-attr]

    @pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
    def test_the_arguments_of_all_choices_are_arguments_and_one_choice_must_be_given(
        self, keyword: str
    ) -> None:
        by_name = {"properties": {"name": {"type": "string"}}, "required": ["name"]}
        by_place = {
            "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
            "required": ["x", "y"],
        }
        schema = {
            "properties": {"unit": {"type": "string"}},
            keyword: [by_name, {"$ref": "#/$defs/place"}],
            "$defs": {"place": by_place},
        }
        _, got = self.run(schema, '1. f(name="a")\n2. f(x=1, y=2, unit="m")')
        assert sorted(got, key=len) == [{"name": "a"}, {"x": 1, "y": 2, "unit": "m"}]
        result, got = self.run(schema, "1. f(x=1)")
        assert got == []
        failure = result.observations[1].failure
        assert failure is not None
        assert failure.message == "f needs 'name', or 'x' and 'y'"

    def test_all_of_adds_what_it_requires(self) -> None:
        schema = {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}]}
        _, got = self.run(schema, '1. f(a="x")')
        assert got == [{"a": "x"}]
        with pytest.raises(PlanError, match="needs the argument a"):
            self.run(schema, "1. f()")

    def test_a_choice_inside_a_choice_binds_only_there(self) -> None:
        inner = {"anyOf": [{"required": ["b"]}, {"required": ["c"]}]}
        schema = {
            "properties": {"a": {}, "b": {}, "c": {}},
            "anyOf": [{"required": ["a"]}, inner],
        }
        assert self.run(schema, "1. f(a=1)")[1] == [{"a": 1}]


def test_a_langchain_tool_of_one_text_is_called_with_it() -> None:
    langchain_tools = importlib.import_module("langchain_core.tools")
    upper = langchain_tools.Tool(name="upper", func=str.upper, description="In capitals.")
    assert load_tools([upper])["upper"].signature() == "upper(tool_input: str)"
    assert run([upper], '1. upper("abc")\n2. join($1)').value == "ABC"


def test_a_pydantic_ai_tool_that_requires_approval_waits_for_it() -> None:
    toolsets = importlib.import_module("pydantic_ai.toolsets")
    pydantic_ai = importlib.import_module("pydantic_ai")
    deleted: list[str] = []

    def delete(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return "deleted"

    def ask_inside(path: str) -> str:
        """Delete a file, and ask during the call."""
        raise pydantic_ai.ApprovalRequired

    marked = toolsets.FunctionToolset()
    marked.add_function(delete, requires_approval=True)
    marked.add_function(ask_inside)
    wrapped = toolsets.FunctionToolset([delete]).approval_required().prefixed("files")
    tools = [*asyncio.run(from_pydantic_ai(marked)), *asyncio.run(from_pydantic_ai(wrapped))]
    assert [each.approve for each in tools] == [True, False, True]
    plan = '1. delete("/a")\n2. files_delete("/b")\n3. ask_inside("/c")\n4. join($1, $2)'
    result = run(tools, plan)
    assert deleted == []
    assert result.failure is not None
    assert "approval is needed" in result.failure.message
    assert "was not run" in result.observations[3].failure.message  # type: ignore[union-attr]

    async def approved() -> RunResult:
        async def agree(request: ApprovalRequest) -> Approve:
            return Approve()

        async with LLMCompiler(tools, store=":memory:", approver=agree) as compiler:
            return await compiler.execute(parse_plan(plan))

    assert asyncio.run(approved()).value == {"1": "deleted", "2": "deleted"}
    assert sorted(deleted) == ["/a", "/b"]


def test_a_pydantic_ai_tool_whose_calls_are_made_elsewhere_is_refused_by_name() -> None:
    pydantic_ai = importlib.import_module("pydantic_ai")
    toolsets = importlib.import_module("pydantic_ai.toolsets")
    schema = {"type": "object", "properties": {}}
    definition = pydantic_ai.ToolDefinition(name="elsewhere", parameters_json_schema=schema)
    with pytest.raises(UsageError, match="'elsewhere' is external"):
        asyncio.run(from_pydantic_ai(toolsets.ExternalToolset([definition])))


class OfficialTool(NamedTuple):
    """What the official implementation's tools have."""

    name: str
    func: Any
    description: str
    stringify_rule: Any = None


def test_the_official_tools_list_is_accepted_as_it_is() -> None:
    async def search(entity: str) -> str:
        return f"about {entity}"

    async def math(problem, context=None):  # type: ignore[no-untyped-def]
        return f"{problem} {context}"

    tools = [
        OfficialTool("search", search, "search(entity: str) -> str:\n - Looks it up."),
        OfficialTool("math", math, "math(problem: str, context: Optional[List[str]]) -> float"),
    ]
    result = run(tools, '1. search("Oz")\n2. math("how many?", ["$1"])\n3. join($2)')
    assert result.value == "how many? ['about Oz']"


def test_what_is_no_tool_is_refused_as_ever() -> None:
    with pytest.raises(UsageError, match="is int, not a tool"):
        load_tools([3])
