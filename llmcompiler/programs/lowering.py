"""From Python's syntax to lowered statements: each call of a tool becomes a statement of its own.

A call inside an expression moves in front of its statement, and whatever CPython computes before
the call moves with it, so that failures come in the same order. Where CPython makes a call only
under a condition (``and``, ``or``, a conditional expression, a chain of comparisons), the condition
becomes a statement. A comprehension that calls a tool becomes a loop. A helper function that calls
tools is inlined; one that does not is compiled as it is.
"""

from __future__ import annotations

import ast
import copy
import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmcompiler.programs import subset
from llmcompiler.programs.compute import resolve_global
from llmcompiler.programs.statements import (
    Attempt,
    Choose,
    Compute,
    Each,
    Exit,
    Inline,
    Invoke,
    Loop,
    Statement,
    Turn,
)


class ProgramIssue(Exception):
    """Something that a program may not hold.

    Args:
        code: the diagnostic's code.
        message: what is wrong.
        node: where; its position is that of the diagnostic.
        hint: what to write instead.
    """

    def __init__(self, code: str, message: str, node: ast.AST, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.node = node
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """What lowering needs to know of a tool.

    Attributes:
        name: its name.
        parameters: names of its parameters, in order.
        is_write: True if it changes the world.
    """

    name: str
    parameters: tuple[str, ...]
    is_write: bool


@dataclass(slots=True)
class HelperSource:
    """A helper function as it stands in the program.

    Attributes:
        node: its definition.
        is_inlined: True if it, or a helper that it calls, calls a tool: its body then stands in
            place of its calls.
        local: names that it assigns, its parameters included.
    """

    node: ast.FunctionDef
    is_inlined: bool
    local: frozenset[str]


_EXPRESSIONS = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.BinOp, ast.UnaryOp),
    *(ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr, ast.FormattedValue, ast.List, ast.Tuple),
    *(ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda),
    *(ast.Call, ast.Starred),
)
_STATEMENTS = (
    *(ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Pass, ast.Assert, ast.If, ast.For),
    *(ast.While, ast.Break, ast.Continue, ast.Return, ast.Try, ast.FunctionDef, ast.Import),
    ast.ImportFrom,
)
_TRUE = ast.Constant(value=True)


class Lowering:
    """Lowers a program statement by statement.

    Args:
        tools: what programs may call, by the name that a program spells.
        first_site: the id of the first task.
        inputs: names that have a value before the program starts.
    """

    def __init__(
        self, tools: Mapping[str, ToolFacts], first_site: int = 1, inputs: Sequence[str] = ()
    ) -> None:
        self.tools = tools
        self.helpers: dict[str, HelperSource] = {}
        self.assigned: set[str] = set(inputs)
        """Every name that the program has assigned so far."""
        self._modules: dict[str, ast.expr] = {}
        self._sites = itertools.count(first_site)
        self._numbers = itertools.count(1)
        self._temporaries = itertools.count(1)
        self._out: list[Statement] = []
        self._loops = 0
        self._inlining: list[str] = []

    def lower(self, node: ast.stmt) -> list[Statement]:
        """Lower one statement of the program's top level.

        Raises:
            ProgramIssue: it is not in the subset.
        """
        _Shape().check(node)
        return self._block([node], top=True)

    # Statements.

    def _block(self, nodes: Sequence[ast.stmt], *, top: bool = False) -> list[Statement]:
        outer, self._out = self._out, []
        try:
            for node in nodes:
                self._statement(node, top=top)
            return self._out
        finally:
            self._out = outer

    def _statement(self, node: ast.stmt, *, top: bool) -> None:
        match node:
            case ast.FunctionDef():
                if not top:
                    raise ProgramIssue(
                        "E503",
                        "a helper function inside another block",
                        node,
                        "define it at the top of the program",
                    )
                self._define(node)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.AnnAssign(value=None):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                assign = ast.Assign(targets=[target], value=value, lineno=node.lineno)
                self._assign(ast.copy_location(assign, node))
            case ast.Assign():
                self._assign(node)
            case ast.AugAssign():
                self._augment(node)
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=standing):
                self._evaluate(standing, node)
            case ast.Pass():
                pass
            case ast.Assert():
                self._assert(node)
            case ast.If() if self._is_pure(node):
                self._pure(self._renamed_pure(node))
            case ast.If():
                test = self._expr(node.test)
                self._emit(
                    Choose(
                        node.lineno,
                        number=next(self._numbers),
                        test=test,
                        body=self._block(node.body),
                        orelse=self._block(node.orelse),
                    )
                )
            case ast.For():
                self._for(node)
            case ast.While():
                self._while(node)
            case ast.Break():
                self._emit(Exit(node.lineno, kind="break"))
            case ast.Continue():
                self._emit(Exit(node.lineno, kind="continue"))
            case ast.Return():
                result = self._expr(node.value) if node.value is not None else None
                self._emit(Exit(node.lineno, kind="return", value=result))
            case ast.Try():
                self._try(node)
            case _:
                raise AssertionError(f"the shape check let {type(node).__name__} pass")

    def _emit(self, statement: Statement) -> None:
        self._out.append(statement)

    def _pure(self, node: ast.stmt) -> None:
        """Emit pure code, together with pure code right before it that it follows in one line."""
        ast.fix_missing_locations(node)
        self._emit(Compute(node.lineno, nodes=(node,)))

    def _assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._check_target(target)
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0]
            facts = self._tool_of(node.value)
            self._note_assigned(name.id, name)
            if facts is not None:
                assert isinstance(node.value, ast.Call)
                self._invoke(facts, node.value, name.id)
                return
        value = self._expr(node.value)
        if any(self._calls(target) for target in node.targets):
            value = self._keep(value)
        targets = [self._target(target) for target in node.targets]
        self._pure(ast.copy_location(ast.Assign(targets=targets, value=value), node))

    def _check_target(self, target: ast.expr) -> None:
        for name in ast.walk(target):
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                self._note_assigned(name.id, name)

    def _note_assigned(self, name: str, node: ast.AST) -> None:
        if name in self.helpers:
            raise ProgramIssue(
                "E503",
                f"{name} is a helper function and cannot be assigned",
                node,
                "choose another name",
            )
        self.assigned.add(name)

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

    def _augment(self, node: ast.AugAssign) -> None:
        self._check_target(node.target)
        target, value = node.target, node.value
        if not self._calls(value) and not self._calls(target):
            place = self._target(target)
            assert isinstance(place, ast.Name | ast.Attribute | ast.Subscript)
            simple = ast.AugAssign(target=place, op=node.op, value=self._expr(value))
            self._pure(ast.copy_location(simple, node))
            return
        if isinstance(target, ast.Name):
            new = ast.AugAssign(target=target, op=node.op, value=self._expr(value))
            self._pure(ast.copy_location(new, node))
            return
        # CPython reads the old value before it computes the new one.
        assert isinstance(target, ast.Subscript | ast.Attribute)
        base = self._keep(self._expr(target.value))
        if isinstance(target, ast.Subscript):
            index = self._keep(self._expr(target.slice))
            place = ast.Subscript(value=base, slice=index, ctx=ast.Store())
            load: ast.expr = ast.Subscript(value=base, slice=index, ctx=ast.Load())
        else:
            place = ast.Attribute(value=base, attr=target.attr, ctx=ast.Store())
            load = ast.Attribute(value=base, attr=target.attr, ctx=ast.Load())
        old = self._keep(ast.copy_location(load, node))
        assert isinstance(old, ast.Name)
        result = self._expr(value)
        store = ast.Name(id=old.id, ctx=ast.Store())
        self._pure(ast.copy_location(ast.AugAssign(target=store, op=node.op, value=result), node))
        self._pure(ast.copy_location(ast.Assign(targets=[place], value=old), node))

    def _evaluate(self, value: ast.expr, node: ast.stmt) -> None:
        """An expression that stands alone."""
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            if value.func.id == "print" and "print" not in self.tools:
                for argument in value.args:
                    self._expr(argument)
                return
        facts = self._tool_of(value)
        if facts is not None:
            assert isinstance(value, ast.Call)
            self._invoke(facts, value, self._temporary())
            return
        pure = self._expr(value)
        if not isinstance(pure, ast.Name | ast.Constant):
            self._pure(ast.copy_location(ast.Expr(value=pure), node))

    def _assert(self, node: ast.Assert) -> None:
        test = self._expr(node.test)
        if node.msg is None or not self._calls(node.msg):
            message = self._expr(node.msg) if node.msg is not None else None
            self._pure(ast.copy_location(ast.Assert(test=test, msg=message), node))
            return
        outer, self._out = self._out, []
        message = self._expr(node.msg)
        failure = ast.Assert(test=ast.Constant(value=False), msg=message)
        self._pure(ast.copy_location(failure, node))
        body, self._out = self._out, outer
        negated = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), node)
        self._emit(Choose(node.lineno, number=0, test=negated, body=body, orelse=[]))

    def _for(self, node: ast.For) -> None:
        self._check_target(node.target)
        if self._is_pure(node):
            self._pure(self._renamed_pure(node))
            return
        source = self._expr(node.iter)
        self._each(node, source, node.target, lambda: self._block(node.body), node.orelse)

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

    def _while(self, node: ast.While) -> None:
        if self._is_pure(node):
            self._pure(self._renamed_pure(node))
            return
        number = next(self._numbers)
        self._loops += 1
        try:
            outer, self._out = self._out, []
            test = self._expr(node.test)
            done: list[Statement] = [Exit(node.lineno, kind="break")]
            stop: list[Statement] = []
            flag = self._temporary() if node.orelse else ""
            if flag:
                ended = ast.Assign(
                    targets=[ast.Name(id=flag, ctx=ast.Store())], value=ast.Constant(value=True)
                )
                outer_out, self._out = self._out, []
                self._pure(ast.copy_location(ended, node))
                stop, self._out = self._out, outer_out
            negated = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), node)
            self._emit(Choose(node.lineno, number=0, test=negated, body=[*stop, *done], orelse=[]))
            head, self._out = self._out, outer
            body = head + self._block(node.body)
        finally:
            self._loops -= 1
        if flag:
            start = ast.Assign(
                targets=[ast.Name(id=flag, ctx=ast.Store())], value=ast.Constant(value=False)
            )
            self._pure(ast.copy_location(start, node))
        self._emit(Loop(node.lineno, number=number, turn=Turn(node.lineno, body=body)))
        if flag:
            name = ast.copy_location(ast.Name(id=flag, ctx=ast.Load()), node)
            self._emit(
                Choose(node.lineno, number=0, test=name, body=self._block(node.orelse), orelse=[])
            )

    def _try(self, node: ast.Try) -> None:
        if len(node.handlers) != 1:
            raise ProgramIssue("E501", "a try needs one except ToolError", node)
        (handler,) = node.handlers
        if not (isinstance(handler.type, ast.Name) and handler.type.id == "ToolError"):
            raise ProgramIssue(
                "E501",
                "only except ToolError can be caught",
                handler,
                "write except ToolError as error: …; check other things with if",
            )
        name = handler.name
        if name is not None:
            self._note_assigned(name, handler)
        self._emit(
            Attempt(
                node.lineno,
                number=next(self._numbers),
                body=self._block(node.body),
                name=name,
                handler=self._block(handler.body),
                orelse=self._block(node.orelse),
                final=self._block(node.finalbody),
            )
        )

    # Helper functions and imports.

    def _define(self, node: ast.FunctionDef) -> None:
        if node.name in self.tools or node.name in self.helpers:
            raise ProgramIssue(
                "E503",
                f"{node.name} is the name of a tool or of another helper",
                node,
                "choose another name",
            )
        arguments = node.args
        if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
            raise ProgramIssue(
                "E503",
                "a helper function takes plain parameters only",
                node,
                "leave out *, / and **",
            )
        if node.decorator_list:
            raise ProgramIssue("E503", "a helper function takes no decorator", node)
        for inner in ast.walk(node):
            if inner is not node and isinstance(inner, ast.FunctionDef):
                raise ProgramIssue(
                    "E503", "a function inside a function", inner, "define both at the top"
                )
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
                if inner.func.id == node.name:
                    raise ProgramIssue(
                        "E503", f"{node.name} calls itself", inner, "use a loop instead"
                    )
        parameters = [argument.arg for argument in arguments.args]
        stored = {
            inner.id
            for inner in ast.walk(node)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        }
        names = {h.name for h in ast.walk(node) if isinstance(h, ast.ExceptHandler) and h.name}
        inlined = self._calls(node) or any(isinstance(inner, ast.Try) for inner in ast.walk(node))
        self.helpers[node.name] = HelperSource(
            node, inlined, frozenset({*parameters, *stored, *names})
        )

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name not in subset.MODULES:
                    raise ProgramIssue(
                        "E502",
                        f"the module {alias.name} cannot be imported",
                        node,
                        subset.HINTS["Import"],
                    )
                self._modules[alias.asname or alias.name] = _module(alias.name)
            return
        module = subset.MODULES.get(node.module or "")
        if module is None or node.level:
            raise ProgramIssue(
                "E502",
                f"the module {node.module} cannot be imported",
                node,
                subset.HINTS["Import"],
            )
        for alias in node.names:
            if alias.name not in module.functions and alias.name not in module.constants:
                raise ProgramIssue(
                    "E502",
                    f"{node.module} has no {alias.name} here",
                    node,
                    _near(alias.name, [*module.functions, *module.constants]),
                )
            assert node.module is not None
            value = ast.Attribute(value=_module(node.module), attr=alias.name, ctx=ast.Load())
            self._modules[alias.asname or alias.name] = value

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
        copied = [_Rename(rename).visit(copy.deepcopy(stmt)) for stmt in helper.node.body]
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
                    _near(keyword.arg, parameters),
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
            case ast.Attribute():
                new: ast.expr = ast.Attribute(
                    value=self._expr(node.value), attr=node.attr, ctx=ast.Load()
                )
                return ast.copy_location(new, node)
            case ast.Subscript():
                base, index = self._in_order([node.value, node.slice])
                return ast.copy_location(
                    ast.Subscript(value=base, slice=index, ctx=ast.Load()), node
                )
            case ast.Slice():
                parts = [part for part in (node.lower, node.upper, node.step) if part is not None]
                pure = iter(self._in_order(parts))
                lower, upper, step = (
                    next(pure) if part is not None else None
                    for part in (node.lower, node.upper, node.step)
                )
                return ast.copy_location(ast.Slice(lower=lower, upper=upper, step=step), node)
            case ast.BinOp():
                left, right = self._in_order([node.left, node.right])
                return ast.copy_location(ast.BinOp(left=left, op=node.op, right=right), node)
            case ast.UnaryOp():
                operand = self._expr(node.operand)
                return ast.copy_location(ast.UnaryOp(op=node.op, operand=operand), node)
            case ast.BoolOp():
                return self._boolean(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.IfExp():
                return self._conditional(node)
            case ast.JoinedStr():
                return self._text(node)
            case ast.List() | ast.Tuple() | ast.Set():
                items = self._in_order(node.elts)
                if isinstance(node, ast.Set):
                    return ast.copy_location(ast.Set(elts=items), node)
                kind = type(node)
                return ast.copy_location(kind(elts=items, ctx=ast.Load()), node)
            case ast.Starred():
                value = self._expr(node.value)
                return ast.copy_location(ast.Starred(value=value, ctx=ast.Load()), node)
            case ast.Dict():
                return self._dict(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp():
                return self._comprehension(node)
            case ast.GeneratorExp():
                return self._comprehension(
                    ast.copy_location(ast.ListComp(elt=node.elt, generators=node.generators), node)
                )
            case ast.Lambda():
                raise ProgramIssue(
                    "E505",
                    "a tool cannot be called inside a lambda",
                    node,
                    "call it in a loop before",
                )
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
            kept = self._keep(ast.copy_location(listed, node))
            return ast.copy_location(ast.Starred(value=kept, ctx=ast.Load()), node)
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
        if isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            only = node.args[0]
            if isinstance(only, ast.GeneratorExp) and self._calls(only):
                if node.func.id in ("any", "all"):
                    return self._until(only, node.func.id == "any")
        if isinstance(node.func, ast.Name) and node.func.id == "next" and node.args:
            if isinstance(node.args[0], ast.GeneratorExp) and self._calls(node.args[0]):
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
            left, right = self._in_order([node.left, node.comparators[0]])
            return ast.copy_location(
                ast.Compare(left=left, ops=node.ops, comparators=[right]), node
            )
        name = self._temporary()
        load: ast.expr = ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)

        def rest(left: ast.expr, number: int) -> None:
            right = self._keep(self._expr(node.comparators[number]))
            pair = ast.Compare(left=left, ops=[node.ops[number]], comparators=[right])
            self._set_to(name, ast.copy_location(pair, node), node)
            if number + 1 < len(node.ops):
                self._branch(load, lambda: rest(right, number + 1), node)

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
                    kept = self._keep(joined)
                    piece = ast.copy_location(
                        ast.FormattedValue(value=kept, conversion=-1, format_spec=None), part
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

    def _until(self, node: ast.GeneratorExp, wanted: bool) -> ast.expr:
        """``any`` and ``all`` over calls stop at the first element that decides."""
        listed = self._unique(
            ast.copy_location(ast.ListComp(elt=node.elt, generators=node.generators), node)
        )
        assert isinstance(listed, ast.ListComp)
        name = self._temporary()
        source = self._expr(listed.generators[0].iter)
        self._set_to(name, ast.Constant(value=not wanted), node)
        if len(listed.generators) > 1:
            raise ProgramIssue(
                "E505", "any() and all() over calls take one for", node, "use a for loop"
            )

        def decide() -> None:
            test = self._expr(listed.elt)
            if not wanted:
                test = ast.copy_location(ast.UnaryOp(op=ast.Not(), operand=test), node)

            def stop() -> None:
                self._set_to(name, ast.Constant(value=wanted), node)
                self._emit(Exit(node.lineno, kind="break"))

            self._branch(test, stop, node)

        self._generate(listed, listed.generators, source, decide)
        return ast.copy_location(ast.Name(id=name, ctx=ast.Load()), node)

    # Names.

    def _tool_of(self, node: ast.expr) -> ToolFacts | None:
        """The tool that an expression calls, if it is a call of one."""
        if not isinstance(node, ast.Call):
            return None
        name = _dotted(node.func)
        return self.tools.get(name) if name is not None else None

    def _calls(self, node: ast.AST) -> bool:
        """Whether a tool is called inside, directly or by a helper."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                if self._tool_of(inner) is not None:
                    return True
                if isinstance(inner.func, ast.Name):
                    helper = self.helpers.get(inner.func.id)
                    if helper is not None and helper.is_inlined:
                        return True
        return False

    def _is_pure(self, node: ast.stmt) -> bool:
        """Whether a statement can be computed as a whole: it calls no tool and leaves no block."""
        return not self._calls(node) and not _leaves(node, in_loop=False)

    def _global(self, node: ast.expr) -> object:
        return resolve_global(self._resolve(node))

    def _resolve(self, node: ast.expr) -> ast.expr:
        """The node with names of modules replaced by what they stand for."""
        resolved: ast.expr = _Modules(self._modules, self.assigned).visit(copy.deepcopy(node))
        return resolved

    def _unique(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp
    ) -> ast.ListComp | ast.SetComp | ast.DictComp:
        """A copy in which the variables of comprehensions and lambdas are unique."""
        unique: ast.ListComp = _Unique(self._temporaries).visit(copy.deepcopy(node))
        return unique

    def _renamed_pure(self, node: ast.stmt) -> ast.stmt:
        for inner in ast.walk(node):
            if isinstance(inner, ast.expr):
                self._check_call(inner)
            if isinstance(inner, ast.For):
                self._check_target(inner.target)
            if isinstance(inner, ast.Assign):
                for target in inner.targets:
                    self._check_target(target)
            if isinstance(inner, ast.AugAssign):
                self._check_target(inner.target)
        done: ast.stmt = _Modules(self._modules, self.assigned).visit(
            _Unique(self._temporaries).visit(copy.deepcopy(node))
        )
        return done

    def _checked(self, node: ast.expr) -> ast.expr:
        """A pure expression: its calls are known, its inner variables unique."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.expr):
                self._check_call(inner)
        pure: ast.expr = _Modules(self._modules, self.assigned).visit(
            _Unique(self._temporaries).visit(copy.deepcopy(node))
        )
        ast.fix_missing_locations(pure)
        return pure

    def _check_call(self, node: ast.expr) -> None:
        """Refuse calls of what is no function of the subset."""
        if not isinstance(node, ast.Call):
            return
        func = node.func
        if isinstance(func, ast.Name):
            known = {*subset.BUILTINS, *self.helpers, *self._modules}
            if func.id not in known:
                raise ProgramIssue(
                    "E203",
                    f'there is no function or tool "{func.id}"',
                    node,
                    _near(func.id, [*known, *self.tools]),
                )
            if func.id in self._modules and self._global(func) is None:
                raise ProgramIssue("E203", f"{func.id} is a module, not a function", node)
        elif isinstance(func, ast.Attribute):
            root = _dotted(func)
            if root is not None and self._is_module(func.value):
                if self._global(func) is None:
                    raise ProgramIssue("E502", f"there is no {root} here", node)
                return
            if func.attr not in _ALL_METHODS:
                raise ProgramIssue(
                    "E203",
                    f'there is no method "{func.attr}"',
                    node,
                    _near(func.attr, _ALL_METHODS),
                )
        else:
            raise ProgramIssue("E501", "only functions, methods and tools can be called", node)

    def _is_module(self, node: ast.expr) -> bool:
        resolved = self._resolve(node)
        return (isinstance(resolved, ast.Name) and resolved.id.startswith("%module.")) or (
            resolve_global(resolved) is not None and not isinstance(node, ast.Name)
        )

    def _temporary(self) -> str:
        return f"%t{next(self._temporaries)}"


_ALL_METHODS = sorted({name for names in subset.METHODS.values() for name in names})


class _Shape(ast.NodeVisitor):
    """Refuses syntax that the subset does not have."""

    def check(self, node: ast.stmt) -> None:
        """Raise for the first construct that is not in the subset."""
        for inner in ast.walk(node):
            self._one(inner)
        self._lambdas(node)

    def _one(self, node: ast.AST) -> None:
        name = type(node).__name__
        if isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS):
            raise ProgramIssue(
                "E501", f"{name} is not in the subset", node, subset.HINTS.get(name, "")
            )
        if isinstance(node, ast.expr) and not isinstance(node, _EXPRESSIONS):
            raise ProgramIssue(
                "E501", f"{name} is not in the subset", node, subset.HINTS.get(name, "")
            )
        identifier = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(identifier, str) and identifier.startswith("__"):
            raise ProgramIssue(
                "E501", f"{identifier} is a name of Python's inside and cannot be used", node
            )
        if isinstance(node, ast.comprehension) and node.is_async:
            raise ProgramIssue("E501", "async is not in the subset", node.iter)
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes | complex):
            raise ProgramIssue("E501", "bytes and complex numbers are not in the subset", node)
        if isinstance(node, ast.Constant) and node.value is ...:
            raise ProgramIssue("E501", "... is not in the subset", node)
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            raise ProgramIssue("E501", "@ is not in the subset", node)

    def _lambdas(self, node: ast.AST) -> None:
        arguments: set[ast.AST] = set()
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                arguments.update(inner.args)
                arguments.update(keyword.value for keyword in inner.keywords)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Lambda):
                plain = inner.args
                if plain.vararg or plain.kwarg or plain.kwonlyargs or plain.posonlyargs:
                    raise ProgramIssue("E501", "a lambda takes plain parameters only", inner)
                if plain.defaults:
                    raise ProgramIssue("E501", "a lambda takes no defaults", inner)
            if isinstance(inner, ast.Lambda | ast.GeneratorExp) and inner not in arguments:
                name = type(inner).__name__
                raise ProgramIssue("E501", f"{name} out of place", inner, subset.HINTS[name])


class _Rename(ast.NodeTransformer):
    """Renames variables of a helper function that is inlined."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename a variable."""
        if node.id in self._names:
            return ast.copy_location(ast.Name(id=self._names[node.id], ctx=node.ctx), node)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        """Rename the variable of an ``except``."""
        self.generic_visit(node)
        if node.name is not None and node.name in self._names:
            node.name = self._names[node.name]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Names of functions have a namespace of their own."""
        func = node.func
        self.generic_visit(node)
        if isinstance(func, ast.Name):
            node.func = func
        return node


class _Unique(ast.NodeTransformer):
    """Gives variables of comprehensions and lambdas names of their own, the inner ones first."""

    def __init__(self, numbers: itertools.count[int]) -> None:
        self._numbers = numbers

    def _comprehension(self, node: ast.AST) -> ast.AST:
        generators: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
        if any("%" in name for each in generators for name in _stored(each.target)):
            return node
        self.generic_visit(node)
        names = {
            name: f"{name}%{next(self._numbers)}"
            for each in generators
            for name in _stored(each.target)
        }
        rename = _Rename(names)
        for number, each in enumerate(generators):
            each.target = rename.visit(each.target)
            each.ifs = [rename.visit(test) for test in each.ifs]
            if number:
                each.iter = rename.visit(each.iter)
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                setattr(node, name, rename.visit(getattr(node, name)))
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Rename the parameters of a lambda."""
        if any("%" in argument.arg for argument in node.args.args):
            return node
        self.generic_visit(node)
        names = {a.arg: f"{a.arg}%{next(self._numbers)}" for a in node.args.args}
        node.body = _Rename(names).visit(node.body)
        for argument in node.args.args:
            argument.arg = names[argument.arg]
        return node


class _Modules(ast.NodeTransformer):
    """Replaces names of modules, and names imported from them, by what they stand for."""

    def __init__(self, modules: Mapping[str, ast.expr], assigned: set[str]) -> None:
        self._modules = modules
        self._assigned = assigned

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name, unless the program has assigned it."""
        if isinstance(node.ctx, ast.Load) and node.id not in self._assigned:
            if node.id in self._modules:
                return ast.copy_location(copy.deepcopy(self._modules[node.id]), node)
            if node.id in subset.MODULES:
                return ast.copy_location(_module(node.id), node)
        return node


def _leaves(node: ast.stmt, *, in_loop: bool) -> bool:
    """Whether a statement holds a return, a try, or a break or continue of a loop around it."""
    match node:
        case ast.Return() | ast.Try() | ast.FunctionDef() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Break() | ast.Continue():
            return not in_loop
        case ast.For() | ast.While():
            inner = [*((each, True) for each in node.body), *((e, in_loop) for e in node.orelse)]
        case ast.If():
            inner = [(each, in_loop) for each in (*node.body, *node.orelse)]
        case _:
            return False
    return any(_leaves(each, in_loop=looping) for each, looping in inner)


def _module(name: str) -> ast.Name:
    return ast.Name(id=f"%module.{name}", ctx=ast.Load())


def _stored(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]


def _dotted(node: ast.expr) -> str | None:
    """A name with dots, as text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return f"{owner}.{node.attr}" if owner is not None else None
    return None


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{near[0]}"?' if near else ""
