"""Find the files of a project that a test file imports, without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["project_files"]


def project_files(
    test: Path, root: Path, read: Callable[[Path], str | None]
) -> dict[Path, str | None]:
    """Return the texts of a test file, its conftest files, and the modules that they import.

    Imports inside functions count. Modules that are imported by a name that only exists at run
    time are not found, nor is code that is installed.

    Args:
        test: The test file.
        root: The root directory of pytest. Only files inside it are found.
        read: A function that returns the text of a file, or None if it cannot be used.

    Returns:
        The texts by path. None for a file that cannot be used.
    """
    wanted = [test, *_conftests(root, test)]
    found: dict[Path, str | None] = {}
    while wanted:
        path = wanted.pop(0)
        if path not in found:
            text = found[path] = read(path)
            wanted += _imported(text, path, root) if text is not None else ()
    return found


def _conftests(root: Path, test: Path) -> Iterator[Path]:
    for folder in test.parents:
        if folder != root and root not in folder.parents:
            break
        for name in ("conftest.py", "__init__.py"):
            if (folder / name).is_file():
                yield folder / name


def _imported(text: str, path: Path, root: Path) -> Iterator[Path]:
    """Yield the files of the project that a module imports, and their packages."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name, [path.parent, root, root / "src"], root)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(node, path, root)


def _imported_from(node: ast.ImportFrom, path: Path, root: Path) -> Iterator[Path]:
    if node.level:
        base = path.parents[node.level - 1]
        places = [base]
    else:
        places = [path.parent, root, root / "src"]
    name = node.module or ""
    if name:
        yield from _module(name, places, root)
    for alias in node.names:
        yield from _module(f"{name}.{alias.name}".lstrip("."), places, root)


def _module(name: str, places: list[Path], root: Path) -> Iterator[Path]:
    """Yield the file of a module, and those of the packages that it is in."""
    parts = name.split(".")
    for place in places:
        path = place.joinpath(*parts)
        files = [path.with_suffix(".py"), path / "__init__.py"]
        found = next((file for file in files if file.is_file()), None)
        if found is None or root not in found.parents:
            continue
        yield found
        for folder in found.parents:
            if folder == place or root not in folder.parents:
                break
            if (folder / "__init__.py").is_file():
                yield folder / "__init__.py"
        return
