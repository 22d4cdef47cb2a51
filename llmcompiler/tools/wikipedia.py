"""The ``wikipedia`` tool: the introduction of the article that fits a query best.

One request to the MediaWiki API searches and fetches. A transient problem (too many requests, a
server in trouble, a broken connection) is a retryable error, with the waiting time for which the
server asks.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import ToolError, UsageError
from llmcompiler.tools.base import Tool, tool

if TYPE_CHECKING:
    import ssl

    import httpx

TIMEOUT_S = 15.0
CANDIDATES = 5
"""Search results that are fetched, because the first may be a page of disambiguation."""

# Wikimedia asks every client to name itself and its origin.
USER_AGENT = "llmcompiler (https://pypi.org/project/llmcompiler-dag/) python-httpx"


@dataclass(frozen=True)
class Article:
    """The introduction of an article."""

    title: str
    extract: str
    url: str


def wikipedia_tool(site: str = "en") -> Tool:
    """The ``wikipedia`` tool of one site.

    Args:
        site: a language (``en``, ``de``, ``simple``), or the base URL of another MediaWiki.

    Raises:
        UsageError: ``site`` is neither.
    """
    if site.startswith(("http://", "https://")):
        base = site.rstrip("/")
    elif re.fullmatch(r"[a-z]{2,3}(-[a-z-]+)?|simple", site):
        base = f"https://{site}.wikipedia.org"
    else:
        raise UsageError(
            f"{site!r} is not a Wikipedia", hint="give a language such as en, or a base URL"
        )

    @tool(timeout=2 * TIMEOUT_S, concurrency=4)
    async def wikipedia(query: str) -> Article:
        """Look something up in Wikipedia: title, introduction (plain text) and URL of the article
        that fits best. For facts that no other tool knows.

        Args:
            query: the article's title, or words to search for.
        """
        if not query.strip():
            raise ToolError("wikipedia was given an empty query")
        return _best(query, await _ask(base, query))

    return wikipedia


async def _ask(base: str, query: str) -> dict[str, Any]:
    import httpx

    parameters = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "redirects": "1",
        "generator": "search",
        "gsrsearch": query,
        "gsrlimit": str(CANDIDATES),
        "prop": "extracts|info|pageprops",
        "ppprop": "disambiguation",
        "exintro": "1",
        "explaintext": "1",
        "exlimit": "max",
        "inprop": "url",
    }
    try:
        async with httpx.AsyncClient(
            timeout=TIMEOUT_S,
            follow_redirects=True,
            headers={"User-Agent": USER_AGENT},
            verify=_tls(),
        ) as client:
            response = await client.get(f"{base}/w/api.php", params=parameters)
    except httpx.TimeoutException as error:
        raise ToolError(
            f"wikipedia did not answer within {TIMEOUT_S:g} s", retryable=True
        ) from error
    except httpx.TransportError as error:
        raise ToolError(
            f"wikipedia could not be reached at {base}: {error}",
            hint="check the network",
            retryable=True,
        ) from error
    if response.status_code != 200:
        status = response.status_code
        raise ToolError(
            f"wikipedia answered {status} {response.reason_phrase} to {query!r}",
            retryable=status == 429 or status >= 500,
            retry_after=_retry_after(response),
        )
    try:
        answer = response.json()
    except ValueError as error:
        raise ToolError(f"{base} did not answer as a MediaWiki does") from error
    if not isinstance(answer, dict):
        raise ToolError(f"{base} did not answer as a MediaWiki does")
    if isinstance(problem := answer.get("error"), dict):
        raise ToolError(
            f"wikipedia refused {query!r}: {problem.get('info') or problem.get('code')}",
            retryable=problem.get("code") in ("maxlag", "ratelimited", "readonly"),
            retry_after=_retry_after(response),
        )
    return answer


def _best(query: str, answer: dict[str, Any]) -> Article:
    pages = sorted(answer.get("query", {}).get("pages", ()), key=lambda page: page["index"])
    if not pages:
        raise ToolError(f"wikipedia has nothing on {query!r}", hint="use fewer or more usual words")
    articles = [page for page in pages if "disambiguation" not in page.get("pageprops", {})]
    page = (articles or pages)[0]
    return Article(page["title"], (page.get("extract") or "").strip(), page.get("fullurl") or "")


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that the server asks the client to wait; it sends a number or a date."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


@functools.cache
def _tls() -> ssl.SSLContext:
    """The TLS context of all calls: reading the certificates takes tens of milliseconds."""
    import httpx

    return httpx.create_ssl_context()
