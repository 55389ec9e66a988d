"""Find the targets that a test's assertions name before it runs, so that their calls are counted."""

from __future__ import annotations

import dis
import inspect
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["codes_of", "counted_targets", "named_assertions"]

ASSERTIONS = frozenset(
    {"assert_amplification", "assert_calls", "assert_circuit_opens", "assert_work_stops"}
)
_TARGET = re.compile(r"[^\W\d][\w.]*[.:][^\W\d][\w.]*")


def counted_targets(test: object, arguments: Mapping[str, Any]) -> list[str]:
    """Return the targets that a test function names in its calls of such assertions.

    Args:
        test: The test function. Functions of its module that it names are searched, too.
        arguments: The values of its parameters, for a target that is one of them.
    """
    known, codes = codes_of(test)
    found = {
        target: None
        for code in codes
        if not ASSERTIONS.isdisjoint(code.co_names)
        for target in _targets(code, {**known, **arguments})
    }
    return list(found)


def named_assertions(test: object, names: Iterable[str]) -> set[str]:
    """Return those names that a test function uses, or a function of its module that it names."""
    used = {name for code in codes_of(test)[1] for name in (*code.co_names, *code.co_consts)}
    return {name for name in names if name in used}


def codes_of(test: object) -> tuple[Mapping[str, Any], list[types.CodeType]]:
    """Return the global names of a test function, and its code with that of the functions it names."""
    function: Any = inspect.unwrap(test) if callable(test) else None
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return {}, []
    known = function.__globals__
    functions = [function] + [
        held
        for code in _codes(function.__code__)
        for name in code.co_names
        if isinstance(held := known.get(name), types.FunctionType) and held.__globals__ is known
    ]
    return known, [code for one in functions for code in _codes(one.__code__)]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _targets(code: types.CodeType, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts among the arguments of each call of an assertion that name a target."""
    in_call = False
    for instruction in dis.get_instructions(code):
        value = instruction.argval
        if isinstance(value, str) and value in ASSERTIONS:
            in_call = True
        elif in_call:
            if instruction.opname.startswith(("LOAD_FAST", "LOAD_GLOBAL", "LOAD_DEREF")):
                value = values.get(value) if isinstance(value, str) else None
            elif instruction.opname != "LOAD_CONST":
                value = None
            texts = value if isinstance(value, (list, tuple)) else [value]
            yield from (one for one in texts if isinstance(one, str) and _TARGET.fullmatch(one))
            if instruction.opname.startswith("CALL"):
                in_call = False
