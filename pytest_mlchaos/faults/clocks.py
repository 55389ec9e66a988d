"""Define faults of the process's clock."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from ..core.clock import VirtualClock
from ..core.faults import Fault, is_drawn, register
from ..core.sites import Visit
from ..core.validation import format_value, parse_duration
from ..engine import virtual_time
from ..engine.activity import TOOLS, package_of
from ..engine.datetimes import patch_datetime
from ..engine.patching import Patches
from ..errors import BadArgument

__all__ = ["ClockJump"]
LAYER = "The process"


@register
class ClockJump(Fault):
    """The wall clock jumps at a visit, and stays there until the process ends.

    These show the new time: ``time.time``, ``time_ns``, ``localtime``, ``gmtime``, ``ctime`` and
    ``strftime`` of now, ``datetime.now``, ``utcnow`` and ``today``, ``date.today``.
    ``time.monotonic`` and ``perf_counter`` go on as before.

    Args:
        site: Any site. If it is not given, a search tries the steps of an optimizer and the
            requests to a service.
        by: The length of the jump: seconds, ``"1h"`` ahead, or ``"-5m"`` back.

    Imitates: NTP that steps a clock that was wrong, a virtual machine that was suspended, a leap
    second, a host whose clock is off.

    Fidelity: Python code sees the new time. Times of files, C code (NumPy's ``datetime64("now")``,
    pandas' ``Timestamp.now``) and child processes see the real one.

    Source: clock_settime(2), https://man7.org/linux/man-pages/man2/clock_settime.2.html

    Example: ``@chaos.clock_jump(by="-5m", at=3)``
    """

    random = False
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"site": ("train.step", "serve.request")}
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    by: Any = 3600.0

    def check(self) -> None:
        """Convert ``by`` to seconds, with their sign."""
        if not is_drawn(self.by):
            object.__setattr__(self, "by", _parse_signed(self.by))

    def apply(self, visit: Visit) -> None:
        """Shift the clock from now on."""
        visit.keep_until_exit(_shift_clocks(self.by, virtual_time.installed_clock()))


def _parse_signed(value: Any) -> float:
    """Return the seconds of ``-300``, ``"1h"`` or ``"-5m"``. Refuse 0."""
    back = isinstance(value, str) and re.match(r"\s*[-+]", value) is not None
    text = value.strip()[1:] if back else value
    number = isinstance(text, (int, float)) and not isinstance(text, bool)
    seconds = parse_duration(abs(text) if number else text, "clock_jump: by")
    seconds = -seconds if (number and text < 0) or (back and value.strip()[0] == "-") else seconds
    if not seconds:
        raise BadArgument(
            f"clock_jump: by must be a time ahead ('1h') or back ('-5m'), got {format_value(value)}"
        )
    return seconds


@contextlib.contextmanager
def _shift_clocks(seconds: float, clock: VirtualClock | None) -> Iterator[None]:
    """Shift the time of day by this number of seconds. A virtual clock shifts its own
    ``time.time``.
    """
    with Patches() as patches:
        if clock is not None:
            clock.wall_shift += seconds
        try:
            wall = _shift_time(patches, seconds, virtual=clock is not None)
            patch_datetime(patches, lambda caller: None if package_of(caller) in TOOLS else wall())
            yield
        finally:
            if clock is not None:
                clock.wall_shift -= seconds


def _shift_time(patches: Patches, seconds: float, *, virtual: bool) -> Callable[[], float]:
    """Patch the functions of ``time``. Return the one that gives the shifted time of day."""

    def shifted(original: Callable[..., Any], by: float) -> Callable[..., Any]:
        @functools.wraps(original)
        def read() -> Any:
            return original() + (
                0 if package_of(sys._getframe(1)) in TOOLS else type(original())(by)
            )

        return read

    def of_now(original: Callable[..., Any], place: int) -> Callable[..., Any]:
        """Return a function that uses the shifted time if the argument at that index is missing."""

        @functools.wraps(original)
        def show(*args: object) -> Any:
            if (len(args) <= place or args[place] is None) and package_of(
                sys._getframe(1)
            ) not in TOOLS:
                now = wall()
                args = (*args[:place], localtime(now) if place else now)
            return original(*args)

        return show

    def wall() -> float:
        return virtual_time.wall() if virtual else real() + seconds

    real, localtime = time.time, time.localtime
    arguments = {"localtime": 0, "gmtime": 0, "ctime": 0, "strftime": 1}
    pairs = [
        (getattr(time, name), of_now(getattr(time, name), place))
        for name, place in arguments.items()
    ]
    if not virtual:
        pairs += [
            (time.time, shifted(time.time, seconds)),
            (time.time_ns, shifted(time.time_ns, seconds * 1e9)),
        ]
    patches.replace_for_others(pairs, TOOLS)
    return wall
