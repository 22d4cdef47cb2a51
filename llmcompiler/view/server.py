"""The live page: an ASGI app that shows a store of runs, on loopback and to one person.

Who may ask: only who knows the token of the page's address, under a loopback name (so that no
other site can reach it through a name of its own), and, for what changes anything, from the page
itself. The page's policy lets it ask nobody else. What it shows is read from the log, so that runs
of this process and of others look alike. The module must not know how runs are carried out.
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
from llmcompiler.view.actions import Desk, decision_of, problem
from llmcompiler.view.page import asset, page
from llmcompiler.view.report_data import run_story
from llmcompiler.view.text import shown

_LOOK = 0.3
"""Seconds between two looks at the log, which other processes may write."""

_LISTED = 500
_BODY = 2_000_000


def live_app(store: RunStore, desk: Desk, token: str, host: str) -> Starlette:
    """The app.

    Args:
        store: whose runs it shows.
        desk: what is done from the page.
        token: without which nothing is answered.
        host: the name and port that it is asked under, ``127.0.0.1:8123``.
    """
    script = asset("page.js")

    async def index(_: Request) -> Response:
        return HTMLResponse(
            page("llmcompiler", asset("page.css"), script, {}, "connect-src 'self'")
        )

    async def runs(_: Request) -> Response:
        return _changing(lambda: _listed(store), lambda _: False)

    async def run(request: Request) -> Response:
        found = store.find(request.path_params["run"])
        seen = [-1]

        def look() -> dict[str, Any] | None:
            # Reading a long run whole is dear; whether there is more of it is not.
            length = store.length(found)
            if length == seen[0]:
                return None
            seen[0] = length
            return run_story(store.events(found))

        return _changing(look, lambda story: story["status"] == "answered")

    async def compare(request: Request) -> Response:
        one, other = request.path_params["one"], request.path_params["other"]
        found = await asyncio.to_thread(diff_runs, store, one, other)
        return JSONResponse(_shown(found.to_json()))

    async def start(request: Request) -> Response:
        data = await _body(request)
        inputs = data.get("inputs")
        begun = await desk.start(str(data.get("text") or ""), inputs or {})
        return JSONResponse({"run": begun})

    async def resume(request: Request) -> Response:
        return JSONResponse({"run": await desk.resume(request.path_params["run"])})

    async def decide(request: Request) -> Response:
        data = await _body(request)
        place = int(data["task"]), tuple(map(int, data.get("index") or ()))
        desk.decide(request.path_params["run"], *place, decision_of(data))
        return JSONResponse({})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await desk.close()

    return Starlette(
        routes=[
            Route("/", index),
            Route("/api/runs", runs, methods=["GET"]),
            Route("/api/runs", start, methods=["POST"]),
            Route("/api/runs/{run}", run, methods=["GET"]),
            Route("/api/runs/{run}/resume", resume, methods=["POST"]),
            Route("/api/runs/{run}/decide", decide, methods=["POST"]),
            Route("/api/compare/{one}/{other}", compare),
        ],
        middleware=[Middleware(_Guard, token=token, host=host)],
        exception_handlers={LLMCompilerError: _refused, ValueError: _bad, KeyError: _bad},
        lifespan=lifespan,
    )


class _Guard:
    """Lets through who knows the token, asks under our name, and is no other site's page."""

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self.app, self.token, self.host = app, token, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        why = self._refusal(request)
        if why:
            refusal = JSONResponse({"error": why, "hint": ""}, status_code=403)
            await refusal(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
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

        await self.app(scope, receive, sealed)

    def _refusal(self, request: Request) -> str:
        if request.headers.get("host") != self.host:
            return "this page has another address"
        given = request.query_params.get("token", "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "the address lacks the token that `llmcompiler ui` printed"
        if request.headers.get("origin", f"http://{self.host}") != f"http://{self.host}":
            return "another site asks"
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "another site asks"
        return ""


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, LLMCompilerError)
    return JSONResponse(problem(error), status_code=400)


async def _bad(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"cannot read that: {error}", "hint": ""}, status_code=400)


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    got = bytearray()
    async for part in request.stream():
        got += part
        if len(got) > _BODY:
            raise ValueError("it is too long")
    data = json.loads(got)
    if not isinstance(data, dict):
        raise ValueError("no JSON object")
    return data


def _listed(store: RunStore) -> dict[str, Any]:
    return {
        "runs": [
            {
                **dataclasses.asdict(one),
                "question": one.question and shown(one.question, 500),
                "answer": one.answer and shown(one.answer, 500),
            }
            for one in store.runs(_LISTED)
        ]
    }


def _shown(data: Any) -> Any:
    """Data with every text in it made harmless."""
    match data:
        case str():
            return shown(data, 2000)
        case dict():
            return {shown(str(key), 200): _shown(value) for key, value in data.items()}
        case list() | tuple():
            return [_shown(value) for value in data]
    return data


def _changing(
    look: Callable[[], dict[str, Any] | None], last: Callable[[dict[str, Any]], bool]
) -> StreamingResponse:
    """Server-sent events: what ``look`` sees, whenever that is something new."""

    async def events() -> AsyncIterator[str]:
        before = ""
        while True:
            began = time.monotonic()
            try:
                data = await asyncio.to_thread(look)
            except LLMCompilerError as error:
                yield f"event: problem\ndata: {json.dumps(problem(error))}\n\n"
                return
            if data is not None:
                text = json.dumps(data)
                if text != before:
                    before = text
                    yield f"data: {text}\n\n"
                if last(data):
                    # The browser would come again after an end without a word.
                    yield "event: end\ndata: {}\n\n"
                    return
            # What takes long to read is not read all the time.
            await asyncio.sleep(max(_LOOK, 4 * (time.monotonic() - began)))

    return StreamingResponse(events(), media_type="text/event-stream")
