"""The plan language: its incremental parser, its printer, its grammar and its schema."""

from llmcompiler.language.items import CallSource, QuestionLine, ThoughtLine
from llmcompiler.language.parser import Parser, parse_plan, read_plan
from llmcompiler.language.printer import print_plan, print_task
from llmcompiler.plan.diagnostics import Diagnostic, Span, catalogue_markdown

__all__ = [
    "CallSource",
    "Diagnostic",
    "Parser",
    "QuestionLine",
    "Span",
    "ThoughtLine",
    "catalogue_markdown",
    "parse_plan",
    "print_plan",
    "print_task",
    "read_plan",
]
