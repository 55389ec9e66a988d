"""Define faults of the process: it dies, or is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import ClassVar

from ..core.faults import Fault, register
from ..core.sites import CRASH_STATE, Key, Visit
from ..engine.controller import current
from ..errors import BadArgument, FaultError, SimulatedCrash
from ..runs.preemption import raise_signal
from .positions import MOMENTS, SIGNAL_SITES

__all__ = ["Crash", "Interrupt"]
LAYER = "The process"


@register
class Crash(Fault):
    """The process is gone, as by SIGKILL. ``mlchaos.run`` starts the subject again.

    With ``at=3, times=2``, the restart dies at the next visit, too.

    Args:
        site: Any site, also one of your own. The process dies before the operation there takes
            effect.
        state: A crash state, instead of a visit, as ``mlchaos.explore_crashes`` names it. For
            example, ``"last.ckpt@0#3"`` is that file cut at byte 0, after step 3.
            ``explore_crashes`` then tries this state alone, and ``mlchaos.run(train, tmp_path)``
            restarts from it.

    Imitates: SIGKILL, the kernel's OOM killer, a node that fails, a spot instance that is taken
    away. Under ``mlchaos.run`` the restart finds the disk as it was at the moment of death: what
    ``finally`` blocks write while the exception unwinds is undone. It is a ``BaseException`` that
    ``except Exception`` does not catch. Code that catches it and goes on is detected, because a
    dead process visits no site.

    Fidelity: it strikes at a site, so not in the middle of a write (``state`` does). In process,
    ``finally`` blocks and ``__exit__`` still run, and module-level state survives. Their effects on
    the test's directories are undone, others are not.

    Example: ``@chaos.crash(at=7)``
    """

    member_of: ClassVar = {"bad_day": 10}
    random = False
    ends_process = True
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    state: str | None = None

    def check(self) -> None:
        """Check the parameters."""
        if isinstance(self.site, str) and not self.site.strip():
            raise BadArgument(f"crash: site must be a site's name, got {self.site!r}")
        if self.state is not None and (
            self.site != "train.step"
            or any(v is not None for v in (self.at, self.p, self.times, self.where))
        ):
            raise BadArgument(
                f"crash: state={self.state!r} decides when it strikes, so at=, p=, times=, where= "
                f"and site= cannot be given too"
            )

    @property
    def key(self) -> Key:
        """Count the visits of the site. A crash state is counted by its name."""
        return self.site if self.state is None else (CRASH_STATE, self.state)

    @property
    def is_pinned(self) -> bool:
        """Return True if nothing is left to draw."""
        return isinstance(self.state, str) or super().is_pinned

    def apply(self, visit: Visit) -> None:
        """Simulate the death of the process."""
        visit.fail(
            SimulatedCrash(f"the process died at {visit.site} {visit.index} (injected by mlchaos)")
        )


@register
class Interrupt(Fault):
    """The process gets SIGINT, as from Ctrl-C: its handler runs, or ``KeyboardInterrupt`` is raised
    at the site.

    Under ``mlchaos.run`` a ``KeyboardInterrupt`` that leaves the subject ends the attempt, and the
    subject is started again. Without ``mlchaos.run`` the test fails, and the session goes on. A
    real Ctrl-C still ends it.

    Args:
        site: Any site, also one of your own. If the visits are searched and no site is given, these
            are tried: before and after an optimizer step, in a forward or backward pass, at a
            batch, and inside file operations.

    Imitates: Ctrl-C, ``kill -INT``, a notebook whose cell is interrupted.

    Fidelity: the signal comes at a site, in the main thread. Ctrl-C in a terminal reaches child
    processes as well, and this does not. If SIGINT is ignored, as shells do for background jobs,
    the error is raised all the same.

    Source: https://docs.python.org/3/library/signal.html#signal.default_int_handler

    Example: ``@chaos.interrupt(site="train.forward", at=3)``
    """

    random = False
    ends_process = True
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"site": SIGNAL_SITES}
    moments = MOMENTS
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter

    def apply(self, visit: Visit) -> None:
        """Raise the signal."""
        controller = current()
        if controller is None:
            raise FaultError("interrupt needs a trial, because a visit by hand has no process")
        visit.defer(lambda: raise_signal(controller, signal.SIGINT, visit.site))
