"""Define the base class of faults, and their registry."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import inspect
import operator
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from ..errors import BadArgument, UnknownFault
from .ramps import at_strength, check_ramp, strength
from .sites import Effect, Key, Visit, derive_seed
from .validation import check_fields, did_you_mean, format_value, index

__all__ = [
    "EVERY",
    "FAULTS",
    "Every",
    "Fault",
    "OneOf",
    "Opaque",
    "Scale",
    "chaos_marks",
    "create",
    "fields_of",
    "find",
    "following",
    "is_drawn",
    "register",
    "type_hints",
]

F = TypeVar("F", bound="type[Fault]")
FAULTS: dict[str, type[Fault]] = {}


class Every:
    """All visits of a site: ``at=chaos.EVERY``."""

    def __repr__(self) -> str:
        return "chaos.EVERY"

    def __reduce__(self) -> str:
        return "EVERY"


EVERY = Every()


@dataclasses.dataclass(frozen=True, slots=True)
class OneOf:
    """A parameter whose value the search draws from these values. Earlier ones count as simpler."""

    values: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"chaos.one_of({', '.join(map(repr, self.values))})"


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """A range of values of one parameter, from weak to strong, for a breaking point.

    Attributes:
        low: The weakest value. Of numbers that are not whole, it stands for no damage.
        high: The strongest value.
        steps: The number of values, if they are not whole numbers.
    """

    low: float
    high: float
    steps: int = 32

    def __repr__(self) -> str:
        steps = "" if self.steps == 32 else f", steps={self.steps}"
        return f"chaos.scale({self.low!r}, {self.high!r}{steps})"

    @property
    def levels(self) -> tuple[float, ...]:
        """Return the values, the weakest first.

        Of whole numbers, these are all of them. Of others, the ends of equal steps.
        """
        if (
            isinstance(self.low, int)
            and isinstance(self.high, int)
            and abs(self.high - self.low) > 1
        ):
            step = 1 if self.high > self.low else -1
            return tuple(range(self.low, self.high + step, step))
        width = self.high - self.low
        return tuple(self.low + width * (n + 1) / self.steps for n in range(self.steps))


class Opaque:
    """A parameter's value that cannot be written as text.

    Its schedule cannot be pasted or replayed.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.text}>"


def is_drawn(value: object) -> bool:
    """Return True if a value is to be drawn: ``OneOf``, or a Hypothesis strategy.

    A strategy is recognised by its methods, because Hypothesis may not be imported here.
    """
    return isinstance(value, OneOf) or (hasattr(value, "example") and hasattr(value, "flatmap"))


def _visits(owner: str, at: object) -> Any:
    """Return ``at`` in its normal form.

    This is None, EVERY, a value to draw, or distinct visit numbers in order.

    More than three numbers at equal distances become a range, which costs the same for any length.
    """
    if at is None or at is EVERY or is_drawn(at):
        return at
    numbers = at if isinstance(at, range) else _visit_numbers(at)
    if not numbers or min(numbers[0], numbers[-1]) < 0:
        raise BadArgument(
            f"{owner}: at must be a visit number (0, 1, ...), a list or range of them, or "
            f"chaos.EVERY, got {format_value(at)}"
        )
    return _compact(numbers)


def _visit_numbers(at: object) -> tuple[int, ...]:
    """Return the distinct numbers of a number or a list, in order.

    Return none if an item is not a visit number.
    """
    single = index(at)
    items = [at] if single is not None else at
    if isinstance(items, (str, bytes)) or not isinstance(items, Sequence):
        return ()
    numbers = [index(item) for item in items]
    return (
        ()
        if None in numbers
        else tuple(sorted({number for number in numbers if number is not None}))
    )


def _compact(numbers: tuple[int, ...] | range) -> tuple[int, ...] | range:
    """Return numbers in order: more than three at equal distances as a range, else as a tuple.

    Do not call ``len`` on a range: it overflows above 2**63.
    """
    if isinstance(numbers, range):
        first, last = sorted((numbers[0], numbers[-1]))
        ordered = range(first, last + 1, abs(numbers.step))
        return ordered if last - first > 2 * ordered.step else tuple(ordered)
    if len(numbers) > 3:
        ordered = range(numbers[0], numbers[-1] + 1, numbers[1] - numbers[0])
        if len(ordered) == len(numbers) and all(map(operator.eq, ordered, numbers)):
            return ordered
    return numbers


def following(visits: tuple[int, ...] | range, start: int) -> int | None:
    """Return the first of these visits that is not before ``start``, or None."""
    if isinstance(visits, range):
        found = visits.start + max(0, -(-(start - visits.start) // visits.step)) * visits.step
        return found if found in visits else None
    place = bisect.bisect_left(visits, start)
    return visits[place] if place < len(visits) else None


def _is_predicate(where: object) -> bool:
    """Return True for a function that takes one visit.

    A class or a coroutine function does not count: its result would be true for each visit.
    """
    if not callable(where) or isinstance(where, type) or inspect.iscoroutinefunction(where):
        return False
    try:
        inspect.signature(where).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # a C function without a signature
    return True


# register makes subclasses frozen dataclasses: this says so to type checkers.
@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Fault:
    """A fault that strikes at the visits of one site.

    Subclass it, name its ``site``, declare its parameters as annotated fields and write ``apply``.
    ``@chaos.register`` makes it a frozen dataclass and gives it the decorator ``chaos.<name>``:

        @chaos.register
        class StuckSensor(Fault):
            '''A sensor repeats its last reading.'''
            site = "sensor.read"
            value: float = 0.0

            def apply(self, visit):
                return self.value

    Every fault takes ``at``, ``p``, ``times``, ``where`` and ``rank``, which choose the visits that
    it strikes. With ``ramp``, the parameters of ``gradual`` grow over that many visits, and the
    fault strikes from its first visit on. The docstring of a fault says what it imitates and, after ``Fidelity:``, what it
    does not.
    """

    site: ClassVar[str]
    """The site's name.

    A fault that can strike at several declares a field or a property of this name.
    """
    name: ClassVar[str] = ""
    needs: ClassVar[tuple[str, str] | None] = None
    """The package that the fault needs, and the extra that installs it."""
    random: ClassVar[bool] = True
    """True if it draws numbers from ``visit.seed``.

    Then the schedule's seed is needed to reproduce it.
    """
    keeps_observing: ClassVar[bool] = False
    """True if it also observes visits after its last strike, while its memory is not empty."""
    may_prevent_start: ClassVar[bool] = False
    """True if an app that refuses to start under this fault is sound, so a search tries on."""
    compared: ClassVar[bool] = False
    """True to compare payloads before and after a strike of a built-in fault.

    Those of your own faults always are.
    """
    searchable: ClassVar[tuple[str, ...]] = ()
    """Parameters that the search draws, from 0 up to the size that ``probe`` measured.

    It draws them with the visits, unless the test gives them.

    A parameter whose value is None is drawn whenever it was not given.
    """
    positions: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Parameters that choose the position of a strike, with their values, the likeliest first.

    If the visits are drawn, a search tries each value of a parameter that was not given.
    """
    moments: ClassVar[Mapping[str, Mapping[Any, tuple[Any, ...]]]] = {}
    """For a parameter, given values that a search takes for several positions.

    An example is a site with a start and an end.
    """
    needs_nodes: ClassVar[bool] = False
    """True if it strikes nodes, so that it needs an elastic world."""
    ends_process: ClassVar[bool] = False
    """True if a strike usually ends the process.

    The search schedules at most as many as the run may restart.
    """

    strikes_processes: ClassVar[bool] = False
    """True if it ends, stops or slows real processes of the subject, by signals."""

    needs_own_store: ClassVar[bool] = False
    """True if it strikes the store of a world, which then is a process of its own."""

    member_of: ClassVar[Mapping[str, int]] = {}
    """The composite faults (``bad_data``) that try this one, with its rank. Smaller ranks come first."""
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    """The keywords of each instance that a composite fault tries, the most telling first."""

    changes_result: ClassVar[bool] = False
    """True if a sound program may end differently, because it leaves out or misses some data.

    A composite fault does not try it on runs that must end in the state of the golden run.
    """

    gradual: ClassVar[Mapping[str, float]] = {}
    """Parameters that can grow with ``ramp``, each with the value at which the fault does nothing."""

    on_links: ClassVar[bool] = False
    """True if it disturbs the links between the ranks of a world, by ``visit.attributes["links"]``.
    """

    at: Any = None
    p: float | None = None
    times: int | None = None
    where: Callable[[Visit], bool] | None = None
    rank: int | None = None
    ramp: int | None = None
    """The number of visits over which the fault grows to its full strength."""
    _origin: int | None = dataclasses.field(default=None, compare=False)
    """The number of its declaration in the test. Copies keep it, and comparisons ignore it."""
    _searched: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)
    """The ``positions`` that a search chose. Copies keep them, and comparisons ignore them."""
    _composite: bool = dataclasses.field(default=False, compare=False)
    """True if a composite fault made it. Copies keep it, and comparisons ignore it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", _visits(self.name, self.at))
        check_fields(self.name, self, type_hints(type(self)), is_drawn)
        if self.at is not None and self.p is not None:
            raise BadArgument(f"{self.name}: at= and p= exclude each other. Give one of them")
        if self.p is not None and not is_drawn(self.p) and not 0 < self.p <= 1:
            raise BadArgument(
                f"{self.name}: p must be a probability above 0 and at most 1, got "
                f"{format_value(self.p)}"
            )
        if self.times is not None and not is_drawn(self.times) and self.times < 1:
            raise BadArgument(
                f"{self.name}: times must be 1 or more, got {format_value(self.times)}"
            )
        if self.where is not None and not _is_predicate(self.where):
            raise BadArgument(
                f"{self.name}: where must be a predicate on the visit (a function of one "
                f"argument), got {format_value(self.where)}"
            )
        if self.rank is not None and not is_drawn(self.rank) and index(self.rank) is None:
            raise BadArgument(
                f"{self.name}: rank must be the number of a rank (0, 1, ...), got "
                f"{format_value(self.rank)}"
            )
        if (
            "site" in fields_of(type(self))
            and isinstance(site := getattr(self, "site", None), str)
            and not site.strip()
        ):
            raise BadArgument(
                f"{self.name}: site must be the name of a site, got {format_value(site)}"
            )
        self.check()
        check_ramp(self)

    def check(self) -> None:
        """Raise ``BadArgument`` if the parameters contradict each other. Override it in a fault."""

    def apply(self, visit: Visit) -> Any:
        """Strike: return a new payload or None, raise an error, or ask for a delay.

        Raise what the operation would raise.
        """
        raise NotImplementedError(f"{type(self).__name__} must define apply(self, visit)")

    def strike(self, visit: Visit) -> Any:
        """Call ``apply``. A kind of fault that strikes only a part of the payload overrides it."""
        return self.apply(visit)

    def observe(self, visit: Visit) -> None:
        """Observe each visit, before a fault strikes there.

        Keep what you need later in ``visit.memory``.

        It is called only if a fault defines it.
        """

    def probe(self, visit: Visit) -> None:
        """Measure the ranges of the ``searchable`` parameters.

        This is called at the first visits of the trial without faults.
        """

    def possible(self, visit: Visit) -> bool:
        """Return False if the search must not choose this visit, in the trial without faults."""
        return True

    def applies_to(self, process: Mapping[str, Any]) -> bool:
        """Return True if the fault may strike in a process with these attributes.

        Attributes are ``rank`` and ``world_size``.

        The test's own process has none.
        """
        return self.rank is None or process.get("rank") == self.rank

    def concerns(self, process: Mapping[str, Any]) -> bool:
        """Return True if the fault applies to a process, and fits the world that it belongs to."""
        try:
            if "world_size" in process:
                self.check_world(process["world_size"])
        except BadArgument:
            return False
        return self.applies_to(process)

    def check_world(self, ranks: int) -> None:
        """Raise ``BadArgument`` if the fault does not fit a world with this number of ranks."""
        if isinstance(self.rank, int) and self.rank >= ranks:
            raise BadArgument(
                f"{self.name}: rank must be below {ranks}, because this world has {ranks} ranks, "
                f"got {format_value(self.rank)}"
            )

    def activate(self, effect: Effect) -> contextlib.AbstractContextManager[Any]:
        """Return the context that a ``continuous`` fault keeps open.

        It is open from the start of the test's body (or of a fresh process) to its end.
        """
        raise NotImplementedError(f"{type(self).__name__} must define activate(self, effect)")

    @property
    def continuous(self) -> bool:
        """Return True if the fault is active all the time, so that no visit is chosen for it.

        It strikes when it has an effect.
        """
        return False

    @property
    def requires_process(self) -> str:
        """Return the reason why it needs a process of its own, or "" if it does not.

        Such a process is made by ``isolation="process"``.
        """
        return ""

    @property
    def key(self) -> Key:
        """Return the key by which its visits are counted."""
        return self.site

    @property
    def opaque(self) -> dict[str, Opaque]:
        """Return the parameters that cannot be written as text."""
        return {
            name: value
            for name in fields_of(type(self))
            if isinstance(value := getattr(self, name), Opaque)
        }

    @property
    def is_pinned(self) -> bool:
        """Return True if nothing is left to be drawn."""
        values = {name: getattr(self, name) for name in fields_of(type(self))}
        pinned = self.continuous or self.at is not None or self.p is not None
        return (
            pinned
            and not any(map(is_drawn, values.values()))
            and all(values[name] is not None for name in self.searchable)
        )

    def strikes_at(self, visit: int, seed: int, place: int = 0) -> bool:
        """Return True if the fault strikes at a visit. The decision depends only on the arguments.

        Args:
            visit: The number of the visit.
            seed: The seed of the schedule.
            place: The index of the fault in the schedule, which distinguishes equal faults.
        """
        if self.p is not None:
            limit = self.p * strength(self, visit)
            return derive_seed(seed, self.name, place, visit) < limit * 2**64
        if self.is_consecutive:
            return bool(visit >= self.at[0])
        return self.at is EVERY or (self.at is not None and following(self.at, visit) == visit)

    @property
    def is_consecutive(self) -> bool:
        """Return True if it strikes visits in a row, from one visit on: ``times`` or all later ones.

        A fault that grows strikes all.
        """
        single = isinstance(self.at, tuple) and len(self.at) == 1
        several = self.ramp is not None if self.times is None else self.times > 1
        return single and several

    def at_visit(self, visit: int) -> Fault:
        """Return the fault as it strikes at a visit: with ``ramp``, at a part of its strength."""
        return self if self.ramp is None else at_strength(self, strength(self, visit))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self._arguments())})"

    def _arguments(self) -> Iterator[str]:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if (
                field.compare
                and value is not None
                and (field.name == "at" or value != field.default)
            ):
                yield f"{field.name}={_format_argument(field.name, value)}"


def _format_argument(name: str, value: object) -> str:
    if name == "at" and isinstance(value, tuple):
        return repr(value[0]) if len(value) == 1 else repr(list(value))
    if callable(value):
        unnamed = "a predicate" if name == "where" else type(value).__name__
        return f"<{getattr(value, '__name__', unnamed)}>"
    return repr(value)


_HINTS: dict[type[Fault], dict[str, Any]] = {}


def type_hints(cls: type[Fault]) -> dict[str, Any]:
    """Return the annotations of a fault's own parameters.

    One that cannot be resolved is left out.
    """
    if cls not in _HINTS:
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except (NameError, AttributeError, TypeError):
            hints = {}
        _HINTS[cls] = {
            name: hints[name]
            for name in fields_of(cls)
            if name in hints and name not in ("at", "where")
        }
    return _HINTS[cls]


def fields_of(cls: type[Fault]) -> list[str]:
    """Return the names of the keywords that a fault takes, the common ones first."""
    return [field.name for field in dataclasses.fields(cls) if field.compare]


def chaos_marks(function: object) -> list[str]:
    """Return the names of the faults, and of ``settings``, in a function's decorators."""
    found = []
    while function is not None:
        marks = getattr(function, "pytestmark", None)
        for mark in marks if isinstance(marks, list) else ():
            name = getattr(mark, "name", "")
            if name == "mlchaos":
                found.append(str(mark.kwargs.get("fault")))
            elif name == "mlchaos_settings":
                found.append("settings")
        function = getattr(function, "func", None) or getattr(function, "__func__", None)
    return found


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def register(cls: F) -> F:
    """Make ``cls`` a frozen dataclass and give it the decorator ``chaos.<name>``.

    The name is ``cls.name``, or the class's name in snake case.

    Raises:
        BadArgument: ``cls`` is not a subclass of ``Fault``, has no site, or the name is taken.
    """
    if not (inspect.isclass(cls) and issubclass(cls, Fault)):
        raise BadArgument(
            f"chaos.register: the class must be a subclass of Fault, got {format_value(cls)}"
        )
    for method in ("apply", "observe", "probe"):
        function = getattr(cls, method)
        if (
            inspect.iscoroutinefunction(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            kind = "a generator" if inspect.isgeneratorfunction(function) else "a coroutine"
            raise BadArgument(
                f"{cls.__name__}: {method}() is {kind} function, which does nothing when it is "
                f"called. Make it a plain function"
            )
    if "__dataclass_fields__" not in cls.__dict__:
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
    if not cls.__dict__.get("name"):
        cls.name = _snake(cls.__name__)
    if "site" not in fields_of(cls) and not isinstance(getattr(cls, "site", None), (str, property)):
        raise BadArgument(f'{cls.__name__}: a fault must name its site, as in site = "train.step"')
    known = FAULTS.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise BadArgument(
            f"a fault named {cls.name!r} is registered already, by "
            f"{known.__module__}.{known.__qualname__}. Rename one of them"
        )
    FAULTS[cls.name] = cls
    return cls


def find(name: str) -> type[Fault]:
    """Return the fault class with this name."""
    try:
        return FAULTS[name]
    except KeyError:
        raise UnknownFault(
            f"unknown fault {name!r}{did_you_mean(name, FAULTS)}. The faults are "
            f"{', '.join(sorted(FAULTS))}"
        ) from None


def create(name: str, /, **keywords: Any) -> Fault:
    """Return a fault of that name. Refuse an unknown keyword with a list of the known ones."""
    cls = find(name)
    known = fields_of(cls)
    for keyword in keywords:
        if keyword not in known:
            raise BadArgument(
                f"{name} got an unknown keyword {keyword!r}{did_you_mean(keyword, known)}. It "
                f"takes {', '.join(known)}"
            )
        if isinstance(keywords[keyword], Scale):
            raise BadArgument(
                f"{name}: {keyword} must be one value here. chaos.scale works in "
                f"mlchaos.breaking_point"
            )
    try:
        return cls(**keywords)
    except TypeError as error:
        raise BadArgument(
            f"{name}: {str(error).removeprefix(f'{cls.__name__}.__init__() ')}"
        ) from None
