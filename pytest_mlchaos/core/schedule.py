"""Define schedules: faults pinned to visits, as data that prints as decorators."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from typing import Any

from ..errors import BadArgument
from .faults import EVERY, Fault, OneOf, create, fields_of, is_drawn
from .validation import format_value, index

__all__ = ["Schedule", "visits_of"]


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Schedule:
    """A tuple of faults, and the seed of everything random in them.

    ``repr`` gives the decorators that recreate it, one per line (with the seed only if it matters).
    ``line`` gives the same on one line, for ``--mlchaos-replay``. ``parse`` reads either back.
    """

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not any(fault.random or fault.p is not None for fault in self.faults):
            # No fault uses the seed. Without it, schedules that do the same are equal.
            object.__setattr__(self, "seed", 0)

    def __repr__(self) -> str:
        return "\n".join(f"@chaos.{item}" for item in self._items())

    @property
    def line(self) -> str:
        """Return the schedule on one line: ``gpu_oom(at=7); crash(at=9)``."""
        return "; ".join(self._items())

    def _items(self) -> Iterator[str]:
        if self.seed:
            yield f"settings(seed={self.seed})"
        yield from map(repr, self.faults)

    @property
    def weight(self) -> tuple[int, int, int, str]:
        """Return the size of a schedule: its strikes, the visits, and the length of the text."""
        counts = [
            visits_of(fault.at) for fault in self.faults if isinstance(fault.at, (tuple, range))
        ]
        return (
            sum(count for count, _ in counts) or len(self.faults),
            sum(total for _, total in counts),
            len(self.line),
            self.line,
        )

    def without_strategies(self) -> Schedule:
        """Return the same schedule for the trial without faults of a different process.

        What is still to be drawn is left open there, because a strategy may not pickle.
        """
        return dataclasses.replace(self, faults=tuple(map(_without_strategies, self.faults)))

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read decorators or a replay line.

        Names must be registered faults, and arguments plain values.

        Raises:
            BadArgument: The text is wrong. The message says what and where.
            UnknownFault: No fault has this name.
        """
        faults: list[Fault] = []
        seed = 0
        for call in _calls(text):
            name, keywords = _name(call, text), _keywords(call, text)
            if name == "settings":
                seed = _seed(keywords)
            else:
                faults.append(create(name, **keywords))
        if not faults:
            raise BadArgument(
                f"a schedule must be faults such as 'gpu_oom(at=7)', got {format_value(text)}"
            )
        return cls(tuple(faults), seed)


def _without_strategies(fault: Fault) -> Fault:
    drawn: dict[str, Any] = {
        name: OneOf(()) for name in fields_of(type(fault)) if is_drawn(getattr(fault, name))
    }
    return dataclasses.replace(fault, **drawn) if drawn else fault


def visits_of(at: tuple[int, ...] | range) -> tuple[int, int]:
    """Return how many visits there are, and their sum."""
    if not isinstance(at, range):
        return len(at), sum(at)
    count = (at[-1] - at[0]) // at.step + 1  # len() overflows above 2**63
    return count, count * (at[0] + at[-1]) // 2


def _seed(keywords: dict[str, Any]) -> int:
    seed = index(keywords.get("seed"))
    if seed is None or len(keywords) != 1:
        raise BadArgument(
            f"the settings of a schedule must be settings(seed=N), got {format_value(keywords)}"
        )
    return seed


def _calls(text: str) -> list[ast.expr]:
    source = text.strip()
    if source.startswith("@"):
        source = (
            "\n".join(part.strip() for part in source.replace(";", "\n").splitlines())
            + "\ndef _(): ..."
        )
    try:
        body = ast.parse(source).body
    except (
        SyntaxError,
        ValueError,
        MemoryError,
        RecursionError,
    ):
        # The last two come from deep nesting.
        raise BadArgument(
            f"a schedule must be faults such as 'gpu_oom(at=7); crash(at=9)', got "
            f"{format_value(text)}"
        ) from None
    found: list[ast.expr] = []
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            found.extend(statement.decorator_list)
        elif isinstance(statement, ast.Expr):
            found.extend(
                statement.value.elts
                if isinstance(statement.value, ast.Tuple)
                else [statement.value]
            )
        else:
            raise BadArgument(
                f"a schedule must be faults such as 'gpu_oom(at=7)', got {format_value(text)}"
            )
    return found


def _name(node: ast.expr, text: str) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    if isinstance(function, ast.Name):
        return function.id
    if (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "chaos"
    ):
        return function.attr
    raise BadArgument(
        f"a fault must be written like gpu_oom(at=7), got {format_value(ast.unparse(node))} in "
        f"{format_value(text)}"
    )


def _keywords(node: ast.expr, text: str) -> dict[str, Any]:
    if not isinstance(node, ast.Call):
        return {}
    names = [keyword.arg for keyword in node.keywords]
    if node.args or None in names:
        raise BadArgument(
            f"the arguments of a fault must be keywords, as in gpu_oom(at=7), got "
            f"{format_value(ast.unparse(node))}"
        )
    if len(set(names)) < len(names):
        raise BadArgument(
            f"a keyword is given twice in {format_value(ast.unparse(node))}. Give it once"
        )
    return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Attribute(value=ast.Name(id="chaos"), attr="EVERY") | ast.Name(id="EVERY"):
            return EVERY
        case ast.Call(func=ast.Name(id="range"), args=arguments, keywords=[]):
            try:
                return range(*(_value(argument) for argument in arguments))
            except (TypeError, ValueError) as error:
                raise BadArgument(f"{ast.unparse(node)} is not a range: {error}") from None
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="chaos"), attr="one_of"),
            args=[_, *_] as arguments,
            keywords=[],
        ):
            return OneOf(tuple(_value(argument) for argument in arguments))
        case ast.Name(id="nan" | "inf" as word):
            return float(word)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return float("-inf")
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        match node:  # it may hold nan or inf
            case ast.Dict(keys=[_, *_] as keys, values=values) if None not in keys:
                parts = zip(keys, values, strict=True)
                return {_value(key): _value(value) for key, value in parts if key is not None}
            case ast.List(elts=[_, *_] as items):
                return [_value(item) for item in items]
        raise BadArgument(
            f"an argument must be a plain value, got {format_value(ast.unparse(node))}"
        ) from None
