"""Patterns of a plan's lines, the slips of small models included.

The parser decides what a match means for the plan.
"""

from __future__ import annotations

import re

END_MARKER = "<END_OF_PLAN>"
"""Ends the plan: the parser ignores everything behind it, as LLMCompiler does."""

BYTE_ORDER_MARK = "\ufeff"
"""The mark that some editors put before a text."""

NAME = r"[^\W\d][\w.\-]*"
NUMBER = r"(?:\$\{?)?(?P<id>[0-9]{1,9})\}?[*`]*\s*(?:[.):]|=(?!=)|-(?=\s))[*`]*\s*"
HEAD = re.compile(
    rf"""\s*(?:[-*+•>]\s+)?[*`]*(?:(?i:step|task|action)\s+(?=[$0-9]))?
    (?P<number>{NUMBER})?[*`]*
    (?:\$?(?P<target>[^\W\d]\w*)\s*=(?!=)\s*)?[*`]*
    (?P<name>{NAME})[*`]*(?P<space>\s*)""",
    re.VERBOSE,
)
USUAL_HEAD = re.compile(rf"\s*[0-9]+\.\s*{NAME}")
RESTART = re.compile(rf"^[ \t]*(?:[-*+•]\s+)?[*`]*{NUMBER}[*`]*{NAME}[ \t]*\(", re.MULTILINE)
BARE_JOIN = re.compile(
    rf"\s*(?:[-*+•]\s+)?[*`]*(?P<number>{NUMBER})?(?P<join>join)[*`]*\s*\.?\s*(?:\#.*)?"
)
NUMBERED = re.compile(
    r"\s*(?:[-*+•]\s+)?[*`]*\$?[0-9]{1,9}[*`]*\s*[.):](?!\d)[*`]*\s*(?P<prose>.*)"
)
THOUGHT = re.compile(r"\s*[*_]*thoughts?[*_]*\s*:[*_]*\s*", re.IGNORECASE)
CALL_BREAK = re.compile(
    rf"\s*(?:```|{END_MARKER}|(?:[0-9]+\s*[.):]\s*)?join\s*\.?\s*$)|{THOUGHT.pattern}",
    re.IGNORECASE,
)
BLANK_END = re.compile(r"[\s.;,*`]*(?:#.*)?")
CALL_SEPARATOR = re.compile(r"[\s;,.*`]*")
CONTINUED = re.compile(r"\s*(?:\.[^\W\d]|\[|\(|-\s*[$\d]|[+*/%<>]\s*[$\w(])")
QUESTION = re.compile(r"\s*question\s*:?\s*(?=[\"'“‘$])")
INPUT = re.compile(
    r"\s*input\s+(?P<name>[^\W\d]\w*)\s*"
    r"(?:(?P<end>\#.*)?$|:\s*(?P<type>\w+)\s*(?P<end2>\#.*)?$|(?::\s*(?P<type2>\w+)\s*)?=)"
)
BROKEN_INPUT = re.compile(r"\s*input\s+[^\W\d]\w*\s*[:=]")
CALL_SHAPED = re.compile(rf"\s*\S{{1,4}}\s+{NAME}\(.*\)[\s.;,]*(?:#.*)?")
DOLLAR = re.compile(r"\$\{?([1-9][0-9]{0,8})")
