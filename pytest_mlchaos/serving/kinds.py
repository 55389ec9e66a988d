"""Find out what an app is: an ASGI or WSGI app, a callable of one request, or a model."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

from ..core.privacy import data_text
from ..errors import BadArgument
from .callables import BatchHandler, Method
from .processes.command import ServerCommand

__all__ = ["AppKind", "kind_of"]

_EXPECTED = (
    "mlchaos.serve: app must be an ASGI app, which takes (scope, receive, send), a WSGI app, a "
    "callable of one request, or an object with predict(request) or handle(data, context)"
)
_CONTEXTS = ("context", "ctx")
"""The names of the second argument of a function that handles batches."""
_STEPS = ("preprocess", "inference", "postprocess")


def _itself(app: Any) -> Any:
    return app


@dataclasses.dataclass(frozen=True, slots=True)
class AppKind:
    """How to serve an app.

    Attributes:
        protocol: ``"asgi"`` and ``"wsgi"`` apps, and a server's ``"process"``, receive HTTP
            requests. A coroutine function or an asynchronous generator (``"coroutine"``), and a
            ``"function"``, receive their argument.
        streams: True if a callable is a generator, so that its client may leave in between.
        adapt: A function that makes a callable of one request of the app.
    """

    protocol: Literal["asgi", "wsgi", "process", "coroutine", "function"]
    streams: bool = False
    adapt: Callable[[Any], Callable[[Any], Any]] = _itself

    @property
    def takes_http(self) -> bool:
        """Return True for an app that receives HTTP requests."""
        return self.protocol in ("asgi", "wsgi", "process")

    @property
    def shuts_down(self) -> bool:
        """Return True for an app that starts and ends, and does not only answer."""
        return self.protocol in ("asgi", "process")


def kind_of(app: object) -> AppKind:
    """Return the kind of an app, by its methods and the number of its arguments.

    Raise ``BadArgument`` for an object that cannot be served.
    """
    if isinstance(app, ServerCommand):
        return AppKind("process")
    if isinstance(app, type) and not _takes(app, 3):
        _refuse_class(app)
    if not callable(app):
        model = _model(app)
        if model is None:
            raise BadArgument(f"{_EXPECTED}, got {data_text(app)}")
        return model
    takes = [count for count in (1, 2, 3) if _takes(app, count)]
    if _first_name(app) == "scope" and 1 in takes:
        _refuse_asgi_2(app)
    if 1 in takes:
        return _callable(app)
    if 3 in takes:
        return AppKind("asgi")
    model = _model(app)
    if model is not None:
        return model
    if 2 in takes:
        if _second_name(app) in _CONTEXTS:
            return AppKind("function", adapt=BatchHandler)
        return AppKind("wsgi")
    raise BadArgument(
        f"{_EXPECTED}, got {data_text(app)}, which takes neither one, two nor three arguments"
    )


def _refuse_class(app: type) -> None:
    if inspect.isfunction(app.__call__) and _takes(app.__call__, 3):
        _refuse_asgi_2(app)
    named = next(
        (name for name in ("predict", "handle", "__call__") if callable(vars(app).get(name))), None
    )
    if named is not None:
        raise BadArgument(
            f"mlchaos.serve: app must be an instance, got the class {app.__qualname__}, which has "
            f"{named}(). Serve {app.__qualname__}(...)"
        )


def _refuse_asgi_2(app: object) -> None:
    raise BadArgument(
        f"{data_text(app)} is an ASGI 2 app, which is called with the scope alone. "
        f"mlchaos.serve takes ASGI 3: (scope, receive, send)"
    )


def _model(app: object) -> AppKind | None:
    """Return how to serve an object with methods of a model, or None if it has none."""
    handle = getattr(app, "handle", None)
    if callable(handle) and _takes(handle, 2):
        return AppKind("function", adapt=BatchHandler)
    if all(callable(getattr(app, name, None)) for name in _STEPS):
        return AppKind("function", adapt=BatchHandler)
    for name in ("predict", "handle"):
        method = getattr(app, name, None)
        if callable(method) and _takes(method, 1):
            return _callable(method, functools.partial(Method, name))
    return None


def _callable(function: Any, adapt: Callable[[Any], Any] = _itself) -> AppKind:
    """Return the kind of a callable of one request."""
    # Of an object whose class defines it
    looked_at = (function, getattr(type(function), "__call__", None))  # noqa: B004
    if any(map(inspect.iscoroutinefunction, looked_at)):
        return AppKind("coroutine", adapt=adapt)
    if any(map(inspect.isasyncgenfunction, looked_at)):
        return AppKind("coroutine", streams=True, adapt=adapt)
    streams = any(map(inspect.isgeneratorfunction, looked_at))
    return AppKind("function", streams=streams, adapt=adapt)


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a C function without a signature
        return count == 1
    return True


def _names(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _first_name(function: Callable[..., Any]) -> str | None:
    return next(iter(_names(function)), None)


def _second_name(function: Callable[..., Any]) -> str | None:
    return next(iter(_names(function)[1:]), None)
