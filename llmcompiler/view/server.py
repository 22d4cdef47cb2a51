"""The live page: an ASGI app that shows a store of runs, on loopback and to one person.

A request must carry the token of the page's address. Its host must be the loopback name, so that
another site cannot reach the app through a name of its own. Its origin must be the page itself. The
page's content security policy forbids requests to any other server. The page reads runs from the
log, so it shows those of this process and of other processes alike.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmcompiler.errors import LLMCompilerError
from llmcompiler.history.diff import diff_runs
from llmcompiler.log.store import RunStore
from llmcompiler.view.actions import PageActions, error_to_json, parse_decision
from llmcompiler.view.page import page
from llmcompiler.view.report_data import run_report
from llmcompiler.view.text import display_text

_POLL_SECONDS = 0.3
"""Time between two looks at the log, which other processes may write."""

_MOST_RUNS = 500
_MOST_BYTES = 2_000_000


def live_app(store: RunStore, actions: PageActions, token: str, host: str) -> Starlette:
    """The app of the live page.

    Args:
        store: holds the runs that the page shows.
        actions: carries out what the user does on the page.
        token: every request must carry it.
        host: the name and port of the server, ``127.0.0.1:8123``.
    """
    html = page("llmcompiler", {}, "connect-src 'self'")

    async def index(_: Request) -> Response:
        return HTMLResponse(html)

    async def runs(_: Request) -> Response:
        return _stream_changes(lambda: _run_list(store), lambda _: False)

    async def run(request: Request) -> Response:
        run_id = store.find(request.path_params["run"])
        known_length = -1

        def poll() -> dict[str, Any] | None:
            nonlocal known_length
            # The length is cheap to read; all events of a long run are not.
            length = store.length(run_id)
            if length == known_length:
                return None
            known_length = length
            return run_report(store.events(run_id))

        return _stream_changes(poll, lambda report: report["status"] == "answered")

    async def compare(request: Request) -> Response:
        before, after = request.path_params["before"], request.path_params["after"]
        difference = await asyncio.to_thread(diff_runs, store, before, after)
        return JSONResponse(_displayed(difference.to_json()))

    async def start(request: Request) -> Response:
        data = await _read_body(request)
        inputs = data.get("inputs")
        run_id = await actions.start(str(data.get("text") or ""), inputs or {})
        return JSONResponse({"run": run_id})

    async def resume(request: Request) -> Response:
        return JSONResponse({"run": await actions.resume(request.path_params["run"])})

    async def decide(request: Request) -> Response:
        data = await _read_body(request)
        task, index = int(data["task"]), tuple(map(int, data.get("index") or ()))
        actions.decide(request.path_params["run"], task, index, parse_decision(data))
        return JSONResponse({})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await actions.close()

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/runs", runs, methods=["GET"]),
            Route("/api/runs", start, methods=["POST"]),
            Route("/api/runs/{run}", run, methods=["GET"]),
            Route("/api/runs/{run}/resume", resume, methods=["POST"]),
            Route("/api/runs/{run}/decide", decide, methods=["POST"]),
            Route("/api/compare/{before}/{after}", compare),
        ],
        middleware=[Middleware(_Guard, token=token, host=host)],
        exception_handlers={
            LLMCompilerError: _respond_to_error,
            ValueError: _respond_to_bad_request,
            KeyError: _respond_to_bad_request,
        },
        lifespan=lifespan,
    )


class _Guard:
    """Refuses requests without the token, under another host name, or from another site."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self.app, self.token, self.host = app, token, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        reason = self._refusal_reason(request)
        if reason:
            refusal = JSONResponse({"error": reason, "hint": ""}, status_code=403)
            await refusal(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"cache-control", b"no-store"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                    (b"cross-origin-resource-policy", b"same-origin"),
                    (b"x-frame-options", b"DENY"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal_reason(self, request: Request) -> str:
        """Why a request is refused; empty if it is not."""
        if request.headers.get("host") != self.host:
            return "this page has another address"
        token = request.query_params.get("token", "")
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return "the address lacks the token that `llmcompiler ui` printed"
        if request.headers.get("origin", f"http://{self.host}") != f"http://{self.host}":
            return "this request comes from another site"
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "this request comes from another site"
        return ""


async def _respond_to_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, LLMCompilerError)
    return JSONResponse(error_to_json(error), status_code=400)


async def _respond_to_bad_request(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"cannot read the request: {error}", "hint": ""}, status_code=400)


async def _read_body(request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request.

    Raises:
        ValueError: the body is too long, or not a JSON object.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise ValueError("the body is too long")
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("the body is not a JSON object")
    return data


def _run_list(store: RunStore) -> dict[str, Any]:
    return {
        "runs": [
            {
                **dataclasses.asdict(summary),
                "question": summary.question and display_text(summary.question, 500),
                "answer": summary.answer and display_text(summary.answer, 500),
            }
            for summary in store.runs(_MOST_RUNS)
        ]
    }


def _displayed(data: Any) -> Any:
    """Data with every text in it passed through ``display_text``."""
    match data:
        case str():
            return display_text(data, 2000)
        case dict():
            return {display_text(str(key), 200): _displayed(value) for key, value in data.items()}
        case list() | tuple():
            return [_displayed(value) for value in data]
    return data


def _stream_changes(
    poll: Callable[[], dict[str, Any] | None], is_last: Callable[[dict[str, Any]], bool]
) -> StreamingResponse:
    """Server-sent events: the data of ``poll``, whenever they are new.

    Args:
        poll: returns the current data; ``None`` if they have not changed.
        is_last: true of data after which none will follow.
    """

    async def events() -> AsyncIterator[str]:
        previous = ""
        while True:
            poll_start = time.monotonic()
            try:
                data = await asyncio.to_thread(poll)
            except LLMCompilerError as error:
                yield f"event: problem\ndata: {json.dumps(error_to_json(error))}\n\n"
                return
            if data is not None:
                text = json.dumps(data)
                if text != previous:
                    previous = text
                    yield f"data: {text}\n\n"
                if is_last(data):
                    # Without this event the browser would reconnect.
                    yield "event: end\ndata: {}\n\n"
                    return
            # Data that take long to read are read less often: at most a fifth of the time.
            await asyncio.sleep(max(_POLL_SECONDS, 4 * (time.monotonic() - poll_start)))

    return StreamingResponse(events(), media_type="text/event-stream")
