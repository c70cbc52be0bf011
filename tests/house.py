"""Read the import graph of a source tree from its syntax, without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]
"""The modules that each module imports, both by dotted name; a package is its ``__init__.py``."""


def modules(folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the files below some folders by dotted name.

    Parameters
    ----------
    folders : mapping
        Package name to folder. Symbolic links inside are not followed.
    """
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if not any((folder / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts))):
                found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import, at any depth; the name is empty where none is taken from the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((str(argument.value), "") for argument in node.args[:1] if isinstance(argument, ast.Constant))


def graph(folders: Mapping[str, Path]) -> Graph:
    """Return the imports between the files below some folders.

    Imports inside functions and under ``TYPE_CHECKING`` count. ``from package import name`` is an import of the
    submodule where there is one, of the package otherwise.
    """
    files = modules(folders)
    edges: Graph = {}
    for module, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = set()
        for source, name in imports(tree, module, path.name == "__init__.py"):
            submodule = f"{source}.{name}"
            found.add(submodule if submodule in files else source)
        edges[module] = found & set(files)
    return edges


def circles(edges: Graph) -> list[set[str]]:
    """Return the sets of modules that import each other (strongly connected components, by Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in edges[module]:
            if other not in index:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            start = stack.index(module)
            component = set(stack[start:])
            del stack[start:]
            if len(component) > 1 or module in edges[module]:
                found.append(component)

    for module in edges:
        if module not in index:
            visit(module)
    return found
