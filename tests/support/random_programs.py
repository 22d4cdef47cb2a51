"""Random programs with reads, writes, failures and every kind of control flow, and what they mean.

``run_python`` runs a program in CPython with plain functions for tools; ``run_machine`` runs it on
the machine under a random schedule. Both give the outcome and the writes in their order.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from llmcompiler.programs.analysis import Analysis
from llmcompiler.programs.commands import DropCall, StartCall, ToolFailed
from llmcompiler.programs.facts import ToolFacts
from llmcompiler.programs.lowering import Lowering
from llmcompiler.programs.machine import Machine
from llmcompiler.programs.statements import Statement

Outcome: TypeAlias = tuple[Any, ...]

FACTS = {name: ToolFacts(name, ("x",), name == "put") for name in ("get", "near", "put")}


class Record(dict[str, Any]):
    """A dict whose fields are attributes too, as records are in programs."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class ToolError(Exception):
    """What tools of a program raise."""


def make_tools() -> tuple[dict[str, Callable[[Any], Any]], list[Any]]:
    """Two tools that read, one that writes, and the list of what it wrote."""
    writes: list[Any] = []

    def get(x: Any) -> Record:
        if x == 7:
            raise ToolError("seven")
        number = x if isinstance(x, int) else 0
        return Record(id=x, size=(number * 37) % 11, name=f"n{x}", tags=[number, number + 1])

    def near(x: Any) -> list[int]:
        return [(x * 3) % 8, (x * 5) % 8] if isinstance(x, int) else []

    def put(x: Any) -> int:
        writes.append(x)
        return len(writes)

    return {"get": get, "near": near, "put": put}, writes


def plain(value: Any) -> Any:
    """The value with dicts in place of records."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return value


def run_python(source: str) -> tuple[Outcome, list[Any]]:
    """What CPython makes of the program."""
    tools, writes = make_tools()
    body = "\n".join("    " + line for line in source.split("\n"))
    names: dict[str, Any] = {**tools, "ToolError": ToolError}
    code = f"def main():\n{body}\n    try: return answer\n    except NameError: return None\n"
    exec(code, names)
    try:
        return ("value", plain(names["main"]())), writes
    except Exception as error:  # noqa: BLE001
        text = str(error).replace("'Record'", "'dict'").replace('"Record"', '"dict"')
        return ("error", type(error).__name__, text), writes


def run_machine(source: str, schedule: random.Random) -> tuple[Outcome, list[Any]]:
    """What the machine makes of the program, while calls end in a random order."""
    tools, writes = make_tools()
    lowering = Lowering(FACTS)
    analysis = Analysis(lowering.helpers)
    machine = Machine(lowering.helpers, aliases=analysis.aliases)
    pending: list[StartCall] = []

    def pump() -> None:
        for command in machine.take():
            if isinstance(command, StartCall):
                pending.append(command)
            elif isinstance(command, DropCall):
                key = (command.site, command.index)
                pending[:] = [call for call in pending if (call.site, call.index) != key]

    def end_one() -> None:
        call = pending.pop(schedule.randrange(len(pending)))
        try:
            value = tools[call.tool](*call.args, **call.kwargs)
        except ToolError as error:
            machine.failed(call.site, call.index, ToolFailed(str(error)))
        else:
            machine.returned(call.site, call.index, plain(value))
        pump()

    def compiled() -> Iterator[list[Statement]]:
        for node in ast.parse(source).body:
            statements = lowering.lower(node)
            analysis.analyse(statements)
            yield statements

    # A program of a file is compiled as a whole before it runs, one of a planner's meanwhile.
    for statements in list(compiled()) if schedule.random() < 0.5 else compiled():
        machine.add(statements)
        pump()
        while pending and schedule.random() < 0.3:
            end_one()
        if machine.ended is not None:
            break
    machine.close()
    pump()
    while machine.ended is None:
        assert pending, "the program waits for nothing"
        end_one()
    error = machine.ended.error
    if error is None:
        return ("value", machine.ended.value), writes
    kind = "ToolError" if isinstance(error, ToolFailed) else error.kind
    return ("error", kind, error.message), writes


_NAMES = {
    "number": ["a", "b", "c", "total"],
    "list": ["xs", "ys", "out"],
    "record": ["r", "q"],
    "dict": ["d", "e"],
}
_HELPERS = (
    ["return x + y"],
    ["z = get(x)", "if z.size > y:", "    return z.size", "return y"],
    ["for k in near(x):", "    if k > y:", "        return k", "return 0"],
    ["t = [x]", "t.append(y)", "return sum(t)"],
)
_START = [
    *("a = 1", "b = 2", "c = 3", "total = 0", "xs = [1, 2]", "ys = [3]", "out = []", "d = {}"),
    *("e = {}", "s = ''", "k = 0", "m = 0", "r = get(1)", "q = get(2)"),
]


class ProgramGenerator:
    """Writes random programs.

    Args:
        choices: where its choices come from.
    """

    def __init__(self, choices: random.Random) -> None:
        self._choices = choices
        self._loops = 0

    def program(self) -> str:
        """A program that ends with an ``answer`` of all its variables."""
        helper = ["def helper(x, y=2):", *(f"    {line}" for line in self._pick(_HELPERS))]
        start = list(_START)
        if self._choices.random() < 0.3:
            start.append("ys = xs")
        body: list[str] = []
        for _ in range(self._choices.randrange(2, 7)):
            body += self._statement(0, 0, in_loop=False)
        answer = "answer = [a, b, c, total, xs, ys, out, d, e, s, r, q]"
        return "\n".join([*helper, *start, *body, answer])

    def _pick(self, items: Sequence[Any]) -> Any:
        return self._choices.choice(items)

    def _name(self, kind: str) -> str:
        return str(self._pick(_NAMES[kind]))

    def _number(self, depth: int = 0) -> str:
        deeper = depth + 1
        makers: list[Callable[[], str]] = [
            lambda: str(self._choices.randrange(10)),
            lambda: self._name("number"),
        ]
        if depth < 3:
            makers += [
                lambda: f"get({self._number(deeper)}).size",
                lambda: (
                    f"({self._number(deeper)} {self._pick(['+', '-', '*', '//', '%'])} "
                    f"{self._number(deeper)})"
                ),
                lambda: f"len({self._list(deeper)})",
                lambda: f"sum({self._list(deeper)})",
                lambda: (
                    f"({self._number(deeper)} if {self._test(deeper)} else {self._number(deeper)})"
                ),
                lambda: f"{self._list(deeper)}[{self._number(deeper)}]",
                lambda: f"max({self._list(deeper)}, default=0)",
                lambda: f"{self._name('record')}.size",
                lambda: f"put({self._number(deeper)})",
                lambda: f"near({self._number(deeper)})[{self._choices.randrange(2)}]",
                lambda: (
                    f"({self._test(deeper)} {self._pick(['and', 'or'])} {self._number(deeper)})"
                ),
                lambda: f"{self._name('dict')}.get({self._number(deeper)}, {self._number(deeper)})",
            ]
        return str(self._pick(makers)())

    def _test(self, depth: int = 0) -> str:
        deeper = depth + 1
        makers: list[Callable[[], str]] = [
            lambda: (
                f"{self._number(deeper)} {self._pick(['<', '>', '==', '!=', '<='])} "
                f"{self._number(deeper)}"
            )
        ]
        if depth < 3:
            makers += [
                lambda: f"(not {self._test(deeper)})",
                lambda: f"{self._number(deeper)} in {self._list(deeper)}",
                lambda: f"{self._number(deeper)} < {self._number(deeper)} < {self._number(deeper)}",
                lambda: f"any({self._test(depth + 2)} for k in {self._list(depth + 2)})",
            ]
        return str(self._pick(makers)())

    def _list(self, depth: int = 0) -> str:
        deeper = depth + 1
        makers: list[Callable[[], str]] = [lambda: self._name("list")]
        if depth < 3:
            makers += [
                lambda: f"[{self._number(deeper)}, {self._number(deeper)}]",
                lambda: f"near({self._number(deeper)})",
                lambda: f"[{self._number(deeper)} for k in {self._list(deeper)}]",
                lambda: f"[get(k).size for k in {self._list(deeper)} if {self._test(depth + 2)}]",
                lambda: f"sorted({self._list(deeper)})",
                lambda: f"({self._list(deeper)} + {self._list(deeper)})",
                lambda: f"{self._list(deeper)}[{self._choices.randrange(3)}:]",
                lambda: f"get({self._number(deeper)}).tags",
            ]
        return str(self._pick(makers)())

    def _simple(self, indent: str, *, in_loop: bool) -> list[str]:
        makers: list[Callable[[], list[str]]] = [
            lambda: [f"{indent}{self._name('number')} = {self._number()}"],
            lambda: [f"{indent}{self._name('list')} = {self._list()}"],
            lambda: [f"{indent}{self._name('record')} = get({self._number(1)})"],
            lambda: [f"{indent}{self._name('list')}.append({self._number(1)})"],
            lambda: [
                f"{indent}{self._name('number')} {self._pick(['+=', '-='])} {self._number(1)}"
            ],
            lambda: [f"{indent}put({self._number(1)})"],
            lambda: [f"{indent}{self._name('dict')}[{self._number(1)}] = {self._number(1)}"],
            lambda: [f"{indent}{self._name('list')} += {self._list(1)}"],
            lambda: [
                (
                    f"{indent}{self._name('number')}, {self._name('number')} = "
                    f"{self._number(1)}, {self._number(1)}"
                )
            ],
            lambda: [f"{indent}s = f'{{{self._number(2)}}}-{{{self._number(2)}}}'"],
            lambda: [
                f"{indent}{self._name('number')} = helper({self._number(1)}, {self._number(1)})"
            ],
            lambda: [f"{indent}assert {self._test(1)}, f'no {{{self._number(2)}}}'"],
        ]
        if in_loop:
            makers += [
                lambda: [
                    f"{indent}if {self._test(1)}:",
                    f"{indent}    {self._pick(['break', 'continue', 'continue'])}",
                ]
            ] * 2
        return list(self._pick(makers)())

    def _statement(self, depth: int, level: int, *, in_loop: bool) -> list[str]:
        indent = "    " * level
        kind = self._choices.randrange(22) if depth < 3 else 0
        if kind < 12:
            return self._simple(indent, in_loop=in_loop)
        if kind < 15:
            lines = [f"{indent}if {self._test()}:", *self._block(depth, level, in_loop=in_loop)]
            if self._choices.random() < 0.5:
                lines += [f"{indent}else:", *self._block(depth, level, in_loop=in_loop)]
            return lines
        if kind < 19:
            variable = self._pick(["a", "k", "m"])
            lines = [
                f"{indent}for {variable} in {self._list()}[:4]:",
                *self._block(depth, level, in_loop=True),
            ]
            if self._choices.random() < 0.15:
                lines += [f"{indent}else:", *self._block(depth, level, in_loop=in_loop)]
            return lines
        if kind == 19:
            self._loops += 1
            count = f"w{self._loops}"
            most = self._choices.randrange(1, 4)
            return [
                f"{indent}{count} = 0",
                f"{indent}while {count} < {most} and {self._test(1)}:",
                f"{indent}    {count} += 1",
                *self._block(depth, level, in_loop=True),
            ]
        lines = [
            f"{indent}try:",
            *self._block(depth, level, in_loop=in_loop),
            f"{indent}except ToolError as problem:",
            *self._block(depth, level, in_loop=in_loop),
        ]
        if self._choices.random() < 0.3:
            lines += [f"{indent}finally:", *self._block(depth, level, in_loop=False)]
        return lines

    def _block(self, depth: int, level: int, *, in_loop: bool) -> list[str]:
        lines: list[str] = []
        for _ in range(self._choices.randrange(1, 4)):
            lines += self._statement(depth + 1, level + 1, in_loop=in_loop)
        return lines
