"""Compare functions, methods and classes by their content, not by their names alone."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["class_differences", "code_differences", "is_code", "is_local"]

Compare = Callable[[Any, Any, str], Iterator[str]]
_NATIVE = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)
_OF_EACH_CLASS = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__module__",
        "__qualname__",
        "__doc__",
        "__firstlineno__",
        "__static_attributes__",
    }
)


def is_code(value: object) -> bool:
    """Return True for functions, methods, classes and descriptors of methods."""
    return isinstance(
        value,
        (types.FunctionType, types.MethodType, type, classmethod, staticmethod, property, *_NATIVE),
    )


def is_local(value: object) -> bool:
    """Return True for something that a call has defined. Its name says little about it."""
    return "<" in getattr(value, "__qualname__", "")


def code_differences(a: Any, b: Any, path: str, compare: Compare) -> Iterator[str]:
    """Yield the differences between two objects of one type. ``compare`` compares what they hold."""
    if isinstance(a, types.FunctionType):
        yield from _functions(a, b, path, compare)
    elif isinstance(a, types.MethodType):
        yield from compare(a.__func__, b.__func__, path)
        yield from compare(a.__self__, b.__self__, f"{path}.__self__")
    elif isinstance(a, (classmethod, staticmethod)):
        yield from compare(a.__func__, b.__func__, path)
    elif isinstance(a, property):
        yield from compare((a.fget, a.fset, a.fdel), (b.fget, b.fset, b.fdel), path)
    elif isinstance(a, type):
        yield from class_differences(a, b, path, compare)
    elif _name(a) != _name(b):
        yield f"{path}: not equal ({type(a).__name__})"
    else:
        owner, other = getattr(a, "__self__", None), getattr(b, "__self__", None)
        if not isinstance(owner, types.ModuleType):
            yield from compare(owner, other, f"{path}.__self__")


def class_differences(a: type, b: type, path: str, compare: Compare) -> Iterator[str]:
    """Yield the differences between two classes.

    Classes of a module are compared by name. Classes that a call has made are compared by content.
    """
    if a is b:
        return
    if _name(a) != _name(b):
        yield (
            f"{path}: {a.__name__} instead of {b.__name__}"
            if a.__name__ != b.__name__
            else f"{path}: not equal (type)"
        )
    elif is_local(a):
        yield from compare(a.__bases__, b.__bases__, f"{path}.__bases__")
        yield from compare(_members(a), _members(b), path)


def _members(cls: type) -> dict[str, Any]:
    """Return the definitions in a class body. Slots are compared by their names."""
    return {
        name: None
        if isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType))
        else value
        for name, value in vars(cls).items()
        if name not in _OF_EACH_CLASS
    }


def _functions(a: Any, b: Any, path: str, compare: Compare) -> Iterator[str]:
    if _name(a) != _name(b) or _code(a.__code__) != _code(b.__code__):
        yield f"{path}: not equal (function)"
        return
    yield from compare(_cells(a), _cells(b), f"{path}.__closure__")
    yield from compare(
        (a.__defaults__, a.__kwdefaults__),
        (b.__defaults__, b.__kwdefaults__),
        f"{path}.__defaults__",
    )


def _name(value: object) -> tuple[Any, Any]:
    return getattr(value, "__module__", None), getattr(value, "__qualname__", None)


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """Return all of a code object except its position in its file."""
    constants = tuple(
        _code(one) if isinstance(one, types.CodeType) else (type(one), repr(one))
        for one in code.co_consts
    )
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return (
        code.co_code,
        constants,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        counts,
    )


def _cells(function: Any) -> dict[str, Any]:
    """Return the variables of a closure by name. Leave out cells without content."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found
