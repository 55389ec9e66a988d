"""Define ``call.result``: the return values of calls of a dotted target."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.patching import Patches
from ..engine.stand_ins import delegating, unbound
from ..engine.streams import Source
from .calls import replace

__all__ = ["wrap_result"]

SITE = "call.result"


@site(
    SITE,
    "The return value of a call of a dotted target, or each item of a generator. Payload: that "
    "value.",
)
def arm_result(controller: Controller, patches: Patches, key: Key) -> None:
    """Wrap the target that the key names."""
    if not isinstance(key, str):
        replace(patches, key[1], lambda function: wrap_result(function, key, controller))


def wrap_result(function: Callable[..., Any], key: Key, controller: Controller) -> Any:
    """Return a wrapper of a function that makes a visit of each return value.

    For a generator, each item is a visit. Coroutine functions and generator functions keep their
    kind.
    A generator is also a stream, whose items can be dropped and reordered. An async generator is
    not a
    stream.

    Args:
        function: The function.
        key: The key of its visits.
        controller: The controller of the trial.
    """
    attributes = {"target": key[1]} if isinstance(key, tuple) else {}

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> Any:
        result = function(*args, **kwargs)
        return controller.visit(key, result, {**attributes, "arguments": (args, kwargs)})

    async def through(value: object, arguments: Any = None) -> Any:
        gate = controller.begin(key, value, {**attributes, "arguments": arguments})
        if gate is None:
            return value
        with gate:
            await gate.wait_async()
            return gate.payload

    @functools.wraps(function)
    async def call_async(*args: object, **kwargs: object) -> Any:
        return await through(await function(*args, **kwargs), (args, kwargs))

    @functools.wraps(function)
    def generate(*args: object, **kwargs: object) -> Any:
        items = function(*args, **kwargs)
        resume: Callable[[], Any] = items.__next__

        def pull() -> Any:
            nonlocal resume
            asked, resume = resume, items.__next__
            return asked()

        source = Source(key, pull, attributes)
        try:
            while True:
                try:
                    item = source.following(controller)
                except StopIteration as end:
                    return end.value
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # the generator decides what happens
                    resume = functools.partial(items.throw, error)
                else:
                    resume = items.__next__ if sent is None else functools.partial(items.send, sent)
        finally:
            items.close()

    @contextlib.asynccontextmanager
    async def entered(args: object, kwargs: object) -> AsyncIterator[Any]:
        yield args, kwargs

    if inspect.isasyncgenfunction(function):
        return delegating(function, entered, through)
    if inspect.iscoroutinefunction(function):
        return call_async
    return generate if inspect.isgeneratorfunction(function) else unbound(call, function)
