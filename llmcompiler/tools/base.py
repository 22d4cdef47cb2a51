"""A tool: a function with schemas, and the options by which a run calls it.

Everything that a plan can call is a ``Tool``, wherever it comes from. So the checker, the planners
and the engine deal with one type.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import to_jsonable_python

from llmcompiler.errors import ToolError, UsageError, error_text
from llmcompiler.extras import is_installed
from llmcompiler.tools.policy import OnError, Retry
from llmcompiler.tools.schema import Schema, read_signature, signature_text, type_text

Effect: TypeAlias = Literal["read", "write"]
Trim: TypeAlias = int | Callable[[Any], str] | None
Lint: TypeAlias = Callable[[str, Sequence[str]], str | None]
"""Finds a mistake in a text argument while the plan is written.

Called with a parameter's name and the pieces of its text; results of tasks will stand between the
pieces. Returns what is wrong whatever these results are, or ``None``.
"""

DEFAULT_TOOLS = ("calc", "geo") if is_installed("geo") else ("calc",)
"""Default sets of tools; without the extra ``geo``, ``calc`` alone."""

TRIM = 2000
"""Default number of characters of an observation that a prompt shows."""

_NAME = re.compile(r"[^\W\d][\w.\-]*")
_RESERVED = {"join"}
_MAX_INT_BITS = 14_000
"""Python refuses to write integers of more than 4300 digits."""


@dataclass(frozen=True)
class Tool:
    """A function that plans can call. Made by ``tool`` or ``as_tool``.

    Attributes:
        name: what plans call it.
        description: what it does, in a paragraph; planners read it.
        function: called with keyword arguments, as ``bind`` returns them.
        parameters: pydantic model of the arguments.
        parameters_schema: its JSON schema, properties in positional order.
        return_schema: JSON schema of the encoded result; ``None`` if it is not known.
        is_async: True if ``function`` returns an awaitable, or yields items asynchronously.
        effect: ``"write"`` if a call changes the world outside.
        timeout: seconds that one attempt may take.
        concurrency: most calls at a time.
        trim: how prompts show a long observation: the most characters, a function that returns the
            text, or ``None`` for the complete text. The log always stores the complete result.
        pure: True if the same arguments always give the same result, so that a recorded result can
            take the place of a call.
        version: changes when the tool may give other results than before.
        on_error: what a failed call does to the run; ``None`` for the run's own policy.
        retry: how failed calls are repeated; ``None`` for the run's own policy.
        partial: True if a fan-out succeeds although some elements failed; ``None`` stands in their
            place. Otherwise the tasks that need the list are skipped.
        approve: True if somebody must agree to each call before it is made.
        cache: seconds for which a result serves later runs; ``None`` for no cache.
        model: the model that the tool asks, with its parameters; empty if it asks none. A cached
            result of another model is not used.
        origin: who describes the tool, such as ``mcp:NAME``; empty for the program itself. The
            descriptions of others are pinned: see ``llmcompiler.history.tool_changes``.
        reasons: True if a call is a reasoning branch, which the run itself carries out.
        lint: finds mistakes in text arguments; ``None`` if any text may be right.
        resources: what a call takes of a cluster's node: ``CPU``, ``GPU``, ``memory`` (bytes), or
            names of the cluster's own; ``None`` for one CPU. Ignored if calls run in this process.
        documentation: all that the author wrote about the tool and its result, where that is more
            than the description; planners of strong models read it.
    """

    name: str
    description: str
    function: Callable[..., Any]
    parameters: type[BaseModel]
    parameters_schema: Schema
    return_schema: Schema | None = None
    is_async: bool = False
    effect: Effect = "read"
    timeout: float | None = None
    concurrency: int | None = None
    trim: Trim = TRIM
    pure: bool = False
    version: str = ""
    on_error: OnError | None = None
    retry: Retry | None = None
    partial: bool = False
    approve: bool = False
    cache: float | None = None
    model: str = ""
    origin: str = ""
    reasons: bool = False
    lint: Lint | None = None
    resources: Mapping[str, float] | None = None
    documentation: str = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as if it had never become a tool."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Tool:
        """The tool of a method, bound to the instance through which it is reached."""
        if instance is None or not isinstance(self.function, types.FunctionType):
            return self
        return dataclasses.replace(self, function=types.MethodType(self.function, instance))

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, validated and converted as pydantic's lax mode does.

        Raises:
            ToolError: names the argument at fault, its value and the expected type.
        """
        arguments = dict(kwargs)
        if args:
            names = self.parameters_schema["properties"]
            if len(args) > len(names):
                raise ToolError(
                    f"{self.name} takes {_count(len(names), 'argument')}, and {len(args)} "
                    "were given",
                    hint=self.signature(),
                )
            for name, value in zip(names, args, strict=False):
                if name in arguments:
                    raise ToolError(
                        f"{self.name} got the argument {name!r} twice: by position "
                        f"({_short_repr(value)}) and by name ({_short_repr(arguments[name])})",
                        hint=self.signature(),
                    )
                arguments[name] = value
        return self.validate(arguments)

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """``bind`` for arguments by name.

        Raises:
            ToolError: as ``bind``.
        """
        try:
            model = self.parameters.__pydantic_validator__.validate_python(arguments)
        except ValidationError as error:
            raise self._refusal(error) from None
        fields: dict[str, Any] = model.__dict__
        if self._aliases:
            fields = {self._aliases.get(key, key): value for key, value in fields.items()}
        further = model.__pydantic_extra__  # of a tool that takes arguments of any name
        return {**fields, **further} if further else fields

    @functools.cached_property
    def _aliases(self) -> dict[str, str]:
        """Parameters whose names pydantic does not take for fields, by the field's name."""
        fields = self.parameters.model_fields.items()
        return {key: field.alias for key, field in fields if field.alias not in (None, key)}

    def encode(self, value: Any) -> JsonValue:
        """The JSON value of a result, which is logged and which other tasks read.

        Raises:
            ToolError: the value cannot be JSON; the message names the part at fault.
        """
        kind = type(value)
        if value is None or kind is bool or (kind is int and value.bit_length() < _MAX_INT_BITS):
            return value  # type: ignore[no-any-return]
        if kind is float and math.isfinite(value):
            return value  # type: ignore[no-any-return]
        if kind is str and value.isascii():
            return value  # type: ignore[no-any-return]
        try:
            plain: JsonValue = to_jsonable_python(value, fallback=_plain_scalar)
            json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
            _check_keys(value)
        except Exception as error:  # properties and serializers of the value are the tool's code
            raise ToolError(
                f"{self.name} returned a value that cannot be JSON: {_blame(value, error)}",
                hint="return numbers, strings, lists, dicts, dataclasses or pydantic models",
            ) from error
        return plain

    def observe(self, value: Any) -> str:
        """A recorded result as text for prompts, shortened by the tool's rule."""
        if callable(self.trim):
            return self.trim(value)
        text = (
            value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, separators=(", ", ": "), default=str)
        )
        if self.trim is None or len(text) <= self.trim:
            return text
        return f"{text[: self.trim]}... {len(text) - self.trim} more characters"

    def signature(self) -> str:
        """One line for planners: ``country(name: str) -> {name: str, population: int}``."""
        return signature_text(self.name, self.parameters_schema, self.return_schema)

    def describe(self) -> dict[str, Any]:
        """The tool's entry in a log, from which a run can be replayed without the tool.

        ``trim`` is ``"custom"`` for a function, because a log cannot store one.
        """
        return {
            "description": self.description,
            "parameters_schema": self.parameters_schema,
            "return_schema": self.return_schema,
            "effect": self.effect,
            "trim": "custom" if callable(self.trim) else self.trim,
            "pure": self.pure,
            "version": self.version,
            "partial": self.partial,
            "origin": self.origin,
            **({"reasons": True} if self.reasons else {}),
            **({"documentation": self.documentation} if self.documentation else {}),
        }

    def _refusal(self, error: ValidationError) -> ToolError:
        errors = error.errors(include_url=False, include_context=False)
        # A misspelt name is an unknown and a missing argument; the unknown one is the better hint.
        first = next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])
        properties = self.parameters_schema["properties"]
        argument = str(first["loc"][0])
        if argument not in properties and argument in self.parameters.model_fields:
            argument = self.parameters.model_fields[argument].alias or argument
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            close = difflib.get_close_matches(argument, properties, 1, 0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            return ToolError(
                f"{self.name} has no argument {argument!r}", hint=hint + self.signature()
            )
        expected = type_text(properties.get(argument), self.parameters_schema)
        if first["type"] == "missing" and len(first["loc"]) == 1:
            return ToolError(
                f"{self.name} needs the argument {argument!r} ({expected})", hint=self.signature()
            )
        # After the argument's name, pydantic lists the choices of a union that it tried.
        inner = [str(part) for part in first["loc"][1:] if isinstance(part, int)]
        at = f" at [{']['.join(inner)}]" if inner else ""
        return ToolError(
            f"{self.name}: argument {argument!r} should be {expected}, but "
            f"{_short_repr(first['input'])} was given{at} ({first['msg']})",
            hint=self.signature(),
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number or 'no'} {noun}s"


def _short_repr(value: Any) -> str:
    text = repr(value)
    return f"{text[:80]}... ({type(value).__name__})" if len(text) > 83 else text


def _plain_scalar(value: Any) -> Any:
    """A scalar or an array of NumPy, or a scalar of pandas, as Python's own type.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no type that JSON has")


def _check_keys(value: Any) -> None:
    """Refuse dicts in which two keys are the same text, because JSON keeps only one of them.

    Args:
        value: a value that does not contain itself.

    Raises:
        ValueError: names the key.
    """
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            pending.extend(part.values())
            if not all(type(key) is str for key in part):
                texts = [next(iter(to_jsonable_python({key: None}))) for key in part]
                if len(set(texts)) < len(texts):
                    text = next(text for text in texts if texts.count(text) > 1)
                    raise ValueError(f"two keys of a dict are {text!r} in JSON")
        elif isinstance(part, list | tuple):
            pending.extend(part)


def _blame(value: Any, error: Exception) -> str:
    """The part of ``value`` that JSON cannot hold, else the error's own message."""
    text = error_text(error).splitlines()[0]
    if isinstance(error, RecursionError) or "Circular" in text or "depth exceeded" in text:
        return "it contains itself, or is nested too deeply"
    pending: list[tuple[Any, str]] = [(value, "")]
    while pending:
        part, path = pending.pop()
        if isinstance(part, float) and not math.isfinite(part):
            return f"{part} is not a JSON number" + (f" (at {path})" if path else "")
        if isinstance(part, dict):
            pending.extend((child, f"{path}[{key!r}]") for key, child in part.items())
        elif isinstance(part, list | tuple):
            pending.extend((child, f"{path}[{number}]") for number, child in enumerate(part))
    is_plain = isinstance(error, ValueError | TypeError)
    return text if is_plain else f"{type(error).__name__}: {text}"


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "read",
    timeout: float | None = None,
    concurrency: int | None = None,
    trim: Trim = TRIM,
    pure: bool = False,
    version: str | None = None,
    on_error: OnError | None = None,
    retry: Retry | None = None,
    partial: bool = False,
    approve: bool = False,
    cache: float | None = None,
    model: str = "",
    lint: Lint | None = None,
    resources: Mapping[str, float] | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "read",
    timeout: float | None = None,
    concurrency: int | None = None,
    trim: Trim = TRIM,
    pure: bool = False,
    version: str | None = None,
    on_error: OnError | None = None,
    retry: Retry | None = None,
    partial: bool = False,
    approve: bool = False,
    cache: float | None = None,
    model: str = "",
    lint: Lint | None = None,
    resources: Mapping[str, float] | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function, sync or async: ``@tool`` or ``@tool(effect="write", ...)``.

    The argument schema and the result schema come from the type hints, the description from the
    docstring's first paragraph, and the descriptions of arguments from its ``Args`` section. The
    options are ``Tool``'s attributes.

    Raises:
        UsageError: the function cannot be a tool; the message says why.
    """

    def make(function: Callable[..., Any]) -> Tool:
        label = name or getattr(function, "__name__", "") or type(function).__name__
        _check_options(label, function, timeout, concurrency)
        if bad := [name for name, amount in (resources or {}).items() if not amount >= 0]:
            raise UsageError(f"tool {label!r}: resources are amounts, 0 or more, not {bad[0]!r}")
        if cache is not None and (effect == "write" or not cache > 0):
            raise UsageError(
                f"tool {label!r} cannot be cached for {cache} s",
                hint='a tool with effect="write" must be called, and a time is more than 0',
            )
        doc = _docstring(function)
        signature = read_signature(function, label, _arguments(doc), method=_is_method(function))
        summary = description or " ".join(doc.split("\n\n")[0].split())
        documentation = "" if description else _without_arguments(doc)
        return Tool(
            name=label,
            description=summary,
            function=function,
            parameters=signature.parameters,
            parameters_schema=signature.parameters_schema,
            return_schema=signature.return_schema,
            is_async=_is_async(function),
            effect=effect,
            timeout=timeout,
            concurrency=concurrency,
            trim=trim,
            pure=pure,
            version=version or _fingerprint(function, signature.parameters_schema),
            on_error=on_error,
            retry=retry,
            partial=partial,
            approve=approve,
            cache=cache,
            model=model,
            lint=lint,
            resources=resources,
            documentation=documentation if documentation != summary else "",
        )

    return make if function is None else make(function)


def as_tool(source: Any) -> Tool:
    """A tool as it is, or the tool of a function with default options.

    Raises:
        UsageError: the source is neither, or the function cannot be a tool.
    """
    if isinstance(source, Tool):
        return source
    if not callable(source) or isinstance(source, type):
        raise UsageError(
            f"{_short_repr(source)} is not a tool",
            hint="give a function, or decorate one with @tool",
        )
    return tool(source)


def _check_options(
    name: str, function: Callable[..., Any], timeout: float | None, concurrency: int | None
) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a tool's name",
            hint='letters, digits, "_", "-" and "." only; give one with @tool(name="...")',
        )
    if name in _RESERVED:
        raise UsageError(
            f"a tool cannot be called {name!r}: plans end with it",
            hint='give another one with @tool(name="...")',
        )
    if timeout is not None and not timeout > 0:
        raise UsageError(f"tool {name!r}: timeout is {timeout} s; it must be more than 0")
    if concurrency is not None and concurrency < 1:
        raise UsageError(f"tool {name!r}: concurrency is {concurrency}; it must be at least 1")


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(function, "__call__", None)  # noqa: B004
    checks = inspect.iscoroutinefunction, inspect.isasyncgenfunction
    return any(check(function) or check(call) for check in checks)


def _is_method(function: Callable[..., Any]) -> bool:
    """True for a plain function in a class body, whose first parameter is the instance."""
    if not inspect.isfunction(function):
        return False
    scope = function.__qualname__.rpartition(".")[0]
    first = next(iter(inspect.signature(function).parameters), "")
    return bool(scope) and not scope.endswith("<locals>") and first == "self"


def _docstring(function: Callable[..., Any]) -> str:
    while hasattr(function, "func"):
        function = function.func
    target = function if inspect.isroutine(function) else type(function).__call__
    doc = inspect.getdoc(target)
    if not inspect.isroutine(function):
        doc = inspect.getdoc(function) or doc
    return doc or ""


def _arguments(doc: str) -> dict[str, str]:
    if not doc:
        return {}
    from docstring_parser import parse
    from docstring_parser.common import ParseError

    try:
        return {
            param.arg_name: " ".join(param.description.split())
            for param in parse(doc).params
            if param.description
        }
    except ParseError:
        return {}


def _without_arguments(doc: str) -> str:
    """A docstring without its sections about arguments and errors, each paragraph in one line."""
    if not doc:
        return ""
    from docstring_parser import parse
    from docstring_parser.common import ParseError

    try:
        parsed = parse(doc)
    except ParseError:
        return doc
    summary, rest = parsed.short_description or "", parsed.long_description
    if rest and not parsed.blank_after_short_description:
        summary, rest = f"{summary} {rest}", None
    parts = [summary, rest]
    if parsed.returns is not None and parsed.returns.description:
        parts.append(f"Returns: {parsed.returns.description}")
    paragraphs = [paragraph for part in parts if part for paragraph in part.split("\n\n")]
    # Lines that are indented, or that begin an item of a list, stay lines.
    return "\n\n".join(re.sub(r"\n(?![\s*\-\d])", " ", paragraph) for paragraph in paragraphs)


def _fingerprint(function: Callable[..., Any], schema: Schema) -> str:
    try:
        code = inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        code = getattr(function, "__qualname__", type(function).__qualname__)
    text = code + json.dumps(schema, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
