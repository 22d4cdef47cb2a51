"""``ui``: serves the store of runs as a live page."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from llmcompiler.cli.options import (
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
from llmcompiler.cli.sources import (
    check_parsed_plan,
    is_plan,
    parse_plan_source,
    require_valid_plan,
)
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.plan.model import Plan
    from llmcompiler.view.actions import PageActions

_HOST = "127.0.0.1"


def ui(
    tools: ToolsOption = None,
    profile: ProfileOption = None,
    model: ModelOption = None,
    planner: PlannerOption = None,
    limits: LimitOption = None,
    executor: ExecutorOption = None,
    store: StoreOption = None,
    base_url: BaseUrlOption = None,
    port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            help="A port of this machine; 0 for a free one.",
        ),
    ] = 0,
) -> None:
    """Serve a live page: runs, approvals, a form for questions.

    Prints the page's address, which holds a secret token. Serves the page to this machine only,
    until Ctrl-C. Tools and model are for runs that are started from the page.

    Example: llmcompiler ui

    Example: llmcompiler ui --tools my_tools.py --model openai:gpt-5-mini
    """
    import secrets

    try:
        import uvicorn

        from llmcompiler.view.server import live_app
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the live page needs {error.name}", hint="pip install 'llmcompiler-dag[ui]'"
        ) from None
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.log.store import RunStore
    from llmcompiler.settings.servers import load_tools
    from llmcompiler.view.actions import PageActions

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
    key = configuration.api_key(settings.model)
    tool_executor = create_executor(settings)
    run_store = RunStore(settings.store)
    named_tools = load_tools(settings.tools)

    def open_compiler(actions: PageActions) -> LLMCompiler:
        return LLMCompiler(
            settings.tools,
            settings.model,
            planner=settings.planner,
            profile=settings.prompt_profile,
            context_tokens=settings.context_tokens,
            limits=settings.limits,
            approver=actions.approve,
            store=settings.store,
            base_url=settings.base_url,
            api_key=key,
            executor=tool_executor,
        )

    def read_plan(text: str) -> Plan | None:
        if not is_plan(text):
            return None
        return require_valid_plan(check_parsed_plan(parse_plan_source(text), named_tools))

    token = secrets.token_urlsafe(24)
    with _listen(port) as listener:
        host = f"{_HOST}:{listener.getsockname()[1]}"
        typer.echo(f"http://{host}/?token={token}")
        typer.echo("Ctrl-C ends it; runs that it started can then be resumed", err=True)
        config = uvicorn.Config(
            live_app(run_store, PageActions(open_compiler, read_plan), token, host),
            log_level="warning",
            access_log=False,  # it would show the token
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listen(port: int) -> socket.socket:
    """Open a socket that listens on loopback.

    Raises:
        UsageError: the port cannot be used.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        # The address is printed before the server accepts; an early request waits in the queue.
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", hint="leave --port out for a free one"
        ) from None
    return listener
