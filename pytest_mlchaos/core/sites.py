"""Define sites, the kinds of places that running code passes, and their visits."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeAlias

from ..errors import BadArgument, FaultError, PayloadMismatch
from .interrupts import Uninterruptible, deferred

__all__ = [
    "CALL",
    "CRASH_STATE",
    "SITES",
    "Collective",
    "Effect",
    "Key",
    "Site",
    "Stream",
    "Visit",
    "derive_seed",
    "key_of",
    "name_of",
    "site",
]

CALL = "call"
"""The site of the calls of a dotted target."""
CRASH_STATE = "crash.state"
"""The site of a crash that is named by what it leaves, not by a visit."""

Key: TypeAlias = "str | tuple[str, str]"
"""The key by which visits are counted: a site's name, or the name and a target."""


@dataclass(frozen=True, slots=True)
class Site:
    """A kind of place that the plugin can watch.

    Attributes:
        name: The site's name.
        doc: One sentence that says what a visit is.
        arm: A function that makes visits happen. It is called with the controller, the patches and
            the key, once per key and trial.
        needs: The package without which the site cannot exist.
        always: True to watch the site as soon as its package is imported. Runs count their steps
            with it.
        beside: True if threads of the test's process make the visits, also for a process of the
            subject.
    """

    name: str
    doc: str
    arm: Callable[[Any, Any, Key], None]
    needs: str | None = None
    always: bool = False
    beside: bool = False


SITES: dict[str, Site] = {}


def site(
    name: str,
    doc: str,
    *,
    needs: str | None = None,
    always: bool = False,
    beside: bool = False,
) -> Callable[..., Any]:
    """Register the decorated ``arm(controller, patches, key)`` as the site ``name``.

    ``arm`` runs once at the start of each trial in which a fault names the site. It patches code so
    that each pass calls ``controller.visit(key, payload)`` or ``controller.begin(key, payload)``.

    Args:
        name: The site's name, for example ``"feed.poll"``.
        doc: One sentence that says what a visit is and what its payload is.
        needs: The package without which the site cannot exist. Without that package, nothing is
            armed.
        always: True to arm the site in every trial in which ``needs`` has been imported.
        beside: True if threads of the test's process make the visits, also for a process of the
            subject.
    """

    def register(arm: Callable[[Any, Any, Key], None]) -> Callable[[Any, Any, Key], None]:
        SITES[name] = Site(name, doc, arm, needs, always, beside)
        return arm

    return register


def name_of(key: Key) -> str:
    """Return the site's name in a key."""
    return key if isinstance(key, str) else key[0]


def key_of(name: str) -> Key:
    """Return the key for the name of a site, or else for a dotted target."""
    return name if name in SITES else (CALL, name)


def derive_seed(*parts: object) -> int:
    """Return a 64-bit number that depends only on ``parts``, the same on each machine."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class Stream(Protocol):
    """The source of a site's payloads, for example a loader's iterator."""

    def pull(self) -> Any:
        """Take the next payload out of the stream, without a visit.

        Raise ``StopIteration`` at the end.
        """
        ...

    def push(self, *payloads: object) -> None:
        """Insert these as the next payloads, in this order, without visits of their own."""
        ...

    def postpone(
        self, payload: object, is_due: Callable[[], bool], wait: Callable[[], object]
    ) -> None:
        """Insert a payload as soon as ``is_due()`` is true, or after ``wait()`` at the end."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """End the stream after the pushed payloads.

        Each further request raises ``error``, if given.
        """
        ...

    def owns(self, error: BaseException) -> bool:
        """Return True if ``pull`` has raised this error: the stream has ended or failed."""
        ...


class Effect(Protocol):
    """The interface between a continuous fault and the controller."""

    @property
    def active(self) -> bool:
        """Return True if the fault may strike now.

        It may not in a golden run, after ``times`` strikes, or after the process has died.
        """
        ...

    @property
    def memory(self) -> dict[Any, Any]:
        """Return the data of the fault, which lives as long as the (simulated) process."""
        ...

    def strike(self, error: BaseException | None = None, **details: object) -> bool:
        """Record a strike now. An ``error`` that is about to be raised counts as injected.

        Return False if it is a probe: do not strike.
        """
        ...

    def claim(self, error: Callable[[BaseException], bool]) -> None:
        """Attribute errors for which this predicate is true to the fault, in any code."""
        ...

    def remark(self, text: str) -> None:
        """Set the text for a fault that never strikes: how close it came."""
        ...


class Collective(Protocol):
    """A collective that is about to be launched, as a fault controls it.

    The payload of the visit is the list of tensors that this rank gives. A fault may change them in
    place. It may also return others, which leave the tensors of the subject as they are, unless the
    operation overwrites them with its result.
    """

    @property
    def inputs(self) -> list[Any]:
        """Return the tensors that this rank gives, which are the payload."""
        ...

    @property
    def outputs(self) -> list[Any]:
        """Return the tensors that the operation fills in this rank, for changes after its end."""
        ...

    def skip(self) -> None:
        """Do not launch it. The subject finds a finished operation with unchanged outputs."""
        ...

    def double(self) -> None:
        """Launch it twice, the second time with the result of the first."""
        ...

    def during(self, action: Callable[[], None]) -> None:
        """Call ``action()`` when it has been launched. It may not be finished."""
        ...

    def after(self, action: Callable[[], None]) -> None:
        """Wait until it is finished, then call ``action()``. Do not call it after a failure."""
        ...


@dataclass(eq=False, slots=True)
class Visit:
    """One visit of a site, as a fault sees it.

    The ``apply(visit)`` of a fault returns the new payload (or None, to keep it), raises what the
    operation would raise, or asks for a delay. A fault that keeps the payload has not struck,
    unless it calls ``record_injection``: for example, because it has emptied a cache or killed a
    child process.

    Attributes:
        site: The name of the site.
        index: The number of the visit, from 0.
        payload: The object that passes there: a batch, an optimizer, the arguments of a call.
        attributes: Further facts by name: ``target``, ``rank``, ….
        memory: The data that the fault's ``observe`` has kept at earlier visits. It lives as long
            as the process.
        seed: The seed of the random numbers of this strike.
        struck_tables: Each struck table, before and after the strike. None if no assertion needs
            them.
    """

    site: str
    index: int
    payload: Any = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    delay: float = 0.0
    error: BaseException | None = None
    stack: contextlib.ExitStack | None = None
    recorder: Callable[[Mapping[str, Any]], None] | None = None
    source: Stream | None = None
    process: contextlib.ExitStack | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    records_itself: bool = False
    deferred_actions: list[Callable[[], None]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, int] = field(default_factory=dict)
    is_scheduled: Callable[[int], bool] = bool
    kept_contexts: int = 0
    lasting: float = 0.0
    struck_tables: list[tuple[Any, Any]] | None = None
    operation: Collective | None = None
    final_actions: list[Callable[[], None]] = field(default_factory=list)

    @property
    def collective(self) -> Collective:
        """Return the collective that the visit is about to launch."""
        if self.operation is None:
            raise PayloadMismatch(
                f"the site {self.site!r} is not a collective: a fault cannot skip, double or "
                f"interrupt what passes there"
            )
        return self.operation

    @property
    def stream(self) -> Stream:
        """Return the stream of the payload.

        A fault can take the next items out of it, or insert some.
        """
        if self.source is None:
            raise PayloadMismatch(
                f"the site {self.site!r} is not a stream: a fault cannot drop, repeat or reorder "
                f"what passes there"
            )
        return self.source

    def fail(self, error: BaseException) -> NoReturn:
        """Make the operation at this site fail with ``error``, which then counts as injected."""
        self.error = error
        raise error

    def sleep(self, seconds: float) -> None:
        """Delay the operation by ``seconds``. A coroutine awaits them.

        A delay of 0 does not count as a strike.
        """
        self.delay += seconds
        self.records_itself = self.records_itself or not seconds

    def last(self, seconds: float) -> None:
        """Say that the effect of the strike lasts for ``seconds``, as an outage does.

        Recovery is judged from its end. The operation itself is not delayed.
        """
        self.lasting = max(self.lasting, seconds)

    def defer(self, action: Callable[[], None]) -> None:
        """Call ``action()`` after all strikes and delays of this visit.

        It runs like the code that visits the site: it makes visits of its own, and the operation
        raises its errors.
        """
        self.deferred_actions.append(action)

    def during(self, action: Callable[[], None]) -> None:
        """Call ``action()`` when the collective at this site has been launched.

        The other ranks may have received the contribution, or not. ``action`` calls
        ``record_injection`` when it strikes, with the error that it then raises.
        """
        self.collective.during(self._later(action))

    def after(self, action: Callable[[], None]) -> None:
        """Call ``action()`` when the operation at this site has ended without an error.

        ``action`` calls ``record_injection`` when it strikes, with the error that it then raises.
        """
        if self.operation is not None:
            self.operation.after(self._later(action))
            return
        if self.stack is None:
            raise BadArgument(
                f"the site {self.site!r} has no duration: a fault cannot strike after the "
                f"operation there. Use when='before'"
            )
        self.final_actions.append(self._later(action))

    def _later(self, action: Callable[[], None]) -> Callable[[], None]:
        """Return a function that calls ``action`` later, as a part of the fault that asks now."""
        recorder, details = self.recorder, self.details
        self.records_itself = True

        def act() -> None:
            self.recorder, self.details = recorder, details
            action()

        return act

    def note(self, **details: object) -> None:
        """Add shapes, counts and names to the journal's entry, never values of the user's data."""
        self.details.update(details)

    def keep_open(self, context: contextlib.AbstractContextManager[Any]) -> None:
        """Keep ``context`` open until the operation at this site ends, with or without an error.

        The fault then calls ``record_injection`` when it has struck.
        """
        if self.stack is None:
            raise FaultError(
                f"the site {self.site!r} has no duration: a fault cannot keep a context open there"
            )
        self.records_itself = True
        with deferred():
            self.stack.enter_context(Uninterruptible(context))

    def keep_until_exit(self, context: contextlib.AbstractContextManager[Any]) -> None:
        """Keep ``context`` open until the process ends.

        That is the attempt under ``mlchaos.run``, or else the test's body.
        """
        if self.process is None:
            raise FaultError(
                "a visit without a trial has no process that could keep a context open"
            )
        with deferred():
            self.process.enter_context(Uninterruptible(context))
        self.kept_contexts += 1

    def record_injection(self, error: BaseException | None = None, **details: Any) -> None:
        """Record that a fault with an open context strikes now.

        ``error`` is the exception that it is about to raise, if any.
        """
        self.error = error
        self.details.update(details)
        if self.recorder is not None:
            self.recorder(self.details)

    def is_due(self, number: int) -> bool:
        """Return True if the fault strikes at the visit of this number.

        ``observe`` can use it to keep only what is needed.
        """
        return self.is_scheduled(number)

    def skip(self) -> None:
        """Do not count a strike at this visit, unless ``record_injection`` is called later."""
        self.records_itself = True

    def measure(self, **sizes: int) -> None:
        """Report the range of a parameter (``op=17``), in the trial without faults."""
        for name, size in sizes.items():
            self.measures[name] = max(size, self.measures.get(name, 0))
