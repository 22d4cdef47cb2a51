"""The ``calc`` tool: arithmetic and comparisons in one expression, safely.

The evaluator is simpleeval's, restricted to operations that are harmless for operands of any size:
no attributes of Python objects, no string formatting, no repetition of sequences, bounded powers.
The results of other tasks stand in an expression as JSON, and people write as they do on
calculators, so both spellings are understood.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llmcompiler.errors import ToolError
from llmcompiler.tools.base import Tool, tool

if TYPE_CHECKING:
    from simpleeval import EvalWithCompoundTypes  # type: ignore[import-untyped]

Result: TypeAlias = int | float | bool | str | list[Any]

MAX_LENGTH = 100_000
"""Most characters of an expression."""

MAX_BITS = 10_000
"""Most bits of an integer power, about 3000 digits."""

_NAMES = {
    "pi": math.pi,
    "e": math.e,
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}
_SPELLINGS = {"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-", "≤": "<=", "≥": ">=", "≠": "!="}
_STRAY = re.compile(r"\$\w+")
"""A reference that was left as text, because no task has its number."""

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<grouped>(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\w,]))
      | (?P<number>\d[\w.]*)
      | (?P<name>[^\W\d_a-z]\w*(?:[ -][^\W\d_a-z]\w*)*)
      | (?P<word>[^\W\d]\w*)
      | (?P<open>[(\[{])
      | (?P<close>[)\]}])
      | (?P<other>\s+|.)""",
    re.VERBOSE,
)


def lint_expression(parameter: str, pieces: Sequence[str]) -> str | None:
    """A mistake in an expression into which results will be written; see ``Lint``.

    Args:
        parameter: the name of ``calc``'s parameter.
        pieces: the text before, between and after the results.
    """
    text = "1".join(pieces)
    try:
        tree = ast.parse(_to_python(text, {}).strip(), mode="eval")
    except SyntaxError as error:
        if stray := _STRAY.search(text):
            return _explain_stray(stray[0], text[stray.end() :])
        return f"it is not an expression ({error.msg})"
    except (ValueError, RecursionError, MemoryError):
        return None  # too large or too deep to judge; the call itself will fail
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    loops = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in names:
        if id(node) in functions:
            if node.id not in _FUNCTIONS:
                return f"there is no function {node.id!r}: it has {', '.join(_FUNCTIONS)}"
        elif node.id not in _NAMES and node.id not in _FUNCTIONS and node.id not in loops:
            return f"{node.id!r} is not known"
    return None


def _explain_stray(reference: str, rest: str) -> str:
    """Why ``$1`` stayed text in an expression, in which ``rest`` follows."""
    if digits := re.match(r"\.\d+", rest):
        return (
            f"{reference}{digits[0]} is text and no reference, because no field's name begins with "
            f"a digit: an item is {reference}[{digits[0][1:]}], a number stands without $"
        )
    return f"there is no task before it that {reference} could mean"


@tool(pure=True, lint=lint_expression)
def calc(expression: str) -> Result:
    """Work out one arithmetic expression or comparison, such as "($1.population + 5) / $2" or
    "max($3, $4) / min($3, $4)". Operators: + - * / // % ** (or ^), comparisons, and, or, not, in,
    "a if x > y else b", lists [a, b]. Functions: min, max, sum, mean, len, abs, round, floor,
    ceil, sqrt, log, log10, exp. Write text in quotes. It knows numbers only, no facts and no units.

    Args:
        expression: the expression; results of earlier tasks stand in it as $N or $N.field.
    """
    result: Result = calculate(expression)
    return result


TOOLS: list[Tool] = [calc]


def calculate(expression: str, names: Mapping[str, Any] | None = None) -> Any:
    """The value of an expression.

    Args:
        expression: as ``calc`` takes it.
        names: values of its variables.

    Raises:
        ToolError: names the expression and the part at fault.
    """
    if len(expression) > MAX_LENGTH:
        raise ToolError(
            f"calc was given {len(expression)} characters; it takes {MAX_LENGTH}",
            hint="pass fewer values, or work in several steps",
        )
    names = names or {}
    try:
        tree = ast.parse(_to_python(expression, names).strip(), mode="eval").body
        _check_loops(tree)
        value = _evaluator(names).eval(expression, previously_parsed=tree)
        return _check_result(value)
    except ToolError:
        raise
    except Exception as error:
        raise _refusal(expression, error) from error


def _to_python(text: str, names: Mapping[str, Any]) -> str:
    """The expression in Python's spelling.

    ``^`` is a power, as on a calculator. ``1,234,567`` is one number, except among the arguments
    of a call or the items of a list, where the commas are separators. A capitalised word without
    quotes is text: it is a name that was written in from a result.
    """
    out: list[str] = []
    brackets: list[bool] = []
    matches = list(_TOKEN.finditer(text.replace("\n", " ")))
    for match in matches:
        token = match[0]
        match match.lastgroup:
            case "grouped":
                out.append(token if brackets and brackets[-1] else token.replace(",", ""))
            case "name":
                out.append(
                    token
                    if token in names
                    else _spell_name(token, text[match.end() :].lstrip().startswith("("))
                )
            case "open":
                before = out[-1].strip() if out else ""
                out.append(token)
                # Commas are separators in lists, dicts and calls, not in plain parentheses.
                brackets.append(token != "(" or before.lower() in _FUNCTIONS)
            case "close":
                out.append(token)
                if brackets:
                    brackets.pop()
            case "other":
                out.append(_SPELLINGS.get(token, token) if not token.isspace() else " ")
            case _:
                out.append(token)
    return "".join(out)


def _spell_name(word: str, is_function: bool) -> str:
    if word in _NAMES:
        return word
    if is_function and word.lower() in _FUNCTIONS:
        return word.lower()
    return repr(word)


def _check_loops(tree: ast.AST) -> None:
    """Refuse comprehensions with which a short expression could keep a thread busy for ever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
            parts = list(ast.walk(node))
            loops = sum(isinstance(part, ast.comprehension) for part in parts)
            parts_in_loop = len(parts) - len(list(ast.walk(node.generators[0].iter)))
            if loops > 1 or parts_in_loop > 100:
                raise ValueError("a comprehension in it is too complex")


def _check_result(value: Any) -> Result:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the result is not a finite number")
    if isinstance(value, int) and value.bit_length() > 14_000:
        raise ValueError("the result has more than 4000 digits")
    if isinstance(value, list):
        return [
            item if isinstance(item, dict) or item is None else _check_result(item)
            for item in value
        ]
    if isinstance(value, complex):
        raise TypeError("the result is not a real number")
    if not isinstance(value, int | float | str):
        raise TypeError("the result is nothing that can be reckoned with")
    return value


def _refusal(expression: str, error: Exception) -> ToolError:
    from simpleeval import FunctionNotDefined, IterableTooLong, NameNotDefined, NumberTooHigh

    hint = 'numbers, operators and functions only; text in quotes; results as "$N" or "$N.field"'
    match error:
        case ZeroDivisionError():
            reason, hint = "division by zero", ""
        case SyntaxError():
            reason = f"it is not an expression ({error.msg})"
        case FunctionNotDefined():
            close = difflib.get_close_matches(error.func_name, _FUNCTIONS, 1)
            reason = f"there is no function {error.func_name!r}"
            hint = f"did you mean {close[0]!r}?" if close else "functions: " + ", ".join(_FUNCTIONS)
        case NameNotDefined():
            reason = f"{error.name!r} is not known"
        case NumberTooHigh() | OverflowError():
            reason, hint = "the numbers become too large", ""
        case IterableTooLong():
            reason, hint = "a list or a string becomes too long", ""
        case RecursionError() | MemoryError():
            reason, hint = "it is nested too deeply", ""
        case TypeError() if "NoneType" in str(error):
            reason, hint = "a value in it is null", "check that the field exists in that result"
        case KeyError():
            reason = f"there is no field {error.args[0]!r}"
        case _:
            reason = str(error)
    excerpt = expression if len(expression) <= 200 else f"{expression[:200]}..."
    return ToolError(f'calc cannot work out "{excerpt}": {reason}', hint=hint)


def _number(value: Any) -> int | float:
    if not isinstance(value, int | float):
        raise TypeError(f"{repr(value)[:80]} is not a number")
    return value


def _product(x: Any, y: Any) -> Any:
    # Each squaring doubles the length of an integer.
    integers = isinstance(x, int) and isinstance(y, int)
    if integers and x.bit_length() + y.bit_length() > 10 * MAX_BITS:
        raise OverflowError
    return x * y


def _numeric(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operator on numbers only: on text and lists ``*`` and ``%`` could fill the memory."""
    return lambda x, y: function(_number(x), _number(y))


def _power(base: Any, exponent: Any) -> Any:
    base, exponent = _number(base), _number(exponent)
    integers = isinstance(base, int) and isinstance(exponent, int)
    if integers and abs(base) > 1 and base.bit_length() * abs(exponent) > MAX_BITS:
        raise OverflowError
    result = base**exponent
    if isinstance(result, complex):
        raise TypeError("the root of a negative number is not a real number")
    return result


def _numbers(values: tuple[Any, ...]) -> list[int | float]:
    """The numbers of ``sum(1, 2)`` or ``sum([1, 2])``."""
    items = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
    return [_number(item) for item in items]


def _sum(*values: Any) -> int | float:
    return sum(_numbers(values))


def _mean(*values: Any) -> float:
    numbers = _numbers(values)
    if not numbers:
        raise ValueError("the mean of no numbers")
    return sum(numbers) / len(numbers)


def _extreme(choose: Callable[..., Any], name: str) -> Callable[..., Any]:
    def extreme(*values: Any) -> Any:
        items = values[0] if len(values) == 1 and isinstance(values[0], list | tuple) else values
        if not items:
            raise ValueError(f"the {name} of nothing")
        return choose(items)

    return extreme


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": _extreme(min, "min"),
    "max": _extreme(max, "max"),
    "sum": _sum,
    "mean": _mean,
    "len": len,
    "abs": abs,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "log": math.log,
    "log10": math.log10,
    "exp": math.exp,
    "pow": _power,
    "int": int,
    "float": float,
}


@functools.cache
def _operators() -> dict[type[ast.AST], Callable[..., Any]]:
    from simpleeval import safe_add

    return {
        ast.Add: safe_add,
        ast.Sub: operator.sub,
        ast.Mult: _numeric(_product),
        ast.Div: _numeric(operator.truediv),
        ast.FloorDiv: _numeric(operator.floordiv),
        ast.Mod: _numeric(operator.mod),
        ast.Pow: _power,
        ast.USub: operator.neg,
        ast.UAdd: operator.pos,
        ast.Not: operator.not_,
        ast.Eq: operator.eq,
        ast.NotEq: operator.ne,
        ast.Lt: operator.lt,
        ast.LtE: operator.le,
        ast.Gt: operator.gt,
        ast.GtE: operator.ge,
        ast.In: lambda item, items: item in items,
        ast.NotIn: lambda item, items: item not in items,
    }


def _evaluator(names: Mapping[str, Any]) -> EvalWithCompoundTypes:
    """A new evaluator, one for each call: it holds the call's state, and calls run in threads."""
    from simpleeval import EvalWithCompoundTypes

    evaluator = EvalWithCompoundTypes(
        operators=_operators(), functions=dict(_FUNCTIONS), names={**_NAMES, **names}
    )

    def field(node: ast.Attribute) -> Any:
        value = evaluator._eval(node.value)
        if isinstance(value, dict):
            return value[node.attr]
        raise TypeError(f"{value!r:.80} has no field {node.attr!r}")

    evaluator.nodes[ast.Attribute] = field
    for constructor in ("list", "tuple", "dict", "set"):
        del evaluator.functions[constructor]
    for formatting in (ast.JoinedStr, ast.FormattedValue):
        del evaluator.nodes[formatting]
    return evaluator
