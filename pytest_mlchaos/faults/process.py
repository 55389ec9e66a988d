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

    Under ``mlchaos.run`` the restart finds the disk as it was at the moment of death: what ``finally`` blocks write while the
    exception unwinds is undone. It is a ``BaseException`` that ``except Exception`` does not catch; code that catches it and goes
    on is found out, because a dead process passes no site.

    Fidelity: it strikes at sites, not in the middle of a write. In process, so ``finally`` blocks and ``__exit__`` still run (their
    effects on the test's directories are undone, others are not), and module-level state survives.
    """

    random = False
    site: str = "train.step"  # type: ignore[misc]  # of this fault it is a parameter

    def apply(self, visit: Visit) -> None:
        """Die."""
        visit.fail(SimulatedCrash(f"the process died at {visit.site} {visit.index} (injected by mlchaos)"))
