"""Tools of other frameworks: LangChain, LlamaIndex, pydantic-ai, and the official LLMCompiler.

A framework is imported only where one of its tools is given, so it is installed then. Its own
schemas describe the arguments, and its own code checks and runs the calls. The frameworks do not
say that a tool only reads, so each of their tools counts as one that may write.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.base import Tool, tool
from llmcompiler.tools.foreign import foreign_tool


def adapt_tool(source: Any) -> Tool | None:
    """The ``Tool`` of a tool of LangChain, LlamaIndex or the official LLMCompiler.

    Returns:
        ``None`` if the source is no such tool.

    Raises:
        UsageError: the source is such a tool, but cannot be called as plans call tools.
    """
    roots = {cls.__module__.partition(".")[0] for cls in type(source).__mro__}
    if "langchain_core" in roots:
        return from_langchain(source)
    if "llama_index" in roots:
        return from_llama_index(source)
    if all(hasattr(source, name) for name in ("name", "func", "description")):
        return from_official(source)
    return None


def from_langchain(langchain_tool: Any) -> Tool:
    """The ``Tool`` of a LangChain tool (``langchain_core.tools.BaseTool``)."""
    from langchain_core.tools import Tool as SingleInputTool

    schema = langchain_tool.tool_call_schema
    if isinstance(langchain_tool, SingleInputTool) and langchain_tool.args_schema is None:
        # Its function takes one text, and the schema is that of the function's wrapper.
        names = langchain_tool.args
        schema = {"type": "object", "properties": names, "required": list(names)}

    async def call(**arguments: Any) -> Any:
        from langchain_core.tools import ToolException

        try:
            return await langchain_tool.ainvoke(arguments)
        except ToolException as error:
            raise ToolError(str(error)) from error

    return foreign_tool(
        langchain_tool.name,
        call,
        description=langchain_tool.description,
        parameters_schema=schema if isinstance(schema, dict) else schema.model_json_schema(),
    )


def from_llama_index(llama_index_tool: Any) -> Tool:
    """The ``Tool`` of a LlamaIndex tool (``llama_index.core.tools.BaseTool``).

    The result of a call is its raw output.
    """
    metadata = llama_index_tool.metadata

    async def call(**arguments: Any) -> Any:
        if hasattr(llama_index_tool, "acall"):
            output = await llama_index_tool.acall(**arguments)
        else:
            output = llama_index_tool(**arguments)
        if output.is_error:
            raise ToolError(output.content)
        return output.raw_output

    return foreign_tool(
        metadata.get_name(),
        call,
        description=metadata.description,
        parameters_schema=metadata.get_parameters_dict(),
    )


async def from_pydantic_ai(toolset: Any, deps: Any = None) -> list[Tool]:
    """The tools of a pydantic-ai toolset (``pydantic_ai.toolsets.AbstractToolset``).

    If the toolset must be entered (``async with toolset``), the caller enters it around the runs
    that use it. A tool that requires approval is asked about before every call. That holds for all
    tools of a toolset made with ``approval_required()``, because whether one of its calls requires
    approval is known only during the call.

    Args:
        toolset: the toolset.
        deps: the dependencies that its tools find in their context.

    Raises:
        UsageError: pydantic-ai leaves the calls of a tool to the caller, so nothing can make them.
    """
    from pydantic_ai import RunContext
    from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry
    from pydantic_ai.models.test import TestModel
    from pydantic_ai.toolsets import ApprovalRequiredToolset
    from pydantic_ai.usage import RunUsage

    # The tools run outside of an agent of pydantic-ai, so the model in their context is never used.
    context: Any = RunContext(deps=deps, model=TestModel(), usage=RunUsage())

    requires_approval = _contains_toolset(toolset, ApprovalRequiredToolset)

    def adapt(name: str, toolset_tool: Any) -> Tool:
        definition = toolset_tool.tool_def
        if definition.kind not in ("function", "unapproved"):
            raise UsageError(
                f"the pydantic-ai tool {name!r} is {definition.kind}: its calls are made elsewhere",
                hint="leave it out with toolset.filtered(...), or write a function that calls it",
            )
        asks = requires_approval or definition.kind == "unapproved"

        async def call(**arguments: Any) -> Any:
            call_context = dataclasses.replace(context, tool_name=name, tool_call_approved=asks)
            try:
                validated = toolset_tool.args_validator.validate_python(arguments)
                return await toolset.call_tool(name, validated, call_context, toolset_tool)
            except ModelRetry as error:
                raise ToolError(error.message) from error
            except ApprovalRequired as error:
                raise ToolError(
                    f"{name} was not run: it asks for approval during the call",
                    hint="make its toolset with approval_required(), or the tool with "
                    "requires_approval=True",
                ) from error
            except CallDeferred as error:
                raise ToolError(f"{name} was not run: it leaves its calls to others") from error

        adapted_tool = foreign_tool(
            name,
            call,
            description=definition.description or "",
            parameters_schema=definition.parameters_json_schema,
        )
        return dataclasses.replace(adapted_tool, approve=asks)

    toolset_tools = await toolset.get_tools(context)
    return [adapt(name, toolset_tool) for name, toolset_tool in toolset_tools.items()]


def _contains_toolset(toolset: Any, kind: type) -> bool:
    """True if a toolset of pydantic-ai, or one that it wraps or combines, is of a kind."""
    inner = [getattr(toolset, "wrapped", None), *getattr(toolset, "toolsets", ())]
    return isinstance(toolset, kind) or any(
        _contains_toolset(part, kind) for part in inner if part is not None
    )


def from_official(official_tool: Any) -> Tool:
    """The ``Tool`` of a tool of the official LLMCompiler: ``name``, ``func``, ``description``.

    The names of its arguments are the function's. Descriptions there begin with the call and a dash
    or a new line, and are used unchanged.
    """
    function, name = official_tool.func, official_tool.name
    if not callable(function) or inspect.isclass(function):
        raise UsageError(f"the function of the tool {name!r} is {function!r:.80}")
    description = " ".join(str(official_tool.description).split())
    return dataclasses.replace(tool(name=name, description=description)(function), effect="write")
