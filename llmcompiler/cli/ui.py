"""``ui``: the store of runs as a live page."""

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
    configured,
    executor_of,
)
from llmcompiler.cli.sources import check, is_plan, read_plan, sound_plan
from llmcompiler.errors import UsageError

if TYPE_CHECKING:
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.plan.model import Plan
    from llmcompiler.view.actions import Desk

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
        typer.Option("--port", metavar="N", min=0, max=65535, help="0 for one that is free."),
    ] = 0,
) -> None:
    """Serve a live page: runs, approvals, a place to ask.

    Prints the page's address, which holds a secret token, and serves it to this machine only,
    until Ctrl-C. Tools and model are for runs that are started there.

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
    from llmcompiler.view.actions import Desk

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
    key = chosen.api_key(settings.model)
    where = executor_of(settings)
    kept = RunStore(settings.store)
    at_hand = load_tools(settings.tools)

    def compiler(desk: Desk) -> LLMCompiler:
        return LLMCompiler(
            settings.tools,
            settings.model,
            planner=settings.planner,
            limits=settings.limits,
            approver=desk.approve,
            store=settings.store,
            base_url=settings.base_url,
            api_key=key,
            executor=where,
        )

    def plan_of(text: str) -> Plan | None:
        return sound_plan(check(read_plan(text), at_hand)) if is_plan(text) else None

    token = secrets.token_urlsafe(24)
    with _listening(port) as listener:
        host = f"{_HOST}:{listener.getsockname()[1]}"
        typer.echo(f"http://{host}/?token={token}")
        typer.echo("Ctrl-C ends it; runs that it started can then be resumed", err=True)
        config = uvicorn.Config(
            live_app(kept, Desk(compiler, plan_of), token, host),
            log_level="warning",
            access_log=False,  # the token would be in it
            timeout_graceful_shutdown=1,
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    """A socket that listens on loopback.

    Raises:
        UsageError: the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        # The address is told before the server takes calls; who comes early waits in the queue.
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} cannot be used: {error.strerror}", hint="leave --port out for a free one"
        ) from None
    return listener
