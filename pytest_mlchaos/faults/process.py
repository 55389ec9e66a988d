"""Faults of the process."""

from __future__ import annotations

from ..core.faults import Fault, register
from ..core.sites import Visit
from ..errors import SimulatedCrash

__all__ = ["Crash"]
__tracebackhide__ = True  # a failure shows the user's code, not ours


@register
class Crash(Fault):
    """The process is gone, as by SIGKILL: ``mlchaos.run`` starts the subject again.

    ``site``: where it dies, before the operation there takes effect; any site, also one of your own.

    Imitates: SIGKILL, the kernel's OOM killer, a node that fails, a spot instance that is taken away.

    Fidelity: in process, so ``finally`` blocks, ``__exit__`` and ``atexit`` still run, and module-level state stays; files that were
    written but not flushed are as Python left them. It is a ``BaseException`` that ``except Exception`` does not catch; code
    that catches it all the same is found out, because a dead process passes no site.
    """

    random = False
    site: str = "train.step"  # type: ignore[misc]  # of this fault it is a parameter

    def apply(self, visit: Visit) -> None:
        """Die."""
        visit.fail(SimulatedCrash(f"the process died at {visit.site} {visit.index} (injected by mlchaos)"))
