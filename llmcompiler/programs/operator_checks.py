"""Checks of operators, fields and elements: what a value of a type can do."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Literal

from llmcompiler.plan.diagnostics import did_you_mean
from llmcompiler.plan.types import SchemaType, fits
from llmcompiler.programs.findings import Findings
from llmcompiler.programs.value_types import (
    INTEGER,
    NUMBER,
    TEXT,
    Alternative,
    Items,
    Record,
    Scalar,
    Table,
    Type,
    list_of,
    of_schema,
    union,
    without_none,
    words,
)

_NUMERIC = ("integer", "number", "boolean")
_SET_OPERATORS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
_SIGNS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}


def fields_of(typed: Type) -> list[str]:
    """Names of the fields of all records that a value can be, once each."""
    records = [each for each in typed or () if isinstance(each, Record)]
    return list(dict.fromkeys(name for each in records for name in each.schema.fields()))


def is_number(each: Alternative) -> bool:
    """True for a number; True and False are numbers, as in Python."""
    return isinstance(each, Scalar) and each.kind in _NUMERIC


def is_text(each: Alternative) -> bool:
    """True for text."""
    return each == Scalar("string")


def all_of(typed: Type, kind: type | tuple[type, ...]) -> bool:
    """True if a type is known, and every alternative of it is of a kind."""
    return bool(typed) and all(isinstance(each, kind) for each in typed or ())


def all_text(typed: Type) -> bool:
    """True if a value is text for sure."""
    return bool(typed) and all(is_text(each) for each in typed or ())


def text_field(record: Type) -> str:
    """The field by which a record is called; empty if it has none."""
    names = fields_of(record)
    if "name" in names:
        return "name"
    for each in record or ():
        if isinstance(each, Record):
            for name in names:
                if each.field_type(name) == TEXT:
                    return name
    return ""


def number_field(record: Type) -> str:
    """The first field that is a number; empty if there is none."""
    for each in record or ():
        if isinstance(each, Record):
            for name in each.schema.fields():
                typed = each.field_type(name)
                if typed and all(is_number(one) for one in typed):
                    return name
    return ""


class OperatorChecks(Findings):
    """What comes of operators, fields and elements, and where they must fail."""

    # Fields.

    def field(self, owner: Type, name: str, node: ast.Attribute | ast.Subscript) -> Type:
        """The type of a field; reports one that is not there."""
        if not owner:
            return None
        self._doubt_none(owner, node.value, name)
        out: list[Type] = []
        for each in without_none(owner) or ():
            if isinstance(each, Record):
                typed = each.field_type(name)
                if typed is not False:
                    out.append(typed)
            elif isinstance(each, Table):
                out.append(each.value or None)
        if out:
            return union(*out)
        self._no_field(owner, name, node)
        return None

    def _doubt_none(self, owner: Type, node: ast.expr, name: str) -> None:
        nothing = Scalar("null")
        if owner and nothing in owner and len(owner) > 1 and isinstance(node, ast.Name):
            self.report(
                "W503",
                f"{self.text(node)} may be None, and its {name} is read",
                node,
                hint=f"check it before: if {self.text(node)} is not None:",
            )

    def _no_field(self, owner: Type, name: str, node: ast.Attribute | ast.Subscript) -> None:
        text = self.text(node.value)
        fields = fields_of(owner)
        if fields:
            self.report(
                "E306",
                f"{text} is {words(owner)}, which has no field {name!r}",
                node,
                hint=did_you_mean(name, fields),
                expected=", ".join(fields),
            )
            return
        self.report(
            "E306",
            f"{text} is {words(owner)}, which has no field {name!r}",
            node,
            hint=self._how_to_reach(owner, text, name),
        )

    def _how_to_reach(self, owner: Type, text: str, name: str) -> str:
        if all_text(owner):
            tool = self._tool_with_field(name)
            return f"get its record by a call: {tool}({text}).{name}" if tool else ""
        if all_of(owner, Items):
            item = union(*(each.item for each in owner or () if isinstance(each, Items)))
            if all_text(item):
                tool = self._tool_with_field(name)
                return f"for each: [{tool}(name).{name} for name in {text}]" if tool else ""
            if all_of(item, Record):
                return f"for each: [item.{name} for item in {text}]"
        return ""

    def _tool_with_field(self, name: str) -> str:
        """A tool that takes one text and gives a record with that field."""
        for spelling, tool in self.tools.items():
            schema = tool.parameters_schema
            required = schema.get("required", ())
            if len(required) != 1 or not tool.return_schema:
                continue
            parameter = SchemaType(schema["properties"][required[0]], schema)
            returned = of_schema(SchemaType(tool.return_schema, tool.return_schema))
            if fits(SchemaType({"type": "string"}, {}), parameter) is True and any(
                isinstance(each, Record) and name in each.schema.fields() for each in returned or ()
            ):
                return spelling
        return ""

    # Elements.

    def element(self, owner: Type, node: ast.Subscript, index: Type) -> Type:
        """The type of what stands in brackets."""
        if not owner:
            return None
        if isinstance(node.slice, ast.Slice):
            return self._slice(owner, node)
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if isinstance(key, str) and all_of(without_none(owner), Record):
            return self.field(owner, key, node)
        out: list[Type] = []
        for each in without_none(owner) or ():
            match each:
                case Items(kind="set"):
                    continue
                case Items() if all_text(index):
                    continue
                case Items(places=tuple() as places) if isinstance(key, int):
                    out.append(places[key] if -len(places) <= key < len(places) else None)
                case Items():
                    out.append(each.item or None)
                case Table():
                    out.append(each.value or None)
                case Record() if isinstance(key, int):
                    continue
                case Record():
                    out.append(None)
                case Scalar(kind="string") if not all_text(index):
                    out.append(TEXT)
        if out:
            return union(*out)
        self.report(
            "E507",
            f"{self.text(node.value)} is {words(owner)}, which has no element "
            f"[{self.text(node.slice)}]",
            node,
            hint=self._element_hint(owner, node, key),
        )
        return None

    def _slice(self, owner: Type, node: ast.Subscript) -> Type:
        known = without_none(owner) or ()
        sliced = [each for each in known if isinstance(each, Items) and each.kind != "set"]
        if not sliced and not any(is_text(each) for each in known):
            self.report(
                "E507",
                f"{self.text(node.value)} is {words(owner)}, which has no first or last elements",
                node,
                hint=self._element_hint(owner, node, None),
            )
            return None
        parts: list[Type] = [list_of(each.item, each.kind) for each in sliced]
        return union(*parts, *([TEXT] if any(is_text(each) for each in known) else []))

    def _element_hint(self, owner: Type, node: ast.Subscript, key: object) -> str:
        text = self.text(node.value)
        if all_of(owner, Items):
            if any(isinstance(each, Items) and each.kind == "set" for each in owner or ()):
                return f"a set has no order: sorted({text})[…]"
            if isinstance(key, str):
                return self._how_to_reach(owner, text, key)
        if all_of(owner, Record):
            return "a record has fields: " + ", ".join(fields_of(owner))
        return ""

    def elements(self, owner: Type, node: ast.expr) -> Type:
        """The type of what a loop over a value gives."""
        if owner is None:
            return None
        out: list[Type] = []
        for each in without_none(owner) or ():
            match each:
                case Items():
                    out.append(each.item or None)
                case Table():
                    out.append(each.key or None)
                case Record():
                    out.append(TEXT)
                case Scalar(kind="string"):
                    out.append(TEXT)
        if not out and owner:
            self.report(
                "E507",
                f"{self.text(node)} is {words(owner)}, which has no elements to go through",
                node,
            )
        return union(*out) if out else None

    # Operators.

    def binary(
        self, left: Type, operator: ast.operator, right: Type, node: ast.BinOp | ast.AugAssign
    ) -> Type:
        """The type of what an operator gives; reports one that must fail."""
        if not left or not right:
            return None
        nothing = Scalar("null")
        if (len(left) > 1 and nothing in left) or (len(right) > 1 and nothing in right):
            return None
        out: list[Type] = []
        for one in left:
            for two in right:
                typed = _binary(one, operator, two)
                if typed is not False:
                    out.append(typed)
        if out:
            return union(*out)
        first, second = (
            (node.left, node.right) if isinstance(node, ast.BinOp) else (node.target, node.value)
        )
        sign = _SIGNS.get(type(operator), "?")
        self.report(
            "E509",
            f"{words(left)} {sign} {words(right)} cannot be computed",
            node,
            hint=self._binary_hint(left, operator, right, self.text(first), self.text(second)),
        )
        return None

    def _binary_hint(
        self, left: Type, operator: ast.operator, right: Type, first: str, second: str
    ) -> str:
        sign = _SIGNS.get(type(operator), "?")
        if isinstance(operator, _SET_OPERATORS) and all_of(left, Items) and all_of(right, Items):
            return f"set({first}) {sign} set({second})"
        if isinstance(operator, ast.Add) and (all_text(left) or all_text(right)):
            return f"make it a text: str({second if all_text(left) else first})"
        for typed, text in ((left, first), (right, second)):
            if all_of(typed, Record) and (name := number_field(typed)):
                return f"use a field of the record, such as {text}.{name}"
        return ""

    def compare(
        self,
        left: Type,
        operator: ast.cmpop,
        right: Type,
        node: ast.Compare,
        parts: Sequence[ast.expr],
    ) -> None:
        """Report a comparison that must fail, or that says nothing."""
        if not left or not right:
            return
        match operator:
            case ast.Eq() | ast.NotEq():
                for one, two, part in ((left, right, parts[0]), (right, left, parts[1])):
                    if all_of(one, Record) and two and all(_is_plain(each) for each in two):
                        self._record_for_name(one, self.text(part), words(two), node)
            case ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE():
                if not any(_is_ordered(one, two) for one in left for two in right):
                    name = next(
                        (
                            f"{self.text(part)}.{number_field(typed)}"
                            for typed, part in zip((left, right), parts, strict=True)
                            if all_of(typed, Record) and number_field(typed)
                        ),
                        "",
                    )
                    self.report(
                        "E508",
                        f"{words(left)} cannot be less or more than {words(right)}",
                        node,
                        hint=f"compare a field, such as {name}" if name else "",
                    )
            case ast.In() | ast.NotIn():
                self._membership(left, right, parts, node)

    def _membership(
        self, left: Type, right: Type, parts: Sequence[ast.expr], node: ast.Compare
    ) -> None:
        first, second = parts
        if all(is_number(each) or each == Scalar("null") for each in right or ()):
            self.report("E507", f"{self.text(second)} is {words(right)}, which holds nothing", node)
            return
        if not all_of(right, Items):
            return
        item = union(*(each.item for each in right or () if isinstance(each, Items)))
        if all_text(item) and all_of(left, Record):
            texts = f"the texts in {self.text(second)}"
            self._record_for_name(left, self.text(first), texts, node)
        elif all_of(item, Record) and all_text(left):
            name = text_field(item)
            self.report(
                "E508",
                f"{self.text(second)} holds records, and {self.text(first)} is text",
                node,
                hint=f"compare names: [item.{name} for item in {self.text(second)}]"
                if name
                else "",
            )

    def _record_for_name(self, record: Type, text: str, other: str, node: ast.AST) -> None:
        name = text_field(record)
        self.report(
            "E508",
            f"{text} is {words(record)}, and is compared with {other}",
            node,
            hint=f"compare a field of it: {text}.{name}" if name else "compare a field of it",
        )

    def hashable(self, typed: Type, node: ast.expr, where: str) -> None:
        """Report a record or list that is put into a set or made a key."""
        known = without_none(typed)
        if known and all(
            isinstance(each, Record | Table)
            or (isinstance(each, Items) and each.kind in ("list", "set"))
            for each in known
        ):
            name = text_field(known)
            self.report(
                "E509",
                f"{words(known)} cannot stand in {where}",
                node,
                hint=f"use a field of it, such as {name}" if name else "use a text or a number",
            )


def _is_plain(each: Alternative) -> bool:
    return is_text(each) or (isinstance(each, Scalar) and each.kind in ("integer", "number"))


def _is_ordered(one: Alternative, two: Alternative) -> bool:
    if is_number(one) or is_number(two):
        return is_number(one) and is_number(two)
    if is_text(one) or is_text(two):
        return is_text(one) and is_text(two)
    if isinstance(one, Items) and isinstance(two, Items):
        return one.kind == two.kind
    return False


def _binary(one: Alternative, operator: ast.operator, two: Alternative) -> Type | Literal[False]:
    """The type of a result; False if the operator does not take these."""
    if is_number(one) and is_number(two):
        return _numeric(one, operator, two)
    if isinstance(operator, ast.Mod) and is_text(one):
        return TEXT
    if isinstance(operator, ast.Add):
        if is_text(one) and is_text(two):
            return TEXT
        if isinstance(one, Items) and isinstance(two, Items):
            is_same = one.kind == two.kind and one.kind != "set"
            return list_of(union(one.item, two.item), one.kind) if is_same else False
        return False
    if isinstance(operator, ast.Mult):
        for owner, times in ((one, two), (two, one)):
            if times in (Scalar("integer"), Scalar("boolean")):
                if is_text(owner):
                    return TEXT
                if isinstance(owner, Items) and owner.kind != "set":
                    return list_of(owner.item, owner.kind)
        return False
    if isinstance(operator, _SET_OPERATORS):
        if isinstance(one, Items) and isinstance(two, Items) and one.kind == two.kind == "set":
            item = one.item if isinstance(operator, ast.Sub) else union(one.item, two.item)
            return list_of(item, "set")
        if isinstance(operator, ast.BitOr) and isinstance(one, Table | Record):
            return None if isinstance(two, Table | Record) else False
    return False


def _numeric(one: Alternative, operator: ast.operator, two: Alternative) -> Type:
    if isinstance(operator, ast.Div | ast.Pow):
        return NUMBER
    return NUMBER if Scalar("number") in (one, two) else INTEGER
