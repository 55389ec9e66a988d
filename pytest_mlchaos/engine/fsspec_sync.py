"""Let filesystems of fsspec that exist already call coroutine methods that were wrapped later."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["calling_wrapped"]


def calling_wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fsspec.asyn.sync``, changed so that it calls wrapped methods.

    Filesystems that exist already call coroutine methods that were bound before they were wrapped.
    All of these pass through ``sync``.
    """

    @functools.wraps(original)
    def sync(loop: object, function: object, *args: object, **kwargs: object) -> Any:
        if inspect.ismethod(function):
            known = getattr(type(function.__self__), function.__name__, None)
            if inspect.isfunction(known) and inspect.unwrap(known) is inspect.unwrap(
                function.__func__
            ):
                function = known.__get__(function.__self__)
        return original(loop, function, *args, **kwargs)

    return sync
