"""``mcp``: the package's commands as tools for other agents."""

from __future__ import annotations

from llmcompiler.cli.options import (
    AcceptOption,
    BaseUrlOption,
    ExecutorOption,
    LimitOption,
    ModelOption,
    PlannerOption,
    ProfileOption,
    StoreOption,
    ToolsOption,
    configured,
    executor_of,
)
from llmcompiler.errors import UsageError


def mcp(
    tools: ToolsOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    planner: PlannerOption = None,
    limits: LimitOption = None,
    executor: ExecutorOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    accept: AcceptOption = False,
) -> None:
    """Serve all of this to another agent, as MCP tools.

    They are run, plan, check, replay and report, over stdin and stdout.

    For other agents: they hand over a question and get a parallel, recorded run.

    Example: llmcompiler mcp --tools geo --tools calc --model openai:NAME
    """
    import asyncio
    import importlib.util

    from llmcompiler.compiler import LLMCompiler

    if importlib.util.find_spec("mcp") is None:
        raise UsageError(
            "this installation cannot speak MCP",
            hint="install it with the extra: pip install 'llmcompiler-dag[mcp]'",
        )
    from llmcompiler.cli.mcp_server import serve

    chosen = configured(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        limits=limits,
        store=store,
        executor=executor,
        base_url=base_url,
    )
    settings = chosen.settings
    compiler = LLMCompiler(
        settings.tools,
        settings.model,
        planner=settings.planner,
        limits=settings.limits,
        store=settings.store,
        base_url=settings.base_url,
        api_key=chosen.api_key(settings.model),
        executor=executor_of(settings),
    )
    if accept:
        compiler.accept_tool_changes()
    asyncio.run(serve(compiler))
