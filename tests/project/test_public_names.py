"""The public names are a promise: a change of this list is a change of the API."""

from __future__ import annotations

import inspect
import types

import pytest

import llmcompiler

PUBLIC = """
    ApprovalRequest Approve ChatModel Completion Decision Deny Diagnostic DivergenceError Event
    Example Failure FallbackModel HedgedModel Join JoinContext Joiner LLMCompiler LLMCompilerError
    LimitReached Limits LiveRun LogError McpServer Message ModelError ModelLimits ModelOptions
    Observation Plan PlanError PlanInput Planner PlanningContext Price Prompts ReplayReport Request
    ResultCache Retry RunResult RunState RunStore RunSummary Task Tool ToolError Usage UsageError
    WhatIf __version__ check_plan current_call errors events load_tools open_model parse_plan
    print_plan replay_run tool
""".split()


def test_the_public_names_are_these() -> None:
    assert llmcompiler.__all__ == sorted(llmcompiler.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(llmcompiler, name)
    if name != "__version__":
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", PUBLIC)
def test_only_whole_modules_are_called_like_modules(name: str) -> None:
    # Otherwise `llmcompiler.NAME` would mean one thing or the other, by what was imported before.
    value = getattr(llmcompiler, name)
    same_name = inspect.getmodule(value)
    assert (
        isinstance(value, types.ModuleType)
        or getattr(same_name, "__name__", "") != f"llmcompiler.{name}"
    )


def test_dir_shows_them_before_they_are_loaded() -> None:
    assert set(PUBLIC) <= set(dir(llmcompiler))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="LLMCompilr"):
        llmcompiler.LLMCompilr  # noqa: B018


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert llmcompiler.__version__ == version("llmcompiler-dag")
