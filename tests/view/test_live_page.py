"""The live page: its guards, and its use in a real browser."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from llmcompiler import LLMCompiler, tool
from llmcompiler.errors import UsageError
from llmcompiler.events import RunFinished
from llmcompiler.language import parse_plan
from llmcompiler.log.store import RunStore
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve, Deny
from llmcompiler.view.actions import PageActions, parse_decision
from llmcompiler.view.server import live_app
from tests.support.browser import launch_browser, serious_violations
from tests.support.stories import RUN, dense_japan, troubled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOST = "127.0.0.1:8123"
TOKEN = "a-secret"
TOOLS = '''
from llmcompiler import tool


@tool(effect="write", approve=True)
def send(to: str) -> str:
    """Send a letter."""
    return f"sent to {to}"
'''


def store_with_a_run() -> RunStore:
    store = RunStore(":memory:")
    log = store.begin(RUN, 1_700_000_000.0)
    log.append(dense_japan())
    log.close()
    return store


def no_compiler(_: PageActions) -> LLMCompiler:
    raise AssertionError("no run begins")


@pytest.fixture
def client() -> Iterator[TestClient]:
    store = store_with_a_run()
    app = live_app(store, PageActions(no_compiler, lambda _: None), TOKEN, HOST)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        yield client
    store.close()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/?token=another", {}),
        (f"/?token={TOKEN}", {"host": "evil.example"}),
        (f"/api/runs?token={TOKEN}", {"origin": "https://evil.example"}),
        (f"/api/runs?token={TOKEN}", {"sec-fetch-site": "cross-site"}),
        (f"/api/compare/{RUN}/{RUN}", {}),
    ],
)
def test_nobody_else_is_answered(client: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403
    assert RUN not in answer.text
    assert TOKEN not in answer.text


def test_the_page_may_ask_its_own_server_and_nobody_else(client: TestClient) -> None:
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.text
    assert "connect-src 'self'" in answer.text
    assert TOKEN not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_finished_run_is_told_once(client: TestClient) -> None:
    answer = client.get(f"/api/runs/{RUN}?token={TOKEN}")
    first, end = answer.text.strip().split("\n\n")
    assert json.loads(first.removeprefix("data: "))["answer"] == "332 people per km²"
    assert end.startswith("event: end")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs", "no JSON"),
        ("runs", "[]"),
        (f"runs/{RUN}/decide", '{"task": 1, "verdict": "approved"}'),
        (f"runs/{RUN}/decide", '{"task": 1, "verdict": "perhaps"}'),
        (f"runs/{RUN}/decide", "{}"),
    ],
)
def test_what_cannot_be_done_is_said(client: TestClient, path: str, body: str) -> None:
    answer = client.post(f"/api/{path}?token={TOKEN}", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_decisions() -> None:
    assert parse_decision({"verdict": "approved"}) == Approve()
    assert parse_decision({"verdict": "approved", "arguments": {"to": "x"}}) == Approve({"to": "x"})
    assert parse_decision({"verdict": "denied", "reason": "no"}) == Deny("no")
    with pytest.raises(UsageError):
        parse_decision({"verdict": "approved", "arguments": [1]})


async def test_closing_interrupts_what_runs_and_it_can_be_resumed(tmp_path: Path) -> None:
    @tool(effect="write", approve=True)
    async def send(to: str) -> str:
        """Send a letter."""
        return to

    async def approve(_: ApprovalRequest) -> ApprovalDecision:
        return Approve()

    file = tmp_path / "runs.sqlite"
    plan = parse_plan('1. send("Ada")\n2. join($1)')
    actions = PageActions(
        lambda actions: LLMCompiler([send], store=file, approver=actions.approve), lambda _: plan
    )
    run = await actions.start("the plan", {})
    await actions.close()
    async with LLMCompiler([send], store=file, approver=approve) as later:
        assert [summary.status for summary in later.store.runs()] == ["interrupted"]
        assert (await later.resume(run)).answer == "Ada"


@dataclass
class ServedPage:
    """A page in a browser, served by another process."""

    page: Page
    store: Path
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from launch_browser()


@pytest.fixture
def served(browser: Browser, tmp_path: Path) -> Iterator[ServedPage]:
    (tmp_path / "letters.py").write_text(TOOLS, encoding="utf-8")
    store = tmp_path / "runs.sqlite"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "llmcompiler", "ui", "--store", str(store)),
            *("--tools", str(tmp_path / "letters.py"), "--tools", "calc"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    context = browser.new_context()
    served = ServedPage(context.new_page(), store, url)
    served.page.on("request", lambda request: served.requests.append(request.url))
    served.page.on(
        "console",
        lambda message: (
            served.complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    served.page.on("pageerror", lambda error: served.complaints.append(str(error)))
    served.page.goto(url)
    yield served
    context.close()
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert served.complaints == []
    allowed = (url.partition("?")[0], "data:", "blob:")
    assert [address for address in served.requests if not address.startswith(allowed)] == []


def start(page: Page, text: str) -> None:
    page.get_by_label("Question or plan").fill(text)
    page.get_by_role("button", name="Start").click()


def test_a_call_is_edited_and_approved(served: ServedPage) -> None:
    page = served.page
    start(page, '1. calc("6 * 7")\n2. send("Ada")\n3. join($2)')
    waiting = page.get_by_role("region", name="Task 2 waits for approval")
    waiting.wait_for()
    waiting.get_by_label("Arguments").fill('{"to": "Grace"}')
    waiting.get_by_role("button", name="Approve as edited").click()
    page.get_by_text("sent to Grace").first.wait_for()
    assert waiting.count() == 0
    store = RunStore(served.store)
    (summary,) = store.runs()
    assert (summary.status, summary.answer) == ("answered", "sent to Grace")
    store.close()


def test_a_call_is_denied(served: ServedPage) -> None:
    page = served.page
    start(page, '1. send("Ada")\n2. join()')
    page.get_by_label("Why it is denied").fill("not today")
    page.get_by_role("button", name="Deny").click()
    page.get_by_text("not today").first.wait_for()
    page.get_by_role("region", name="Task 1 waits for approval").wait_for(state="detached")


def test_a_stopped_run_is_resumed(served: ServedPage) -> None:
    async def run_and_stop() -> str:
        letters = str(served.store.parent / "letters.py")
        plan = parse_plan('1. send("Ada")\n2. join($1)')
        actions = PageActions(
            lambda actions: LLMCompiler([letters], store=served.store, approver=actions.approve),
            lambda _: plan,
        )
        run = await actions.start("the plan", {})
        await actions.close()
        return run

    # The event loop of the test's own thread drives the browser.
    with ThreadPoolExecutor(1) as executor:
        run = executor.submit(lambda: asyncio.run(run_and_stop())).result()
    served.page.goto(f"{served.url}#/run/{run}")
    served.page.get_by_role("button", name="Resume this run").click()
    served.page.get_by_role("button", name="Approve").click()
    served.page.get_by_text("sent to Ada").first.wait_for()


def test_a_mistake_is_told_beside_the_button(served: ServedPage) -> None:
    start(served.page, "1. nothing_of_the_kind(1)\n2. join()")
    served.page.get_by_role("alert").wait_for()
    assert served.page.get_by_role("alert").inner_text()
    served.complaints.clear()  # the browser notes that the answer was a refusal


def add_run(path: Path, run: str, events: list[Any]) -> None:
    store = RunStore(path)
    log = store.begin(run, 1_700_000_000.0)
    log.append(events)
    log.close()
    store.close()


def test_runs_of_other_processes_are_found_followed_and_compared(served: ServedPage) -> None:
    page = served.page
    page.get_by_text("No runs yet").wait_for()
    first, second = "a" * 10, "b" * 10
    add_run(served.store, first, dense_japan())
    page.get_by_role("link", name="How dense is Japan?").wait_for()
    add_run(served.store, second, troubled())
    page.get_by_role("link", name="Which countries are dense?").wait_for()

    page.get_by_role("searchbox").fill("japan")
    page.get_by_text("1 run", exact=True).wait_for()
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="interrupted").click()
    page.get_by_text("1 run", exact=True).wait_for()
    page.get_by_role("button", name="interrupted").click()

    page.get_by_label(f"Pick {first}").check()
    page.get_by_label(f"Pick {second}").check()
    page.get_by_role("button", name="Compare two").click()
    page.get_by_role("heading", name="Tasks that differ").wait_for()

    page.get_by_role("link", name="All runs").click()
    unfinished = "c" * 10
    store = RunStore(served.store)
    log = store.begin(unfinished, 1_700_000_001.0)
    log.append(dense_japan()[:6])
    page.goto(f"{served.url}#/run/{unfinished}")
    page.locator(".lines .line").wait_for()
    assert page.locator(".lines .line").count() == 1
    log.append(dense_japan()[6:-1])
    page.locator(".lines .line").nth(1).wait_for()
    log.append([RunFinished(2.6, "answered", "it went on", None, None)])
    page.get_by_text("it went on").first.wait_for()
    log.close()
    store.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_an_accessibility_checker(served: ServedPage, scheme: Any) -> None:
    served.page.emulate_media(color_scheme=scheme)
    add_run(served.store, "a" * 10, dense_japan())
    served.page.get_by_role("link", name="How dense is Japan?").wait_for()
    for step in (None, '1. send("Ada")\n2. join()'):
        if step:
            start(served.page, step)
            served.page.get_by_role("button", name="Approve").wait_for()
        assert serious_violations(served.page) == []
