"""``mcp``: serves the package's commands to other agents, as tools."""

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
    create_executor,
    read_configuration,
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

    The tools are run, plan, check, replay and report, over stdin and stdout. The other agent hands
    over a question and gets a parallel, recorded run.

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

    configuration = read_configuration(
        profile=profile,
        tools=tools,
        model=model,
        planner=planner,
        limits=limits,
        store=store,
        executor=executor,
        base_url=base_url,
    )
    settings = configuration.settings
    compiler = LLMCompiler(
        settings.tools,
        settings.model,
        planner=settings.planner,
        profile=settings.prompt_profile,
        context_tokens=settings.context_tokens,
        limits=settings.limits,
        store=settings.store,
        base_url=settings.base_url,
        api_key=configuration.api_key(settings.model),
        executor=create_executor(settings),
    )
    if accept:
        compiler.accept_tool_changes()
    asyncio.run(serve(compiler))
