"""Tools for applications' own tests: scripted models, virtual time, broken tools, cassettes."""

from llmcompiler.testing.doubles import (
    Answer,
    Deadlock,
    ScriptedModel,
    VirtualClockLoop,
    flaky,
    hanging,
    run_virtual,
    slow,
)

__all__ = [
    "Answer",
    "Deadlock",
    "ScriptedModel",
    "VirtualClockLoop",
    "flaky",
    "hanging",
    "run_virtual",
    "slow",
]
