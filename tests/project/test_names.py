"""Names can be read without the sentence around them, and no function or module is too long."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.project.test_imports import PACKAGE, modules

# A reader meets such a name without its sentence, and cannot tell what the variable holds.
BARE_WORDS = frozenset(
    """
    again alike another any anything asked became been begun both brought came carried changed
    chosen come drawn due each either else every everything few found given gone got had heard held
    here it its kept known left lost made many meant mine missed named needed neither none nothing
    one ones other others ours put rest said seen shown so so_far some something spoken stood such
    taken that theirs them there these they this those told took tried wanted was were what whatever
    which whichever who whole whose written
    """.split()
)
LARGEST_SHARE = 0.005

LONGEST_MODULE = 600

# The same thing under the same name, at two levels of the package.
SAME_MEANING = {
    "load_tools": "settings.servers adds the servers of the settings to tools.loading",
    "replay": "the command and the function that it calls",
}


def bindings(tree: ast.AST) -> Iterator[str]:
    """Every name that a module binds: variables, arguments, attributes, captures of patterns."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.ExceptHandler(name=str(name)):
                yield name


def test_few_names_are_bare_participles_or_pronouns() -> None:
    counts = Counter(name.strip("_") for tree in modules().values() for name in bindings(tree))
    bare = {name: count for name, count in counts.items() if name in BARE_WORDS}
    share = sum(bare.values()) / counts.total()
    assert share <= LARGEST_SHARE, sorted(bare.items(), key=lambda item: -item[1])


def test_bindings_of_every_kind_are_counted() -> None:
    code = """
def function(argument, *rest, keyword=0, **others):
    self.attribute = [item for item in argument]
    with open(path) as file, lock:
        first, (second, *third) = file
    for turn in third:
        if (found := turn):
            pass
    try:
        annotated: int = 1
    except ValueError as error:
        pass
    match keyword:
        case [head, *tail] as whole:
            pass
"""
    assert sorted(bindings(ast.parse(code))) == sorted(
        "argument rest keyword others attribute item file first second third turn found annotated "
        "error head tail whole".split()
    )


def public_definitions() -> dict[str, list[str]]:
    """Names of public classes and functions at the top of modules -> the modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules().items():
        names = {
            node.name
            for node in ast.iter_child_nodes(tree)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for name in names:
            if not name.startswith("_"):
                places[name].append(module)
    return places


def test_a_public_name_means_one_thing() -> None:
    shared = {name: places for name, places in public_definitions().items() if len(places) > 1}
    assert {name: shared[name] for name in shared if name not in SAME_MEANING} == {}
    assert SAME_MEANING.keys() <= shared.keys(), "the list has a name that is unique by now"


def test_no_module_is_too_long() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in Path(PACKAGE).rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}
