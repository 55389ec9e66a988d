"""Define the space of schedules: the declared faults at the visits that exist."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.faults import Fault, OneOf, fields_of, is_drawn
from ..core.schedule import Schedule, visits_of
from ..errors import BadArgument

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["Probe", "Space", "variants", "without_superseded"]

MAX_VARIANTS = 64
MAX_PARAMETER_VALUES = 24
PRIMES = (2, 3, 5, 7)
GOLDEN_RATIO = 0.6180339887498949
NEAR = (None, None, None, None, None, None, 0, 0, 1, 2, 3)
"""The position of a strike: anywhere (None), or this many visits after the last one.

The second kind finds faults that meet.
"""


def variants(fault: Fault, given: frozenset[str] = frozenset()) -> list[Fault]:
    """Return a fault for each combination of its alternatives and positions.

    Alternatives are ``chaos.one_of`` parameters, and positions those that were not ``given``.

    These parameters may also select the site. The likeliest combinations come first.
    """
    choices = {
        name: value.values
        for name in fields_of(type(fault))
        if isinstance(value := getattr(fault, name), OneOf)
    }
    combinations = list(itertools.islice(itertools.product(*choices.values()), MAX_VARIANTS + 1))
    if len(combinations) > MAX_VARIANTS:
        raise BadArgument(
            f"{fault.name}: chaos.one_of gives more than {MAX_VARIANTS} combinations. Use "
            f"Hypothesis strategies"
        )
    found = [
        dataclasses.replace(fault, **dict(zip(choices, values, strict=True)))
        for values in combinations
    ]
    for variant in found:
        _check_site(variant)
    return [positioned for variant in found for positioned in _variants_by_position(variant, given)]


def _variants_by_position(fault: Fault, given: frozenset[str]) -> list[Fault]:
    """Return the fault at each position that it does not set.

    With ``where=``, keep its site, because a predicate is written for one site.
    """
    if fault.at is not None or fault.p is not None or fault.continuous:
        return [fault]
    free = {name: values for name, values in fault.positions.items() if name not in given}
    for name in fault.moments.keys() & given:
        if values := fault.moments[name].get(getattr(fault, name)):
            free[name] = values
    found = []
    for values in itertools.product(*free.values()):
        keywords: dict[str, Any] = dict(zip(free, values, strict=True))
        other = dataclasses.replace(fault, **keywords, _searched=fault._searched | free.keys())
        if fault.where is None or other.key == fault.key:
            found.append(other)
    return found


def _check_site(fault: Fault) -> None:
    try:
        hash(fault.key)
        known = not any(
            is_drawn(part) for part in (fault.key if isinstance(fault.key, tuple) else (fault.key,))
        )
    except (KeyError, TypeError):
        known = False
    if not known:
        raise BadArgument(
            f"{fault.name}: a parameter that decides the site cannot be a strategy. Use "
            f"chaos.one_of(...)"
        )


@dataclasses.dataclass(frozen=True)
class Probe:
    """The results of the trial without faults for one variant.

    They are its possible visits, and the ranges of its parameters.
    """

    fault: Fault
    given: frozenset[str]
    visits: tuple[int, ...]
    measures: Mapping[str, int]

    @property
    def is_open(self) -> bool:
        """Return True if the search chooses its visits."""
        return self.fault.at is None and self.fault.p is None and not self.fault.continuous

    @property
    def is_drawn(self) -> bool:
        """Return True if a parameter is a strategy of the user, which only Hypothesis can draw."""
        return any(is_drawn(getattr(self.fault, name)) for name in fields_of(type(self.fault)))

    @property
    def searched(self) -> tuple[str, ...]:
        """Return the searched parameters that were not given."""
        return tuple(name for name in self.fault.searchable if name not in self.given)

    @property
    def choices(self) -> float:
        """Return the number of values of the parameters that are drawn."""
        if self.is_drawn:
            return math.inf
        return math.prod(self.measures[name] for name in self._open_parameters())

    def _open_parameters(self) -> Iterator[str]:
        """Yield the searched parameters that have more than one value."""
        for name in self.searched:
            wanted = self.is_open or getattr(self.fault, name) is None
            if wanted and self.measures.get(name, 0) > 1:
                yield name

    def at_turn(self, turn: int) -> dict[str, Any]:
        """Return the searched parameters for one step of a sweep, far from earlier ones."""
        reaches = {name: self.measures.get(name, 0) for name in self.searched}
        return {
            name: int(turn * GOLDEN_RATIO % 1 * reach)
            for name, reach in reaches.items()
            if reach > 1
        }

    def combinations(self, limit: int) -> list[dict[str, Any]]:
        """Return all combinations of the searched parameters.

        Return none if there are more than ``limit``.
        """
        reaches = {name: self.measures.get(name, 0) for name in self.searched}
        if not reaches or not 1 < math.prod(max(1, reach) for reach in reaches.values()) <= limit:
            return []
        values = itertools.product(*(range(max(1, reach)) for reach in reaches.values()))
        return [dict(zip(reaches, combination, strict=True)) for combination in values]

    def parameters(self) -> dict[str, SearchStrategy[Any]]:
        """Return strategies for the parameters that are drawn."""
        import hypothesis.strategies as st

        drawn = {
            name: getattr(self.fault, name)
            for name in fields_of(type(self.fault))
            if is_drawn(getattr(self.fault, name))
        }
        for name in self._open_parameters():
            drawn[name] = st.integers(0, self.measures[name] - 1)
        return drawn


def without_superseded(probes: Sequence[Probe]) -> list[Probe]:
    """Leave out the faults of composites on tables that readers return, if files can be struck.

    A reader that checks types or names would refuse such a table, so the program could not meet it.
    """
    at_rest = {
        (probe.fault._origin, type(probe.fault))
        for probe in probes
        if probe.visits and _strikes_files(probe.fault)
    }
    return [
        probe
        for probe in probes
        if not probe.fault._composite
        or (probe.fault._origin, type(probe.fault)) not in at_rest
        or _strikes_files(probe.fault)
    ]


def _strikes_files(fault: Fault) -> bool:
    return getattr(fault, "file", None) is not None


RawStrike = tuple[int, dict[str, Any], int, int | None]
"""A strike as it is drawn.

It has the index of the probe, the parameters, the index of the visit, and the distance to the
strike before (``NEAR``).
"""
Strike = tuple[int, Fault, int]
"""The index of the probe, the fault with its parameters, and the index of the visit."""


@dataclasses.dataclass(frozen=True)
class Space:
    """All schedules of up to ``max_faults`` chosen strikes, and the faults that always strike."""

    probes: Sequence[Probe]
    max_faults: int
    seed: int
    restarts: int | None = None
    """The smallest number of restarts that a run of the test allows. None if nothing restarts."""
    covers: bool = False
    """True to try each variant once before any of them twice, as for composite faults."""

    def size(self) -> float:
        """Return the number of different schedules. A limit of restarts may leave out some."""
        always: dict[int | None, float] = {}
        strikes = 0.0
        for probe in self.probes:
            if probe.is_open:
                strikes += len(probe.visits) * probe.choices
            else:
                origin = probe.fault._origin
                always[origin] = always.get(origin, 0) + probe.choices
        if math.isinf(strikes):
            return math.inf
        chosen = sum(math.comb(int(strikes), number + 1) for number in range(self.max_faults))
        return math.prod(always.values()) * max(1, chosen)

    def strategy(self) -> SearchStrategy[Schedule]:
        """Return a strategy for schedules. Simpler ones have fewer faults at earlier visits."""
        import hypothesis.strategies as st

        always: dict[int | None, list[Probe]] = {}
        for probe in self.probes:
            if not probe.is_open:
                always.setdefault(probe.fault._origin, []).append(probe)
        variants_of = [st.sampled_from(probes) for probes in always.values()]
        strikes = self._strikes()

        @st.composite
        def draw_schedule(draw: DrawFn) -> Schedule:
            fixed = [_drawn(draw, draw(probes)) for probes in variants_of]
            return self.schedule(fixed, self._placed(draw(strikes)))

        return draw_schedule()

    def sweep(self, limit: int) -> Iterator[Schedule]:
        """Yield up to ``limit`` schedules that cover the visits evenly, before random ones.

        One declared fault: each schedule has one strike, if this covers all visits, with all values
        of few searched parameters. If not, it has as many strikes as possible, far apart. The
        variants of the fault take turns, the likelier ones more often. Several declared faults:
        each schedule has strikes of several of them, so that pairs of visits are covered too. The
        searched parameters change from step to step.
        """
        kinds = [
            which
            for which, probe in enumerate(self.probes)
            if probe.is_open and probe.visits and not probe.is_drawn
        ]
        if len(kinds) < len(self.probes):
            kinds = [] if any(not probe.is_open for probe in self.probes) else kinds
        declared = self._by_declaration(kinds)
        if len(declared) == 1:
            yield from self._sweep_one(declared[0], limit)
        elif declared:
            yield from self._sweep_together(declared, limit)

    def _by_declaration(self, kinds: Iterable[int]) -> list[list[int]]:
        """Return the indices of the probes, grouped by their declaration."""
        declared: dict[object, list[int]] = {}
        for which in kinds:
            origin = self.probes[which].fault._origin
            declared.setdefault(which if origin is None else (origin,), []).append(which)
        return list(declared.values())

    def _sweep_one(self, kinds: Sequence[int], limit: int) -> Iterator[Schedule]:
        """Yield schedules of one declaration's variants.

        The likeliest gets each second position, the next each third, and so on. If the space
        ``covers``, they take turns.
        """
        total = sum(len(self.probes[which].visits) for which in kinds)
        sweeps = [
            [
                (turn if self.covers else (turn + 1) * (rank + 2), rank, schedule)
                for turn, schedule in enumerate(self._sweep_variant(which, total, limit))
            ]
            for rank, which in enumerate(kinds)
        ]
        for _, _, schedule in itertools.islice(
            heapq.merge(*sweeps, key=lambda item: item[:2]), limit
        ):
            yield schedule

    def _sweep_variant(self, which: int, total: int, limit: int) -> Iterator[Schedule]:
        probe = self.probes[which]
        count = len(probe.visits)
        if combinations := probe.combinations(limit // total):
            for place, parameters in itertools.product(_spread(count), combinations):
                yield self.schedule(
                    [], [(which, dataclasses.replace(probe.fault, **parameters), place)]
                )
            return
        groups = count if total <= limit else -(-count // self._most_together(probe.fault))
        for turn, first in enumerate(itertools.islice(_spread(groups), limit)):
            fault = dataclasses.replace(probe.fault, **probe.at_turn(turn))
            yield self.schedule(
                [], [(which, fault, place) for place in range(first, count, groups)]
            )

    def _most_together(self, fault: Fault) -> int:
        """Return the number of strikes of one fault that a schedule may have."""
        if fault.ramp is not None:
            return 1  # it strikes all later visits by itself
        if self.restarts is None or not fault.ends_process:
            return self.max_faults
        return max(1, min(self.max_faults, self.restarts // (fault.times or 1)))

    def _sweep_together(self, declared: Sequence[Sequence[int]], limit: int) -> Iterator[Schedule]:
        """Yield schedules with as many strikes as possible, of the declared faults in turn.

        In each third schedule, all strikes are at the same relative position, because bugs hide
        where faults meet.
        """
        for turn in range(limit):
            strikes: list[Strike] = []
            for number in range(self.max_faults):
                kinds = declared[(turn + number) % len(declared)]
                which = kinds[(turn // len(declared) + number) % len(kinds)]
                probe = self.probes[which]
                base = 2 if turn % 3 == 2 else PRIMES[number % len(PRIMES)]
                place = int(_radical_inverse(turn, base) * len(probe.visits))
                strikes.append(
                    (which, dataclasses.replace(probe.fault, **probe.at_turn(turn)), place)
                )
            yield self.schedule([], strikes)

    def _strikes(self) -> SearchStrategy[list[RawStrike]]:
        """Return a strategy for strikes.

        Most schedules contain as many kinds of faults as possible, because bugs hide where faults
        meet.
        """
        import hypothesis.strategies as st

        found = [place for place, probe in enumerate(self.probes) if probe.is_open and probe.visits]
        kinds = [
            st.one_of([self._strike(place) for place in places])
            for places in self._by_declaration(found)
        ]
        if not kinds:
            return st.just([])
        anything = st.lists(st.one_of(kinds), min_size=1, max_size=self.max_faults)
        together = min(len(kinds), self.max_faults)
        if together < 2:
            return anything
        mixed = st.permutations(kinds).flatmap(lambda order: st.tuples(*order[:together]))
        more = st.lists(st.one_of(kinds), max_size=self.max_faults - together)
        meeting = st.tuples(mixed, more).map(lambda parts: [*parts[0], *parts[1]])
        return st.one_of(anything, meeting, meeting, meeting, meeting)

    def _strike(self, place: int) -> SearchStrategy[RawStrike]:
        import hypothesis.strategies as st

        probe = self.probes[place]
        return st.tuples(
            st.just(place),
            st.fixed_dictionaries(probe.parameters()),
            st.integers(0, len(probe.visits) - 1),
            st.sampled_from(NEAR),
        )

    def _placed(self, raw: list[RawStrike]) -> list[Strike]:
        """Return strikes with their visits.

        A strike near the one before it gets the same relative position.
        """
        strikes: list[Strike] = []
        share = 0.0
        for which, parameters, place, near in raw:
            probe = self.probes[which]
            count = len(probe.visits)
            if near is not None and strikes:
                place = min(count - 1, round(share * count) + near)
            share = place / count
            fault = dataclasses.replace(probe.fault, **parameters) if parameters else probe.fault
            strikes.append((which, fault, place))
        return strikes

    def schedule(self, fixed: Sequence[Fault], strikes: Sequence[Strike]) -> Schedule:
        """Return strikes as a schedule. Equal faults are merged into one with several visits."""
        merged: dict[str, tuple[int, Fault, set[int]]] = {}
        for which, fault, place in self._survivable(fixed, strikes):
            visit = self.probes[which].visits[place]
            merged.setdefault(repr(fault), (which, fault, set()))[2].add(visit)
        pinned = [
            (which, min(visits), dataclasses.replace(fault, at=_begun(fault, visits), where=None))
            for which, fault, visits in merged.values()
        ]
        pinned.sort(key=lambda item: (item[0], item[1], repr(item[2])))
        return Schedule((*fixed, *(fault for _, _, fault in pinned)), self.seed)

    def _survivable(self, fixed: Sequence[Fault], strikes: Sequence[Strike]) -> Iterator[Strike]:
        """Yield the strikes that the run survives. The first always stays.

        Strikes that would end the process more often than it may restart are left out.
        """
        left = math.inf if self.restarts is None else self.restarts
        left -= sum(_endings(fault) for fault in fixed)
        ended: set[tuple[str, int]] = set()
        for which, fault, place in strikes:
            strike = repr(fault), self.probes[which].visits[place]
            if fault.ends_process and strike not in ended:
                if ended and left < (fault.times or 1):
                    continue
                ended.add(strike)
                left -= fault.times or 1
            yield which, fault, place

    def untried(self, schedules: Iterable[Schedule]) -> list[str]:
        """Return a text for each variant with visits at which no schedule let it strike."""
        left = [set(probe.visits) if probe.is_open else set() for probe in self.probes]
        for fault in (
            fault
            for schedule in schedules
            for fault in schedule.faults
            if isinstance(fault.at, (tuple, range))
        ):
            for probe, visits in zip(self.probes, left, strict=True):
                if visits and self._comes_from(fault, probe):
                    visits.difference_update(fault.at)
        return [
            f"{probe.fault!r} at {len(visits)} of {len(probe.visits)} visits"
            for probe, visits in zip(self.probes, left, strict=True)
            if visits
        ]

    def with_other_parameters(self, fault: Fault) -> Iterator[Fault]:
        """Yield the fault with a few values from the range of each searched parameter."""
        for probe in self.probes:
            if self._comes_from(fault, probe):
                for name in probe.searched:
                    reach = probe.measures.get(name, 0)
                    for value in range(0, reach, max(1, reach // MAX_PARAMETER_VALUES)):
                        keywords: dict[str, Any] = {name: value}
                        yield dataclasses.replace(fault, **keywords)

    def simpler_variants(self, fault: Fault) -> Iterator[Fault]:
        """Yield the fault with the parameters of earlier alternatives, at the same visits."""
        for probe in self.probes:
            if probe.fault._origin == fault._origin and probe.fault.key == fault.key:
                chosen: dict[str, Any] = {
                    name: min(getattr(fault, name) or 0, probe.measures[name] - 1)
                    for name in probe.searched
                    if probe.measures.get(name)
                }
                other = dataclasses.replace(
                    probe.fault, at=fault.at, p=fault.p, where=fault.where, **chosen
                )
                if _without_explored(other) == _without_explored(fault):
                    return
                if not probe.is_drawn and (not probe.is_open or _covers(probe, fault)):
                    yield other

    def open_visits(self, fault: Fault) -> tuple[int, ...]:
        """Return the visits at which a chosen fault could strike.

        Return none for a fault whose visits are fixed.
        """
        for probe in self.probes:
            if self._comes_from(fault, probe):
                return probe.visits
        return ()

    def searched_parameters(self, fault: Fault) -> tuple[str, ...]:
        """Return the parameters that the search chose, without those that the user gave or drew."""
        for probe in self.probes:
            if self._comes_from(fault, probe):
                return probe.searched
        return ()

    def _comes_from(self, fault: Fault, probe: Probe) -> bool:
        same = (
            probe.is_open
            and probe.fault._origin == fault._origin
            and type(probe.fault) is type(fault)
            and probe.fault.key == fault.key
        )
        return same and all(
            getattr(probe.fault, name) == getattr(fault, name) for name in probe.fault._searched
        )


def _begun(fault: Fault, visits: set[int]) -> list[int]:
    """Return the visits of a fault in order. A fault that grows begins at the first of them."""
    return sorted(visits) if fault.ramp is None else [min(visits)]


def _endings(fault: Fault) -> int:
    """Return the known number of times that a fault with fixed visits ends the process."""
    known = fault.ends_process and isinstance(fault.at, (tuple, range))
    return min(visits_of(fault.at)[0], fault.times or MAX_VARIANTS) if known else 0


def _covers(probe: Probe, fault: Fault) -> bool:
    """Return True if a search may choose all visits of a fault for the variant of a probe, too."""
    known = set(probe.visits)
    return isinstance(fault.at, (tuple, range)) and all(visit in known for visit in fault.at)


def _without_explored(fault: Fault) -> Fault:
    """Return a fault with its searched parameters set to 0, to compare the rest."""
    keywords: dict[str, Any] = dict.fromkeys(fault.searchable, 0)
    return dataclasses.replace(fault, **keywords)


def _spread(count: int) -> Iterator[int]:
    """Yield the numbers below ``count``, each far from the earlier ones.

    They are at 0, 1/2, 1/4, 3/4, 1/8, … of the way (van der Corput).
    """
    size = 1 << max(1, (count - 1).bit_length())
    places = (int(_radical_inverse(number, 2) * size) for number in range(size))
    return (place for place in places if place < count)


def _radical_inverse(number: int, base: int) -> float:
    """Return a number with its digits reversed, as a fraction.

    These points fill 0 to 1 evenly, and two bases fill the square (Halton).
    """
    share, digit = 0.0, 1.0
    while number:
        number, rest = divmod(number, base)
        digit /= base
        share += rest * digit
    return share


def _drawn(draw: Any, probe: Probe) -> Fault:
    return dataclasses.replace(
        probe.fault, **{name: draw(strategy) for name, strategy in probe.parameters().items()}
    )
