"""Put replicas and their dependencies into zones, so that calls of them are exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...core.network import NETWORK, Exchange
from ...core.privacy import remember_text
from ...core.sites import CALL
from ...core.validation import TEXT, check_arguments, did_you_mean, format_value
from ...engine.controller import Controller, current
from ...engine.gate import pause
from ...engine.patching import Patches
from ...engine.scopes import INTERNAL_OPERATION, inside
from ...engine.zones import Place, ZoneMap, here, inside_of, open_map, zone_map
from ...errors import BadArgument, TargetNotFound
from ..awaitables import in_event_loop
from ..calls import find, replace, resolve
from .base import Network, active
from .proxy import proxied_zones

__all__ = ["Zones", "zones"]

WHO = "mlchaos.zones"
_FAILURES = {"refused": ConnectionRefusedError, "reset": ConnectionResetError}


class Zones(Mapping[str, tuple[Any, ...]]):
    """The members of each zone, in the order in which they were given.

    Call functions by these: a function that no import reaches is replaced here alone.
    """

    def __init__(self, members: Mapping[str, tuple[Any, ...]], home: str) -> None:
        self._members = dict(members)
        self.home = home
        """The zone of code outside of members, or an empty text."""

    def __getitem__(self, zone: str) -> tuple[Any, ...]:
        try:
            return self._members[zone]
        except KeyError:
            raise BadArgument(_unknown(f"{WHO}: zone", zone, self._members)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"<Zones {', '.join(self._members)}>"


@check_arguments("mlchaos.zones", home=TEXT)
def zones(members: Mapping[str, Sequence[Any]], *, home: str = "") -> Zones:
    """Put replicas and what they depend on into zones, until the test's body ends.

    Each call of a member from outside of it is then an exchange over the network. So
    ``zone_outage`` and ``zone_partition`` strike it, and ``refused``, ``reset``, ``blackhole``
    and ``slow_network`` with ``zone=``. A zone may have one replica, to kill just that one.
    Call this before ``mlchaos.serve``.

    Args:
        members: The zones, each with a list of members: dotted targets
            (``"app:Replica.predict"``, ``"app:store"``), functions, bound methods, objects and
            classes (their public methods and ``__call__``), and addresses of servers or
            proxies (``"http://127.0.0.1:9000"``, or a pattern).
        home: The zone of code outside of members, such as the balancer. Without it, this code
            is in no zone, and a partition does not cut it off.

    Returns:
        The members by zone. Call a function that no import reaches by these:
        ``eu, us = zones["eu"][0], zones["us"][0]``.

    Raises:
        BadArgument: A zone is empty or unknown, or a member is in two zones.

    Fidelity: members run in this process, so a call has no size, and takes no time by itself.
    Code belongs to the zone of the member that called it, also in tasks and thread pools.
    """
    controller = current()
    if controller is None:
        raise BadArgument(f"{WHO}: call it in the body of a chaos test")
    return _open_zones(controller, members, home)


def _open_zones(controller: Controller, members: object, home: str) -> Zones:
    declared = _checked(members)
    if home and home not in declared:
        raise BadArgument(_unknown(f"{WHO}: home", home, declared))
    if zone_map().names:
        raise BadArgument(f"{WHO}: declare all zones in one call. They are declared already")
    _check_faults(controller, declared)
    patches = controller.resources.enter_context(Patches())
    made = _Members(patches)
    for zone, listed in declared.items():
        for member in listed:
            made.note(zone, member)
    found = {
        zone: tuple(made.add(zone, member) for member in listed)
        for zone, listed in declared.items()
    }
    close = open_map(ZoneMap(tuple(declared), home, tuple(made.urls)))
    controller.resources.callback(close)
    return Zones(found, home)


def _checked(members: object) -> dict[str, Sequence[Any]]:
    rule = f"{WHO}: members must be a dict of zones with their members, as in {{'eu': [replica]}}"
    if not isinstance(members, Mapping) or not members:
        raise BadArgument(f"{rule}, got {format_value(members)}")
    declared: dict[str, Sequence[Any]] = {}
    for zone, listed in members.items():
        if not isinstance(zone, str) or not zone.strip():
            raise BadArgument(f"{WHO}: a zone must have a name, got {format_value(zone)}")
        if isinstance(listed, (str, bytes)) or not isinstance(listed, (list, tuple)):
            raise BadArgument(f"{rule}. {zone!r} has {format_value(listed)}. Make it a list")
        if not listed:
            raise BadArgument(
                f"{WHO}: zone {zone!r} must have a member: a dotted target, a function, an object "
                f"or a URL"
            )
        declared[zone] = listed
    return declared


def _unknown(what: str, zone: object, zones: Mapping[str, Any]) -> str:
    known = ", ".join(map(repr, zones))
    return (
        f"{what} must be one of {known}, got {format_value(zone)}{did_you_mean(str(zone), zones)}"
    )


def _check_faults(controller: Controller, zones: Mapping[str, Any]) -> None:
    """Refuse a fault of a zone that does not exist."""
    known = {**zones, **dict.fromkeys(proxied_zones())}
    for scheduled in controller.scheduled:
        fault = scheduled.fault
        if fault.site != NETWORK:
            continue
        named = [("zone", getattr(fault, "zone", None))]
        named += [
            ("zones", zone) for group in getattr(fault, "zones", None) or () for zone in group
        ]
        for parameter, zone in named:
            if isinstance(zone, str) and zone not in known:
                raise BadArgument(
                    f"{_unknown(f'{fault.name}: {parameter}', zone, known)}. Add it to {WHO}, or "
                    f"open its proxy before"
                )


class _Members:
    """Replace members by wrappers, whose calls are exchanges.

    Args:
        patches: The patches of the trial.
    """

    def __init__(self, patches: Patches) -> None:
        self._patches = patches
        self.urls: list[tuple[str, str]] = []
        self._seen: dict[object, tuple[str, Any]] = {}

    def note(self, zone: str, member: Any) -> None:
        """Refuse a member that is in a zone already."""
        identity: object = member
        if not isinstance(member, str):
            identity = _identity(member)
        elif "://" not in member:
            identity = _identity(find(member))
        before = self._seen.get(identity)
        if before is not None:
            where = f"zone {zone!r} twice" if before[0] == zone else f"{before[0]!r} and {zone!r}"
            raise BadArgument(
                f"{WHO}: a member must be in one zone, got {_shown(member)} in {where}"
            )
        self._seen[identity] = zone, member  # keeps it alive, and so its id

    def add(self, zone: str, member: Any) -> Any:
        """Make ``member`` one of a zone. Return what to call instead of it."""
        if isinstance(member, str) and "://" in member:
            self.urls.append((member, zone))
            return member
        if isinstance(member, str):
            self._replace_target(zone, member, find(member))
            return find(member)
        if inspect.isclass(member):
            self._replace_methods(member, Place(zone, _name(member)), _methods(member))
            return member
        if inspect.ismethod(member) and not inspect.isclass(member.__self__):
            self._change_class(zone, member.__self__, [member.__name__])
            return getattr(member.__self__, member.__name__)
        if inspect.isroutine(member) or isinstance(member, functools.partial):
            return self._replace_function(zone, member)
        self._change_class(zone, member, _methods(type(member)))
        return member

    def _replace_target(self, zone: str, target: str, found: Any) -> None:
        place = Place(zone, target)
        if inspect.isclass(found):
            self._replace_methods(found, place, _methods(found))
        elif inspect.isroutine(found):
            owner, name, *_ = resolve(target)
            if inspect.ismodule(owner) or inspect.isclass(owner):
                replace(self._patches, target, lambda function: wrap(function, place, target))
            else:
                self._change_class(zone, owner, [name])
        elif callable(found) or not isinstance(found, (str, int, float, bytes, type(None))):
            self._change_class(zone, found, _methods(type(found)))
        else:
            raise BadArgument(
                f"{WHO}: target {target!r} must be a function, a class or an object with methods, "
                f"got {format_value(found)}"
            )

    def _replace_function(self, zone: str, function: Any) -> Any:
        name = _name(function)
        with contextlib.suppress(TargetNotFound):
            if find(name) is function:  # an import reaches it
                self._replace_target(zone, name, function)
                return find(name)
        return wrap(function, Place(zone, name), name)

    def _replace_methods(self, cls: type, place: Place, names: Sequence[str]) -> None:
        if not names:
            raise _no_methods(cls)
        for name in names:
            wrapper = _wrapped_method(cls, name, place)
            try:
                self._patches.set(cls, name, wrapper)
            except (TypeError, AttributeError) as error:
                raise BadArgument(
                    f"{WHO}: {_name(cls)} cannot be patched: {error}. Give a function that calls it"
                ) from None

    def _change_class(self, zone: str, owner: Any, names: Sequence[str]) -> None:
        """Give an object a subclass of its class, whose methods are wrappers.

        Copies of the object are members, too.
        """
        cls = type(owner)
        if not names:
            raise _no_methods(cls)
        place = here_of(owner) or Place(zone, _name(cls))
        contents = {name: _wrapped_method(cls, name, place) for name in names}
        try:
            made = type(
                cls.__name__,
                (cls,),
                {
                    "__slots__": (),
                    "__module__": cls.__module__,
                    "__qualname__": cls.__qualname__,
                    "__doc__": cls.__doc__,
                    _PLACE_NAME: place,
                    **contents,
                },
            )
            object.__setattr__(owner, "__class__", made)
        except TypeError as error:
            raise BadArgument(
                f"{WHO}: methods of {_name(cls)} cannot be wrapped: {error}. Give a function that "
                f"calls it"
            ) from None

        def undo() -> None:
            if type(owner) is made:
                object.__setattr__(owner, "__class__", cls)

        self._patches.on_undo(undo)


_PLACE_NAME = "_mlchaos_place"


def here_of(owner: object) -> Place | None:
    """Return the place of an object that has one method in a zone already."""
    place: Place | None = getattr(type(owner), _PLACE_NAME, None)
    return place


def _no_methods(cls: type) -> BadArgument:
    return BadArgument(
        f"{WHO}: {_name(cls)} has no public method that can be called. Give a function"
    )


def _shown(member: object) -> str:
    return repr(member) if isinstance(member, str) else _name(member)


def _identity(member: Any) -> object:
    if inspect.ismethod(member):
        return (id(member.__self__), member.__name__)
    return id(member)


def _name(member: Any) -> str:
    """Return the name of a function or a class, or of the class of an object."""
    one = member.func if isinstance(member, functools.partial) else member
    if not hasattr(one, "__qualname__"):
        one = type(one)
    return f"{one.__module__}:{one.__qualname__}"


def _methods(cls: type) -> list[str]:
    """Return the names of the public methods of a class, and ``__call__``."""
    names: dict[str, None] = {}
    for base in cls.__mro__[:-1]:
        for name, held in vars(base).items():
            is_public = not name.startswith("_") or name == "__call__"
            function = held.__func__ if isinstance(held, (staticmethod, classmethod)) else held
            if is_public and inspect.isroutine(function):
                names[name] = None
    return [name for name in names if callable(getattr(cls, name, None))]


def _wrapped_method(cls: type, name: str, place: Place) -> Any:
    held = inspect.getattr_static(cls, name)
    target = f"{cls.__module__}:{cls.__qualname__}.{name}"
    if isinstance(held, (staticmethod, classmethod)):
        return type(held)(wrap(held.__func__, place, target))
    return wrap(held, place, target)


class _Call:
    """A call of a member that has begun.

    Args:
        network: The network of the trial.
        place: The member.
        target: The name of what is called.
    """

    def __init__(self, network: Network, place: Place, target: str) -> None:
        self._network = network
        self._outages = network.outages
        self.place = place
        self.exchange = network.begin(
            Exchange(target, "call", place.zone), {"target": target, "method": ""}
        )

    @property
    def delay(self) -> float:
        """Return the seconds before the call."""
        pace = self.exchange.pace
        return 0.0 if pace is None else pace.delay_of(0)

    def _count(self) -> None:
        """Count a call that does not reach its function, if the test counts the calls."""
        controller, target = self._network.controller, self.exchange.url
        if self.exchange.failure and target in controller.counted:
            controller.visit((CALL, target), ((), {}), {"target": target, "parameters": ()})

    def check(self) -> None:
        """Raise the error of a call that fails, or never return."""
        self._count()
        if self.exchange.failure == "blackhole":
            self._network.outcome(self.exchange, None)
        self._raise(self.exchange.failure)

    def wait(self) -> None:
        """Let the time before the call pass."""
        if self.delay:
            self._network.controller.clock.sleep(self.delay)

    async def check_async(self) -> None:
        """Do both in a coroutine, while other tasks run."""
        self._count()
        if self.exchange.failure == "blackhole":
            await asyncio.get_running_loop().create_future()
        self._raise(self.exchange.failure)
        if self.delay:
            await pause(self._network.controller.clock, self.delay)

    def answered(self) -> None:
        """Raise an error if an outage has cut the call off, so that its answer is lost."""
        if self._network.was_cut(self.exchange, self._outages):
            self._raise("reset")

    def _raise(self, failure: str) -> None:
        if failure:
            words = "cannot be reached" if failure == "refused" else "was cut off"
            error = _FAILURES[failure](
                f"{self.exchange.url} in zone {self.exchange.zone!r} {words} (injected by mlchaos)"
            )
            remember_text(error, str(error))
            raise error


def _begin(place: Place, target: str) -> _Call | None:
    """Begin a call. Return None if no fault can strike, or for a member's own code."""
    network = active()
    if network is None or here() is place or inside() == INTERNAL_OPERATION:
        return None
    return _Call(network, place, target)


def wrap(function: Callable[..., Any], place: Place, target: str) -> Any:
    """Return a wrapper of a member's function. Its calls are exchanges, and run in its zone."""
    if inspect.iscoroutinefunction(function):
        return _wrap_coroutine(function, place, target)
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(function, place, target)
    if inspect.isgeneratorfunction(function):
        return _wrap_generator(function, place, target)

    @functools.wraps(function, updated=())
    def call(*args: object, **kwargs: object) -> Any:
        begun = _begin(place, target)
        if begun is None:
            return function(*args, **kwargs)
        begun.check()
        if not in_event_loop():
            begun.wait()
        with inside_of(place):
            made = function(*args, **kwargs)
        if inspect.isawaitable(made):
            return _awaited(begun, made)
        if in_event_loop():
            begun.wait()
        begun.answered()
        return made

    return call


async def _awaited(begun: _Call, made: Any) -> Any:
    if begun.delay:
        await begun.check_async()
    with inside_of(begun.place):
        result = await made
    begun.answered()
    return result


def _wrap_coroutine(function: Callable[..., Any], place: Place, target: str) -> Any:
    @functools.wraps(function)
    async def call(*args: object, **kwargs: object) -> Any:
        begun = _begin(place, target)
        if begun is None:
            return await function(*args, **kwargs)
        await begun.check_async()
        with inside_of(place):
            result = await function(*args, **kwargs)
        begun.answered()
        return result

    return call


def _wrap_generator(function: Callable[..., Any], place: Place, target: str) -> Any:
    @functools.wraps(function)
    def generate(*args: object, **kwargs: object) -> Any:
        begun = _begin(place, target)
        if begun is None:
            return (yield from function(*args, **kwargs))
        begun.check()
        begun.wait()
        items = function(*args, **kwargs)
        step: Callable[[], Any] = lambda: items.send(None)  # noqa: E731
        try:
            while True:
                try:
                    with inside_of(place):
                        item = step()
                except StopIteration as end:
                    begun.answered()
                    return end.value
                begun.answered()
                try:
                    sent = yield item
                    step = functools.partial(items.send, sent)
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # the generator decides
                    step = functools.partial(items.throw, error)
        finally:
            items.close()

    return generate


def _wrap_async_generator(function: Callable[..., Any], place: Place, target: str) -> Any:
    @functools.wraps(function)
    async def generate(*args: object, **kwargs: object) -> Any:
        begun = _begin(place, target)
        items = function(*args, **kwargs)
        if begun is not None:
            await begun.check_async()
        step: Callable[[], Any] = lambda: items.asend(None)  # noqa: E731
        try:
            while True:
                try:
                    with inside_of(here() if begun is None else place):
                        item = await step()
                except StopAsyncIteration:
                    if begun is not None:
                        begun.answered()
                    return
                if begun is not None:
                    begun.answered()
                try:
                    sent = yield item
                    step = functools.partial(items.asend, sent)
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # the generator decides
                    step = functools.partial(items.athrow, error)
        finally:
            await items.aclose()

    return generate
