"""Tools of other frameworks: LangChain, LlamaIndex, pydantic-ai, and the official LLMCompiler.

None of them is imported here before one of its tools is given, and then it is there. Their own
schemas describe the arguments, and their own code checks and runs the call. That a tool only reads
is nothing they say, so each counts as one that may write. The module must not know plans.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.foreign import foreign_tool


def adapted(given: Any) -> Tool | None:
    """A tool of LangChain, LlamaIndex or the official LLMCompiler as ours; ``None`` if it is none.

    Raises:
        UsageError: it is one, but cannot be called as plans call tools.
    """
    roots = {cls.__module__.partition(".")[0] for cls in type(given).__mro__}
    if "langchain_core" in roots:
        return from_langchain(given)
    if "llama_index" in roots:
        return from_llama_index(given)
    if all(hasattr(given, name) for name in ("name", "func", "description")):
        return from_official(given)
    return None


def from_langchain(given: Any) -> Tool:
    """A LangChain tool (``langchain_core.tools.BaseTool``)."""
    schema = given.tool_call_schema
    described = schema if isinstance(schema, dict) else schema.model_json_schema()

    async def called(**arguments: Any) -> Any:
        from langchain_core.tools import ToolException

        try:
            return await given.ainvoke(arguments)
        except ToolException as error:
            raise ToolError(str(error)) from error

    return foreign_tool(
        given.name, called, description=given.description, parameters_schema=described
    )


def from_llama_index(given: Any) -> Tool:
    """A LlamaIndex tool (``llama_index.core.tools.BaseTool``); its raw output is the result."""
    said = given.metadata

    async def called(**arguments: Any) -> Any:
        if hasattr(given, "acall"):
            output = await given.acall(**arguments)
        else:
            output = given(**arguments)
        if output.is_error:
            raise ToolError(output.content)
        return output.raw_output

    return foreign_tool(
        said.get_name(),
        called,
        description=said.description,
        parameters_schema=said.get_parameters_dict(),
    )


async def from_pydantic_ai(toolset: Any, deps: Any = None) -> list[Tool]:
    """The tools of a pydantic-ai toolset (``pydantic_ai.toolsets.AbstractToolset``).

    A toolset that must be entered (``async with toolset``) is for the caller to enter, around the
    runs that use it.

    Args:
        toolset: the toolset.
        deps: what its tools find in their context.
    """
    from pydantic_ai import RunContext
    from pydantic_ai.exceptions import ModelRetry
    from pydantic_ai.models.test import TestModel
    from pydantic_ai.usage import RunUsage

    # Its tools run outside any agent of pydantic-ai, so the model in their context is never asked.
    context: Any = RunContext(deps=deps, model=TestModel(), usage=RunUsage())

    def adapt(name: str, found: Any) -> Tool:
        async def called(**arguments: Any) -> Any:
            here = dataclasses.replace(context, tool_name=name)
            try:
                checked = found.args_validator.validate_python(arguments)
                return await toolset.call_tool(name, checked, here, found)
            except ModelRetry as error:
                raise ToolError(error.message) from error

        described = found.tool_def
        return foreign_tool(
            name,
            called,
            description=described.description or "",
            parameters_schema=described.parameters_json_schema,
        )

    return [adapt(name, found) for name, found in (await toolset.get_tools(context)).items()]


def from_official(given: Any) -> Tool:
    """A tool of the official LLMCompiler: ``name``, ``func``, ``description``.

    The names of its arguments are the function's. Descriptions there open with the call and a dash
    or a new line; they are kept as they are.
    """
    function = given.func
    if not callable(function) or inspect.isclass(function):
        raise UsageError(f"the function of the tool {given.name!r} is {function!r:.80}")
    made = tool(name=given.name, description=" ".join(str(given.description).split()))(function)
    return dataclasses.replace(made, effect="write")
