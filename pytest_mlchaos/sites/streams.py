"""Define ``call.stream``: the calls of a dotted target that return a stream."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..core.sites import Key, site
from ..core.streams import StreamPlan
from ..engine.controller import Controller
from ..engine.patching import Patches
from ..engine.stand_ins import Proxy, delegating, unbound
from .calls import replace

__all__: list[str] = []


@site(
    "call.stream",
    "A call of a dotted target that returns a stream: a generator, an async generator or an "
    "iterator. Payload: a core.streams.StreamPlan.",
)
def arm_stream(controller: Controller, patches: Patches, key: Key) -> None:
    """Wrap the target that the key names."""
    if not isinstance(key, str):
        replace(patches, key[1], lambda function: _wrap(function, key, controller))


def _wrap(function: Callable[..., Any], key: Key, controller: Controller) -> Any:
    attributes = {"target": key[1]}

    def followed(stream: Any) -> Any:
        """Make the visit of a stream, and return it as the faults leave it."""
        is_async = hasattr(type(stream), "__anext__")
        if not is_async and not hasattr(type(stream), "__next__"):
            return stream  # not a stream
        followers: list[Callable[[int], None]] = []
        gate = controller.begin(key, StreamPlan(follow=followers.append), attributes)
        if gate is None:
            return stream
        state = _State(gate.payload, followers)
        return (_AsyncItems if is_async else _Items)(stream, state)

    def made(*args: object, **kwargs: object) -> Any:
        return followed(function(*args, **kwargs))

    call = functools.wraps(function)(made)

    @functools.wraps(function)
    async def call_async(*args: object, **kwargs: object) -> Any:
        return followed(await function(*args, **kwargs))

    @functools.wraps(function)
    def generate(*args: object, **kwargs: object) -> Any:
        return (yield from made(*args, **kwargs))

    @contextlib.asynccontextmanager
    async def entered(args: object, kwargs: object) -> AsyncIterator[Any]:
        yield args, kwargs

    async def unchanged(item: object) -> Any:
        return item

    if inspect.isasyncgenfunction(function):
        return functools.wraps(function)(delegating(made, entered, unchanged))
    if inspect.iscoroutinefunction(function):
        return call_async
    return generate if inspect.isgeneratorfunction(function) else unbound(call, function)


class _State:
    """The items so far of one stream, and how it ends."""

    def __init__(self, plan: StreamPlan, followers: list[Callable[[int], None]]) -> None:
        self._plan = plan
        self._followers = followers
        self._items = 0
        self.is_cut = False

    def check(self) -> None:
        """Raise the error of a stream that is cut here. Set ``is_cut`` if it just ends."""
        if self._plan.after is None or self._items < self._plan.after or self.is_cut:
            return
        self.is_cut = True
        error = None if self._plan.error is None else self._plan.error()
        self._plan.took_effect(error)
        if error is not None:
            raise error

    def count(self, item: Any) -> Any:
        self._items += 1
        return item

    def ended(self) -> None:
        followers, self._followers = self._followers, []
        for follower in followers:
            follower(self._items)


class _Items(Proxy):
    """An iterator, or a generator, that may end early."""

    __slots__ = ("_mlchaos_state",)

    def __init__(self, of: Any, state: _State) -> None:
        super().__init__(of)
        self._mlchaos_state = state

    def __next__(self) -> Any:
        return _next(self, lambda: next(self._mlchaos))

    def send(self, value: Any, /) -> Any:
        """Send a value to the generator."""
        return _next(self, lambda: self._mlchaos.send(value))


def _next(items: _Items, take: Callable[[], Any]) -> Any:
    state: _State = items._mlchaos_state
    state.check()
    if state.is_cut:
        getattr(items._mlchaos, "close", lambda: None)()
        raise StopIteration
    try:
        return state.count(take())
    except StopIteration:
        state.ended()
        raise


class _AsyncItems(Proxy):
    """An async iterator, or an async generator, that may end early."""

    __slots__ = ("_mlchaos_state",)

    def __init__(self, of: Any, state: _State) -> None:
        super().__init__(of)
        self._mlchaos_state = state

    def __anext__(self) -> Any:
        return _next_async(self, lambda: self._mlchaos.__anext__())

    def asend(self, value: Any, /) -> Any:
        """Send a value to the generator."""
        return _next_async(self, lambda: self._mlchaos.asend(value))


async def _next_async(items: _AsyncItems, take: Callable[[], Any]) -> Any:
    state: _State = items._mlchaos_state
    state.check()
    if state.is_cut:
        close = getattr(items._mlchaos, "aclose", None)
        if close is not None:
            await close()
        raise StopAsyncIteration
    try:
        return state.count(await take())
    except StopAsyncIteration:
        state.ended()
        raise
