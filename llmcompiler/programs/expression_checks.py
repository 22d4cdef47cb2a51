"""Checks of expressions: names, calls of functions and methods, comprehensions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.programs import subset
from llmcompiler.programs.findings import Binding, Environment
from llmcompiler.programs.operator_checks import (
    OperatorChecks,
    fields_of,
    is_number,
    number_field,
    text_field,
)
from llmcompiler.programs.value_methods import methods_of, record_method, table_method
from llmcompiler.programs.value_types import (
    INTEGER,
    NOTHING,
    NUMBER,
    TEXT,
    TRUTH,
    Alternative,
    Items,
    Record,
    Scalar,
    Table,
    Type,
    forget,
    list_of,
    of_constant,
    tuple_of,
    union,
    without_none,
    words,
)
from llmcompiler.programs.values import resolve_global

_COLLECTIONS = {"list": "list", "tuple": "tuple", "set": "set", "frozenset": "set"}
_SIMPLE = {
    "bool": TRUTH,
    "chr": TEXT,
    "float": NUMBER,
    "int": INTEGER,
    "isinstance": TRUTH,
    "ord": INTEGER,
    "repr": TEXT,
    "str": TEXT,
}
_TEXT_LISTS = frozenset({"split", "rsplit", "splitlines"})
_TEXT_NUMBERS = frozenset({"count", "find", "index", "rfind", "rindex"})
_WHOLE = frozenset("ceil comb factorial floor gcd isqrt lcm perm trunc".split())
_OF_LIST = frozenset(subset.MODULES["statistics"].functions) | {"fsum", "prod"}


class ExpressionChecks(OperatorChecks):
    """The types of expressions; what must fail in them is reported."""

    def typed(self, node: ast.expr) -> Type:
        """The type of an expression's value; its parts are checked."""
        check: Callable[[ast.expr], Type] | None = getattr(
            self, f"_on_{type(node).__name__.lower()}", None
        )
        if check is not None:
            return check(node)
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.expr):
                self.typed(inner)
        return None

    # Names and literals.

    def _on_constant(self, node: ast.Constant) -> Type:
        return of_constant(node.value)

    def _on_name(self, node: ast.Name) -> Type:
        name = node.id
        if name in self.env:
            binding = self.env[name]
            if binding.maybe and "%" not in name:
                self.report("W502", f"{name} may have no value here", node)
            return binding.type
        if "%" in name or name in subset.BUILTINS or name in self.helpers:
            return None
        if name in self.tools:
            self.report(
                "E511",
                f"{name} is a function, and has no value of its own",
                node,
                hint=f"call it: {name}(…); for each item of a list: [{name}(item) for item in …]",
            )
        else:
            possible = [variable for variable in self.env if "%" not in variable]
            self.report(
                "E511", f"{name} has no value here", node, hint=did_you_mean(name, possible)
            )
        return None

    def _on_joinedstr(self, node: ast.JoinedStr) -> Type:
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.typed(part.value)
                if part.format_spec is not None:
                    self.typed(part.format_spec)
        return TEXT

    def _on_list(self, node: ast.List) -> Type:
        return list_of(union(*self._each(node.elts)))

    def _on_tuple(self, node: ast.Tuple) -> Type:
        types = self._each(node.elts)
        if any(isinstance(item, ast.Starred) for item in node.elts):
            return list_of(union(*types), "tuple")
        return tuple_of(types)

    def _on_set(self, node: ast.Set) -> Type:
        types = self._each(node.elts)
        for item, typed in zip(node.elts, types, strict=True):
            self.hashable(typed, item, "a set")
        return list_of(union(*types), "set")

    def _each(self, nodes: Sequence[ast.expr]) -> list[Type]:
        return [
            self.elements(self.typed(node.value), node.value)
            if isinstance(node, ast.Starred)
            else self.typed(node)
            for node in nodes
        ]

    def _on_dict(self, node: ast.Dict) -> Type:
        keys: list[Type] = []
        values: list[Type] = []
        for key, value in zip(node.keys, node.values, strict=True):
            typed = self.typed(value)
            if key is None:
                keys, values = [None], [None]
                continue
            keys.append(self.typed(key))
            values.append(typed)
            self.hashable(keys[-1], key, "the keys of a dict")
        return (Table(union(*keys), union(*values)),)

    # Parts and operators.

    def _on_attribute(self, node: ast.Attribute) -> Type:
        if resolve_global(node) is not None:
            return None
        if isinstance(node.value, ast.Name) and node.value.id.startswith("%module."):
            return None
        return self.field(self.typed(node.value), node.attr, node)

    def _on_subscript(self, node: ast.Subscript) -> Type:
        owner = self.typed(node.value)
        return self.element(owner, node, self.typed(node.slice))

    def _on_binop(self, node: ast.BinOp) -> Type:
        return self.binary(self.typed(node.left), node.op, self.typed(node.right), node)

    def _on_unaryop(self, node: ast.UnaryOp) -> Type:
        typed = self.typed(node.operand)
        if isinstance(node.op, ast.Not):
            return TRUTH
        if typed and not any(is_number(alt) for alt in typed):
            self.report("E509", f"{words(typed)} has no sign", node)
        return typed

    def _on_boolop(self, node: ast.BoolOp) -> Type:
        before = self.env
        types = []
        try:
            for value in node.values:
                types.append(self.typed(value))
                self.env = self.narrowed(value, isinstance(node.op, ast.And))
        finally:
            self.env = before
        return union(*types)

    def _on_ifexp(self, node: ast.IfExp) -> Type:
        self.typed(node.test)
        before = self.env
        types = []
        for part, truth in ((node.body, True), (node.orelse, False)):
            self.env = before
            self.env = self.narrowed(node.test, truth)
            types.append(self.typed(part))
        self.env = before
        return union(*types)

    def _on_compare(self, node: ast.Compare) -> Type:
        parts = [node.left, *node.comparators]
        types = [self.typed(part) for part in parts]
        for number, operator in enumerate(node.ops):
            self.compare(
                types[number], operator, types[number + 1], node, parts[number : number + 2]
            )
        return TRUTH

    def narrowed(self, test: ast.expr, truth: bool) -> Environment:
        """What is known of variables once a condition has come out true, or false."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.narrowed(operand, not truth)
            case ast.BoolOp(op=ast.And(), values=values) if truth:
                return self._narrowed_by_all(values, truth)
            case ast.BoolOp(op=ast.Or(), values=values) if not truth:
                return self._narrowed_by_all(values, truth)
            case ast.Name(id=name) if truth:
                return self._without_none(name)
            case ast.Compare(
                left=ast.Name(id=name), ops=[operator], comparators=[ast.Constant(value=None)]
            ):
                is_none = isinstance(operator, ast.Is | ast.Eq)
                return self.env if is_none is truth else self._without_none(name)
            case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=name), _]):
                return {**self.env, name: Binding(None)}
        return self.env

    def _narrowed_by_all(self, tests: Sequence[ast.expr], truth: bool) -> Environment:
        before = self.env
        for test in tests:
            self.env = self.narrowed(test, truth)
        out, self.env = self.env, before
        return out

    def _without_none(self, name: str) -> Environment:
        binding = self.env.get(name)
        if binding is None:
            return self.env
        return {**self.env, name: Binding(without_none(binding.type), binding.maybe)}

    # Comprehensions and lambdas.

    def _on_listcomp(self, node: ast.ListComp) -> Type:
        return list_of(self._comprehended(node.generators, [node.elt])[0])

    def _on_generatorexp(self, node: ast.GeneratorExp) -> Type:
        return list_of(self._comprehended(node.generators, [node.elt])[0])

    def _on_setcomp(self, node: ast.SetComp) -> Type:
        (item,) = self._comprehended(node.generators, [node.elt])
        self.hashable(item, node.elt, "a set")
        return list_of(item, "set")

    def _on_dictcomp(self, node: ast.DictComp) -> Type:
        key, value = self._comprehended(node.generators, [node.key, node.value])
        self.hashable(key, node.key, "the keys of a dict")
        return (Table(key, value),)

    def _comprehended(
        self, generators: Sequence[ast.comprehension], parts: Sequence[ast.expr]
    ) -> list[Type]:
        before = self.env
        self.env = dict(before)
        try:
            for alt in generators:
                self.bind(alt.target, self.elements(self.typed(alt.iter), alt.iter))
                for test in alt.ifs:
                    self.typed(test)
                    self.env = dict(self.narrowed(test, True))
            return [self.typed(part) for part in parts]
        finally:
            self.env = before

    def _on_lambda(self, node: ast.Lambda) -> Type:
        return self._applied(node, [None] * len(node.args.args))

    def _applied(self, node: ast.Lambda, arguments: Sequence[Type]) -> Type:
        before = self.env
        parameters = [argument.arg for argument in node.args.args]
        values = [*arguments, *[None] * len(parameters)]
        self.env = {**before, **dict(zip(parameters, map(Binding, values), strict=False))}
        try:
            return self.typed(node.body)
        finally:
            self.env = before

    def bind(self, target: ast.expr, value: Type) -> None:
        """Assign a value of a type."""
        match target:
            case ast.Name(id=name):
                self.env[name] = Binding(value)
            case ast.Tuple(elts=items) | ast.List(elts=items):
                self._unpack(items, value, target)
            case ast.Starred(value=inner):
                self.bind(inner, list_of(value))
            case ast.Subscript():
                owner, index = self.typed(target.value), self.typed(target.slice)
                self._put(owner, index, value, target.slice)
            case ast.Attribute(attr=name):
                owner = self.typed(target.value)
                self._put(owner, TEXT, value, ast.Constant(value=name))

    def _unpack(self, targets: Sequence[ast.expr], value: Type, node: ast.expr) -> None:
        only = value[0] if value and len(value) == 1 else None
        places = only.places if isinstance(only, Items) else None
        is_starred = any(isinstance(target, ast.Starred) for target in targets)
        if places is not None and not is_starred and len(places) == len(targets):
            for target, place in zip(targets, places, strict=True):
                self.bind(target, place)
            return
        item = self.elements(value, node)
        for target in targets:
            self.bind(target, item)

    def _put(self, owner: Type, index: Type, value: Type, key: ast.expr) -> None:
        for alt in owner or ():
            match alt:
                case Items():
                    alt.item, alt.places = union(alt.item, value), None
                case Table():
                    alt.key, alt.value = union(alt.key, index), union(alt.value, value)
                case Record():
                    name = key.value if isinstance(key, ast.Constant) else None
                    if isinstance(name, str):
                        alt.extra.add(name)
                        alt.fields.pop(name, None)
                    else:
                        alt.is_open = True

    # Calls.

    def _on_call(self, node: ast.Call) -> Type:
        func = node.func
        if isinstance(func, ast.Attribute):
            if resolve_global(func) is not None:
                return self._module_call(func, node)
            return self._method(func, node)
        name = func.id if isinstance(func, ast.Name) else ""
        if name in subset.BUILTINS:
            return self._builtin(name, node)
        for typed in self._arguments(node):
            forget(typed)
        return None

    def _arguments(self, node: ast.Call) -> list[Type]:
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        return [
            self.elements(self.typed(value.value), value.value)
            if isinstance(value, ast.Starred)
            else self.typed(value)
            for value in values
        ]

    def _module_call(self, func: ast.Attribute, node: ast.Call) -> Type:
        types = self._arguments(node)
        module = func.value.id if isinstance(func.value, ast.Name) else ""
        if module not in ("%module.math", "%module.statistics"):
            return None
        if func.attr in _OF_LIST and types:
            item = self.elements(types[0], node.args[0]) if node.args else None
            self._numbers(item, func.attr, node.args[0] if node.args else node)
        elif module == "%module.math" and types:
            self._number(types[0], func.attr, node)
        if func.attr in ("mode", "median", "median_low", "median_high", "multimode", "quantiles"):
            return None
        return INTEGER if func.attr in _WHOLE else NUMBER

    def _numbers(self, item: Type, name: str, node: ast.expr) -> None:
        possible = without_none(item)
        if possible and not any(is_number(alt) for alt in possible):
            text = self.text(node)
            field = number_field(possible)
            is_inner = isinstance(node, ast.GeneratorExp | ast.ListComp)
            inner = self.text(node.elt) if is_inner else "item"  # type: ignore[attr-defined]
            hint = ""
            if field and is_inner:
                hint = f"take a field of each: {inner}.{field}"
            elif field:
                hint = f"take a field of each: {name}(item.{field} for item in {text})"
            self.report("E509", f"{name} takes numbers, not {words(possible)}", node, hint=hint)

    def _number(self, typed: Type, name: str, node: ast.Call) -> None:
        possible = without_none(typed)
        if possible and not any(is_number(alt) for alt in possible):
            field = number_field(possible)
            text = self.text(node.args[0]) if node.args else ""
            self.report(
                "E509",
                f"{name} takes a number, not {words(possible)}",
                node,
                hint=f"{name}({text}.{field})" if field else "",
            )

    def _builtin(self, name: str, node: ast.Call) -> Type:
        if name in ("min", "max", "sorted"):
            return self._ordered(name, node)
        if name in ("map", "filter"):
            return self._mapped(name, node)
        types = self._arguments(node)
        first = types[0] if types else ()
        where = node.args[0] if node.args else node
        if name in _SIMPLE:
            return _SIMPLE[name]
        if name in ("any", "all"):
            self.elements(first, where)
            return TRUTH
        if name == "len":
            possible = without_none(first)
            if possible and all(isinstance(e, Scalar) and e.kind != "string" for e in possible):
                self.report("E509", f"len takes a list or text, not {words(possible)}", node)
            return INTEGER
        if name in ("abs", "round"):
            self._number(first, name, node)
            is_whole = name == "round" and len(types) == 1
            return INTEGER if is_whole else NUMBER if first else None
        return self._collection(name, node, types)

    def _collection(self, name: str, node: ast.Call, types: list[Type]) -> Type:
        first = types[0] if types else ()
        where = node.args[0] if node.args else node
        if name == "range":
            return list_of(INTEGER)
        if name == "sum":
            item = self.elements(first, where)
            self._numbers(item, name, where)
            whole = {Scalar("integer"), Scalar("boolean")}
            if item and set(item) <= whole and len(types) == 1:
                return INTEGER
            return NUMBER if item and all(map(is_number, item)) else None
        if name in ("enumerate", "zip"):
            items = [self.elements(t, n) for t, n in zip(types, node.args, strict=False)]
            return list_of(tuple_of([INTEGER, *items[:1]] if name == "enumerate" else items))
        if name == "reversed":
            return list_of(self.elements(first, where))
        if name in _COLLECTIONS:
            item = self.elements(first, where) if types else ()
            if _COLLECTIONS[name] == "set":
                self.hashable(item, where, "a set")
            return list_of(item, _COLLECTIONS[name])  # type: ignore[arg-type]
        if name == "next":
            return union(self.elements(first, where), *types[1:])
        return None

    def _ordered(self, name: str, node: ast.Call) -> Type:
        types = [self.typed(value) for value in node.args]
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if any(isinstance(value, ast.Starred) for value in node.args):
            item = None
        elif len(types) == 1:
            item = self.elements(types[0], node.args[0])
        else:
            item = union(*types)
        key = keywords.pop("key", None)
        self._key(name, key, item, node)
        further = [self.typed(value) for value in keywords.values()]
        if name == "sorted":
            return list_of(item)
        return union(item, *further)

    def _key(self, name: str, key: ast.expr | None, item: Type, node: ast.Call) -> None:
        """What a list is ordered by."""
        if isinstance(key, ast.Lambda):
            ordered = self._applied(key, [item])
            what: ast.AST = key
        elif key is not None and not isinstance(key, ast.Constant | ast.JoinedStr):
            self.typed(key)
            return
        elif key is not None:
            self.report(
                "E509",
                f"{name} takes a function as its key",
                key,
                hint=f"key=lambda item: item.{key.value!s}"
                if isinstance(key, ast.Constant)
                else "",
            )
            return
        else:
            ordered, what = item, node
        possible = without_none(ordered)
        if possible and all(isinstance(alt, Record | Table) for alt in possible):
            field = number_field(possible) or text_field(possible)
            self.report(
                "E509",
                f"{words(possible)} has no order",
                what,
                hint=f"say by what: key=lambda item: item.{field}" if field else "give a key",
            )

    def _mapped(self, name: str, node: ast.Call) -> Type:
        types = [self.typed(value) for value in node.args[1:]]
        items = [self.elements(t, n) for t, n in zip(types, node.args[1:], strict=True)]
        function = node.args[0] if node.args else None
        result: Type = None
        if isinstance(function, ast.Lambda):
            result = self._applied(function, items)
        elif isinstance(function, ast.Name) and function.id in _SIMPLE:
            result = _SIMPLE[function.id]
        elif function is not None:
            self.typed(function)
        return list_of(result if name == "map" else items[0] if items else None)

    # Methods.

    def _method(self, func: ast.Attribute, node: ast.Call) -> Type:
        owner = self.typed(func.value)
        name = func.attr
        if name == "sort":
            item = self.elements(owner, func.value) if owner else None
            key = next((k.value for k in node.keywords if k.arg == "key"), None)
            self._key("sort", key, item, node)
            return NOTHING
        types = self._arguments(node)
        if not owner:
            return None
        possible = without_none(owner) or ()
        able = [alt for alt in possible if name in methods_of(alt)]
        if not able:
            self._no_method(owner, name, func)
            return None
        self._doubt_none(owner, func.value, name)
        return union(*(self._called(alt, name, node, types) for alt in able))

    def _no_method(self, owner: Type, name: str, func: ast.Attribute) -> None:
        text = self.text(func.value)
        if name in fields_of(owner):
            hint = f"it is a field: {text}.{name} without parentheses"
        else:
            methods = {method for alt in owner or () for method in methods_of(alt)}
            hint = did_you_mean(name, sorted(methods))
        self.report(
            "E510", f"{text} is {words(owner)}, which has no method {name}", func, hint=hint
        )

    def _called(self, owner: Alternative, name: str, node: ast.Call, types: list[Type]) -> Type:
        match owner:
            case Scalar(kind="string"):
                return self._text_method(name, node, types)
            case Items():
                return self._items_method(owner, name, node, types)
            case Table():
                return table_method(owner, name, types)
            case Record():
                return record_method(owner, name)
        return None

    def _text_method(self, name: str, node: ast.Call, types: list[Type]) -> Type:
        if name == "join" and types:
            item = without_none(self.elements(types[0], node.args[0])) if node.args else None
            if item and not any(alt == Scalar("string") for alt in item):
                field = text_field(item)
                hint = f"[item.{field} for item in …]" if field else "[str(item) for item in …]"
                self.report("E509", f"join takes texts, not {words(item)}", node, hint=hint)
        if name in _TEXT_LISTS:
            return list_of(TEXT)
        if name in _TEXT_NUMBERS:
            return INTEGER
        if name in ("partition", "rpartition"):
            return tuple_of([TEXT, TEXT, TEXT])
        return TRUTH if name.startswith(("is", "startswith", "endswith")) else TEXT

    def _items_method(self, owner: Items, name: str, node: ast.Call, types: list[Type]) -> Type:
        last = types[-1] if types else None
        if name in ("append", "insert", "add"):
            if owner.kind == "set" and node.args:
                self.hashable(last, node.args[0], "a set")
            owner.item = union(owner.item, last)
            return NOTHING
        if name in ("extend", "update", "symmetric_difference_update"):
            for typed in types:
                owner.item = union(owner.item, self.elements(typed, node.args[0]))
            return NOTHING
        if name in ("union", "symmetric_difference"):
            items = [
                self.elements(typed, where) for typed, where in zip(types, node.args, strict=False)
            ]
            return list_of(union(owner.item, *items), "set")
        if name in ("intersection", "difference"):
            return list_of(owner.item, "set")
        if name == "copy":
            return list_of(owner.item, owner.kind)
        if name == "pop":
            return owner.item or None
        if name in ("index", "count"):
            return INTEGER
        return TRUTH if name.startswith("is") else NOTHING
