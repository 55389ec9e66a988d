"""Wrap inherited methods for one class only."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

__all__ = ["Inherited"]


class Inherited:
    """A descriptor for a method that a class inherits.

    It wraps the method that its instances would find.

    A subclass may have a second base that defines the method. So like ``super()``, it searches the
    classes that follow in the order of the instance's own class. An instance may also hold a
    function under that name, as in clients that make methods when they are created.
    """

    def __init__(self, owner: type, name: str, wrap: Callable[[Callable[..., Any]], Any]) -> None:
        self._owner, self._name, self._wrap = owner, name, wrap
        self._wrapped: dict[int, tuple[Any, Any]] = {}

    def wrapping(self, more: Callable[[Callable[..., Any]], Any]) -> Inherited:
        """Return a descriptor with one more layer of wrappers."""
        return Inherited(self._owner, self._name, lambda function: more(self._wrap(function)))

    def __get__(self, instance: object, cls: object = None) -> Any:
        owner: Any = self._owner
        if instance is not None and self._name in self._own(instance):
            return self._made(instance.__dict__[self._name])
        of = cls if instance is None else instance
        found = getattr(super(owner, of), self._name)
        bound = getattr(found, "__self__", None)
        if instance is not None and bound is instance:
            return _Bound(
                found, self._name, self._made(getattr(super(owner, type(instance)), self._name))
            )
        if isinstance(found, types.MethodType) and isinstance(bound, type):
            return _Bound(found, self._name, self._made(found.__func__))
        return self._made(found)

    def _own(self, instance: object) -> Any:
        """Return the attributes that an instance holds itself.

        Python looks up special methods only in the class.
        """
        return () if self._name.startswith("__") else getattr(instance, "__dict__", ())

    def __set__(self, instance: object, value: object) -> None:
        instance.__dict__[self._name] = value

    def __delete__(self, instance: object) -> None:
        try:
            del instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def _made(self, function: Callable[..., Any]) -> Any:
        made = self._wrapped.get(id(function))
        if made is None:
            # Hold the function, so that no other object gets its id.
            made = self._wrapped[id(function)] = (function, self._wrap(function))
        return made[1]


class _Bound:
    """A bound method that is called through a wrapper."""

    __slots__ = ("_call", "_method", "_name")

    def __init__(self, method: Any, name: str, call: Callable[..., Any]) -> None:
        self._method, self._name, self._call = method, name, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._method.__self__, *args, **kwargs)

    # ``isinstance`` uses it if the type itself does not fit.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def __eq__(self, other: object) -> bool:
        return bool(self._method == getattr(other, "_method", other))

    def __hash__(self) -> int:
        return hash(self._method)

    def __repr__(self) -> str:
        return repr(self._method)

    def __reduce__(self) -> Any:
        return getattr, (self._method.__self__, self._name)
