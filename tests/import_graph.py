"""Who imports whom in a package, read from its source: imports inside functions count too."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


def modules_of(package: Path) -> dict[str, Path]:
    """The files of a package's modules, by name; a folder is its `__init__.py`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph_of(package: Path) -> Graph:
    """The modules of the package that each of its modules imports, wherever the import stands.

    What only a type checker reads (`if TYPE_CHECKING:`) is left out, and so is what is looked up by
    name when it is asked for (`importlib.import_module`).
    """
    modules = modules_of(package)
    return {
        name: {found for each in _imports(path, name) for found in _known(each, modules)} - {name}
        for name, path in modules.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, in some order, each sorted by name."""
    reach = {name: _reached(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in graph
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += graph[name]
    return found


def _imports(path: Path, module: str) -> Iterator[tuple[str, str | None]]:
    """Each imported module with the name that is taken from it, None for the module itself."""
    folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _run(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((each.name, None) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder.split(".")[: len(folder.split(".")) - node.level + 1]
            home = ".".join([*base, node.module or ""]).strip(".") if node.level else node.module
            yield from ((str(home), each.name) for each in node.names)


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING:`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for node in child.orelse:
                yield from _run(node)
        else:
            yield from _run(child)


def _known(found: tuple[str, str | None], modules: Mapping[str, Path]) -> set[str]:
    """The module of ours that an import runs: `from a import b` is `a.b` where that is one."""
    home, name = found
    inner = f"{home}.{name}"
    return {inner} if inner in modules else {home} & modules.keys()
