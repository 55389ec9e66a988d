"""Stand-ins that cannot be told from what they stand for, as long as nothing strikes."""

from __future__ import annotations

import contextlib
import functools
import types
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

__all__ = ["Proxy", "delegating", "unbound"]


class _Builtin:
    """Base of the stand-ins of built-in functions. It has no ``__get__``: a built-in function that is kept in a class takes no ``self``."""

    __slots__ = ("__dict__",)

    @property  # type: ignore[misc]  # isinstance asks for it if the type itself does not fit
    def __class__(self) -> Any:
        return types.BuiltinFunctionType

    def __repr__(self) -> str:
        return f"<built-in function {self.__name__}>"  # type: ignore[attr-defined]  # each subclass has one

    def __reduce__(self) -> str:
        return str(self.__qualname__)  # type: ignore[attr-defined]  # pickle finds it by its module and name, as the original


def unbound(wrapper: Any, original: Any) -> Any:
    """``wrapper`` itself, or, if ``original`` does not turn into a method in a class, a callable that does not either.

    ``class Timer: now = time.monotonic`` calls ``now()`` without arguments, because a built-in function is no descriptor. A Python
    function in its place would get the instance.
    """
    if hasattr(type(original), "__get__") or not isinstance(wrapper, types.FunctionType):
        return wrapper
    names = {name: getattr(original, name, None) for name in ("__name__", "__qualname__", "__module__", "__doc__", "__self__")}
    kind: Any = type(names["__name__"] or "function", (_Builtin,), {"__slots__": (), "__call__": staticmethod(wrapper)})
    made = kind()
    vars(made).update(vars(wrapper), **names)
    return made


Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def delegating(
    function: Callable[..., AsyncGenerator[Any, Any]],
    entered: Callable[[tuple[Any, ...], dict[str, Any]], contextlib.AbstractAsyncContextManager[Arguments]],
    through: Callable[[Any], Awaitable[Any]],
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """An asynchronous generator function that is to ``function`` what ``yield from`` is to a plain generator.

    Values and errors that are sent reach the generator, and so does the end. It runs in the context that ``entered`` gives, which may
    change the arguments; ``through`` gives what becomes of each item.
    """

    @functools.wraps(function)
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async with entered(args, kwargs) as (args, kwargs):
            items = function(*args, **kwargs)
            resume: Any = items.__anext__()
            try:
                while True:
                    try:
                        item = await resume
                    except StopAsyncIteration:
                        return
                    del resume  # it may hold an error, whose traceback holds this frame
                    item = await through(item)
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001  # the generator has the say
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
        *("class", "new", "init", "init_subclass", "subclasshook", "getattribute", "getattr", "setattr", "delattr", "dict", "weakref"),
        *("slots", "module", "doc", "del", "class_getitem", "abstractmethods", "annotations", "orig_bases", "parameters", "match_args"),
        *("firstlineno", "static_attributes", "sizeof", "prepare", "instancecheck", "subclasscheck"),
    )
)
"""Special names that a proxy does not take from the type of what it stands for."""
_classes: weakref.WeakKeyDictionary[type, dict[tuple[type, frozenset[str]], type]] = weakref.WeakKeyDictionary()


class Proxy:
    """Stands for the object ``_mlchaos``: everything is that object's own, but for the public methods that a subclass defines.

    ``isinstance`` takes it for one of that type. Special methods work if the type has them, and attributes are set on the object. A
    method of the subclass exists only if the object has one of that name.
    """

    __slots__ = ("__weakref__", "_mlchaos")

    _mlchaos: Any

    def __new__(cls, of: Any, *args: Any, **kwargs: Any) -> Any:
        """Make an instance of a class of its own for this type."""
        return object.__new__(_class_for(cls, of))

    def __init__(self, of: Any) -> None:
        object.__setattr__(self, "_mlchaos", of)

    @property  # type: ignore[misc]  # isinstance asks for it if the type itself does not fit
    def __class__(self) -> Any:
        return type(self._mlchaos)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_mlchaos"):
            raise AttributeError(name)
        return getattr(self._mlchaos, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_mlchaos"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._mlchaos, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._mlchaos, name)


class _Missing:
    """A method that the object does not have: looking it up asks the object, which raises."""

    def __get__(self, proxy: Any, owner: object = None) -> Any:
        raise AttributeError


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _class_for(base: type, of: Any) -> type:
    """The subclass of ``base`` that has the special methods of the object's type, and of its own methods those that the object has."""
    kind = type(of)
    defined = {
        name for cls in base.__mro__[: base.__mro__.index(Proxy)] for name in vars(cls) if name not in _OWN and "_mlchaos" not in name
    }
    missing = frozenset(name for name in defined if not hasattr(kind if _is_special(name) else of, name))
    known = _classes.setdefault(kind, {})
    if (base, missing) not in known:
        forwarded = {name for name in dir(kind) if _is_special(name) and callable(getattr(kind, name, None))} - _OWN - defined
        namespace: dict[str, Any] = {name: None if _is_special(name) else _Missing() for name in missing}
        namespace.update((name, _forward(name)) for name in forwarded)
        namespace.update({"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__})
        known[base, missing] = type(kind.__name__, (base,), namespace)
    return known[base, missing]


def _forward(name: str) -> Callable[..., Any]:
    """A special method of the object's own; it is given, and gives, the proxy in the place of the object."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        of = self._mlchaos
        given = (one._mlchaos if issubclass(type(one), Proxy) else one for one in args)
        result = getattr(of, name)(*given, **kwargs)
        return self if result is of else result

    method.__name__ = method.__qualname__ = name
    return method
