"""The ``wikipedia`` tool against a real HTTP server that speaks as the MediaWiki API does."""

from __future__ import annotations

import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.wikipedia import Article, wikipedia_tool


class Server:
    """Answers every request with ``status``, ``headers`` and ``body``, and remembers it."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: Any = {}
        self.queries: list[dict[str, list[str]]] = []
        self.agents: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.queries.append(parse_qs(urlsplit(self.path).query))
                outer.agents.append(self.headers["User-Agent"])
                body = (
                    outer.body if isinstance(outer.body, bytes) else json.dumps(outer.body).encode()
                )
                moved = self.path.startswith("/old/")
                self.send_response(301 if moved else outer.status)
                if moved:
                    self.send_header("Location", self.path.removeprefix("/old"))
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def page(index: int, title: str, **fields: Any) -> dict[str, Any]:
    url = f"https://en.wikipedia.org/wiki/{title}"
    return {"index": index, "title": title, "extract": f"{title} is.\n", "fullurl": url, **fields}


async def test_the_best_article_is_returned(server: Server) -> None:
    server.body = {"query": {"pages": [page(2, "Paris,_Texas"), page(1, "Paris")]}}
    article = await wikipedia_tool(server.url)("capital of France")
    assert article == Article("Paris", "Paris is.", "https://en.wikipedia.org/wiki/Paris")
    (query,) = server.queries
    assert query["gsrsearch"] == ["capital of France"]
    assert query["redirects"] == ["1"]
    assert server.agents[0].startswith("llmcompiler")


async def test_a_list_of_meanings_gives_way_to_an_article(server: Server) -> None:
    meanings = page(1, "Mercury", pageprops={"disambiguation": ""})
    server.body = {"query": {"pages": [meanings, page(2, "Mercury_(planet)")]}}
    assert (await wikipedia_tool(server.url)("Mercury")).title == "Mercury_(planet)"
    server.body = {"query": {"pages": [meanings]}}
    assert (await wikipedia_tool(server.url)("Mercury")).title == "Mercury"


async def test_http_redirects_are_followed(server: Server) -> None:
    server.body = {"query": {"pages": [page(1, "Paris")]}}
    assert (await wikipedia_tool(f"{server.url}/old")("Paris")).title == "Paris"


async def test_nothing_found_is_an_error_that_repeating_does_not_help(server: Server) -> None:
    server.body = {"batchcomplete": True}
    with pytest.raises(ToolError, match="nothing on 'qqq'") as caught:
        await wikipedia_tool(server.url)("qqq")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "header", "retryable", "wait"),
    [
        (429, lambda: "7", True, 7.0),
        (429, lambda: email.utils.formatdate(time.time() - 9, usegmt=True), True, 0.0),
        (503, lambda: "soon", True, None),
        (500, lambda: "", True, None),
        (403, lambda: "", False, None),
    ],
)
async def test_a_refusal_says_whether_and_when_to_repeat(
    server: Server, status: int, header: Callable[[], str], retryable: bool, wait: float | None
) -> None:
    server.status, server.headers = status, {"Retry-After": header()}
    with pytest.raises(ToolError, match=str(status)) as caught:
        await wikipedia_tool(server.url)("Paris")
    assert (caught.value.retryable, caught.value.retry_after) == (retryable, wait)


@pytest.mark.parametrize(("code", "retryable"), [("ratelimited", True), ("badvalue", False)])
async def test_an_error_in_the_answer_is_one(server: Server, code: str, retryable: bool) -> None:
    server.body = {"error": {"code": code, "info": "Some reason."}}
    with pytest.raises(ToolError, match="Some reason") as caught:
        await wikipedia_tool(server.url)("Paris")
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("body", [b"<html>", b"[]"])
async def test_another_kind_of_server_is_recognised(server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(ToolError, match="did not answer as a MediaWiki does"):
        await wikipedia_tool(server.url)("Paris")


async def test_a_server_that_is_gone_is_worth_another_try(server: Server) -> None:
    server.close()
    with pytest.raises(ToolError, match="could not be reached") as caught:
        await wikipedia_tool(server.url)("Paris")
    assert caught.value.retryable


async def test_an_empty_query_is_not_sent(server: Server) -> None:
    with pytest.raises(ToolError, match="empty query"):
        await wikipedia_tool(server.url)(" ")
    assert server.queries == []


def test_the_site_is_a_language_or_a_url() -> None:
    assert wikipedia_tool("de").signature() == (
        "wikipedia(query: str) -> {title: str, extract: str, url: str}"
    )
    with pytest.raises(UsageError, match="'Deutsch!' is not a Wikipedia"):
        wikipedia_tool("Deutsch!")
