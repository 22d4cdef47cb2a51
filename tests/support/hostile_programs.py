"""Programs that mean harm: they reach for Python's inside, or for all time and memory there is."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from llmcompiler.plan.diagnostics import Diagnostic
from llmcompiler.programs.commands import StartCall, ToolFailed
from llmcompiler.programs.machine import Machine
from llmcompiler.programs.meter import Meter
from llmcompiler.programs.program import ProgramCompiler
from llmcompiler.tools.base import tool

_DUNDERS = (
    "__class__ __bases__ __base__ __mro__ __subclasses__ __globals__ __builtins__ __dict__ "
    "__code__ __closure__ __func__ __self__ __module__ __init__ __new__ __getattribute__ "
    "__reduce__ __reduce_ex__ __import__ __loader__ __spec__ __name__ __qualname__ __wrapped__ "
    "__call__ __doc__"
).split()
_OWNERS = ("()", "''", "[]", "{}", "1", "get(1)", "len", "(lambda x: x)", "str", "range(3)", "x")
_BUILTINS = (
    "eval exec compile open input getattr setattr delattr hasattr globals locals vars dir type "
    "object super classmethod staticmethod property memoryview bytearray bytes breakpoint exit "
    "quit help id hash iter callable format issubclass slice complex __import__ license copyright "
    "credits print.__self__ anext aiter"
).split()
_MODULES = (
    "os sys subprocess socket ctypes builtins importlib io pathlib shutil threading asyncio "
    "pickle marshal code inspect gc types operator functools random time signal tempfile "
    "llmcompiler os.path json.decoder re._compiler"
).split()
_FRAMES = (
    "gi_frame gi_code gi_yieldfrom cr_frame ag_frame tb_frame tb_next f_back f_globals f_locals "
    "f_builtins f_code func_globals im_func mro"
).split()


def _attributes() -> list[str]:
    programs = [f"x = [1]\nanswer = {owner}.{name}" for name in _DUNDERS for owner in _OWNERS[:3]]
    programs += [f"x = [1]\nanswer = {owner}.__class__" for owner in _OWNERS[3:]]
    programs += [f"x = [1]\ny = [i for i in x]\nanswer = y.{name}" for name in _FRAMES]
    programs += [f"x = [1]\nx.{name} = 1" for name in _DUNDERS[:6]]
    programs += [
        "answer = ().__class__.__bases__[0].__subclasses__()",
        "answer = [].append.__self__",
        "answer = str.format",
        "answer = str.format('{0.__class__}', 1)",
        "answer = '{0.__class__}'.format(1)",
        "answer = '{x.__class__}'.format_map({'x': 1})",
        "answer = 'abc'.encode('utf-8')",
        "answer = 'a'.maketrans('a', 'b')",
        "answer = (1).to_bytes(9, 'big')",
        "answer = (1).real",
        "answer = (1.5).as_integer_ratio()",
        "answer = dict.__getitem__",
        "answer = dict.fromkeys.__self__",
        "answer = str.join.__objclass__",
        "f = ''.join\nanswer = f.__self__",
        "import math\nanswer = math.__loader__",
        "import json\nanswer = json.decoder",
        "import json\nanswer = json.scanner.re",
        "import re\nanswer = re.enum",
        "import re\nanswer = re._compiler",
        "import statistics\nanswer = statistics.sys",
        "import datetime\nanswer = datetime.sys",
        "import datetime\nanswer = datetime.datetime.__subclasses__()",
        "import math\nmath.pi = 3",
        "import math\nanswer = math['pi']",
        "import re\nanswer = re.compile('a')",
        "import re\nanswer = re.match('a', 'a').re",
        "import re\nanswer = re.match('a', 'a').string",
        "import datetime\nanswer = datetime.date.today()",
        "import datetime\nanswer = datetime.datetime.now()",
        "import json\nanswer = json.load(1)",
        "import json\nanswer = json.dumps(1, default=str)",
        "import json\nanswer = json.dumps(1, cls=dict)",
        "import json\nanswer = json.loads('1', object_hook=len)",
        "import json\nanswer = json.loads('1', cls=dict)",
        "import re\nanswer = re.sub('a', len, 'a' * 9).__class__",
        "answer = isinstance(1, object)",
        "answer = max.__self__",
        "answer = get.__globals__",
        "answer = get.function",
        "answer = get(1).__class__",
        "answer = get(1).keys.__self__",
        "def f():\n    return 1\nanswer = f.__code__",
        "def f():\n    return 1\nanswer = f.__globals__",
        "def f(x=[].__class__):\n    return x\nanswer = f()",
        "answer = [f'{x.__class__}' for x in [1]]",
        "answer = f'{(1).__class__!r:{2}}'",
    ]
    return programs


def _names() -> list[str]:
    programs = [f"answer = {name}(1)" for name in _BUILTINS]
    programs += [f"f = {name}\nanswer = f" for name in _BUILTINS if "." not in name]
    programs += [
        "answer = \uff45\uff56\uff41\uff4c('1')",  # fullwidth letters: Python reads them as eval
        "answer = \U0001d41e\U0001d42f\U0001d41a\U0001d425('1')",  # bold letters
        "answer = ev\u0430l('1')",  # a Cyrillic letter
        "answer = ().\uff3f\uff3fclass\uff3f\uff3f",
        "x = 1\nanswer = x.\ufe4f\ufe4fclass__",
        "answer = __import__('os')",
        "answer = __builtins__",
        "answer = __name__",
        "answer = __file__",
        "x = %t1",
        "%module.os = 1",
        "answer = %return",
        "x = eval",
        "eval = 1\nanswer = eval('1')",
        "get = eval\nanswer = get('1')",
        "len = eval\nanswer = len('1')",
        "answer = (eval)('1')",
        "answer = [eval][0]('1')",
        "answer = (lambda: eval)()('1')",
        "answer = {'f': open}['f']('/etc/passwd')",
        "answer = list(map(eval, ['1']))",
        "answer = sorted(['1'], key=eval)",
        "answer = max(['1'], key=open)",
        "answer = get(1)(2)",
        "answer = len(open('/etc/passwd').read())",
        "answer = 'x'()",
        "def eval(x):\n    return compile(x)\nanswer = eval('1')",
        "global x\nx = 1",
        "nonlocal x",
        "del get",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "answer = await get(1)",
        "async def f():\n    return 1",
        "with get(1) as x:\n    pass",
        "class A:\n    pass",
        "match 1:\n    case _:\n        pass",
        "answer = (x := 1)",
        "answer = b'abc'",
        "answer = 1j",
        "answer = ...",
        "answer = [1] @ [2]",
        "type X = int",
        "@get\ndef f():\n    return 1",
        "def f(*args):\n    return args",
        "def f(**names):\n    return names",
        "answer = get(*[1])",
        "answer = get(**{'x': 1})",
        "try:\n    get(1)\nexcept Exception:\n    pass",
        "try:\n    get(1)\nexcept:\n    pass",
        "try:\n    get(1)\nexcept* ToolError:\n    pass",
        "answer = (yield 1)",
        "def f():\n    yield 1\nanswer = f()",
        "def f():\n    yield from f()\nanswer = f()",
        "answer = lambda: get(1)",
        "answer = sorted([1], key=lambda x: get(x))",
        "answer = get(1)[get(2):]",
        "x = (i for i in [1])",
    ]
    return programs


def _imports() -> list[str]:
    programs = [f"import {name}" for name in _MODULES]
    programs += [f"from {name} import x" for name in _MODULES[:12]]
    programs += [
        "import math as os, os as math",
        "from math import *",
        "from . import x",
        "from .os import x",
        "from math import __loader__",
        "from json import JSONDecoder",
        "from re import compile",
        "from datetime import sys",
        "import json.decoder as d",
    ]
    return programs


def _bombs() -> list[str]:
    return [
        "answer = 9 ** 9 ** 9",
        "answer = 2 ** 10 ** 8",
        "answer = -3 ** 99999999",
        "x = 10\nfor i in range(20):\n    x = x ** 10",
        "x = 10\nfor i in range(99):\n    x *= x",
        "x = 10\nwhile True:\n    x = x * x",
        "x = 2\nx **= 99999999",
        "answer = pow(9, 99999999)",
        "answer = pow(base=9, exp=99999999)",
        "f = pow\nanswer = f(9, 99999999)",
        "answer = list(map(pow, [9], [99999999]))",
        "answer = 1 << 10 ** 9",
        "x = 1\nx <<= 10 ** 9",
        "x = 1\nwhile True:\n    x <<= 9999",
        "import math\nanswer = math.factorial(10 ** 7)",
        "import math\nanswer = math.comb(10 ** 7, 5 * 10 ** 6)",
        "import math\nanswer = math.perm(10 ** 7)",
        "answer = 7 ** 7 ** 7",
        "import math\nanswer = math.prod([10 ** 20000] * 2000)",
        "import math\nanswer = math.prod(range(1, 200000))",
        "import math\nanswer = math.lcm(*range(1, 200000))",
        "import math\nf = math.factorial\nanswer = [f(10 ** 7)]",
        "from math import factorial\nanswer = list(map(factorial, [10 ** 7]))",
        "answer = sum([10 ** 29999] * 10 ** 6)",
        "answer = 'a' * 10 ** 10",
        "answer = 10 ** 10 * 'a'",
        "answer = [0] * 10 ** 10",
        "answer = (0,) * 10 ** 10",
        "x = 'a'\nx *= 10 ** 10",
        "x = 'ab'\nwhile True:\n    x = x * 2",
        "x = 'ab'\nwhile True:\n    x += x",
        "x = [1]\nwhile True:\n    x = x + x",
        "x = [1]\nwhile True:\n    x += x",
        "x = [1]\nwhile True:\n    x.extend(x)",
        "x = [1]\nwhile True:\n    x = [x, x]\n    y = str(x)",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = str(x)",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = f'{x}'",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = repr(x)",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = x == [x, x]",
        "x = [1]\ny = [1]\nfor i in range(60):\n    x = [x, x]\n    y = [y, y]\nanswer = x == y",
        "x = (1,)\nfor i in range(60):\n    x = (x, x)\nanswer = {x: 1}",
        "x = (1,)\nfor i in range(60):\n    x = (x, x)\nanswer = {x}",
        "import json\nx = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = json.dumps(x)",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = '%s' % x",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = '%r' % (x,)",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = f'{x!r}'",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = get(x)",
        "x = [1]\nfor i in range(60):\n    x = [x, x]\nanswer = x",
        "x = {}\nfor i in range(60):\n    x = {'a': x, 'b': x}\nanswer = str(x)",
        "x = []\nx.append(x)\nanswer = x == [x]",
        "x = []\nx.append(x)\nanswer = get(x)",
        "x = []\nx.append(x)\nanswer = x",
        "x = {}\nx['a'] = x\nanswer = x",
        "x = []\nfor i in range(100000):\n    x = [x]\nanswer = str(x)",
        "x = []\nfor i in range(100000):\n    x = [x]\nanswer = x",
        "x = []\nfor i in range(100000):\n    x = [x]\nanswer = get(x)",
        "import json\nanswer = json.loads('[' * 100000)",
        "import json\nanswer = json.dumps([1], indent=10 ** 9)",
        "import json\nanswer = json.dumps([[1] * 1000] * 1000000)",
        "answer = ','.join(['a' * 1000000] * 1000)",
        "answer = ('a' * 1000000).join('b' * 1000000)",
        "answer = ('a' * 1000000).join(str(i) for i in range(100000))",
        "answer = ('a' * 1000000).replace('a', 'b' * 1000000)",
        "answer = ('a' * 1000000).replace('', 'b' * 1000000)",
        "answer = 'a'.ljust(10 ** 10)",
        "answer = 'a'.rjust(10 ** 10, 'x')",
        "answer = 'a'.center(10 ** 10)",
        "answer = '1'.zfill(10 ** 10)",
        "answer = str.ljust('a', 10 ** 10)",
        "answer = list(map(str.zfill, ['1'], [10 ** 10]))",
        "answer = f'{1:1000000000}'",
        "answer = f'{1:{10 ** 9}}'",
        "answer = f'{1.5:.1000000000f}'",
        "answer = f'{2:0>1000000000}'",
        "answer = '%1000000000d' % 1",
        "answer = '%*d' % (10 ** 9, 1)",
        "answer = '%.1000000000f' % 1.5",
        "answer = '%.*f' % (10 ** 9, 1.5)",
        "answer = '%(a)1000000000d' % {'a': 1}",
        "x = '%1000000000d'\nx %= 1\nanswer = x",
        "answer = int('9' * 1000000)",
        "answer = str(9 ** 20000)",
        "answer = f'{9 ** 20000}'",
        "answer = list(range(10 ** 10))",
        "answer = [i for i in range(10 ** 10)]",
        "answer = {i for i in range(10 ** 10)}",
        "answer = {i: i for i in range(10 ** 10)}",
        "answer = sum(range(10 ** 10))",
        "answer = sum(i for i in range(10 ** 10))",
        "answer = max(range(10 ** 10))",
        "answer = sorted(range(10 ** 10))",
        "answer = set(range(10 ** 10))",
        "answer = tuple(range(10 ** 10))",
        "answer = any(i < 0 for i in range(10 ** 10))",
        "answer = all(range(1, 10 ** 10))",
        "answer = list(zip(range(10 ** 10), range(10 ** 10)))",
        "answer = list(enumerate(range(10 ** 10)))",
        "answer = list(reversed(range(10 ** 10)))",
        "answer = list(map(str, range(10 ** 10)))",
        "answer = list(filter(None, range(10 ** 10)))",
        "answer = dict.fromkeys(range(10 ** 10))",
        "answer = 10 ** 10 in [i for i in range(10 ** 10)]",
        "answer = -1.5 in range(10 ** 10)",
        "answer = range(10 ** 10).index(1.5)",
        "answer = [*range(10 ** 10)]",
        "a, *b = range(10 ** 10)",
        "x = []\nx.extend(range(10 ** 10))",
        "x = set()\nx.update(range(10 ** 10))",
        "x = {}\nx.update(zip(range(10 ** 10), range(10 ** 10)))",
        "x = [1]\nx += range(10 ** 10)",
        "x = [1]\nx[0:0] = range(10 ** 10)",
        "answer = ''.join(str(i) for i in range(10 ** 10))",
        "import statistics\nanswer = statistics.mean(range(10 ** 10))",
        "import statistics\nanswer = statistics.quantiles([1, 2], n=10 ** 10)",
        "import math\nanswer = math.fsum(range(10 ** 10))",
        "import math\nanswer = math.dist([1] * 10 ** 8, [1] * 10 ** 8)",
        "for i in range(10 ** 10):\n    get(i)",
        "answer = [get(i) for i in range(10 ** 10)]",
        "for i in range(10 ** 10):\n    pass",
        "while True:\n    pass",
        "while True:\n    get(1)",
        "x = 0\nwhile x >= 0:\n    x += 1",
        "x = [1]\nfor i in x:\n    x.append(i)",
        "x = [1]\nfor i in x:\n    x.append(i)\n    get(i)",
        "x = [1]\nfor i in x:\n    x += [get(i).size]",
        "x = {1: 1}\nfor i in x:\n    x[i + 1] = 1",
        "x = {1}\nfor i in x:\n    x.add(i + 1)",
        "x = [3, 1, 2]\nanswer = sorted(x, key=lambda i: [j for j in range(10 ** 10)])",
        "x = [3, 1, 2]\nx.sort(key=lambda i: 9 ** 9 ** 9)",
        "answer = max([1, 2], key=lambda i: 'a' * 10 ** 10)",
        "answer = list(map(lambda i: 9 ** 9 ** 9, [1]))",
        "answer = list(filter(lambda i: [0] * 10 ** 10, [1]))",
        "def f(x):\n    return f(x)\nanswer = f(1)",
        "def f(x):\n    return g(x)\ndef g(x):\n    return f(x)\nanswer = f(1)",
        "def f(x):\n    return get(f(x))\nanswer = f(1)",
        "def f(x):\n    while True:\n        x += 1\nanswer = f(1)",
        "def f(x):\n    while True:\n        get(x)\nanswer = f(1)",
        "def f(x):\n    return [x] * 10 ** 10\nanswer = f(1)",
        "f = lambda x: x\nanswer = f(1)",
        "answer = (lambda f: f(f))(lambda f: f(f))",
        "answer = list(map(lambda f: f, [lambda f: f]))[0]([9 ** 9 ** 9])",
    ]


def _growth_by_helpers() -> list[str]:
    """Helpers that call helpers: each level doubles the inlined calls."""
    lines = ["def f0(x):", "    return get(x)"]
    for level in range(1, 26):
        lines += [f"def f{level}(x):", f"    return [f{level - 1}(x), f{level - 1}(x)]"]
    pure = [line.replace("get(x)", "x") for line in lines]
    return [
        "\n".join([*lines, "answer = f25(1)"]),
        "\n".join([*pure, "answer = f25(1)"]),
    ]


def _patterns() -> list[str]:
    patterns = (
        r"(a+)+$",
        r"(a*)*$",
        r"(a|a)*$",
        r"(a|aa)+$",
        r"([a-z]+)*$",
        r"(.*a){20}$",
        r"(a?){40}a{40}$",
        r"((a+)b?)+$",
        r"(?:a+)+$",
        r"(?=(a+)+$)",
        r"a*a*a*a*a*a*a*a*$",
        r".*.*.*.*.*.*=",
        r"(\w+\s?)*$",
        r"(a+){2,}$",
        r"(?P<x>a+)+$",
        r"(a{1,9}){1,9}{1,9}$",
        r"a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaaaaaaab",
    )
    text = "'a' * 5000 + '!'"
    programs = [f"import re\nanswer = re.match({pattern!r}, {text})" for pattern in patterns]
    programs += [
        "import re\nanswer = re.sub('(a+)+$', 'b', 'a' * 5000 + '!')",
        "import re\nanswer = re.findall('(a+)+$', 'a' * 5000 + '!')",
        "import re\nanswer = re.split('(a+)+$', 'a' * 5000 + '!')",
        "import re\nanswer = re.search(pattern='(a+)+$', string='a' * 5000 + '!')",
        "import re\nanswer = re.search('(a+)+$', string='a' * 5000 + '!')",
        "import re\nanswer = re.match('a' * 100000, 'a')",
        "import re\nanswer = re.sub('a', 'b' * 1000000, 'a' * 1000000)",
        "import re\nanswer = re.sub('', 'b' * 1000000, 'a' * 1000000)",
        "from re import search as s\nanswer = list(map(s, ['(a+)+$'], ['a' * 5000 + '!']))",
        "import re\nanswer = re.match('(' * 5000, 'a')",
    ]
    return programs


def _shapes() -> list[str]:
    return [
        "answer = " + "(" * 300 + "1" + ")" * 300,
        "answer = " + "[" * 300 + "1" + "]" * 300,
        *("answer = " + "+".join(["1"] * number) for number in (200, 500, 900, 2000)),
        *("answer = x" + ".a" * number for number in (200, 500, 900, 2000)),
        *("answer = " + "not " * number + "1" for number in (200, 500, 900)),
        *("answer = " + "1 if 1 else " * number + "1" for number in (200, 500, 900)),
        "answer = " + "-" * 100000 + "1",
        "answer = " + "not " * 20000 + "1",
        "answer = " + "+".join(["1"] * 20000),
        "answer = " + "1 if 1 else " * 5000 + "1",
        "answer = x" + ".a" * 20000,
        "answer = x" + "[0]" * 20000,
        "answer = " + "9" * 90000,
        "answer = '" + "a" * 200_000 + "'",
        "x = 1\n" * 60_000,
        "\n".join("    " * depth + "if 1:" for depth in range(90)) + "\n" + "    " * 90 + "x = 1",
        "answer = " + "f'{" * 3 + "1" + "}'" * 3,
        "answer = " + "lambda: " * 500 + "1",
        "answer = [" + "x for x in [1] " + "for x in [1] " * 3000 + "]",
        "answer = '\x00\ud800'",
        "if 1:\n" + "\tx = 1\n        y = 2\n",
        "answer = 1" + "\\\n" * 50000,
        "x = 1;" * 40000,
    ]


HOSTILE: Mapping[str, list[str]] = {
    "attributes": _attributes(),
    "names": _names(),
    "imports": _imports(),
    "bombs": _bombs(),
    "growth": _growth_by_helpers(),
    "patterns": _patterns(),
    "shapes": _shapes(),
}
"""Hostile programs by kind."""


@tool
def get(x: Any) -> dict[str, Any]:
    """A record."""
    return {"size": 3, "name": "n"}


MOST_CALLS = 3_000
"""Calls after which a program counts as endless; the machine stops at a limit before."""


def outcome_of(source: str) -> tuple[str, str]:
    """What becomes of a program: ``refused`` and the code, ``error`` and its kind, or ``value``."""
    compiler = ProgramCompiler({"get": get})
    machine = Machine(
        compiler.helpers,
        meter=Meter(seconds=2.0),
        max_iterations=1_000,
        aliases=compiler.analysis.aliases,
    )
    calls = 0
    for piece in (*compiler.feed(source), *compiler.finish()):
        if isinstance(piece, Diagnostic):
            if piece.severity == "error":
                return "refused", piece.code
            continue
        machine.add(piece.statements)
    machine.close()
    while machine.ended is None:
        commands = [command for command in machine.take() if isinstance(command, StartCall)]
        assert commands, "the program waits for nothing"
        for command in commands:
            calls += 1
            assert calls < MOST_CALLS, "the program calls without end"
            try:
                value = get.function(*command.args, **command.kwargs)
            except Exception as error:  # noqa: BLE001
                machine.failed(command.site, command.index, ToolFailed(str(error)))
            else:
                machine.returned(command.site, command.index, value)
    error = machine.ended.error
    if error is None:
        return "value", type(machine.ended.value).__name__
    return "error", "ToolError" if isinstance(error, ToolFailed) else error.kind


def is_python(source: str) -> bool:
    """Whether CPython can read a text."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
