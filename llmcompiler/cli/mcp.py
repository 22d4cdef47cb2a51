"""``mcp``: the package's commands as tools for other agents."""

from __future__ import annotations

from llmcompiler.cli.options import (
    AcceptOption,
    BaseUrlOption,
    LimitOption,
    ModelOption,
    PlannerOption,
    StoreOption,
    ToolsOption,
    pairs,
)
from llmcompiler.errors import UsageError


def mcp(
    tools: ToolsOption = None,
    model: ModelOption = "local",
    planner: PlannerOption = "text",
    limits: LimitOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    accept: AcceptOption = False,
) -> None:
    """Serve run, plan, check, replay and report as MCP tools, over stdin and stdout.

    For other agents: they hand over a question and get a parallel, recorded run.

    Example: llmcompiler mcp --tools geo --tools calc --model openai:NAME
    """
    import asyncio
    import importlib.util

    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.limits import Limits
    from llmcompiler.tools.loading import DEFAULT_TOOLS

    if importlib.util.find_spec("mcp") is None:
        raise UsageError(
            "this installation cannot speak MCP",
            hint="install it with the extra: pip install 'llmcompiler-dag[mcp]'",
        )
    from llmcompiler.cli.serving import serve

    compiler = LLMCompiler(
        tools or DEFAULT_TOOLS,
        model,
        planner=planner,
        limits=Limits.parse(pairs(limits, "--limit")),
        store=store,
        base_url=base_url,
    )
    if accept:
        compiler.accept_tool_changes()
    asyncio.run(serve(compiler))
