"""Plans a question as a DAG of tool calls, runs it as parallel as its data allows, answers it.

The public names, and nothing else. Each is loaded from its module when it is first asked for, so
that ``import llmcompiler`` costs next to nothing and pulls in no third-party package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmcompiler.display import Showing, drawn_by, written_by

if TYPE_CHECKING:
    from llmcompiler import errors, events
    from llmcompiler.approval import ApprovalRequest, Approve, Deny
    from llmcompiler.cache import ResultCache
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.errors import (
        LimitReached,
        LLMCompilerError,
        LogError,
        ModelError,
        PlanError,
        ToolError,
        UsageError,
    )
    from llmcompiler.events import Event, Failure
    from llmcompiler.joiner import Decision, JoinContext, Joiner
    from llmcompiler.language import Diagnostic, parse_plan, print_plan
    from llmcompiler.limits import Limits
    from llmcompiler.live import LiveRun
    from llmcompiler.llm.base import ChatModel, Completion, Request, Usage
    from llmcompiler.llm.fallback import FallbackModel
    from llmcompiler.llm.hedge import HedgedModel
    from llmcompiler.llm.limits import ModelLimits
    from llmcompiler.llm.messages import Message
    from llmcompiler.llm.models import open_model
    from llmcompiler.llm.prices import Price
    from llmcompiler.log import RunStore, RunSummary
    from llmcompiler.observation import Observation
    from llmcompiler.passes.check import check_plan
    from llmcompiler.plan import Join, Plan, PlanInput, Task
    from llmcompiler.planners.base import Planner, PlanningContext
    from llmcompiler.prompts import Example, Prompts
    from llmcompiler.recording import DivergenceError
    from llmcompiler.replay import ReplayReport, replay as replay_run
    from llmcompiler.run import RunResult
    from llmcompiler.state import RunState
    from llmcompiler.tools.base import Tool, tool
    from llmcompiler.tools.context import current_call
    from llmcompiler.tools.loading import load_tools
    from llmcompiler.tools.mcp.server import McpServer
    from llmcompiler.tools.policy import Retry
    from llmcompiler.whatif import WhatIf

__version__ = "0.1.0"

__all__ = [
    "ApprovalRequest",
    "Approve",
    "ChatModel",
    "Completion",
    "Decision",
    "Deny",
    "Diagnostic",
    "DivergenceError",
    "Event",
    "Example",
    "Failure",
    "FallbackModel",
    "HedgedModel",
    "Join",
    "JoinContext",
    "Joiner",
    "LLMCompiler",
    "LLMCompilerError",
    "LimitReached",
    "Limits",
    "LiveRun",
    "LogError",
    "McpServer",
    "Message",
    "ModelError",
    "ModelLimits",
    "Observation",
    "Plan",
    "PlanError",
    "PlanInput",
    "Planner",
    "PlanningContext",
    "Price",
    "Prompts",
    "ReplayReport",
    "Request",
    "ResultCache",
    "Retry",
    "RunResult",
    "RunState",
    "RunStore",
    "RunSummary",
    "Task",
    "Tool",
    "ToolError",
    "Usage",
    "UsageError",
    "WhatIf",
    "__version__",
    "check_plan",
    "current_call",
    "errors",
    "events",
    "load_tools",
    "open_model",
    "parse_plan",
    "print_plan",
    "replay_run",
    "tool",
]

_HOMES = {
    "approval": ("ApprovalRequest", "Approve", "Deny"),
    "cache": ("ResultCache",),
    "compiler": ("LLMCompiler",),
    "errors": (
        "LLMCompilerError",
        "LimitReached",
        "LogError",
        "ModelError",
        "PlanError",
        "ToolError",
        "UsageError",
    ),
    "events": ("Event", "Failure"),
    "joiner": ("Decision", "JoinContext", "Joiner"),
    "language": ("Diagnostic", "parse_plan", "print_plan"),
    "limits": ("Limits",),
    "live": ("LiveRun",),
    "llm.base": ("ChatModel", "Completion", "Request", "Usage"),
    "llm.messages": ("Message",),
    "llm.fallback": ("FallbackModel",),
    "llm.hedge": ("HedgedModel",),
    "llm.limits": ("ModelLimits",),
    "llm.models": ("open_model",),
    "llm.prices": ("Price",),
    "log": ("RunStore", "RunSummary"),
    "observation": ("Observation",),
    "passes.check": ("check_plan",),
    "plan": ("Join", "Plan", "PlanInput", "Task"),
    "planners.base": ("Planner", "PlanningContext"),
    "prompts": ("Example", "Prompts"),
    "recording": ("DivergenceError",),
    "replay": ("ReplayReport", "replay_run"),
    "run": ("RunResult",),
    "state": ("RunState",),
    "tools.base": ("Tool", "tool"),
    "tools.context": ("current_call",),
    "tools.loading": ("load_tools",),
    "tools.mcp.server": ("McpServer",),
    "tools.policy": ("Retry",),
    "whatif": ("WhatIf",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
# A function may not be called like its module: an import of the module would take its place.
_RENAMED = {"replay_run": "replay"}


def _drawing(name: str) -> Showing:
    drawing: Showing = getattr(importlib.import_module(f"{__name__}.view.notebook"), name)
    return drawing


drawn_by("Plan", lambda: _drawing("plan_html"))
drawn_by("RunResult", lambda: _drawing("result_html"))
written_by("Plan", lambda: __getattr__("print_plan"))


def __getattr__(name: str) -> Any:
    if name in ("errors", "events"):
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    value = getattr(module, _RENAMED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
