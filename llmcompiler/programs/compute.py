"""Pure code: expressions and statements without calls of tools, under limits.

The syntax tree is compiled to closures, one for each node. They work on Python's own values by
Python's own operators, so a program computes what CPython computes. Nothing is handed to ``eval``,
``exec`` or ``compile``. What a program can reach is decided by the tables in ``subset``.

Limits. Every turn of a loop, every element that a builtin walks over and every call of a helper
costs a step; every string and collection that an operation makes costs its length. Operations whose
result could be huge (powers, repetition, shifts, format widths, factorials) are measured before
they are carried out.
"""

from __future__ import annotations

import ast
import datetime
import difflib
import json
import math
import operator
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from llmcompiler.programs import subset

Env: TypeAlias = dict[str, Any]
"""Values of variables by name, while a statement runs."""

Code: TypeAlias = Callable[[Env], Any]
"""An expression or statement, compiled."""

MAX_BITS = 100_000
"""Bits of an integer that a program may compute."""

MAX_WIDTH = 10_000
"""Characters that a format may ask for."""


class CodeError(Exception):
    """Pure code cannot go on.

    Args:
        kind: the name of the exception that CPython raises, or of the limit.
        message: what it says.
        line: the line of the program; 0 where it is not known.
    """

    def __init__(self, kind: str, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.line = line


class LimitExceeded(Exception):
    """Pure code took more steps, memory or time than it may."""


class BreakLoop(Exception):
    """A ``break`` inside pure code."""


class ContinueLoop(Exception):
    """A ``continue`` inside pure code."""


class ReturnValue(Exception):
    """A ``return`` inside a pure helper function."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Meter:
    """Counts what pure code uses.

    Args:
        steps: most steps of one statement.
        size: most elements and characters that one statement makes.
        seconds: most seconds of one statement.
    """

    def __init__(
        self, steps: int = 1_000_000, size: int = 50_000_000, seconds: float = 5.0
    ) -> None:
        self.max_steps, self.max_size, self.max_seconds = steps, size, seconds
        self.reset()

    def reset(self) -> None:
        """Begin to count anew, for another statement."""
        self.steps = self.size = 0
        self._deadline = 0.0

    def step(self, count: int = 1) -> None:
        """Count steps.

        Raises:
            LimitExceeded: they are too many, or took too long.
        """
        self.steps += count
        if self.steps > self.max_steps:
            raise LimitExceeded(f"the code takes more than {self.max_steps:,} steps")
        if self.steps & 0xFFF == 0 or count > 0xFFF:
            now = time.monotonic()
            if not self._deadline:
                self._deadline = now + self.max_seconds
            elif now > self._deadline:
                raise LimitExceeded(f"the code takes longer than {self.max_seconds:g} s")

    def charge(self, size: int) -> None:
        """Count characters or elements that are made.

        Raises:
            LimitExceeded: they are too many.
        """
        self.size += size
        if self.size > self.max_size:
            raise LimitExceeded(f"the code makes values of more than {self.max_size:,} elements")


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_IN_PLACE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.iadd,
    ast.Sub: operator.isub,
    ast.Mult: operator.imul,
    ast.Div: operator.itruediv,
    ast.FloorDiv: operator.ifloordiv,
    ast.Mod: operator.imod,
    ast.Pow: operator.ipow,
    ast.LShift: operator.ilshift,
    ast.RShift: operator.irshift,
    ast.BitAnd: operator.iand,
    ast.BitOr: operator.ior,
    ast.BitXor: operator.ixor,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_SEQUENCES = (str, bytes, list, tuple)
_SIZED = (str, bytes, list, tuple, dict, set, frozenset)
_PERCENT_WIDTH = re.compile(r"%[-+ #0]*(\*|\d+)?(?:\.(\*|\d+))?")
_DIGITS = re.compile(r"\d+")

UNBOUND = object()
"""Stands for the value of a variable that has none."""


class Compiler:
    """Compiles syntax to closures.

    Args:
        meter: counts what the code uses.
        functions: pure helper functions of the program, by name; filled while it is read.
    """

    def __init__(self, meter: Meter, functions: dict[str, Helper] | None = None) -> None:
        self.meter = meter
        self.functions = functions if functions is not None else {}

    # Expressions.

    def expression(self, node: ast.expr) -> Code:
        """Compile an expression that holds no call of a tool."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise AssertionError(f"the reader let {type(node).__name__} pass")
        code: Code = method(node)
        return code

    def _constant(self, node: ast.Constant) -> Code:
        value = node.value
        return lambda env: value

    def _name(self, node: ast.Name) -> Code:
        name = node.id
        if name in self.functions:
            return lambda env: self.functions[name].bind(env)
        builtin = subset.BUILTINS.get(name, UNBOUND)

        def load(env: Env) -> Any:
            value = env.get(name, UNBOUND)
            if value is UNBOUND:
                if builtin is not UNBOUND:
                    return _callable_value(name, builtin, self)
                raise NameError(f"name '{name}' is not defined")
            return value

        return load

    def _attribute(self, node: ast.Attribute) -> Code:
        if (found := self._of_module(node)) is not None:
            return found
        base, name = self.expression(node.value), node.attr
        return lambda env: field_of(base(env), name)

    def _of_module(self, node: ast.Attribute) -> Code | None:
        """A constant or function of a module or type, where the name before the dot is one."""
        owner = resolve_global(node.value)
        if owner is None:
            return None
        value = resolve_global(node)
        if value is None:
            raise AssertionError("the reader let an unknown attribute of a module pass")
        return lambda env: value

    def _subscript(self, node: ast.Subscript) -> Code:
        base = self.expression(node.value)
        if isinstance(node.slice, ast.Slice):
            lower, upper, step = (
                self.expression(part) if part is not None else None
                for part in (node.slice.lower, node.slice.upper, node.slice.step)
            )

            def cut(env: Env) -> Any:
                value = base(env)
                piece = value[
                    slice(
                        lower(env) if lower else None,
                        upper(env) if upper else None,
                        step(env) if step else None,
                    )
                ]
                self._made(piece)
                return piece

            return cut
        index = self.expression(node.slice)
        return lambda env: base(env)[index(env)]

    def _binop(self, node: ast.BinOp) -> Code:
        return self.binary(
            _BINARY[type(node.op)], node.op, self.expression(node.left), self.expression(node.right)
        )

    def binary(
        self, function: Callable[[Any, Any], Any], op: ast.operator, left: Code, right: Code
    ) -> Code:
        """A binary operation, measured before it is carried out where its result may be huge."""
        if isinstance(op, ast.Pow | ast.LShift | ast.Mult):
            measure = _MEASURES[type(op)]

            def measured(env: Env) -> Any:
                one, two = left(env), right(env)
                measure(one, two)
                result = function(one, two)
                self._made(result)
                return result

            return measured
        if isinstance(op, ast.Mod):

            def remainder(env: Env) -> Any:
                one, two = left(env), right(env)
                if isinstance(one, str):
                    _measure_percent(one, two)
                    result = function(one, two)
                    self._made(result)
                    return result
                return function(one, two)

            return remainder
        if isinstance(op, ast.Div | ast.FloorDiv | ast.RShift):
            return lambda env: function(left(env), right(env))

        def plain(env: Env) -> Any:
            result = function(left(env), right(env))
            self._made(result)
            return result

        return plain

    def _made(self, value: Any) -> None:
        kind = type(value)
        if kind is int or kind is float or kind is bool:
            if kind is int and value.bit_length() > MAX_BITS:
                raise LimitExceeded(f"a number has more than {MAX_BITS:,} bits")
        elif kind in _SIZED:
            self.meter.charge(len(value))

    def _unaryop(self, node: ast.UnaryOp) -> Code:
        function, operand = _UNARY[type(node.op)], self.expression(node.operand)
        return lambda env: function(operand(env))

    def _boolop(self, node: ast.BoolOp) -> Code:
        parts = [self.expression(value) for value in node.values]
        stops_at = isinstance(node.op, ast.Or)

        def decide(env: Env) -> Any:
            value: Any = None
            for part in parts:
                value = part(env)
                if bool(value) is stops_at:
                    return value
            return value

        return decide

    def _compare(self, node: ast.Compare) -> Code:
        first = self.expression(node.left)
        if len(node.ops) == 1:
            function, second = _COMPARE[type(node.ops[0])], self.expression(node.comparators[0])
            return lambda env: function(first(env), second(env))
        steps = [
            (_COMPARE[type(op)], self.expression(right))
            for op, right in zip(node.ops, node.comparators, strict=True)
        ]

        def chain(env: Env) -> Any:
            left, result = first(env), True
            for function, right in steps:
                value = right(env)
                result = function(left, value)
                if not result:
                    return result
                left = value
            return result

        return chain

    def _ifexp(self, node: ast.IfExp) -> Code:
        test, body, orelse = map(self.expression, (node.test, node.body, node.orelse))
        return lambda env: body(env) if test(env) else orelse(env)

    def _joinedstr(self, node: ast.JoinedStr) -> Code:
        parts = [self.expression(value) for value in node.values]

        def join(env: Env) -> str:
            text = "".join([part(env) for part in parts])
            self.meter.charge(len(text))
            return text

        return join

    def _formattedvalue(self, node: ast.FormattedValue) -> Code:
        value = self.expression(node.value)
        convert = {-1: None, 115: str, 114: repr, 97: ascii}[node.conversion]
        spec = self.expression(node.format_spec) if node.format_spec is not None else None

        def render(env: Env) -> str:
            item = value(env)
            if convert is not None:
                item = convert(item)
            if spec is None:
                self._walk(item)
                return format(item)
            text = spec(env)
            if any(int(digits) > MAX_WIDTH for digits in _DIGITS.findall(text)):
                raise LimitExceeded(f"a format is wider than {MAX_WIDTH:,} characters")
            return format(item, text)

        return render

    def _list(self, node: ast.List) -> Code:
        return self._display(node.elts, list)

    def _tuple(self, node: ast.Tuple) -> Code:
        return self._display(node.elts, tuple)

    def _set(self, node: ast.Set) -> Code:
        return self._display(node.elts, set)

    def _display(self, items: Sequence[ast.expr], kind: Callable[[Any], Any]) -> Code:
        if any(isinstance(item, ast.Starred) for item in items):
            pieces = [
                (self.expression(item.value), True)
                if isinstance(item, ast.Starred)
                else (self.expression(item), False)
                for item in items
            ]

            def spread(env: Env) -> Any:
                out: list[Any] = []
                for code, is_starred in pieces:
                    if is_starred:
                        out.extend(self._walk(code(env)))
                    else:
                        out.append(code(env))
                self.meter.charge(len(out))
                return kind(out)

            return spread
        codes = [self.expression(item) for item in items]
        if kind is list:
            return lambda env: [code(env) for code in codes]
        return lambda env: kind([code(env) for code in codes])

    def _dict(self, node: ast.Dict) -> Code:
        pairs = [
            (self.expression(key) if key is not None else None, self.expression(value))
            for key, value in zip(node.keys, node.values, strict=True)
        ]

        def build(env: Env) -> dict[Any, Any]:
            out: dict[Any, Any] = {}
            for key, value in pairs:
                if key is None:
                    spread = value(env)
                    out.update(spread)
                    self.meter.charge(len(spread))
                else:
                    name = key(env)
                    out[name] = value(env)
            return out

        return build

    def _listcomp(self, node: ast.ListComp) -> Code:
        loop = self._comprehension(node.generators, self.expression(node.elt))
        return lambda env: list(loop(env))

    def _setcomp(self, node: ast.SetComp) -> Code:
        loop = self._comprehension(node.generators, self.expression(node.elt))
        return lambda env: set(loop(env))

    def _generatorexp(self, node: ast.GeneratorExp) -> Code:
        return self._comprehension(node.generators, self.expression(node.elt))

    def _dictcomp(self, node: ast.DictComp) -> Code:
        key, value = self.expression(node.key), self.expression(node.value)
        loop = self._comprehension(node.generators, lambda env: (key(env), value(env)))
        return lambda env: dict(loop(env))

    def _comprehension(
        self, generators: Sequence[ast.comprehension], element: Code
    ) -> Callable[[Env], Iterator[Any]]:
        """A generator of the elements. Its variables are unique, so they may stand in ``env``."""
        loops = [
            (
                self.expression(each.iter),
                self.target(each.target),
                [self.expression(condition) for condition in each.ifs],
            )
            for each in generators
        ]
        step, charge = self.meter.step, self.meter.charge

        def nest(env: Env, depth: int, source: Any) -> Iterator[Any]:
            _, assign, conditions = loops[depth]
            for item in source:
                step()
                assign(env, item)
                for condition in conditions:
                    if not condition(env):
                        break
                else:
                    if depth + 1 < len(loops):
                        yield from nest(env, depth + 1, loops[depth + 1][0](env))
                    else:
                        charge(1)
                        yield element(env)

        # The first source is read at once, as in CPython.
        return lambda env: nest(env, 0, iter(loops[0][0](env)))

    def _lambda(self, node: ast.Lambda) -> Code:
        names = [argument.arg for argument in node.args.args]
        body, step = self.expression(node.body), self.meter.step

        def make(env: Env) -> Callable[..., Any]:
            def call(*values: Any) -> Any:
                step()
                if len(values) != len(names):
                    raise TypeError(
                        f"the lambda takes {len(names)} arguments but {len(values)} were given"
                    )
                for name, value in zip(names, values, strict=True):
                    env[name] = value
                return body(env)

            return call

        return make

    # Calls of builtins, methods, helpers.

    def _call(self, node: ast.Call) -> Code:
        arguments = self._arguments(node)
        if isinstance(node.func, ast.Attribute) and resolve_global(node.func) is None:
            return self._method(node.func, arguments)
        if isinstance(node.func, ast.Name) and node.func.id in self.functions:
            helper = self.functions[node.func.id]

            def run(env: Env) -> Any:
                args, kwargs = arguments(env)
                return helper.bind(env)(*args, **kwargs)

            return run
        if isinstance(node.func, ast.Name):
            name, function = node.func.id, subset.BUILTINS[node.func.id]
        else:
            function = resolve_global(node.func)
            name = ast.unparse(node.func)
        guard = _GUARDS.get(function)

        def call(env: Env) -> Any:
            args, kwargs = arguments(env)
            return self.apply(name, function, guard, args, kwargs)

        return call

    def apply(
        self,
        name: str,
        function: Callable[..., Any],
        guard: Callable[..., Any] | None,
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call a builtin under the limits."""
        self.meter.step()
        if guard is not None:
            guard(self, *args, **kwargs)
        walked = [self._walk(value) for value in args]
        if function is isinstance:
            walked = [walked[0], _types(args[1])] if len(args) == 2 else walked
        result = function(*walked, **kwargs)
        self._made(result)
        return result

    def _walk(self, value: Any) -> Any:
        """Count a collection as walked over, before something walks over it."""
        kind = type(value)
        if kind in _SIZED or kind is range:
            self.meter.step(len(value) // 16)
            if kind is range and len(value) > self.meter.max_steps:
                raise LimitExceeded(f"a range has more than {self.meter.max_steps:,} numbers")
        return value

    def _method(
        self,
        node: ast.Attribute,
        arguments: Callable[[Env], tuple[list[Any], dict[str, Any]]],
    ) -> Code:
        base, name = self.expression(node.value), node.attr

        def call(env: Env) -> Any:
            owner = base(env)
            kind = type(owner)
            if name not in subset.METHODS.get(kind, ()):
                raise AttributeError(_no_method(owner, name))
            args, kwargs = arguments(env)
            self.meter.step()
            if kind is str:
                _guard_text(self, owner, name, args)
            for value in args:
                self._walk(value)
            result = getattr(owner, name)(*args, **kwargs)
            self._made(result)
            return result

        return call

    def _arguments(self, node: ast.Call) -> Callable[[Env], tuple[list[Any], dict[str, Any]]]:
        plain = all(not isinstance(item, ast.Starred) for item in node.args)
        codes = [
            self.expression(item.value if isinstance(item, ast.Starred) else item)
            for item in node.args
        ]
        starred = [isinstance(item, ast.Starred) for item in node.args]
        names = [(keyword.arg, self.expression(keyword.value)) for keyword in node.keywords]

        def read(env: Env) -> tuple[list[Any], dict[str, Any]]:
            if plain:
                args = [code(env) for code in codes]
            else:
                args = []
                for code, is_starred in zip(codes, starred, strict=True):
                    if is_starred:
                        args.extend(self._walk(code(env)))
                    else:
                        args.append(code(env))
            kwargs: dict[str, Any] = {}
            for name, value in names:
                if name is None:
                    kwargs.update(value(env))
                else:
                    kwargs[name] = value(env)
            return args, kwargs

        return read

    # Targets and statements.

    def target(self, node: ast.expr) -> Callable[[Env, Any], None]:
        """What an assignment does with its value."""
        if isinstance(node, ast.Name):
            name = node.id

            def bind(env: Env, value: Any) -> None:
                env[name] = value

            return bind
        if isinstance(node, ast.Subscript):
            base, index = self.expression(node.value), self.expression(node.slice)

            def store(env: Env, value: Any) -> None:
                self.meter.charge(1)
                base(env)[index(env)] = value

            return store
        if isinstance(node, ast.Attribute):
            owner, key = self.expression(node.value), node.attr

            def put(env: Env, value: Any) -> None:
                record = owner(env)
                if type(record) is not dict:
                    raise AttributeError(f"'{type(record).__name__}' has no field '{key}'")
                record[key] = value

            return put
        assert isinstance(node, ast.Tuple | ast.List)
        return self._unpack(node.elts)

    def _unpack(self, items: Sequence[ast.expr]) -> Callable[[Env, Any], None]:
        at = next((n for n, item in enumerate(items) if isinstance(item, ast.Starred)), None)
        targets = [
            self.target(item.value if isinstance(item, ast.Starred) else item) for item in items
        ]

        def assign(env: Env, value: Any) -> None:
            try:
                values = list(self._walk(value))
            except TypeError:
                raise TypeError(
                    f"cannot unpack non-iterable {type(value).__name__} object"
                ) from None
            if at is None:
                if len(values) < len(targets):
                    raise ValueError(
                        f"not enough values to unpack (expected {len(targets)}, got {len(values)})"
                    )
                if len(values) > len(targets):
                    raise ValueError(f"too many values to unpack (expected {len(targets)})")
            else:
                after = len(targets) - at - 1
                if len(values) < len(targets) - 1:
                    raise ValueError(
                        f"not enough values to unpack (expected at least {len(targets) - 1}, "
                        f"got {len(values)})"
                    )
                stop = len(values) - after
                values = [*values[:at], values[at:stop], *values[stop:]]
            for each, item in zip(targets, values, strict=True):
                each(env, item)

        return assign

    def block(self, statements: Sequence[ast.stmt]) -> Code:
        """Compile statements that hold no call of a tool."""
        codes = [self.statement(node) for node in statements]
        if len(codes) == 1:
            return codes[0]

        def run(env: Env) -> None:
            for code in codes:
                code(env)

        return run

    def statement(self, node: ast.stmt) -> Code:
        """Compile one statement that holds no call of a tool."""
        code: Code = getattr(self, f"_do_{type(node).__name__.lower()}")(node)
        line = node.lineno

        def run(env: Env) -> None:
            try:
                code(env)
            except (CodeError, BreakLoop, ContinueLoop, ReturnValue):
                raise
            except Exception as error:  # noqa: BLE001
                raise as_code_error(error, line) from None

        return run

    def _do_assign(self, node: ast.Assign) -> Code:
        value = self.expression(node.value)
        targets = [self.target(each) for each in node.targets]
        if len(targets) == 1:
            (only,) = targets
            return lambda env: only(env, value(env))

        def assign(env: Env) -> None:
            result = value(env)
            for each in targets:
                each(env, result)

        return assign

    def _do_augassign(self, node: ast.AugAssign) -> Code:
        function = _IN_PLACE[type(node.op)]
        right = self.expression(node.value)
        if isinstance(node.target, ast.Name):
            load, store = self._name(node.target), self.target(node.target)
            change = self.binary(function, node.op, load, right)
            return lambda env: store(env, change(env))
        place = node.target
        assert isinstance(place, ast.Subscript | ast.Attribute)
        base = self.expression(place.value)
        key: Code
        if isinstance(place, ast.Subscript):
            key = self.expression(place.slice)
        else:
            name = place.attr
            key = lambda env: name  # noqa: E731
        op = node.op

        def update(env: Env) -> None:
            owner = base(env)
            index = key(env)
            if isinstance(place, ast.Attribute) and type(owner) is not dict:
                raise AttributeError(f"'{type(owner).__name__}' has no field '{index}'")
            old = owner[index]
            owner[index] = self.binary(function, op, lambda _: old, right)(env)

        return update

    def _do_expr(self, node: ast.Expr) -> Code:
        return self.expression(node.value)

    def _do_pass(self, node: ast.Pass) -> Code:
        return lambda env: None

    def _do_assert(self, node: ast.Assert) -> Code:
        test = self.expression(node.test)
        message = self.expression(node.msg) if node.msg is not None else None

        def check(env: Env) -> None:
            if not test(env):
                raise AssertionError(message(env)) if message is not None else AssertionError()

        return check

    def _do_if(self, node: ast.If) -> Code:
        test, body = self.expression(node.test), self.block(node.body)
        orelse = self.block(node.orelse) if node.orelse else None

        def choose(env: Env) -> None:
            if test(env):
                body(env)
            elif orelse is not None:
                orelse(env)

        return choose

    def _do_for(self, node: ast.For) -> Code:
        source, assign = self.expression(node.iter), self.target(node.target)
        body = self.block(node.body)
        orelse = self.block(node.orelse) if node.orelse else None

        def loop(env: Env) -> None:
            for item in source(env):
                self.meter.step()
                assign(env, item)
                try:
                    body(env)
                except BreakLoop:
                    return
                except ContinueLoop:
                    continue
            if orelse is not None:
                orelse(env)

        return loop

    def _do_while(self, node: ast.While) -> Code:
        test, body = self.expression(node.test), self.block(node.body)
        orelse = self.block(node.orelse) if node.orelse else None

        def loop(env: Env) -> None:
            while test(env):
                self.meter.step()
                try:
                    body(env)
                except BreakLoop:
                    return
                except ContinueLoop:
                    continue
            if orelse is not None:
                orelse(env)

        return loop

    def _do_break(self, node: ast.Break) -> Code:
        def stop(env: Env) -> None:
            raise BreakLoop

        return stop

    def _do_continue(self, node: ast.Continue) -> Code:
        def go_on(env: Env) -> None:
            raise ContinueLoop

        return go_on

    def _do_return(self, node: ast.Return) -> Code:
        value = self.expression(node.value) if node.value is not None else None

        def leave(env: Env) -> None:
            raise ReturnValue(value(env) if value is not None else None)

        return leave


class Helper:
    """A pure helper function of a program.

    Args:
        name: its name.
        parameters: names of its parameters, in order, as they stand in the environment.
        names: the same names as the program spells them.
        defaults: values of the last parameters, compiled.
        body: its statements, compiled.
        local: names that it assigns.
        meter: counts its calls.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[str],
        names: Sequence[str],
        defaults: Sequence[Code],
        body: Code,
        local: frozenset[str],
        meter: Meter,
    ) -> None:
        self.name = name
        self._parameters = list(parameters)
        self._names = list(names)
        self._defaults = list(defaults)
        self._body = body
        self._local = local
        self._meter = meter

    def fill(self, body: Code, defaults: Sequence[Code]) -> None:
        """Give the function its code, once the functions that it may call are known."""
        self._body, self._defaults = body, list(defaults)

    def bind(self, env: Env) -> Callable[..., Any]:
        """The function, for a place of the program where the variables are those of ``env``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._meter.step()
            values = self._values(env, args, kwargs)
            for name in self._local:
                env.pop(name, None)
            env.update(values)
            try:
                self._body(env)
            except ReturnValue as result:
                return result.value
            return None

        return call

    def _values(self, env: Env, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        if len(args) > len(self._parameters):
            raise TypeError(
                f"{self.name}() takes {len(self._parameters)} positional arguments but "
                f"{len(args)} were given"
            )
        values = dict(zip(self._parameters, args, strict=False))
        for name, value in kwargs.items():
            if name not in self._names:
                raise TypeError(f"{self.name}() got an unexpected keyword argument '{name}'")
            inner = self._parameters[self._names.index(name)]
            if inner in values:
                raise TypeError(f"{self.name}() got multiple values for argument '{name}'")
            values[inner] = value
        first = len(self._parameters) - len(self._defaults)
        for number, name in enumerate(self._parameters):
            if name not in values:
                if number < first:
                    raise TypeError(
                        f"{self.name}() missing a required argument: '{self._names[number]}'"
                    )
                values[name] = self._defaults[number - first](env)
        return values


def resolve_global(node: ast.expr) -> Any:
    """The function, type or constant that a dotted name of a module means; ``None`` for none."""
    if isinstance(node, ast.Name):
        if node.id.startswith("%module."):
            return subset.MODULES[node.id.removeprefix("%module.")]
        if node.id in ("str", "dict"):
            return subset.BUILTINS[node.id]
        return None
    if not isinstance(node, ast.Attribute):
        return None
    owner = resolve_global(node.value)
    if owner is None:
        return None
    if isinstance(owner, subset.Module):
        found = owner.functions.get(node.attr)
        return found if found is not None else owner.constants.get(node.attr)
    try:
        names = subset.TYPE_FUNCTIONS.get(owner, frozenset())
    except TypeError:
        return None
    return getattr(owner, node.attr) if node.attr in names else None


def field_of(value: Any, name: str) -> Any:
    """The field of a record, or an attribute of a date.

    Raises:
        AttributeError: there is none; the message says what there is.
    """
    if type(value) is dict:
        if name in value:
            return value[name]
        near = difflib.get_close_matches(name, map(str, value), n=1)
        known = ", ".join(map(str, list(value)[:12]))
        hint = f"; did you mean '{near[0]}'?" if near else f"; it has {known}" if known else ""
        raise AttributeError(f"the record has no field '{name}'{hint}")
    if name in subset.FIELDS.get(type(value), ()):
        return getattr(value, name)
    raise AttributeError(f"'{type(value).__name__}' object has no attribute '{name}'")


def as_code_error(error: Exception, line: int) -> CodeError:
    """What CPython's exception is for the reader of a program."""
    if isinstance(error, LimitExceeded):
        return CodeError("LimitReached", str(error), line)
    if isinstance(error, RecursionError):
        return CodeError("LimitReached", "a value is nested too deeply", line)
    if isinstance(error, MemoryError):
        return CodeError("LimitReached", "the code needs too much memory", line)
    return CodeError(type(error).__name__, str(error), line)


def _no_method(owner: Any, name: str) -> str:
    kind = type(owner).__name__
    known = subset.METHODS.get(type(owner), frozenset())
    near = difflib.get_close_matches(name, known, n=1)
    if name == "format" and kind == "str":
        return "'str' has no method 'format' here; use an f-string"
    return f"'{kind}' has no method '{name}' here" + (
        f"; did you mean '{near[0]}'?" if near else ""
    )


def _types(value: Any) -> Any:
    """The types that ``isinstance`` is asked about: the builtins that stand for them."""
    if isinstance(value, tuple):
        return tuple(_types(item) for item in value)
    return getattr(value, "builtin", value)


def _callable_value(name: str, builtin: Any, compiler: Compiler) -> Any:
    """A builtin as a value, such as ``key=len``: called under the same limits."""
    guard = _GUARDS.get(builtin)

    def call(*args: Any, **kwargs: Any) -> Any:
        return compiler.apply(name, builtin, guard, args, kwargs)

    call.builtin = builtin  # type: ignore[attr-defined]
    call.__name__ = name
    return call


# Measures, before an operation is carried out.


def _measure_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        if abs(base) > 1 and base.bit_length() * exponent > MAX_BITS:
            raise LimitExceeded(f"a number has more than {MAX_BITS:,} bits")


def _measure_shift(value: Any, count: Any) -> None:
    if isinstance(value, int) and isinstance(count, int) and value:
        if value.bit_length() + count > MAX_BITS:
            raise LimitExceeded(f"a number has more than {MAX_BITS:,} bits")


def _measure_product(left: Any, right: Any) -> None:
    for items, count in ((left, right), (right, left)):
        if isinstance(items, _SEQUENCES) and isinstance(count, int):
            if len(items) * count > 10_000_000:
                raise LimitExceeded("a repetition makes more than 10,000,000 elements")


def _measure_percent(pattern: str, values: Any) -> None:
    numbers = (
        [value for value in values if isinstance(value, int)] if isinstance(values, tuple) else []
    )
    for match in _PERCENT_WIDTH.finditer(pattern):
        for group in match.groups():
            if group == "*":
                if any(abs(number) > MAX_WIDTH for number in numbers):
                    raise LimitExceeded(f"a format is wider than {MAX_WIDTH:,} characters")
            elif group and int(group) > MAX_WIDTH:
                raise LimitExceeded(f"a format is wider than {MAX_WIDTH:,} characters")


_MEASURES: dict[type[ast.operator], Callable[[Any, Any], None]] = {
    ast.Pow: _measure_power,
    ast.LShift: _measure_shift,
    ast.Mult: _measure_product,
}


def _guard_text(compiler: Compiler, owner: str, name: str, args: Sequence[Any]) -> None:
    """Measure the result of a method of a string."""
    if name in ("center", "ljust", "rjust", "zfill") and args and isinstance(args[0], int):
        if args[0] > MAX_WIDTH:
            raise LimitExceeded(f"a text is padded to more than {MAX_WIDTH:,} characters")
    elif name == "replace" and len(args) >= 2 and isinstance(args[1], str):
        found = owner.count(args[0]) if isinstance(args[0], str) else 0
        compiler.meter.charge(len(owner) + found * len(args[1]))
    elif name == "join" and args and type(args[0]) in (list, tuple, set):
        items = args[0]
        compiler.meter.charge(
            sum(len(item) for item in items if isinstance(item, str)) + len(owner) * len(items)
        )


def _guard_factorial(compiler: Compiler, *args: Any, **_: Any) -> None:
    if any(isinstance(value, int) and value > 10_000 for value in args):
        raise LimitExceeded("the number is larger than 10,000")


def _guard_power(compiler: Compiler, *args: Any, **kwargs: Any) -> None:
    values = [*args, *kwargs.values()]
    if len(values) == 2:
        _measure_power(*values)


def _guard_pattern(compiler: Compiler, *args: Any, **_: Any) -> None:
    check_pattern(args[0] if args else "", args[-1] if len(args) > 1 else "")


def _guard_json(compiler: Compiler, *args: Any, **kwargs: Any) -> None:
    if set(kwargs) - {"indent", "sort_keys", "ensure_ascii", "separators"}:
        raise TypeError("json takes indent, sort_keys, ensure_ascii and separators here")
    indent = kwargs.get("indent")
    if (isinstance(indent, int) and indent > 16) or (isinstance(indent, str) and len(indent) > 16):
        raise LimitExceeded("an indent is wider than 16")


_GUARDS: dict[Any, Callable[..., Any]] = {
    pow: _guard_power,
    math.factorial: _guard_factorial,
    math.comb: _guard_factorial,
    math.perm: _guard_factorial,
    json.dumps: _guard_json,
    json.loads: _guard_json,
    **{
        getattr(re, name): _guard_pattern
        for name in ("findall", "fullmatch", "match", "search", "split", "sub")
    },
}

_REPEAT = re.compile(r"[*+]|\{\d*,\d*\}")


def check_pattern(pattern: Any, text: Any) -> None:
    """Refuse a regular expression that may take very long on a text.

    Python's engine goes back and tries again, so a repetition inside a repetition takes
    exponential time, and each further one multiplies the time by the text's length.

    Raises:
        LimitExceeded: it may.
    """
    if not isinstance(pattern, str):
        return
    if len(pattern) > 500:
        raise LimitExceeded("a regular expression has more than 500 characters")
    size = len(text) if isinstance(text, str) else 0
    if size > 1_000_000:
        raise LimitExceeded(
            "a regular expression is matched against more than 1,000,000 characters"
        )
    bare = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", pattern)
    depth, repeats_in = 0, [0]
    for at, char in enumerate(bare):
        if char == "(":
            depth += 1
            repeats_in.append(0)
        elif char == ")" and depth:
            depth -= 1
            inner = repeats_in.pop()
            follows = _REPEAT.match(bare, at + 1)
            if inner and follows:
                raise LimitExceeded("a regular expression repeats a repetition")
            if follows and "|" in bare[bare.rfind("(", 0, at) : at]:
                raise LimitExceeded("a regular expression repeats a choice")
            repeats_in[-1] += inner
        elif _REPEAT.match(bare, at):
            repeats_in[-1] += 1
    repeats = sum(repeats_in)
    if repeats > 1 and size**repeats > 10**9:
        raise LimitExceeded(f"a regular expression with {repeats} repetitions meets a long text")


DATE_TYPES = (datetime.date, datetime.datetime, datetime.time, datetime.timedelta)
"""Types of values that are written as text where JSON is wanted."""
