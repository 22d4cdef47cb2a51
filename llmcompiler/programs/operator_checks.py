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
    records = [alt for alt in typed or () if isinstance(alt, Record)]
    return list(dict.fromkeys(name for alt in records for name in alt.schema.fields()))


def is_number(alt: Alternative) -> bool:
    """True for a number; True and False are numbers, as in Python."""
    return isinstance(alt, Scalar) and alt.kind in _NUMERIC


def is_text(alt: Alternative) -> bool:
    """True for text."""
    return alt == Scalar("string")


def all_of(typed: Type, kind: type | tuple[type, ...]) -> bool:
    """True if a type is known, and every alternative of it is of a kind."""
    return bool(typed) and all(isinstance(alt, kind) for alt in typed or ())


def all_text(typed: Type) -> bool:
    """True if a value is text for sure."""
    return bool(typed) and all(is_text(alt) for alt in typed or ())


def text_field(record: Type) -> str:
    """The field by which a record is called; empty if it has none."""
    names = fields_of(record)
    if "name" in names:
        return "name"
    for alt in record or ():
        if isinstance(alt, Record):
            for name in names:
                if alt.field_type(name) == TEXT:
                    return name
    return ""


def number_field(record: Type) -> str:
    """The first field that is a number; empty if there is none."""
    for alt in record or ():
        if isinstance(alt, Record):
            for name in alt.schema.fields():
                typed = alt.field_type(name)
                if typed and all(is_number(former) for former in typed):
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
        for alt in without_none(owner) or ():
            if isinstance(alt, Record):
                typed = alt.field_type(name)
                if typed is not False:
                    out.append(typed)
            elif isinstance(alt, Table):
                out.append(alt.value or None)
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
            item = union(*(alt.item for alt in owner or () if isinstance(alt, Items)))
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
                isinstance(alt, Record) and name in alt.schema.fields() for alt in returned or ()
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
        for alt in without_none(owner) or ():
            match alt:
                case Items(kind="set"):
                    continue
                case Items() if all_text(index):
                    continue
                case Items(places=tuple() as places) if isinstance(key, int):
                    out.append(places[key] if -len(places) <= key < len(places) else None)
                case Items():
                    out.append(alt.item or None)
                case Table():
                    out.append(alt.value or None)
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
        possible = without_none(owner) or ()
        sliced = [alt for alt in possible if isinstance(alt, Items) and alt.kind != "set"]
        if not sliced and not any(is_text(alt) for alt in possible):
            self.report(
                "E507",
                f"{self.text(node.value)} is {words(owner)}, which has no first or last elements",
                node,
                hint=self._element_hint(owner, node, None),
            )
            return None
        parts: list[Type] = [list_of(alt.item, alt.kind) for alt in sliced]
        return union(*parts, *([TEXT] if any(is_text(alt) for alt in possible) else []))

    def _element_hint(self, owner: Type, node: ast.Subscript, key: object) -> str:
        text = self.text(node.value)
        if all_of(owner, Items):
            if any(isinstance(alt, Items) and alt.kind == "set" for alt in owner or ()):
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
        for alt in without_none(owner) or ():
            match alt:
                case Items():
                    out.append(alt.item or None)
                case Table():
                    out.append(alt.key or None)
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
        self, lhs: Type, operator: ast.operator, rhs: Type, node: ast.BinOp | ast.AugAssign
    ) -> Type:
        """The type of what an operator gives; reports one that must fail."""
        if not lhs or not rhs:
            return None
        nothing = Scalar("null")
        if (len(lhs) > 1 and nothing in lhs) or (len(rhs) > 1 and nothing in rhs):
            return None
        out: list[Type] = []
        for former in lhs:
            for latter in rhs:
                typed = _binary(former, operator, latter)
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
            f"{words(lhs)} {sign} {words(rhs)} cannot be computed",
            node,
            hint=self._binary_hint(lhs, operator, rhs, self.text(first), self.text(second)),
        )
        return None

    def _binary_hint(
        self, lhs: Type, operator: ast.operator, rhs: Type, first: str, second: str
    ) -> str:
        sign = _SIGNS.get(type(operator), "?")
        if isinstance(operator, _SET_OPERATORS) and all_of(lhs, Items) and all_of(rhs, Items):
            return f"set({first}) {sign} set({second})"
        if isinstance(operator, ast.Add) and (all_text(lhs) or all_text(rhs)):
            return f"make it a text: str({second if all_text(lhs) else first})"
        for typed, text in ((lhs, first), (rhs, second)):
            if all_of(typed, Record) and (name := number_field(typed)):
                return f"use a field of the record, such as {text}.{name}"
        return ""

    def compare(
        self,
        lhs: Type,
        operator: ast.cmpop,
        rhs: Type,
        node: ast.Compare,
        parts: Sequence[ast.expr],
    ) -> None:
        """Report a comparison that must fail, or that says nothing."""
        if not lhs or not rhs:
            return
        match operator:
            case ast.Eq() | ast.NotEq():
                for former, latter, part in ((lhs, rhs, parts[0]), (rhs, lhs, parts[1])):
                    if all_of(former, Record) and latter and all(_is_plain(alt) for alt in latter):
                        self._record_for_name(former, self.text(part), words(latter), node)
            case ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE():
                if not any(_is_ordered(former, latter) for former in lhs for latter in rhs):
                    name = next(
                        (
                            f"{self.text(part)}.{number_field(typed)}"
                            for typed, part in zip((lhs, rhs), parts, strict=True)
                            if all_of(typed, Record) and number_field(typed)
                        ),
                        "",
                    )
                    self.report(
                        "E508",
                        f"{words(lhs)} cannot be less or more than {words(rhs)}",
                        node,
                        hint=f"compare a field, such as {name}" if name else "",
                    )
            case ast.In() | ast.NotIn():
                self._membership(lhs, rhs, parts, node)

    def _membership(
        self, lhs: Type, rhs: Type, parts: Sequence[ast.expr], node: ast.Compare
    ) -> None:
        first, second = parts
        if all(is_number(alt) or alt == Scalar("null") for alt in rhs or ()):
            self.report("E507", f"{self.text(second)} is {words(rhs)}, which holds nothing", node)
            return
        if not all_of(rhs, Items):
            return
        item = union(*(alt.item for alt in rhs or () if isinstance(alt, Items)))
        if all_text(item) and all_of(lhs, Record):
            texts = f"the texts in {self.text(second)}"
            self._record_for_name(lhs, self.text(first), texts, node)
        elif all_of(item, Record) and all_text(lhs):
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
        possible = without_none(typed)
        if possible and all(
            isinstance(alt, Record | Table)
            or (isinstance(alt, Items) and alt.kind in ("list", "set"))
            for alt in possible
        ):
            name = text_field(possible)
            self.report(
                "E509",
                f"{words(possible)} cannot stand in {where}",
                node,
                hint=f"use a field of it, such as {name}" if name else "use a text or a number",
            )


def _is_plain(alt: Alternative) -> bool:
    return is_text(alt) or (isinstance(alt, Scalar) and alt.kind in ("integer", "number"))


def _is_ordered(former: Alternative, latter: Alternative) -> bool:
    if is_number(former) or is_number(latter):
        return is_number(former) and is_number(latter)
    if is_text(former) or is_text(latter):
        return is_text(former) and is_text(latter)
    if isinstance(former, Items) and isinstance(latter, Items):
        return former.kind == latter.kind
    return False


def _binary(
    former: Alternative, operator: ast.operator, latter: Alternative
) -> Type | Literal[False]:
    """The type of a result; False if the operator does not take these."""
    if is_number(former) and is_number(latter):
        return _numeric(former, operator, latter)
    if isinstance(operator, ast.Mod) and is_text(former):
        return TEXT
    if isinstance(operator, ast.Add):
        if is_text(former) and is_text(latter):
            return TEXT
        if isinstance(former, Items) and isinstance(latter, Items):
            is_same = former.kind == latter.kind and former.kind != "set"
            return list_of(union(former.item, latter.item), former.kind) if is_same else False
        return False
    if isinstance(operator, ast.Mult):
        for owner, times in ((former, latter), (latter, former)):
            if times in (Scalar("integer"), Scalar("boolean")):
                if is_text(owner):
                    return TEXT
                if isinstance(owner, Items) and owner.kind != "set":
                    return list_of(owner.item, owner.kind)
        return False
    if isinstance(operator, _SET_OPERATORS):
        if (
            isinstance(former, Items)
            and isinstance(latter, Items)
            and former.kind == latter.kind == "set"
        ):
            item = former.item if isinstance(operator, ast.Sub) else union(former.item, latter.item)
            return list_of(item, "set")
        if isinstance(operator, ast.BitOr) and isinstance(former, Table | Record):
            return None if isinstance(latter, Table | Record) else False
    return False


def _numeric(former: Alternative, operator: ast.operator, latter: Alternative) -> Type:
    if isinstance(operator, ast.Div | ast.Pow):
        return NUMBER
    return NUMBER if Scalar("number") in (former, latter) else INTEGER
