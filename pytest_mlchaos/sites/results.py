"""``call.result``: what calls of any dotted target return."""

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
    "What a call of a dotted target has returned; of a generator, each item. Payload: that value.",
)
def arm_result(controller: Controller, patches: Patches, key: Key) -> None:
    """Wraps the one target that the key names."""
    if not isinstance(key, str):
        replace(patches, key[1], lambda function: wrap_result(function, key, controller))


def wrap_result(function: Callable[..., Any], key: Key, controller: Controller) -> Any:
    """``function`` with a visit behind it; a coroutine function stays one, and each item of a generator is a visit.

    A generator is a stream, too, whose items can be dropped and reordered; an asynchronous one is none.
    """
    attributes = {"target": key[1]} if isinstance(key, tuple) else {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return controller.visit(key, function(*args, **kwargs), attributes)

    async def through(value: Any) -> Any:
        gate = controller.begin(key, value, attributes)
        if gate is None:
            return value
        with gate:
            await gate.wait_async()
            return gate.payload

    @functools.wraps(function)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await through(await function(*args, **kwargs))

    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Any:
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
                except BaseException as error:  # noqa: BLE001  # the generator has the say
                    resume = functools.partial(items.throw, error)
                else:
                    resume = items.__next__ if sent is None else functools.partial(items.send, sent)
        finally:
            items.close()

    @contextlib.asynccontextmanager
    async def entered(args: Any, kwargs: Any) -> AsyncIterator[Any]:
        yield args, kwargs

    if inspect.isasyncgenfunction(function):
        return delegating(function, entered, through)
    if inspect.iscoroutinefunction(function):
        return call_async
    return generate if inspect.isgeneratorfunction(function) else unbound(call, function)
