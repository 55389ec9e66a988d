"""Shrink a failing schedule: fewer strikes, each at the earliest visit that still fails."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from ..core.faults import Fault
from ..core.schedule import Schedule
from .space import Space

__all__ = ["minimise"]

Move = Callable[[Schedule], Iterator[Schedule]]


def minimise(schedule: Schedule, space: Space, fails: Callable[[Schedule], bool]) -> Schedule:
    """Return the smallest schedule that still fails.

    No strike can be left out, or moved to an earlier visit.

    Hypothesis shrinks numbers one by one. Here, strikes also move together, and each visit is found
    by binary search.

    Args:
        schedule: A failing schedule.
        space: The space that the schedule is from.
        fails: A function that returns True if a schedule fails for the same cause.
    """
    while True:
        better = _fewer(schedule, space, fails)
        better = _alone(better, space, fails)
        better = _earlier_together(better, space, fails)
        for fault, visit in list(_strikes(better, space)):
            better = _earlier(better, fault, visit, space, fails)
        better = _smaller_parameters(better, space, fails)
        better = _earlier_variants(better, space, fails)
        if better == schedule:
            return schedule
        schedule = better


def _strikes(schedule: Schedule, space: Space) -> Iterator[tuple[Fault, int]]:
    for fault in schedule.faults:
        if space.open_visits(fault):
            for visit in fault.at:
                yield fault, visit


def _move_strike(schedule: Schedule, fault: Fault, visit: int, to: int | None) -> Schedule:
    """Return the schedule with one strike moved to a different visit, or left out."""
    faults = []
    for other in schedule.faults:
        if other is not fault:
            faults.append(other)
            continue
        visits = sorted({to if number == visit else number for number in fault.at} - {None})  # type: ignore[type-var]
        if visits:
            faults.append(dataclasses.replace(fault, at=visits))
    return dataclasses.replace(schedule, faults=tuple(faults))


def _fewer(schedule: Schedule, space: Space, fails: Callable[[Schedule], bool]) -> Schedule:
    strikes = list(_strikes(schedule, space))
    for fault, visit in reversed(strikes) if len(strikes) > 1 else ():
        # Keep the earliest strike that fails alone.
        smaller = _move_strike(schedule, fault, visit, None)
        if smaller.faults and fails(smaller):
            return _fewer(smaller, space, fails)
    return schedule


def _alone(schedule: Schedule, space: Space, fails: Callable[[Schedule], bool]) -> Schedule:
    """Replace several strikes by one with different parameters.

    Two strikes at harmless operators may fail together, and one strike at a harmful operator may
    fail alone.
    """
    strikes = list(_strikes(schedule, space))
    kinds = {type(fault) for fault, _ in strikes}
    if len(strikes) < 2 or len(kinds) > 1:
        return schedule
    kept = tuple(fault for fault in schedule.faults if not space.open_visits(fault))
    for fault, visit in strikes:
        for other in space.with_other_parameters(fault):
            single = dataclasses.replace(
                schedule, faults=(*kept, dataclasses.replace(other, at=visit))
            )
            if fails(single):
                return single
    return schedule


def _with(schedule: Schedule, place: int, fault: Fault) -> Schedule:
    """Return the schedule with a different fault at one index."""
    return dataclasses.replace(
        schedule, faults=(*schedule.faults[:place], fault, *schedule.faults[place + 1 :])
    )


def _smaller_parameters(
    schedule: Schedule, space: Space, fails: Callable[[Schedule], bool]
) -> Schedule:
    """Make each searched parameter as small as possible by binary search."""
    for place, fault in enumerate(schedule.faults):
        for name in space.searched_parameters(fault):

            def changed(
                value: int, place: int = place, name: str = name, schedule: Schedule = schedule
            ) -> Schedule:
                keywords: dict[str, Any] = {name: value}
                return _with(
                    schedule, place, dataclasses.replace(schedule.faults[place], **keywords)
                )

            value = getattr(schedule.faults[place], name)
            if isinstance(value, int) and value > 0:

                def fails_with(to: int, value: int = value) -> bool:
                    return to == value or fails(changed(to))

                best = 0 if fails_with(0) else _first(1, value, fails_with)
                schedule = changed(best)
    return schedule


def _earlier_variants(
    schedule: Schedule, space: Space, fails: Callable[[Schedule], bool]
) -> Schedule:
    """Replace each fault by the first of its ``chaos.one_of`` alternatives that also fails."""
    for place, fault in enumerate(schedule.faults):
        for other in space.simpler_variants(fault):
            changed = _with(schedule, place, other)
            if fails(changed):
                schedule = changed
                break
    return schedule


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number from ``low`` on for which ``holds`` is true, by binary search.

    It must be true for ``high``.
    """
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _earlier(
    schedule: Schedule, fault: Fault, visit: int, space: Space, fails: Callable[[Schedule], bool]
) -> Schedule:
    current = next(
        (other for other in schedule.faults if _alike(other, fault) and visit in other.at), None
    )
    if current is None:
        return schedule
    visits = space.open_visits(fault)
    place = bisect.bisect_left(visits, visit)

    def moved(to: int) -> Schedule:
        return schedule if to == place else _move_strike(schedule, current, visit, visits[to])

    best = _first(0, place, lambda to: fails(moved(to)))
    return moved(best) if best < place and fails(moved(best)) else schedule


def _alike(one: Fault, other: Fault) -> bool:
    return dataclasses.replace(one, at=None) == dataclasses.replace(other, at=None)


def _earlier_together(
    schedule: Schedule, space: Space, fails: Callable[[Schedule], bool]
) -> Schedule:
    """Move all strikes by the same number of visits, to the earliest joint position that fails."""
    strikes = list(_strikes(schedule, space))
    if len(strikes) < 2:
        return schedule

    def shifted(by: int) -> Schedule:
        faults = []
        for fault in schedule.faults:
            visits = space.open_visits(fault)
            places = (
                [bisect.bisect_left(visits, visit) - by for visit in fault.at] if visits else []
            )
            faults.append(
                dataclasses.replace(fault, at=[visits[place] for place in places])
                if visits
                else fault
            )
        return dataclasses.replace(schedule, faults=tuple(faults))

    most = min(bisect.bisect_left(space.open_visits(fault), visit) for fault, visit in strikes)
    kept = _first(0, most, lambda start: start == most or fails(shifted(most - start)))
    return shifted(most - kept) if kept < most and fails(shifted(most - kept)) else schedule
