"""Lowers expressions: a call of a tool moves in front of its statement."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Sequence

from llmcompiler.programs.facts import HelperSource, ProgramIssue, ToolFacts
from llmcompiler.programs.name_table import NameTable
from llmcompiler.programs.names import (
    RenameVariables,
    nearest_name,
)
from llmcompiler.programs.statements import (
    Choose,
    Compute,
    Each,
    Exit,
    Inline,
    Invoke,
    Statement,
    Turn,
)


class ExpressionLowering(NameTable):
    """Lowers expressions; statements that come out of them go to ``_out``."""

    def _block(self, nodes: Sequence[ast.stmt], *, top: bool = False) -> list[Statement]:
        raise NotImplementedError

    def _emit(self, statement: Statement) -> None:
        self._out.append(statement)

    def _pure(self, node: ast.stmt) -> None:
        """Emit pure code, together with pure code right before it that it follows in one line."""
        ast.fix_missing_locations(node)
        self._emit(Compute(node.lineno, nodes=(node,)))

    def _target(self, target: ast.expr) -> ast.expr:
        match target:
            case ast.Name():
                return target
            case ast.Tuple(elts=items) | ast.List(elts=items):
                elts = [self._target(item) for item in items]
                return ast.copy_location(ast.Tuple(elts=elts, ctx=ast.Store()), target)
            case ast.Starred(value=value):
                inner = self._target(value)
                return ast.copy_location(ast.Starred(value=inner, ctx=ast.Store()), target)
            case ast.Subscript():
                base, index = self._in_order([target.value, target.slice])
                new: ast.expr = ast.Subscript(value=base, slice=index, ctx=ast.Store())
                return ast.copy_location(new, target)
            case ast.Attribute():
                new = ast.Attribute(
                    value=self._expr(target.value), attr=target.attr, ctx=ast.Store()
                )
                return ast.copy_location(new, target)
        raise ProgramIssue("E501", "this cannot be assigned to", target)

    def _each(
        self,
        node: ast.stmt | ast.expr,
        source: ast.expr,
        target: ast.expr,
        body: Callable[[], list[Statement]],
        orelse: Sequence[ast.stmt] = (),
    ) -> None:
        item = self._temporary()
        number = next(self._numbers)
        self._loops += 1
        try:
            outer, self._out = self._out, []
            load = ast.Name(id=item, ctx=ast.Load())
            assign = ast.Assign(targets=[self._target(target)], value=load)
            self._pure(ast.copy_location(assign, node))
            bind, self._out = self._out, outer
            inner = bind + body()
        finally:
            self._loops -= 1
        self._emit(
            Each(
                node.lineno,
                number=number,
                source=source,
                item=item,
                turn=Turn(node.lineno, body=inner),
                orelse=self._block(orelse),
            )
        )

    def _inline(self, helper: HelperSource, node: ast.Call, target: str) -> None:
        name = helper.node.name
        if name in self._inlining:
            raise ProgramIssue("E503", f"{name} calls itself", node, "use a loop instead")
        if len(self._inlining) > 20:
            raise ProgramIssue("E503", "helper functions call each other too deeply", node)
        suffix = f"%{name}.{next(self._temporaries)}"
        rename = {local: local + suffix for local in helper.local}
        values = self._bind(helper.node, node)
        for parameter, value in values.items():
            bind = ast.Assign(
                targets=[ast.Name(id=rename[parameter], ctx=ast.Store())], value=value
            )
            self._pure(ast.copy_location(bind, node))
        copied = [RenameVariables(rename).visit(copy.deepcopy(stmt)) for stmt in helper.node.body]
        self._inlining.append(name)
        loops, self._loops = self._loops, self._loops
        try:
            body = self._block(copied)
        finally:
            self._inlining.pop()
            self._loops = loops
        self._emit(Inline(node.lineno, name=name, body=body, result=target))

    def _bind(self, helper: ast.FunctionDef, node: ast.Call) -> dict[str, ast.expr]:
        """Arguments of a call of a helper, by parameter, evaluated in the order written."""
        parameters = [argument.arg for argument in helper.args.args]
        if any(isinstance(item, ast.Starred) for item in node.args) or any(
            keyword.arg is None for keyword in node.keywords
        ):
            raise ProgramIssue("E504", f"{helper.name}() takes no * or ** here", node)
        if len(node.args) > len(parameters):
            raise ProgramIssue("E504", f"{helper.name}() takes {len(parameters)} arguments", node)
        pure = self._in_order([*node.args, *(keyword.value for keyword in node.keywords)])
        values = dict(zip(parameters, pure, strict=False))
        values = {name: values[name] for name in parameters[: len(node.args)]}
        for keyword, value in zip(node.keywords, pure[len(node.args) :], strict=True):
            assert keyword.arg is not None
            if keyword.arg not in parameters or keyword.arg in values:
                raise ProgramIssue(
                    "E504",
                    f"{helper.name}() cannot take {keyword.arg}",
                    node,
                    nearest_name(keyword.arg, parameters),
                )
            values[keyword.arg] = value
        first = len(parameters) - len(helper.args.defaults)
        for number, name in enumerate(parameters):
            if name not in values:
                if number < first:
                    raise ProgramIssue("E504", f"{helper.name}() needs {name}", node)
                values[name] = self._expr(copy.deepcopy(helper.args.defaults[number - first]))
        return values

    # Expressions.

    def _expr(self, node: ast.expr) -> ast.expr:
        """The pure expression that is left once all calls have moved in front of it."""
        if not self._calls(node):
            return self._checked(node)
        match node:
            case ast.Call():
                return self._call(node)
            case ast.BoolOp():
                return self._boolean(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp():
                return self._conditional(node)
            case ast.JoinedStr():
                return self._text(node)
            case ast.Dict():
                return self._dict(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp():
                return self._comprehension(node)
            case ast.GeneratorExp(elt=element, generators=generators):
                listed = ast.ListComp(elt=element, generators=generators)
                return self._comprehension(ast.copy_location(listed, node))
            case ast.Lambda():
                raise ProgramIssue(
                    "E505",
                    "a tool cannot be called inside a lambda",
                    node,
                    "call it in a loop before",
                )
        return ast.copy_location(self._composed(node), node)

    def _composed(self, node: ast.expr) -> ast.expr:
        """An expression whose parts CPython evaluates from left to right."""
        match node:
            case ast.Attribute(value=value, attr=name):
                return ast.Attribute(value=self._expr(value), attr=name, ctx=ast.Load())
            case ast.Subscript():
                base, index = self._in_order([node.value, node.slice])
                return ast.Subscript(value=base, slice=index, ctx=ast.Load())
            case ast.Slice():
                parts = [part for part in (node.lower, node.upper, node.step) if part is not None]
                pure = iter(self._in_order(parts))
                lower, upper, step = (
                    next(pure) if part is not None else None
                    for part in (node.lower, node.upper, node.step)
                )
                return ast.Slice(lower=lower, upper=upper, step=step)
            case ast.BinOp():
                first, second = self._in_order([node.left, node.right])
                return ast.BinOp(left=first, op=node.op, right=second)
            case ast.UnaryOp():
                return ast.UnaryOp(op=node.op, operand=self._expr(node.operand))
            case ast.List() | ast.Tuple():
                return type(node)(elts=self._in_order(node.elts), ctx=ast.Load())
            case ast.Set():
                return ast.Set(elts=self._in_order(node.elts))
            case ast.Starred():
                return ast.Starred(value=self._expr(node.value), ctx=ast.Load())
        raise AssertionError(f"the shape check let {type(node).__name__} pass")

    def _in_order(self, nodes: Sequence[ast.expr]) -> list[ast.expr]:
        """Lower expressions that CPython evaluates from left to right."""
        last = max((n for n, node in enumerate(nodes) if self._calls(node)), default=-1)
        out = []
        for number, node in enumerate(nodes):
            pure = self._expr(node)
            if number < last:
                pure = self._keep(pure)
            out.append(pure)
        return out

    def _keep(self, node: ast.expr) -> ast.expr:
        """Evaluate here what stands before a call, unless it is the same at any time."""
        if isinstance(node, ast.Constant):
            return node
        if isinstance(node, ast.Name):
            return node
        if isinstance(node, ast.Starred):
            listed = ast.List(elts=[node], ctx=ast.Load())
            temporary = self._keep(ast.copy_location(listed, node))
            return ast.copy_location(ast.Starred(value=temporary, ctx=ast.Load()), node)
        if isinstance(node, ast.Slice):
            raise ProgramIssue("E505", "a call behind a slice", node, "call it on a line before")
        name = self._temporary()
        assign = ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=node)
        self._pure(ast.copy_location(assign, node))
        return ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)

    def _call(self, node: ast.Call) -> ast.expr:
        facts = self._tool_of(node)
        if facts is not None:
            return self._invoke(facts, node, self._temporary())
        if isinstance(node.func, ast.Name) and node.func.id in self.helpers:
            helper = self.helpers[node.func.id]
            if helper.is_inlined:
                target = self._temporary()
                self._inline(helper, node, target)
                return ast.copy_location(ast.Name(id=target, ctx=ast.Load()), node)
        match node:
            case ast.Call(
                func=ast.Name(id="any" | "all" as name), args=[ast.GeneratorExp() as only]
            ) if self._calls(only):
                return self._until(only, name == "any")
            case ast.Call(func=ast.Name(id="next"), args=[ast.GeneratorExp() as only, *_]) if (
                self._calls(only)
            ):
                raise ProgramIssue(
                    "E505", "next() over calls of a tool", node, "use a for loop with break"
                )
        func = node.func
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(func, ast.Attribute) and self._global(func) is None:
            owner, *pure = self._in_order([func.value, *values])
            func = ast.copy_location(
                ast.Attribute(value=owner, attr=func.attr, ctx=ast.Load()), func
            )
        else:
            func = self._checked(func)
            pure = self._in_order(values)
        args = pure[: len(node.args)]
        keywords = [
            ast.keyword(arg=keyword.arg, value=value)
            for keyword, value in zip(node.keywords, pure[len(node.args) :], strict=True)
        ]
        return ast.copy_location(ast.Call(func=func, args=args, keywords=keywords), node)

    def _invoke(self, facts: ToolFacts, node: ast.Call, target: str) -> ast.expr:
        for item in node.args:
            if isinstance(item, ast.Starred):
                raise ProgramIssue(
                    "E504",
                    f"{facts.name} cannot take a starred argument",
                    item,
                    "write each argument out",
                )
        for keyword in node.keywords:
            if keyword.arg is None:
                raise ProgramIssue(
                    "E504",
                    f"{facts.name} cannot take ** arguments",
                    keyword.value,
                    "write each argument out",
                )
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        pure = self._in_order(values)
        statement = Invoke(
            node.lineno,
            site=next(self._sites),
            tool=facts.name,
            args=pure[: len(node.args)],
            kwargs=[
                (keyword.arg or "", value)
                for keyword, value in zip(node.keywords, pure[len(node.args) :], strict=True)
            ],
            target=target,
            is_write=facts.is_write,
            depth=self._loops,
            source=node,
        )
        self._emit(statement)
        return ast.copy_location(ast.Name(id=target, ctx=ast.Load()), node)

    def _set_to(self, name: str, value: ast.expr, node: ast.AST) -> None:
        assign = ast.Assign(targets=[ast.Name(id=name, ctx=ast.Store())], value=value)
        self._pure(ast.copy_location(assign, node))

    def _branch(self, test: ast.expr, body: Callable[[], None], node: ast.expr) -> None:
        outer, self._out = self._out, []
        body()
        inner, self._out = self._out, outer
        self._emit(Choose(node.lineno, number=0, test=test, body=inner, orelse=[]))

    def _boolean(self, node: ast.BoolOp) -> ast.expr:
        name = self._temporary()
        self._set_to(name, self._expr(node.values[0]), node)
        load: ast.expr = ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)
        test = load
        if isinstance(node.op, ast.Or):
            test = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=load), node)

        def rest(number: int) -> None:
            self._set_to(name, self._expr(node.values[number]), node)
            if number + 1 < len(node.values):
                self._branch(test, lambda: rest(number + 1), node)

        self._branch(test, lambda: rest(1), node)
        return load

    def _comparison(self, node: ast.Compare) -> ast.expr:
        if len(node.ops) == 1:
            first, second = self._in_order([node.left, node.comparators[0]])
            return ast.copy_location(
                ast.Compare(left=first, ops=node.ops, comparators=[second]), node
            )
        name = self._temporary()
        load: ast.expr = ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)

        def rest(first: ast.expr, number: int) -> None:
            second = self._keep(self._expr(node.comparators[number]))
            pair = ast.Compare(left=first, ops=[node.ops[number]], comparators=[second])
            self._set_to(name, ast.copy_location(pair, node), node)
            if number + 1 < len(node.ops):
                self._branch(load, lambda: rest(second, number + 1), node)

        rest(self._keep(self._expr(node.left)), 0)
        return load

    def _conditional(self, node: ast.IfExp) -> ast.expr:
        name = self._temporary()
        test = self._expr(node.test)
        outer, self._out = self._out, []
        self._set_to(name, self._expr(node.body), node)
        body, self._out = self._out, []
        self._set_to(name, self._expr(node.orelse), node)
        orelse, self._out = self._out, outer
        self._emit(Choose(node.lineno, number=0, test=test, body=body, orelse=orelse))
        return ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)

    def _text(self, node: ast.JoinedStr) -> ast.expr:
        last = max(n for n, part in enumerate(node.values) if self._calls(part))
        parts: list[ast.expr] = []
        for number, part in enumerate(node.values):
            if isinstance(part, ast.FormattedValue):
                value = self._expr(part.value)
                spec = self._expr(part.format_spec) if part.format_spec is not None else None
                piece: ast.expr = ast.copy_location(
                    ast.FormattedValue(value=value, conversion=part.conversion, format_spec=spec),
                    part,
                )
                if number < last:
                    joined = ast.copy_location(ast.JoinedStr(values=[piece]), part)
                    temporary = self._keep(joined)
                    piece = ast.copy_location(
                        ast.FormattedValue(value=temporary, conversion=-1, format_spec=None), part
                    )
                parts.append(piece)
            else:
                parts.append(part)
        return ast.copy_location(ast.JoinedStr(values=parts), node)

    def _dict(self, node: ast.Dict) -> ast.expr:
        # Keys and values are evaluated in turn; a ** entry has no key.
        flat = [
            part
            for pair in zip(node.keys, node.values, strict=True)
            for part in pair
            if part is not None
        ]
        pure = iter(self._in_order(flat))
        keys: list[ast.expr | None] = []
        values: list[ast.expr] = []
        for key in node.keys:
            keys.append(next(pure) if key is not None else None)
            values.append(next(pure))
        return ast.copy_location(ast.Dict(keys=keys, values=values), node)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> ast.expr:
        node = self._unique(node)
        name = self._temporary()
        empty: ast.expr = ast.List(elts=[], ctx=ast.Load())
        if isinstance(node, ast.SetComp):
            empty = ast.Call(func=ast.Name(id="set", ctx=ast.Load()), args=[], keywords=[])
        elif isinstance(node, ast.DictComp):
            empty = ast.Dict(keys=[], values=[])
        source = self._expr(node.generators[0].iter)
        self._set_to(name, ast.copy_location(empty, node), node)

        def collect() -> None:
            load = ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)
            if isinstance(node, ast.DictComp):
                key, value = self._in_order([node.key, node.value])
                place = ast.Subscript(value=load, slice=key, ctx=ast.Store())
                self._pure(ast.copy_location(ast.Assign(targets=[place], value=value), node))
                return
            method = "add" if isinstance(node, ast.SetComp) else "append"
            call = ast.Call(
                func=ast.Attribute(value=load, attr=method, ctx=ast.Load()),
                args=[self._expr(node.elt)],
                keywords=[],
            )
            self._pure(ast.copy_location(ast.Expr(value=ast.copy_location(call, node)), node))

        self._generate(node, node.generators, source, collect)
        return ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)

    def _generate(
        self,
        node: ast.expr,
        generators: Sequence[ast.comprehension],
        source: ast.expr,
        element: Callable[[], None],
    ) -> None:
        """The loops of a comprehension, around what it does with each element."""
        first, *others = generators

        def body() -> list[Statement]:
            outer, self._out = self._out, []
            try:
                self._conditions(node, first.ifs, 0, inner)
                return self._out
            finally:
                self._out = outer

        def inner() -> None:
            if others:
                self._generate(node, others, self._expr(others[0].iter), element)
            else:
                element()

        self._each(node, source, first.target, body)

    def _conditions(
        self, node: ast.expr, tests: Sequence[ast.expr], at: int, then: Callable[[], None]
    ) -> None:
        if at == len(tests):
            then()
            return
        test = self._expr(tests[at])
        self._branch(test, lambda: self._conditions(node, tests, at + 1, then), node)

    def _until(self, node: ast.GeneratorExp, stop_value: bool) -> ast.expr:
        """``any`` and ``all`` over calls stop at the first element that decides."""
        listed = self._unique(
            ast.copy_location(ast.ListComp(elt=node.elt, generators=node.generators), node)
        )
        assert isinstance(listed, ast.ListComp)
        name = self._temporary()
        source = self._expr(listed.generators[0].iter)
        self._set_to(name, ast.Constant(value=not stop_value), node)
        if len(listed.generators) > 1:
            raise ProgramIssue(
                "E505", "any() and all() over calls take one for", node, "use a for loop"
            )

        def decide() -> None:
            test = self._expr(listed.elt)
            if not stop_value:
                test = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), node)

            def stop() -> None:
                self._set_to(name, ast.Constant(value=stop_value), node)
                self._emit(Exit(node.lineno, kind="break"))

            self._branch(test, stop, node)

        self._generate(listed, listed.generators, source, decide)
        return ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)
