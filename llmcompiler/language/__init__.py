"""The plan language: incremental parser, printer, diagnostics."""

from llmcompiler.language.items import CallSource, Question, Thought
from llmcompiler.language.parser import Parser, parse_plan, read_plan
from llmcompiler.language.printer import print_plan, print_task
from llmcompiler.plan.diagnostics import Diagnostic, Span, catalogue_markdown

__all__ = [
    "CallSource",
    "Diagnostic",
    "Parser",
    "Question",
    "Span",
    "Thought",
    "catalogue_markdown",
    "parse_plan",
    "print_plan",
    "print_task",
    "read_plan",
]
