"""Plans a question as a DAG of tool calls, runs them as parallel as their data allows, answers it.

This module has the public names and nothing else. Each name is loaded from its module at its first
use. So ``import llmcompiler`` takes almost no time and imports no third-party package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmcompiler.version import VERSION

if TYPE_CHECKING:
    from llmcompiler import errors, events
    from llmcompiler.compiler import LLMCompiler
    from llmcompiler.errors import (
        Failure,
        LimitReached,
        LLMCompilerError,
        LogError,
        ModelError,
        PlanError,
        ToolError,
        UsageError,
    )
    from llmcompiler.events import Event
    from llmcompiler.history.decisions import DivergenceError
    from llmcompiler.history.replay import ReplayReport, replay as replay_run
    from llmcompiler.history.state import RunState
    from llmcompiler.history.whatif import WhatIf
    from llmcompiler.joiners.model import Decision, JoinContext, Joiner
    from llmcompiler.language import Diagnostic, parse_plan, print_plan
    from llmcompiler.limits import Limits
    from llmcompiler.llm.base import ChatModel, Completion, Request, Usage
    from llmcompiler.llm.composite_models import FallbackModel, HedgedModel
    from llmcompiler.llm.limits import ModelLimits
    from llmcompiler.llm.messages import Message
    from llmcompiler.llm.models import open_model
    from llmcompiler.llm.prices import Price
    from llmcompiler.log.store import RunStore, RunSummary
    from llmcompiler.model_options import ModelOptions
    from llmcompiler.passes.check import check_plan
    from llmcompiler.plan.model import Join, Plan, PlanInput, Task
    from llmcompiler.planners.base import Planner, PlanningContext
    from llmcompiler.prompting.prompts import Example, Prompts
    from llmcompiler.run.handle import LiveRun
    from llmcompiler.run.result import RunResult
    from llmcompiler.runtime.approval import ApprovalRequest, Approve, Deny
    from llmcompiler.runtime.result_cache import ResultCache
    from llmcompiler.runtime.results import Observation
    from llmcompiler.settings.servers import load_tools
    from llmcompiler.tools.base import Tool, tool
    from llmcompiler.tools.context import current_call
    from llmcompiler.tools.mcp.server import McpServer
    from llmcompiler.tools.policy import Retry
    from llmcompiler.view.notebook import plan_html as plan_html, result_html as result_html

__version__ = VERSION

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
    "ModelOptions",
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
    "runtime.approval": ("ApprovalRequest", "Approve", "Deny"),
    "runtime.result_cache": ("ResultCache",),
    "compiler": ("LLMCompiler",),
    "errors": (
        "Failure",
        "LLMCompilerError",
        "LimitReached",
        "LogError",
        "ModelError",
        "PlanError",
        "ToolError",
        "UsageError",
    ),
    "events": ("Event",),
    "joiners.model": ("Decision", "JoinContext", "Joiner"),
    "language": ("Diagnostic", "parse_plan", "print_plan"),
    "limits": ("Limits",),
    "run.handle": ("LiveRun",),
    "llm.base": ("ChatModel", "Completion", "Request", "Usage"),
    "llm.messages": ("Message",),
    "llm.composite_models": ("FallbackModel", "HedgedModel"),
    "llm.limits": ("ModelLimits",),
    "model_options": ("ModelOptions",),
    "llm.models": ("open_model",),
    "llm.prices": ("Price",),
    "log.store": ("RunStore", "RunSummary"),
    "runtime.results": ("Observation",),
    "passes.check": ("check_plan",),
    "plan.model": ("Join", "Plan", "PlanInput", "Task"),
    "planners.base": ("Planner", "PlanningContext"),
    "prompting.prompts": ("Example", "Prompts"),
    "history.decisions": ("DivergenceError",),
    "history.replay": ("ReplayReport", "replay_run"),
    "run.result": ("RunResult",),
    "history.state": ("RunState",),
    "settings.servers": ("load_tools",),
    "tools.base": ("Tool", "tool"),
    "tools.context": ("current_call",),
    "tools.mcp.server": ("McpServer",),
    "tools.policy": ("Retry",),
    "view.notebook": ("plan_html", "result_html"),
    "history.whatif": ("WhatIf",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
# Public names that differ from the name in their module.
_RENAMED = {"replay_run": "replay"}


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
