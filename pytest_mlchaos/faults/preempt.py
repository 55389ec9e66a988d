"""Define a fault of the process: it gets a signal to end, and is killed when its grace is over."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from ..core.faults import Fault, is_drawn, register
from ..core.interrupts import handler
from ..core.sites import Visit
from ..core.validation import format_value, parse_duration
from ..engine.controller import current
from ..engine.process_state import NOTICES
from ..errors import BadArgument, FaultError, SimulatedCrash
from ..runs import preemption
from .batches.worker_processes import terminate_workers
from .positions import MOMENTS, SIGNAL_SITES

__all__ = ["Preempt"]
LAYER = "The process"
_HANDLED = {one.name for one in signal.Signals} - {"SIGKILL", "SIGSTOP"}


@register
class Preempt(Fault):
    """The process gets SIGTERM now, and SIGKILL at the end of a grace period.

    The signal is really raised: the handler of the process runs at once, in the main thread. The
    subject goes on until it exits or the grace period is over, on the trial's clock. Then it is
    dead at the next wait or site. A process without a handler dies at once, as is the default of
    the signal. Under ``mlchaos.run`` it is started again, also if it returned in time, as a
    scheduler does with a job that it has preempted. ``run.assert_emergency_save()`` judges its use
    of the grace period.

    Args:
        site: The site of the signal: ``"train.step"``, ``"train.step.end"`` (after it),
            ``"model.forward"`` (also in evaluation), ``"data.batch"``, ``"storage.write"`` (inside
            a checkpoint), or any other, also one of your own. If the visits are searched, these are
            tried: before and after a step, in a forward or backward pass, at a batch, and inside
            file operations.
        signal: A different signal that announces the end, such as ``"SIGUSR1"``. If the visits are
            searched, SIGTERM and the signals for which the subject installs a handler are tried.
        grace: The grace period: seconds, or ``"2m"``.
        workers: If true, DataLoader workers get SIGTERM as well, as if the whole process group is
            terminated.

    Imitates: SLURM's and Kubernetes' preemption, a spot instance that is reclaimed, a maintenance
    event, ``scancel``.

    Fidelity: virtual time passes only while the code waits. A handler that computes for an hour is
    in time, and one that sleeps or whose storage is slow (``slow_storage``) is not. In process,
    ``finally`` blocks still run after SIGKILL, and their effects on the test's directories are
    undone. Under ``isolation="process"`` the kill is real, and so is the time. Handlers that C code
    has installed are not called.

    Source: https://slurm.schedmd.com/preempt.html,
    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination

    Example: ``@chaos.preempt(grace="30s", at=3)``
    """

    member_of: ClassVar = {"bad_day": 14}
    random = False
    ends_process = True
    positions: ClassVar[Mapping[str, tuple[str, ...]]] = {"signal": NOTICES, "site": SIGNAL_SITES}
    moments = MOMENTS
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    signal: str = "SIGTERM"
    grace: Any = 30.0
    workers: bool = False

    def check(self) -> None:
        """Check the parameters, and convert ``grace`` to seconds."""
        if not is_drawn(self.signal) and self.signal not in _HANDLED:
            raise BadArgument(
                f"{self.name}: signal must be the name of a signal that a process can handle, such "
                f"as 'SIGTERM' or 'SIGUSR1', "
                f"got {format_value(self.signal)}"
            )
        if not is_drawn(self.grace):
            object.__setattr__(self, "grace", parse_duration(self.grace, f"{self.name}: grace"))

    def possible(self, visit: Visit) -> bool:
        """Return True for SIGTERM, for a requested signal, and for one that the subject handles."""
        if self.signal == "SIGTERM" or "signal" not in self._searched:
            return True
        controller, number = current(), signal.Signals[self.signal]
        return controller is not None and handler(number) is not controller.handlers.get(number)

    def apply(self, visit: Visit) -> None:
        """Send the signal to the process."""
        controller = current()
        if controller is None:
            raise FaultError("preempt needs a trial, because a visit by hand has no process")
        number, where = signal.Signals[self.signal], f"{visit.site} {visit.index}"
        answer = handler(number)
        dies = (
            f"the process died of {self.signal} at {where}: it has no handler (injected by mlchaos)"
        )
        # Some schedulers repeat the signal. The first grace period continues.
        if controller.preempted is not None:
            if answer is signal.SIG_DFL:  # a default action would end the test's own process
                visit.fail(SimulatedCrash(dies))
            visit.note(again=True)
            visit.defer(lambda: preemption.raise_signal(controller, number, visit.site))
            return
        if self.workers:
            visit.note(workers=terminate_workers(controller, visit))
        notice = preemption.notice(controller, where, self.grace, self.signal)
        visit.keep_until_exit(notice.open(answer is not signal.SIG_DFL))
        if answer is signal.SIG_DFL:
            visit.fail(SimulatedCrash(dies))
        visit.note(
            handler=getattr(
                answer,
                "__qualname__",
                "ignored" if answer is signal.SIG_IGN else type(answer).__name__,
            )
        )
        visit.defer(lambda: self._deliver(controller, notice, number, visit.site))

    def _deliver(self, controller: Any, notice: preemption.Notice, number: int, site: str) -> None:
        preemption.raise_signal(controller, number, site)
        if site == "train.step" and threading.current_thread() is threading.main_thread():
            notice.took_a_step()
