"""Detect tool errors that the test's own code caught and dropped. Such a test always passes."""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..engine.user_code import is_users
from ..errors import MlchaosError

__all__ = ["describe_dropped"]

BROAD = {"Exception", "BaseException", "AssertionError", "ValueError", "MlchaosError", "Verdict"}
"""Classes that catch more than one kind of verdict. A handler for a single kind is intended."""


def describe_dropped(errors: Iterable[MlchaosError]) -> str:
    """Describe the first error that a broad handler caught and dropped. Return "" if there is none."""
    for error in errors:
        trace = error.__traceback__  # its first entry is the frame that caught the error
        if trace is None:
            continue
        code = trace.tb_frame.f_code
        if is_users(code.co_filename) and _is_dropped(code.co_filename, trace.tb_lineno):
            summary = str(error).partition("\n")[0]
            return (
                f"{type(error).__name__} was raised, but "
                f"{Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name} caught and "
                f"dropped it, so this test would pass whatever is found: {summary}\nName the error "
                f"that you expect, for example "
                f"pytest.raises({type(error).__name__}), or let it fail the test"
            )
    return ""


def _is_dropped(filename: str, line: int) -> bool:
    """Return True if the innermost statement that can catch errors of a line is broad and drops
    them.
    """
    found: ast.Try | ast.With | None = None
    for node in _catchers(filename):
        if node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0):
            found = node  # ast.walk visits outer statements before inner ones
    if isinstance(found, ast.Try):
        return any(_is_broad(handler.type) and _drops(handler) for handler in found.handlers)
    if isinstance(found, ast.With):
        calls = [
            item.context_expr for item in found.items if isinstance(item.context_expr, ast.Call)
        ]
        return any(
            _name(call.func) == "suppress" and any(map(_is_broad, call.args)) for call in calls
        )
    return False


@functools.lru_cache(maxsize=64)
def _catchers(filename: str) -> tuple[ast.Try | ast.With, ...]:
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return ()
    # _can_catch has checked the types
    return tuple(node for node in ast.walk(tree) if _can_catch(node))  # type: ignore[misc]


def _can_catch(node: ast.AST) -> bool:
    if isinstance(node, ast.Try):
        return bool(node.handlers)
    if isinstance(node, ast.With):
        names = (
            _name(item.context_expr.func)
            for item in node.items
            if isinstance(item.context_expr, ast.Call)
        )
        return any(name in ("suppress", "raises") for name in names)
    return False


def _is_broad(kind: ast.expr | None) -> bool:
    kinds: Iterator[ast.expr] = (
        iter(kind.elts) if isinstance(kind, ast.Tuple) else iter([kind] if kind is not None else [])
    )
    return kind is None or any(_name(one) in BROAD for one in kinds)


def _drops(handler: ast.ExceptHandler) -> bool:
    """Return True if a handler does not raise, assert, use the error, or call ``pytest.fail``."""
    for node in (inner for statement in handler.body for inner in ast.walk(statement)):
        if isinstance(node, (ast.Raise, ast.Assert)) or (
            isinstance(node, ast.Name) and node.id == handler.name
        ):
            return False
        if isinstance(node, ast.Call) and _name(node.func) in ("fail", "skip", "xfail", "exit"):
            return False
    return True


def _name(node: ast.expr) -> str:
    return (
        node.attr
        if isinstance(node, ast.Attribute)
        else node.id
        if isinstance(node, ast.Name)
        else ""
    )
