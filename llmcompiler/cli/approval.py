"""Approval of calls at the terminal, while the rest of the run continues.

Questions come one at a time, however many calls wait. The event loop reads the terminal: a reading
thread would outlive a question that is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmcompiler.errors import LimitReached, ToolError
from llmcompiler.runtime.approval import ApprovalDecision, ApprovalRequest, Approve, Deny

if TYPE_CHECKING:
    from llmcompiler.tools.base import Tool
    from llmcompiler.view.live import LiveView
    from llmcompiler.view.plain import PlainView


def is_attended() -> bool:
    """True if a person is at the terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class TerminalApprover:
    """Asks a person about each call: approve, edit the arguments, or deny.

    Args:
        tools: by name; edited arguments must fit the tool's schema.
        view: is paused during a question.
    """

    def __init__(self, tools: Mapping[str, Tool], view: LiveView | PlainView) -> None:
        self._tools = tools
        self._view = view
        self._terminal = asyncio.Lock()
        self._waiting_count = 0
        self._closed: LimitReached | None = None

    async def __call__(self, request: ApprovalRequest) -> ApprovalDecision:
        """Ask about a call, after every earlier question is decided.

        Raises:
            LimitReached: the terminal was closed. The run can be resumed.
        """
        self._waiting_count += 1
        try:
            async with self._terminal:
                if self._closed is not None:
                    raise self._closed
                with self._view.paused():
                    return await self._decide(request)
        except LimitReached as closed:  # no further question can be answered either
            self._closed = closed
            raise
        finally:
            self._waiting_count -= 1

    async def _decide(self, request: ApprovalRequest) -> ApprovalDecision:
        element = "".join(f"[{number}]" for number in request.index)
        more = f" ({self._waiting_count - 1} more to decide)" if self._waiting_count > 1 else ""
        _write(f"\napproval   task {request.task}{element}{more}: {request.tool}\n")
        for name, value in request.arguments.items():
            _write(f"  {name} = {json.dumps(value, ensure_ascii=False)}\n")
        while True:
            answer = (await _read("approve, edit or deny? [a/e/d] ")).lower()
            if answer in ("a", "approve"):
                return Approve()
            if answer in ("d", "deny"):
                return Deny(await _read("why? (may be empty) "))
            if answer in ("e", "edit"):
                edited = await self._edit(request)
                if edited is not None:
                    return Approve(edited)

    async def _edit(self, request: ApprovalRequest) -> dict[str, Any] | None:
        """Ask for other arguments; ``None`` if they do not fit."""
        tool = self._tools[request.tool]
        text = await _read("name=JSON, or all arguments as a JSON object: ")
        name, equals, value = text.partition("=")
        try:
            if equals and name.strip() in tool.parameters_schema["properties"]:
                edited = {**request.arguments, name.strip(): json.loads(value)}
            else:
                edited = json.loads(text)
            if not isinstance(edited, dict):
                raise ValueError("a JSON object is expected")
            tool.validate(edited)
        except (ValueError, ToolError) as error:
            _write(f"that does not fit: {error}\n")
            return None
        return edited


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


async def _read(prompt: str) -> str:
    """A line from the terminal."""
    _write(prompt)
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    terminal = sys.stdin.fileno()

    def read() -> None:
        if not line.done():
            line.set_result(os.read(terminal, 65536))

    loop.add_reader(terminal, read)
    try:
        text = await line
    finally:
        loop.remove_reader(terminal)
    if not text:
        raise LimitReached(
            "the terminal was closed while an approval was asked for",
            limit="approval",
            hint="resume the run where somebody can approve",
        )
    return text.decode(errors="replace").strip()
