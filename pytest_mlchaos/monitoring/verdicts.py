"""Define ``Watch``, an alert under test, and its judgements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

from ..core.entries import Detection
from ..core.results import Result
from ..core.validation import format_seconds, format_value, index, parse_duration
from ..errors import BadArgument, FalseAlarm, Inconclusive, Unnoticed, Vacuous
from .timeline import Seen, Timeline, Within, is_in_time

__all__ = ["Observer", "Watch"]


class Observer(Protocol):
    """Looks at an alert while the trial runs.

    Attributes:
        name: The name of the alert.
        timeline: What it has seen.
        broken: The reason why the alert cannot be read, or an empty text.
    """

    name: str
    timeline: Timeline
    broken: str

    @property
    def is_quiet(self) -> bool:
        """Return True if no fault can strike, because the trial is without faults."""

    @property
    def drawn(self) -> bool:
        """Return True if a search drew the schedule."""

    @property
    def never_asked(self) -> str:
        """Return the reason why a check has seen nothing, or an empty text."""

    @property
    def struck_elsewhere(self) -> bool:
        """Return True if a fault struck in a different process."""

    def look(self) -> None:
        """Ask the alert if it is on now."""

    def finish(self) -> None:
        """Look for the last time."""

    def leave(self, error: BaseException | None) -> bool:
        """End a ``with`` block. Return True for the exception that is the alert."""

    def mark_runs(self) -> None:
        """Let the results of the runs since the beginning count as judged."""

    def note_judgement(self, oracle: str, judges: bool) -> None:
        """Note if an assertion had anything to judge."""


class Watch(Result):
    """An alert under test, with the moments at which faults struck and it fired."""

    def __init__(self, observer: Observer, control: Any = None) -> None:
        self._name = observer.name
        self._timeline = observer.timeline
        self._observer = observer
        self._control = control
        self._expected: Literal["", "fired", "quiet"] = ""

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return self._observer.leave(error)

    def _about(self) -> str:
        return f"<Watch of {self._name}: {'fired' if self._timeline.fired else 'quiet'}>"

    @property
    def fired(self) -> bool:
        """Return True if the alert has fired so far, with or without a fault."""
        self._look()
        return self._timeline.fired

    @property
    def detections(self) -> Sequence[Seen]:
        """Return what the alert made of each fault that struck, from its first strike on."""
        self._look()
        return self._timeline.seen()

    @property
    def time_to_detect(self) -> float | None:
        """Return the seconds from the first strike until the alert fired, on the trial's clock.

        With several faults, this is the longest time. None if a fault was missed, or none struck.
        """
        self._look()
        found = [one.seconds for one in self._timeline.seen()]
        return (
            max((one for one in found if one is not None), default=None)
            if None not in found
            else None
        )

    @property
    def visits_to_detect(self) -> int | None:
        """Return the further visits of the struck site until the alert fired.

        It is 0 if the alert fired before the next visit. With several faults, this is the largest
        number. None if a fault was missed, or none struck.
        """
        self._look()
        found = [one.visits for one in self._timeline.seen()]
        return (
            max((one for one in found if one is not None), default=None)
            if None not in found
            else None
        )

    @property
    def time_to_resolve(self) -> float | None:
        """Return the seconds from the last strike until the alert was off for good.

        None if it is still on, if it never fired, or if it is a single event such as a line of a
        log.
        """
        self._look()
        return self._timeline.resolved_after()

    @property
    def missed(self) -> Sequence[str]:
        """Return the faults that struck and that the alert did not see."""
        self._look()
        return [one.fault for one in self._timeline.seen() if not one.detected]

    @property
    def false_alarms(self) -> int:
        """Return how often the alert fired before any fault had struck."""
        self._look()
        return len(self._timeline.before_faults())

    def assert_fired(self, *, within: int | str | None = None) -> None:
        """Raise ``Unnoticed`` unless the alert saw each fault that struck.

        It must be on, or fire, at the first strike of a fault or later. The plugin also runs the
        test without faults: an alert that is on there, too, has seen nothing.

        Args:
            within: The largest time from the first strike: a number of further visits of the
                struck site (0: before the next one), or a text such as ``"60s"``, on the trial's
                clock.

        Raises:
            Unnoticed: The alert did not fire, or too late.
            FalseAlarm: It fires without faults, or before the first strike.
            Inconclusive: The run ended before ``within`` was over, or the fault struck in a
                different process.
            BadArgument: The alert raised an error of its own.
        """
        limit = _parse_within(within)
        self._expected = "fired"
        self._start_judging("assert_fired")
        if self._is_quiet_trial():
            return
        self._refuse_early_alarms()
        seen = self._timeline.seen()
        verdicts = [is_in_time(one, limit) for one in seen]
        decided = [one for one in verdicts if one is not None]
        self._observer.note_judgement("Watch.assert_fired", bool(decided))
        wrong = [one for one, verdict in zip(seen, verdicts, strict=True) if verdict is False]
        if wrong and not any(one.detected for one in wrong) and self._observer.struck_elsewhere:
            raise Inconclusive(
                f"a fault struck in a different process, and {self._name} was not seen firing "
                f"there. Run the subject in this process (isolation='in-process')"
            )
        if wrong:
            raise Unnoticed("\n".join(self._describe_missed(one, limit) for one in wrong))
        if seen and not decided and not self._observer.drawn:
            raise Inconclusive(
                f"{self._name} did not fire, and the run ended {_length(seen[0], limit)} after the "
                f"first strike, before within={within!r} was over. Let the fault strike earlier, or "
                f"let the run go on"
            )
        if not seen and self._observer.struck_elsewhere:
            raise Inconclusive(
                "the faults struck in a different process, so the time to detect is not known"
            )

    def assert_quiet(self) -> None:
        """Raise ``FalseAlarm`` if the alert fired at all.

        The silence of an alert that cannot fire proves nothing. So the plugin runs the test again,
        as a positive control: with the faults at full strength at every visit, or with the fault
        that ``mlchaos.watch(..., control=)`` names. If the alert is quiet there, too, the test is
        ``Inconclusive``.

        Raises:
            FalseAlarm: The alert fired.
            Inconclusive: It was not seen firing in the positive control.
            BadArgument: The alert raised an error of its own.
        """
        self._expected = "quiet"
        self._start_judging("assert_quiet")
        if self._observer.struck_elsewhere and not self._timeline.fired:
            raise Inconclusive(
                f"a fault struck in a different process, where {self._name} is not seen. Run the "
                f"subject in this process (isolation='in-process')"
            )
        self._observer.note_judgement("Watch.assert_quiet", True)
        if self._timeline.fired:
            first = self._timeline.first_strike
            raise FalseAlarm(
                f"{self._name} fired"
                + (f" under {first.fault}" if first is not None else " without any fault")
                + ", where it must be quiet"
            )

    def _look(self) -> None:
        """Look at the alert again, and let the runs of the test count as judged."""
        self._observer.look()
        self._observer.mark_runs()

    def _start_judging(self, judgement: str) -> None:
        self._observer.finish()
        self._observer.mark_runs()
        if reason := self._observer.broken:
            raise BadArgument(
                f"mlchaos.watch: {self._name} cannot be read, because it raised {reason}. Return "
                f"true or false, or let an assertion fail"
            )
        handed = self._handed
        if handed is not None:
            handed.looked = True
            if handed.quiet and self._control is None:
                raise Vacuous(
                    f"{judgement}: {handed.quiet}, so no alert can be expected. {handed.cure}"
                )
        if not self._observer.is_quiet and (reason := self._observer.never_asked):
            raise Inconclusive(reason)

    def _is_quiet_trial(self) -> bool:
        """Return True in a trial without faults, in which the alert must be quiet."""
        if self._observer.is_quiet and self._timeline.fired:
            raise FalseAlarm(self._describe_false_alarm())
        return self._observer.is_quiet

    def _describe_false_alarm(self) -> str:
        return (
            f"{self._name} fires without any fault, so it does not show that a fault was seen. If "
            f"it is on from an earlier test, reset it in a fixture"
        )

    def _refuse_early_alarms(self) -> None:
        early, first = self._timeline.before_faults(), self._timeline.first_strike
        if early and first is not None:
            raise FalseAlarm(
                f"{self._name} fired before the first strike ({first.fault} at visit "
                f"{first.visit}), so it does not show that the fault was seen"
            )

    def _describe_missed(self, seen: Seen, limit: Within | None) -> str:
        struck = f"{seen.fault}, which first struck at visit {seen.visit}"
        if not seen.detected:
            return f"{self._name} did not see {struck}. The run went on for {_length(seen, None)}"
        took = _length(
            dataclasses.replace(seen, room=seen.visits or 0, room_seconds=seen.seconds or 0.0),
            limit,
        )
        unit, most = limit or ("visits", 0)
        allowed = f"{most:g} visits" if unit == "visits" else format_seconds(most)
        return f"{self._name} saw {struck}, too late: after {took}, and within={allowed} was asked"

    def _late_entries(self, number: int, is_virtual: bool) -> Iterator[Detection]:
        """Yield the entries about this watch, at the end of the trial."""
        timeline = self._timeline
        common: dict[str, Any] = {
            "result": number,
            "monitor": self._name,
            "expected": self._expected,
        }
        for one in timeline.seen():
            yield Detection(
                fault=one.kind,
                outcome="detected" if one.detected else "missed",
                visits=one.visits,
                seconds=round(one.seconds, 4) if is_virtual and one.seconds is not None else None,
                **common,
            )
        if timeline.before_faults():
            yield Detection(fault="", outcome="false alarm", **common)
        elif timeline.first_strike is None:
            yield Detection(fault="", outcome="quiet", **common)


def _length(seen: Seen, limit: Within | None) -> str:
    visits = f"{seen.room} further visit{'' if seen.room == 1 else 's'}"
    if limit is not None and limit[0] == "seconds":
        return format_seconds(seen.room_seconds)
    return visits


def _parse_within(within: object) -> Within | None:
    if within is None:
        return None
    visits = index(within)
    if visits is not None:
        return ("visits", visits)
    if isinstance(within, str):
        return ("seconds", parse_duration(within, "assert_fired: within"))
    raise BadArgument(
        f"assert_fired: within must be a number of visits such as 3, or a time such as '60s', got "
        f"{format_value(within)}"
    )
