"""Find the recovery code of a source file: the blocks that run because something went wrong.

These are

- each ``except`` and ``except*`` block, and each ``finally`` block,
- each ``with contextlib.suppress(...)``, which recovers by going on behind its body,
- the ``else`` of a retry loop, and the statements after one whose attempts return,
- each function with ``fallback`` in its name.

A retry loop is a loop with a ``try`` in its body whose handler lets the loop go on.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Sequence

__all__ = ["Block", "recovery_blocks"]

TRIES: tuple[type[ast.AST], ...] = (ast.Try, ast.TryStar)
LOOPS = (ast.For, ast.AsyncFor, ast.While)
LEAVES = (ast.Return, ast.Raise, ast.Break)


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One block of recovery code.

    Attributes:
        line: The line to show: of ``except``, ``finally``, ``with``, ``else``, or of the function.
        what: The kind, as ``except ValueError``.
        function: The function around it, as ``Loader.read``. Empty for code of the module.
        lines: The first and the last line of its code.
        guarded: The first and the last line of the code that it recovers from. None for a function.
        always_runs: True if it runs without an error as well: a ``finally``.
        by_exit: True if its code has no line of its own: a ``suppress``.
    """

    line: int
    what: str
    function: str
    lines: tuple[int, int]
    guarded: tuple[int, int] | None = None
    always_runs: bool = False
    by_exit: bool = False


def recovery_blocks(source: str) -> list[Block]:
    """Return the recovery code of a source file, in the order of its lines.

    A text with a syntax error has none.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    finder = _Finder(source.splitlines())
    finder.visit(tree)
    return sorted(finder.found, key=lambda block: (block.line, block.lines))


class _Finder(ast.NodeVisitor):
    """Visit all nodes of a file, and collect the blocks."""

    def __init__(self, text: Sequence[str]) -> None:
        self.found: list[Block] = []
        self._text = text
        self._scopes: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node.name, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if "fallback" in node.name.lower():
            self._scopes.append(node.name)
            self._add(node.lineno, "fallback function", _without_docstring(node.body))
            self._scopes.pop()
        self._enter(node.name, node)

    def _enter(self, name: str, node: ast.AST) -> None:
        self._scopes.append(name)
        self.generic_visit(node)
        self._scopes.pop()

    def visit_Try(self, node: ast.Try) -> None:
        self._try(node, "except")

    def visit_TryStar(self, node: ast.TryStar) -> None:
        self._try(node, "except*")

    def _try(self, node: ast.Try | ast.TryStar, keyword: str) -> None:
        guarded = _span(node.body)
        for handler in node.handlers:
            caught = "" if handler.type is None else f" {ast.unparse(handler.type)}"
            self._add(handler.lineno, f"{keyword}{caught}", handler.body, guarded=guarded)
        if node.finalbody:
            everything = [*node.body, *(one for h in node.handlers for one in h.body), *node.orelse]
            line = self._keyword(node.finalbody[0].lineno, "finally")
            self._add(line, "finally", node.finalbody, guarded=_span(everything), always_runs=True)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        self._with(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._with(node)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and _last_name(call.func) == "suppress":
                caught = ", ".join(map(ast.unparse, call.args))
                self._add(
                    node.lineno,
                    f"suppress({caught})",
                    node.body,
                    guarded=_span(node.body),
                    by_exit=True,
                )
        self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if isinstance(statements, list):
                self._after_retries(statements)
        super().generic_visit(node)

    def _after_retries(self, statements: Sequence[ast.stmt]) -> None:
        """Add what runs once a retry loop of these statements has used all attempts."""
        for place, loop in enumerate(statements):
            if not isinstance(loop, LOOPS) or not (tries := _retrying(loop)):
                continue
            guarded = _span(loop.body)
            if loop.orelse:
                line = self._keyword(loop.orelse[0].lineno, "else")
                self._add(line, "else after the last attempt", loop.orelse, guarded=guarded)
            rest = statements[place + 1 :]
            if rest and not loop.orelse and any(_returns(one, loop.body) for one in tries):
                self._add(rest[0].lineno, "after the last attempt", rest, guarded=guarded)

    def _keyword(self, below: int, keyword: str) -> int:
        """Return the line of the keyword above a block, which the tree does not hold."""
        for line in range(below, 0, -1):
            if self._text[line - 1].lstrip().startswith(keyword):
                return line
        return below

    def _add(
        self,
        line: int,
        what: str,
        code: Sequence[ast.stmt],
        *,
        guarded: tuple[int, int] | None = None,
        always_runs: bool = False,
        by_exit: bool = False,
    ) -> None:
        self.found.append(
            Block(
                line=line,
                what=" ".join(what.split()),
                function=".".join(self._scopes),
                lines=_span(code),
                guarded=guarded,
                always_runs=always_runs,
                by_exit=by_exit,
            )
        )


def _span(statements: Sequence[ast.stmt]) -> tuple[int, int]:
    last = statements[-1]
    return statements[0].lineno, last.end_lineno or last.lineno


def _without_docstring(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    first = body[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if is_text and len(body) > 1 else body


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _retrying(loop: ast.For | ast.AsyncFor | ast.While) -> list[ast.Try | ast.TryStar]:
    """Return the tries of a loop with a handler that lets the loop go on."""
    if isinstance(loop, ast.While) and isinstance(loop.test, ast.Constant) and loop.test.value:
        return []  # it ends inside its body
    return [
        one
        for one in _directly_in(loop.body)
        if isinstance(one, (ast.Try, ast.TryStar))
        and any(not isinstance(handler.body[-1], LEAVES) for handler in one.handlers)
    ]


def _directly_in(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements, and those inside of ``with`` and ``if``."""
    for one in statements:
        yield one
        if isinstance(one, (ast.With, ast.AsyncWith, ast.If)):
            yield from _directly_in([*one.body, *getattr(one, "orelse", [])])


def _returns(one: ast.Try | ast.TryStar, body: Sequence[ast.stmt]) -> bool:
    """Return True if an attempt without an error returns."""
    ends = [one.body[-1], *one.orelse[-1:], *([body[-1]] if body[-1] is not one else [])]
    return any(isinstance(end, ast.Return) for end in ends)
