"""Pure expressions: compiled to closures, which run under limits.

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
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmcompiler.programs import subset
from llmcompiler.programs.guards import GUARDS, MEASURES, measure_percent, measure_text
from llmcompiler.programs.helper import CompiledCode, Env, Helper
from llmcompiler.programs.meter import MAX_BITS, MAX_WIDTH, LimitExceeded, Meter, weigh
from llmcompiler.programs.operators import BINARY_OPERATORS, COMPARISONS, UNARY_OPERATORS
from llmcompiler.programs.values import (
    UNBOUND,
    builtin_types,
    field_of,
    no_method,
    resolve_global,
)

_SIZED = (str, bytes, list, tuple, dict, set, frozenset)
_COMPARED_DEEPLY = (list, tuple, dict, set, frozenset, range)
_DIGITS = re.compile(r"\d+")


class ExpressionCompiler:
    """Compiles syntax to closures.

    Args:
        meter: counts what the code uses.
        functions: pure helper functions of the program, by name; filled while it is read.
    """

    def __init__(self, meter: Meter, functions: dict[str, Helper] | None = None) -> None:
        self.meter = meter
        self.functions = functions if functions is not None else {}

    # Expressions.

    def expression(self, node: ast.expr) -> CompiledCode:
        """Compile an expression that holds no call of a tool."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise AssertionError(f"the reader let {type(node).__name__} pass")
        code: CompiledCode = method(node)
        return code

    def _constant(self, node: ast.Constant) -> CompiledCode:
        value = node.value
        return lambda env: value

    def _name(self, node: ast.Name) -> CompiledCode:
        name = node.id
        if name in self.functions:
            return self.functions[name].bind
        builtin = subset.BUILTINS.get(name, UNBOUND)

        def load(env: Env) -> Any:
            value = env.get(name, UNBOUND)
            if value is UNBOUND:
                if builtin is not UNBOUND:
                    return _callable_value(name, builtin, self)
                raise NameError(f"name '{name}' is not defined")
            return value

        return load

    def _attribute(self, node: ast.Attribute) -> CompiledCode:
        if (code := self._of_module(node)) is not None:
            return code
        base, name = self.expression(node.value), node.attr
        return lambda env: field_of(base(env), name)

    def _of_module(self, node: ast.Attribute) -> CompiledCode | None:
        """A constant or function of a module or type, where the name before the dot is one."""
        owner = resolve_global(node.value)
        if owner is None:
            return None
        value = resolve_global(node)
        if value is None:
            raise AssertionError("the reader let an unknown attribute of a module pass")
        if callable(value):
            value = _callable_value(ast.unparse(node), value, self)
        return lambda env: value

    def _subscript(self, node: ast.Subscript) -> CompiledCode:
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

    def _binop(self, node: ast.BinOp) -> CompiledCode:
        return self.binary(
            BINARY_OPERATORS[type(node.op)],
            node.op,
            self.expression(node.left),
            self.expression(node.right),
        )

    def binary(
        self,
        function: Callable[[Any, Any], Any],
        op: ast.operator,
        first: CompiledCode,
        second: CompiledCode,
    ) -> CompiledCode:
        """A binary operation, measured before it is carried out where its result may be huge."""
        if isinstance(op, ast.Pow | ast.LShift | ast.Mult):
            measure = MEASURES[type(op)]

            def measured(env: Env) -> Any:
                left_value, right_value = first(env), second(env)
                measure(left_value, right_value)
                result = function(left_value, right_value)
                self._made(result)
                return result

            return measured
        if isinstance(op, ast.Mod):

            def remainder(env: Env) -> Any:
                left_value, right_value = first(env), second(env)
                if isinstance(left_value, str):
                    measure_percent(left_value, right_value)
                    weigh(self.meter, right_value)
                    result = function(left_value, right_value)
                    self._made(result)
                    return result
                return function(left_value, right_value)

            return remainder
        if isinstance(op, ast.Div | ast.FloorDiv | ast.RShift):
            return lambda env: function(first(env), second(env))

        def plain(env: Env) -> Any:
            result = function(first(env), second(env))
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
            if kind is tuple:
                weigh(self.meter, value)  # a tuple may become a key, which visits all parts

    def _unaryop(self, node: ast.UnaryOp) -> CompiledCode:
        function, operand = UNARY_OPERATORS[type(node.op)], self.expression(node.operand)
        return lambda env: function(operand(env))

    def _boolop(self, node: ast.BoolOp) -> CompiledCode:
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

    def _compare(self, node: ast.Compare) -> CompiledCode:
        first = self.expression(node.left)
        if len(node.ops) == 1:
            function, second = COMPARISONS[type(node.ops[0])], self.expression(node.comparators[0])
            return self._comparison(type(node.ops[0]), function, first, second)
        steps = [
            (COMPARISONS[type(op)], self.expression(right))
            for op, right in zip(node.ops, node.comparators, strict=True)
        ]

        def chain(env: Env) -> Any:
            previous, result = first(env), True
            for function, right in steps:
                value = right(env)
                self._measure_comparison(previous, value)
                result = function(previous, value)
                if not result:
                    return result
                previous = value
            return result

        return chain

    def _comparison(
        self,
        op: type[ast.cmpop],
        function: Callable[[Any, Any], Any],
        first: CompiledCode,
        second: CompiledCode,
    ) -> CompiledCode:
        if op in (ast.Is, ast.IsNot):
            return lambda env: function(first(env), second(env))

        def compare(env: Env) -> Any:
            left, right = first(env), second(env)
            if type(right) in _COMPARED_DEEPLY:
                self._measure_comparison(left, right)
            return function(left, right)

        return compare

    def _measure_comparison(self, left: Any, right: Any) -> None:
        """Measure a comparison that may visit all parts of both values."""
        if type(right) is range:
            if type(left) is not int:
                self._walk(right)
        elif type(left) in _COMPARED_DEEPLY and type(right) in _COMPARED_DEEPLY:
            weigh(self.meter, left, right)

    def _ifexp(self, node: ast.IfExp) -> CompiledCode:
        test, body, orelse = map(self.expression, (node.test, node.body, node.orelse))
        return lambda env: body(env) if test(env) else orelse(env)

    def _joinedstr(self, node: ast.JoinedStr) -> CompiledCode:
        parts = [self.expression(value) for value in node.values]

        def join(env: Env) -> str:
            text = "".join([part(env) for part in parts])
            self.meter.charge(len(text))
            return text

        return join

    def _formattedvalue(self, node: ast.FormattedValue) -> CompiledCode:
        value = self.expression(node.value)
        convert = {-1: None, 115: str, 114: repr, 97: ascii}[node.conversion]
        spec = self.expression(node.format_spec) if node.format_spec is not None else None

        def render(env: Env) -> str:
            item = value(env)
            if type(item) in _COMPARED_DEEPLY:
                weigh(self.meter, item)
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

    def _list(self, node: ast.List) -> CompiledCode:
        return self._display(node.elts, list)

    def _tuple(self, node: ast.Tuple) -> CompiledCode:
        return self._display(node.elts, tuple)

    def _set(self, node: ast.Set) -> CompiledCode:
        return self._display(node.elts, set)

    def _display(self, items: Sequence[ast.expr], kind: Callable[[Any], Any]) -> CompiledCode:
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

        def make(env: Env) -> Any:
            made = kind([code(env) for code in codes])
            if kind is tuple:
                weigh(self.meter, made)
            return made

        return make

    def _dict(self, node: ast.Dict) -> CompiledCode:
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

    def _listcomp(self, node: ast.ListComp) -> CompiledCode:
        loop = self._comprehension(node.generators, self.expression(node.elt))
        return lambda env: list(loop(env))

    def _setcomp(self, node: ast.SetComp) -> CompiledCode:
        loop = self._comprehension(node.generators, self.expression(node.elt))
        return lambda env: set(loop(env))

    def _generatorexp(self, node: ast.GeneratorExp) -> CompiledCode:
        return self._comprehension(node.generators, self.expression(node.elt))

    def _dictcomp(self, node: ast.DictComp) -> CompiledCode:
        key, value = self.expression(node.key), self.expression(node.value)
        loop = self._comprehension(node.generators, lambda env: (key(env), value(env)))
        return lambda env: dict(loop(env))

    def _comprehension(
        self, generators: Sequence[ast.comprehension], element: CompiledCode
    ) -> Callable[[Env], Iterator[Any]]:
        """A generator of the elements. Its variables are unique, so they may stand in ``env``."""
        loops = [
            (
                self.expression(generator.iter),
                self.target(generator.target),
                [self.expression(condition) for condition in generator.ifs],
            )
            for generator in generators
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

    def _lambda(self, node: ast.Lambda) -> CompiledCode:
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

    def _call(self, node: ast.Call) -> CompiledCode:
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
        guard = GUARDS.get(function)

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
            guard(self.meter, *args, **kwargs)
        walked = [self._walk(value) for value in args]
        if function is isinstance:
            walked = [walked[0], builtin_types(args[1])] if len(args) == 2 else walked
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
    ) -> CompiledCode:
        base, name = self.expression(node.value), node.attr

        def call(env: Env) -> Any:
            owner = base(env)
            kind = type(owner)
            if name not in subset.METHODS.get(kind, ()):
                raise AttributeError(no_method(owner, name))
            args, kwargs = arguments(env)
            self.meter.step()
            if kind is str:
                measure_text(self.meter, owner, name, args)
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

    # Targets of assignments and loops.

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
            for assign_item, item in zip(targets, values, strict=True):
                assign_item(env, item)

        return assign


def _callable_value(name: str, builtin: Any, compiler: ExpressionCompiler) -> Any:
    """A builtin as a value, such as ``key=len``: called under the same limits."""
    guard = GUARDS.get(builtin)

    def call(*args: Any, **kwargs: Any) -> Any:
        return compiler.apply(name, builtin, guard, args, kwargs)

    call.builtin = builtin  # type: ignore[attr-defined]
    call.__name__ = name
    return call
