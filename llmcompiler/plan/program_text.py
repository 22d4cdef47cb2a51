"""A plan that is a program, as the text of a file: a line for its question, then the program."""

from __future__ import annotations

import ast
import json
import re

from llmcompiler.plan.expressions import Literal
from llmcompiler.plan.model import Plan

_QUESTION = re.compile(r'\A(?:\s*#[^\n]*\n)*?[ \t]*# question: (".*")[ \t]*(?:\n|\Z)')
# A line that only a program has, for texts that Python cannot read as a whole.
_PROGRAM_LINE = re.compile(
    r"^(?:def main\(|(?:import|from) (?:math|statistics|json|re|datetime)\b"
    r"|[A-Za-z_]\w*[ \t]*=[ \t]*[A-Za-z_][\w.]*\(|(?:for|while|if) [^\n]+:[ \t]*$)",
    re.MULTILINE,
)
_DOES_NOTHING = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign),
)


def program_plan(text: str) -> Plan:
    """The plan of a program's text, not compiled yet: it has no tasks and no inputs."""
    match = _QUESTION.match(text)
    question = None
    if match is not None:
        try:
            question = Literal(value=str(json.loads(match.group(1))))
        except ValueError:
            question = None
    return Plan(program=text if text.endswith("\n") else text + "\n", question=question)


def program_text(plan: Plan) -> str:
    """The text of a plan that is a program, such that ``program_plan`` reads the plan back."""
    assert plan.program is not None
    question = plan.question
    if _QUESTION.match(plan.program) or not isinstance(question, Literal):
        return plan.program
    return f"# question: {json.dumps(question.value, ensure_ascii=False)}\n{plan.program}"


def is_program(text: str) -> bool:
    """True if a text reads as a program: Python that calls something and is no sentence."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _PROGRAM_LINE.search(text) is not None
    return any(isinstance(node, ast.Call | ast.Return) for node in ast.walk(tree))


def defines_tools_only(text: str) -> bool:
    """True if a text is Python that does nothing by itself, such as a file of tools."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    has_function = False
    for node in tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            return False
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            has_function = True
        if not (is_text or isinstance(node, _DOES_NOTHING)):
            return False
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(
            isinstance(target, ast.Name) and target.id == "answer" for target in ast.walk(node)
        ):
            return False
    return has_function
