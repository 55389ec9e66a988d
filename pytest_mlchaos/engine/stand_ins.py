"""Make stand-ins that behave exactly like the originals until a fault strikes."""

from __future__ import annotations

import contextlib
import functools
import types
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

__all__ = ["Proxy", "delegating", "unbound"]


class _Builtin:
    """Base class of stand-ins for built-in functions.

    It has no ``__get__``, because a built-in function in a class takes no ``self``.
    """

    __slots__ = ("__dict__", "__weakref__")

    # ``isinstance`` uses it if the type itself does not fit.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return types.BuiltinFunctionType

    def __repr__(self) -> str:
        # Each subclass has one
        return f"<built-in function {self.__name__}>"  # type: ignore[attr-defined]

    def __reduce__(self) -> str:
        # Pickle finds it by its module and name, like the original.
        return str(self.__qualname__)  # type: ignore[attr-defined]


def unbound(wrapper: object, original: object) -> Any:
    """Return ``wrapper``, or a callable that does not bind to instances, like ``original``.

    ``class Timer: now = time.monotonic`` calls ``now()`` without arguments, because a built-in
    function is not a descriptor. A Python function in its place would receive the instance.
    """
    if hasattr(type(original), "__get__") or not isinstance(wrapper, types.FunctionType):
        return wrapper
    names = {
        name: getattr(original, name, None)
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__self__")
    }
    kind: Any = type(
        names["__name__"] or "function",
        (_Builtin,),
        {"__slots__": (), "__call__": staticmethod(wrapper)},
    )
    made = kind()
    vars(made).update(vars(wrapper), **names)
    return made


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def delegating(
    function: Callable[..., AsyncGenerator[Any, Any]],
    entered: Callable[
        [tuple[Any, ...], dict[str, Any]], contextlib.AbstractAsyncContextManager[Arguments]
    ],
    through: Callable[[Any], Awaitable[Any]],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Return an async generator function that delegates to ``function``, like ``yield from``.

    The generator receives all values and errors that are sent, and the end.

    Args:
        function: The original async generator function.
        entered: A function that returns a context for the arguments. The context may change them.
        through: A function that returns the new value of each item.
    """

    @functools.wraps(function)
    async def generate(*args: object, **kwargs: object) -> AsyncGenerator[Any, Any]:
        async with entered(args, kwargs) as (args, kwargs):
            items = function(*args, **kwargs)
            resume: Any = items.__anext__()
            try:
                while True:
                    try:
                        item = await resume
                    except StopAsyncIteration:
                        return
                    # It may hold an error, whose traceback holds this frame.
                    del resume
                    item = await through(item)
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001
                        # the generator decides what happens
                        resume = items.athrow(error)
                    else:
                        resume = items.asend(sent)
                    del item
            finally:
                await items.aclose()

    return generate


_OWN = frozenset(
    f"__{name}__"
    for name in (
        *(
            "class",
            "new",
            "init",
            "init_subclass",
            "subclasshook",
            "getattribute",
            "getattr",
            "setattr",
            "delattr",
            "dict",
            "weakref",
        ),
        *(
            "slots",
            "module",
            "doc",
            "del",
            "class_getitem",
            "abstractmethods",
            "annotations",
            "orig_bases",
            "parameters",
            "match_args",
        ),
        *(
            "firstlineno",
            "static_attributes",
            "sizeof",
            "prepare",
            "instancecheck",
            "subclasscheck",
        ),
    )
)
"""Special names that a proxy does not take from the type of its object."""
_classes: weakref.WeakKeyDictionary[type, dict[tuple[type, frozenset[str]], type]] = (
    weakref.WeakKeyDictionary()
)


class Proxy:
    """A proxy for the object ``_mlchaos``.

    Only the public methods that a subclass defines differ.

    ``isinstance`` accepts it as the object's type. Special methods work if the type has them, and
    attributes are set on the object. A method of the subclass exists only if the object has a
    method of that name.
    """

    __slots__ = ("__weakref__", "_mlchaos")

    _mlchaos: Any

    def __new__(cls, of: object, *args: object, **kwargs: object) -> Any:
        """Make an instance of a class that is specific to the object's type."""
        return object.__new__(_class_for(cls, of))

    def __init__(self, of: Any) -> None:
        object.__setattr__(self, "_mlchaos", of)

    # ``isinstance`` uses it if the type itself does not fit.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._mlchaos)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_mlchaos"):
            raise AttributeError(name)
        return getattr(self._mlchaos, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_mlchaos"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._mlchaos, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._mlchaos, name)


class _Missing:
    """A method that the object does not have. The look-up is passed to the object, which raises."""

    def __get__(self, proxy: object, owner: object = None) -> Any:
        raise AttributeError


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _class_for(base: type, of: object) -> type:
    """Return the subclass of ``base`` for this object.

    It has the special methods of the object's type, and those methods of ``base`` that the object
    has.
    """
    kind = type(of)
    defined = {
        name
        for cls in base.__mro__[: base.__mro__.index(Proxy)]
        for name in vars(cls)
        if name not in _OWN and "_mlchaos" not in name
    }
    missing = frozenset(
        name for name in defined if not hasattr(kind if _is_special(name) else of, name)
    )
    known = _classes.setdefault(kind, {})
    if (base, missing) not in known:
        forwarded = (
            {
                name
                for name in dir(kind)
                if _is_special(name) and callable(getattr(kind, name, None))
            }
            - _OWN
            - defined
        )
        namespace: dict[str, Any] = {
            name: None if _is_special(name) else _Missing() for name in missing
        }
        namespace.update((name, _forward(name)) for name in forwarded)
        namespace.update(
            {
                "__slots__": (),
                "__module__": kind.__module__,
                "__qualname__": kind.__qualname__,
                "__doc__": kind.__doc__,
            }
        )
        known[base, missing] = type(kind.__name__, (base,), namespace)
    return known[base, missing]


def _forward(name: str) -> Callable[..., Any]:
    """Return a method that calls the object's special method.

    The proxy stands for the object in arguments and results.
    """

    def method(self: Any, *args: Any, **kwargs: object) -> Any:
        of = self._mlchaos
        given = (one._mlchaos if issubclass(type(one), Proxy) else one for one in args)
        result = getattr(of, name)(*given, **kwargs)
        return self if result is of else result

    method.__name__ = method.__qualname__ = name
    return method
