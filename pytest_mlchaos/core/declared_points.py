"""Find the points of a source file: the calls of ``reachable`` and ``sometimes`` in it.

A point that no trial reached is known from the source code alone. So only constant names are found.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from .entries import Point

__all__ = ["declared_points"]

NAMES = {"reachable": 0, "sometimes": 1}
"""The functions, with the position of the point's name in their arguments."""
PACKAGE = __name__.partition(".")[0]
FIXTURE = "mlchaos"


def declared_points(source: str, file: str) -> list[Point]:
    """Return the points that a source file declares, in the order of their lines.

    Args:
        source: The text of the file. A text with a syntax error declares none.
        file: Its path.
    """
    if not any(name in source for name in NAMES):
        return []
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    functions, modules = _imported(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            what = _called(node.func, functions, modules)
            name = _name_of(node, NAMES[what]) if what else None
            if what and name is not None:
                # As in a frame of the running code, the line is that of the call's first line.
                place = f"{os.path.basename(file)}:{node.lineno}"
                found.append(Point(name=name, condition=what == "sometimes", place=place))
    return sorted(found, key=lambda point: int(point.place.rpartition(":")[2]))


def _imported(tree: ast.Module) -> tuple[dict[str, str], set[str]]:
    """Return the names of the functions in this file, and the names of the package."""
    functions: dict[str, str] = {}
    modules = {FIXTURE}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            functions.update(
                {alias.asname or alias.name: alias.name for alias in _wanted(node.names)}
            )
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name == PACKAGE}
    return functions, modules


def _wanted(names: list[ast.alias]) -> Iterator[ast.alias]:
    return (alias for alias in names if alias.name in NAMES)


def _called(function: ast.expr, functions: dict[str, str], modules: set[str]) -> str:
    """Return which of the functions a call calls, or an empty text."""
    if isinstance(function, ast.Name):
        return functions.get(function.id, "")
    if (
        isinstance(function, ast.Attribute)
        and function.attr in NAMES
        and isinstance(function.value, ast.Name)
        and function.value.id in modules
    ):
        return function.attr
    return ""


def _name_of(call: ast.Call, position: int) -> str | None:
    """Return the constant name of the point, or None if it is computed."""
    given: list[ast.expr] = [
        keyword.value for keyword in call.keywords if keyword.arg == "name"
    ] or call.args[position : position + 1]
    value = given[0].value if given and isinstance(given[0], ast.Constant) else None
    return value if isinstance(value, str) else None
