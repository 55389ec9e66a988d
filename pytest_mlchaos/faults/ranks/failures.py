"""Define faults that end a rank, or stop it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from ...core.collectives import is_collective
from ...core.faults import is_drawn, register
from ...core.journal import Strike
from ...core.sites import Visit
from ...engine.controller import current, current_clock
from ...errors import BadArgument, SimulatedCrash
from ...processes.remote_controller import ReportingClock
from .rank_fault import RankFault

__all__ = ["RankFailure"]
LAYER = "Ranks"


@register
class RankFailure(RankFault):
    """One rank of a world (``mlchaos.world``) dies, stops or raises while the others go on.

    ``at`` counts the visits of that rank alone. Without ``rank=``, the rank is searched.

    Args:
        site: Any site, for example ``"collective.all_reduce"``. ``"collective"`` counts all
            collectives.
        mode: ``"kill"`` (its process gets SIGKILL), ``"hang"`` (its main thread stops, its other
            threads go on), ``"freeze"`` (SIGSTOP: all its threads stop), ``"raise"`` (a
            ``RuntimeError``) or ``"exit"`` (``sys.exit(code)``: ``finally`` blocks and exit
            handlers run).
        when: ``"before"`` the operation takes effect, ``"after"`` it has ended without an error, or
            ``"during"`` it. Only collectives have a ``"during"``: this rank has launched it, and
            nothing waits for it yet. A ``monitored_barrier`` and a skipped collective have none,
            and the rank fails right before them.
        code: The exit code of ``mode="exit"``. With 0, the rank seems to have finished.

    Imitates: a node that is lost, the kernel's OOM killer, a spot instance that is taken away
    (``kill``); a deadlock, a kernel that does not end, a storage mount that blocks (``hang``); a
    paused container, a virtual machine that is migrated, a process under a debugger (``freeze``); a
    driver or data error in one process (``raise``); a signal handler or a library that ends its
    process in order (``exit``).

    Fidelity: all ranks are processes of one machine, so a peer notices a death at once by its
    closed connections. Behind a network that drops packets it would wait for a timeout. A hang or a
    freeze lasts until the world ends. ``"during"`` does not decide how much of the contribution has
    left the rank.

    Source: gloo and NCCL abort a collective when a peer's connection breaks, and otherwise wait for
    the process group's time-out, https://pytorch.org/docs/stable/distributed.html

    Example: @chaos.rank_failure(rank=1, mode="kill", at=5)
    """

    ends_process = True
    strikes_processes = True
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    mode: Literal["kill", "hang", "freeze", "raise", "exit"] = "kill"
    when: Literal["before", "during", "after"] = "before"
    code: int = 1

    def check(self) -> None:
        """Check the parameters."""
        if self.when == "during" and not is_drawn(self.site) and not is_collective(self.site):
            raise BadArgument(
                f"rank_failure: when='during' needs a collective as its site, for example "
                f"site='collective.all_reduce', got site={self.site!r}. Use when='before' or "
                f"when='after'"
            )
        if not is_drawn(self.code) and not 0 <= self.code <= 255:
            raise BadArgument(
                f"rank_failure: code must be an exit code from 0 to 255, got {self.code!r}"
            )

    def apply(self, visit: Visit) -> None:
        """Fail now, or when the operation has been launched or has ended."""
        step = visit.attributes.get("step")
        controller = current()
        if step is None and controller is not None and visit.site != "train.step":
            step = controller.count("train.step")
        facts = {"op": visit.attributes.get("op"), "step": step}
        if self.when != "before":
            facts["when"] = self.when
        visit.note(**{name: value for name, value in facts.items() if value is not None})
        if self.when == "before":
            self._fail_before(visit)
        elif self.when == "during":
            visit.during(self._failing(visit))
        else:
            visit.after(self._failing(visit))

    def _fail_before(self, visit: Visit) -> None:
        error = self._error(visit)
        if error is not None:
            visit.fail(error)
        if self.mode == "hang":
            visit.sleep(math.inf)
        else:
            visit.defer(_freeze)

    def _failing(self, visit: Visit) -> Callable[[], None]:
        """Return the function that makes the rank fail later."""

        def fail() -> None:
            error = self._error(visit)
            visit.record_injection(error)
            if error is not None:
                raise error
            if self.mode == "hang":
                current_clock().sleep(math.inf)
            else:
                _freeze()

        return fail

    def _error(self, visit: Visit) -> BaseException | None:
        """Return the exception that ends the rank, or None if it stops."""
        struck = Strike(repr(self), visit.site, visit.index, visit.details)
        place = f"{struck.place} (injected by mlchaos)"
        rank = visit.attributes.get("rank")
        if self.mode == "kill":
            return SimulatedCrash(f"rank {rank} died {place}")
        if self.mode == "raise":
            return RuntimeError(f"rank {rank} failed {place}")
        return SystemExit(self.code) if self.mode == "exit" else None


def _freeze() -> None:
    clock = current_clock()
    if isinstance(clock, ReportingClock):
        clock.freeze()
