"""Find the checks of a test function: the statements that can fail because of what happened before.

Checks are ``assert`` and ``raise`` statements, ``pytest.fail``, ``with pytest.raises(...)`` and its
neighbours, calls whose name begins with ``assert``, and calls of functions of the same file that
hold checks.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

__all__ = ["last_check"]

CONTEXTS = ("raises", "warns", "deprecated_call")
"""Context managers that check what their body does."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
LOOPS = (ast.For, ast.AsyncFor, ast.While)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def last_check(source: str, first_line: int, ignored: Collection[str] = ()) -> int:
    """Return the last line of a test function after which no check follows.

    Whatever happened up to this line was checked. A check inside a loop also follows the lines
    below it, up to the end of the loop.

    Args:
        source: The text of the file.
        first_line: The first line of the function, with its decorators.
        ignored: Names of methods that do not count, because their calls are recorded.

    Returns:
        The line, or 0 if the function has no check.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return 0
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    test = next((one for one in functions if _first_line(one) == first_line), None)
    if test is None:
        return 0
    helpers = _Helpers(functions, ignored)
    return max(helpers.checks(test), default=0)


def _first_line(function: Function) -> int:
    return min([function.lineno, *(one.lineno for one in function.decorator_list)])


class _Helpers:
    """The functions of a file, and which of them check something."""

    def __init__(self, functions: Collection[Function], ignored: Collection[str]) -> None:
        self._functions = {one.name: one for one in functions}
        self._ignored = ignored
        self._known: dict[str, bool] = {}

    def checks(self, function: Function) -> Iterator[int]:
        """Yield the last line that each check of a function covers."""
        return self._in(function.body, 0)

    def _in(self, nodes: Collection[ast.AST], loop_end: int) -> Iterator[int]:
        for node in nodes:
            if isinstance(node, SCOPES):
                continue  # it runs elsewhere, or when it is called
            end = loop_end
            if isinstance(node, LOOPS):
                end = max(loop_end, node.end_lineno or node.lineno)
            if self._is_check(node):
                yield max(end, getattr(node, "end_lineno", None) or 0)
            yield from self._in(list(ast.iter_child_nodes(node)), end)

    def _is_check(self, node: ast.AST) -> bool:
        if isinstance(node, (ast.Assert, ast.Raise)):
            return True
        if isinstance(node, (ast.With, ast.AsyncWith)):
            return any(
                isinstance(item.context_expr, ast.Call)
                and _last_name(item.context_expr.func) in CONTEXTS
                for item in node.items
            )
        if not isinstance(node, ast.Call):
            return False
        name = _last_name(node.func)
        if name in self._ignored:
            return False
        return name.startswith("assert") or name in ("fail", *CONTEXTS) or self._helps(name)

    def _helps(self, name: str) -> bool:
        """Return True if a function of the file checks something."""
        if name not in self._known:
            self._known[name] = False  # for a function that calls itself
            helper = self._functions.get(name)
            self._known[name] = helper is not None and any(self.checks(helper))
        return self._known[name]


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
