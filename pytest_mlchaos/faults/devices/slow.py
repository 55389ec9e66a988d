"""Define faults of speed: a slow device, or a slow CPU."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.validation import check_share, parse_duration, parse_positive_duration
from ...engine.controller import current_clock
from ...engine.cpu_shares import are_declared, reduced_cpu
from .phases import SITES_OF_PHASES, Phase

__all__ = ["CpuStarved", "SlowCompute"]
LAYER = "The device and the host"

_used = time.process_time


@register
class SlowCompute(Fault):
    """A phase of a training step takes longer.

    ``at`` counts the phases. With ``rank=1`` in a world, only that rank is slow: a straggler.

    Args:
        delay: Seconds, or ``"150ms"``.
        phase: ``"forward"`` (of the model in training), ``"call"`` (any call of it), ``"backward"``
            or ``"optimizer"``.

    Imitates: a device that throttles because it is hot, a neighbour on the same host, a straggler
    among the ranks.

    Fidelity: the time passes before the phase, on the trial's clock. Nothing in the phase runs
    slower.

    Source: C. Jiang et al., MegaScale: Scaling Large Language Model Training to More Than 10,000
    GPUs, NSDI 2024 (stragglers)

    Example: ``@chaos.slow_compute(delay="2s", at=3)``
    """

    site = "train.forward"
    needs = ("torch", "torch")
    random = False
    gradual: ClassVar = {"delay": 0.0}
    delay: Any = 1.0
    phase: Phase = "forward"

    def check(self) -> None:
        """Convert ``delay`` to seconds."""
        if not is_drawn(self.delay):
            object.__setattr__(self, "delay", parse_duration(self.delay, f"{self.name}: delay"))

    @property
    def key(self) -> Key:
        """Count the visits of the phase's site."""
        return SITES_OF_PHASES[self.phase]

    def apply(self, visit: Visit) -> None:
        """Delay the phase."""
        visit.sleep(self.delay)


@register
class CpuStarved(Fault):
    """From this visit on, the process gets a share of one CPU: it runs on that CPU alone, and waits
    the rest of the time.

    This lasts until the process ends, and meanwhile torch computes in one thread. If the test
    declares service times by ``mlchaos.capacity``, those of the calls that begin meanwhile are
    divided by the share, and nothing else waits.

    Args:
        site: Any site, for example ``"serve.request"``. Without service times, the process waits at
            each visit for (1/share - 1) times the CPU time that it used since the last one.
        share: The share of the CPU, between 0 and 1.
        heal_after: The time after which the CPU is free again: seconds on the clock of the trial,
            or ``"30s"``. Without it, never.

    Imitates: a container with a small CPU quota, a host that is over-committed, data loading that
    competes with training for the CPU.

    Fidelity: a quota stops a process in the middle of its work, ten times a second. Here it waits
    at the site, on the trial's clock, so timeouts in between do not fire. Under ``mlchaos.serve``,
    such a wait delays one request, so declare service times there. Child processes that run
    already keep their CPUs. If a process cannot be bound to a CPU (macOS, Windows), it only waits.
    The duration of a wait without service times depends on the machine. The number of strikes and
    their visits do not.

    Source: CFS bandwidth control, https://docs.kernel.org/scheduler/sched-bwc.html

    Example: ``@chaos.cpu_starved(share=0.1, at=3)``
    """

    random = False
    keeps_observing = True
    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    share: float = 0.1
    heal_after: Any = None

    def check(self) -> None:
        """Check the parameters."""
        if not is_drawn(self.share):
            check_share(self.name, "share", self.share)
        if self.heal_after is not None and not is_drawn(self.heal_after):
            seconds = parse_positive_duration(self.heal_after, f"{self.name}: heal_after")
            object.__setattr__(self, "heal_after", seconds)

    def observe(self, visit: Visit) -> None:
        """Wait for the CPU time that was used in excess since the last visit."""
        until = visit.memory.get("until")
        if until is not None and current_clock().now() >= until:
            visit.memory.pop("since", None)
        if "since" in visit.memory and not are_declared():
            now = _used()
            visit.sleep((now - visit.memory["since"]) * (1 / self.share - 1))
            visit.memory["since"] = now

    def apply(self, visit: Visit) -> None:
        """Reduce the CPU from now on."""
        if "since" not in visit.memory:
            clock = current_clock()
            until = None if self.heal_after is None else clock.now() + self.heal_after
            visit.memory["until"] = until
            visit.keep_until_exit(_on_one_cpu())
            visit.keep_until_exit(reduced_cpu(self.share, clock, until))
            if not are_declared():
                visit.sleep(_QUOTA_SLICE_SECONDS * (1 / self.share - 1))
            visit.last(self.heal_after or 0.0)
        visit.memory["since"] = _used()


_QUOTA_SLICE_SECONDS = 0.005
"""The part of a quota's period that the process has used when its time is over for the first time.
"""


@contextlib.contextmanager
def _on_one_cpu() -> Iterator[None]:
    """Run this process on one CPU, and torch in one thread."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 0
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        if cpus:
            os.sched_setaffinity(0, {min(cpus)})
        if torch is not None:
            torch.set_num_threads(1)
        yield
    finally:
        if cpus:
            os.sched_setaffinity(0, cpus)
        if torch is not None:
            torch.set_num_threads(threads)
