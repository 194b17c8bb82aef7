"""The shape of the package: rooms know each other in one direction, engines by their protocol."""

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cvxfold

PACKAGE = Path(cvxfold.__file__).parent
PROTOCOL = {f"cvxfold.engines.{name}" for name in ("protocol", "outcome", "settings", "choose")}
MOST_PARAMETERS, MOST_FILES, MOST_LINES = 7, 8, 300


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imports_of(name: str) -> Iterator[str]:
    """The modules of the package that a module names in an import, wherever that stands."""
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module in modules():
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            submodules = [one for one in inside if one in modules()]
            yield from submodules
            if len(submodules) < len(inside):
                yield node.module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node."""
    reach = {name: _reached(graph, name) for name in graph}
    together = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return [sorted(one) for one in together if len(one) > 1]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen, front = {start}, [start]
    while front:
        for following in graph.get(front.pop(), set()) - seen:
            seen.add(following)
            front.append(following)
    return seen


def test_imports_are_absolute() -> None:
    """Others would not be seen here."""
    nodes = [node for tree in modules().values() for node in ast.walk(tree)]
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]


def room(name: str) -> str:
    """The folder that a module lives in, below the package; the module itself at the top."""
    return ".".join(name.split(".")[:2])


def test_a_circle_would_be_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str]()}
    assert circles(graph) == [["a", "b", "c"]]


def test_modules_import_each_other_in_no_circle() -> None:
    assert circles({name: set(imports_of(name)) for name in modules()}) == []


def test_rooms_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name in modules():
        there = {room(other) for other in imports_of(name)} - {room(name)}
        graph.setdefault(room(name), set()).update(there)
    assert circles(graph) == []


def test_engines_are_seen_through_their_protocol_alone() -> None:
    seen = {
        (name, other)
        for name in modules()
        if room(name) != "cvxfold.engines"
        for other in imports_of(name)
        if room(other) == "cvxfold.engines"
    }
    assert seen
    assert {pair for pair in seen if pair[1] not in PROTOCOL} == set()


def test_linear_algebra_knows_no_cones() -> None:
    linear = [name for name in modules() if name.startswith("cvxfold.engines.linear")]
    assert len(linear) > 3
    assert not [other for name in linear for other in imports_of(name) if room(other) == "cvxfold.cones"]


def test_the_top_of_the_package_is_a_page() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= MOST_FILES


def test_files_name_one_thing() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {str(file): lines for file, lines in lengths.items() if lines > MOST_LINES} == {}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, tree in modules().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_command(function: ast.FunctionDef) -> bool:
    """Whether it declares a command of the command line, whose parameters are that command's options."""
    return any("app.command" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_no_function_has_many_parameters() -> None:
    long = []
    for name, function in functions():
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count = len([one for one in given if one.arg not in ("self", "cls")])
        if count > MOST_PARAMETERS and function.name != "__init__" and not is_command(function):
            long.append((name, function.name, count))
    assert long == []


def classes_of(tree: ast.Module) -> list[str]:
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def test_public_classes_have_names_of_their_own() -> None:
    """But for the layers, which cvxpylayers calls the same for each framework."""
    layers = [name for name, tree in modules().items() if "CvxpyLayer" in classes_of(tree)]
    assert layers == ["cvxfold.jax.cvxpylayer", "cvxfold.torch.cvxpylayer"]
    names = Counter(
        node.name
        for name, tree in modules().items()
        if name != "cvxfold.jax.cvxpylayer"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []
