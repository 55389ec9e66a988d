"""Define faults of speed of ranks: one is slower than the others, or all wait for the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.faults import is_drawn, register
from ...core.sites import Key, Visit, derive_seed
from ...core.validation import check_share, format_value, parse_duration, parse_positive_duration
from ...engine.cpu_throttle import throttled
from ...errors import BadArgument
from .rank_fault import RankFault, note_collective

__all__ = ["SlowGradientSync", "Straggler"]
LAYER = "Ranks"

DELAY_SECONDS = 0.1
"""The delay of a straggler that names none."""


@register
class Straggler(RankFault):
    """One rank of a world is slower than the others, from a visit on, until its process ends.

    ``at`` is the visit of that rank at which it becomes slow. Without ``rank=``, the rank is
    searched. Give one of ``delay``, ``share`` and ``profile``.

    Args:
        site: Any site, for example ``"collective"``. With ``delay`` and ``profile``, each visit of
            it takes longer.
        delay: Seconds, or ``"150ms"``. It is 100 ms if nothing else is given.
        share: The share of its time in which the process runs, between 0 and 1. It is stopped
            (SIGSTOP) for the rest, ten times a second, with all its threads.
        profile: A list of delays. One is drawn for each visit.

    Imitates: a device that throttles because it is hot, a noisy neighbour on the same host, a host
    with a small CPU quota, a slow disk under one loader.

    Fidelity: delays pass before the operation at the site, and nothing runs slower in between.
    With ``share``, timers and sockets of the kernel go on while the process is stopped, as they do
    under a CPU quota. Its child processes (loader workers) go on, too. A rank that is restarted is
    fast again, unless ``at=chaos.EVERY``.

    Source: C. Jiang et al., MegaScale: Scaling Large Language Model Training to More Than 10,000
    GPUs, NSDI 2024 (stragglers)

    Example: @chaos.straggler(rank=1, delay="50ms", at=3)
    """

    random = True
    keeps_observing = True

    @property
    def strikes_processes(self) -> bool:  # type: ignore[override]  # it depends on a parameter
        """Return True if it stops the process for a share of the time."""
        return self.share is not None

    site: str = "train.step"  # type: ignore[misc]  # this fault has the site as a parameter
    delay: Any = None
    share: float | None = None
    profile: Any = None

    def check(self) -> None:
        """Convert delays to seconds, and refuse more than one kind of slowness."""
        if self.delay is not None and not is_drawn(self.delay):
            seconds = parse_positive_duration(self.delay, f"{self.name}: delay")
            object.__setattr__(self, "delay", seconds)
        if self.share is not None and not is_drawn(self.share):
            check_share(self.name, "share", self.share)
            if self.share == 1:
                raise BadArgument(f"{self.name}: share must be below 1, got {self.share}")
        if self.profile is not None and not is_drawn(self.profile):
            object.__setattr__(self, "profile", self._parsed_profile())
        given = [
            f"{name}=" for name in ("delay", "share", "profile") if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise BadArgument(
                f"{self.name}: {' and '.join(given)} exclude each other. Give one of them"
            )

    def _parsed_profile(self) -> list[float]:
        name = f"{self.name}: profile"
        if isinstance(self.profile, (str, bytes)) or not isinstance(self.profile, Sequence):
            raise BadArgument(f"{name} must be a list of delays, got {format_value(self.profile)}")
        seconds = [parse_duration(delay, name) for delay in self.profile]
        if not any(seconds):
            raise BadArgument(f"{name} must have a delay above 0, got {format_value(self.profile)}")
        return seconds

    def observe(self, visit: Visit) -> None:
        """Delay each visit once the rank has become slow."""
        seed = visit.memory.get("seed")
        if seed is not None:
            visit.sleep(self._delay(seed, visit.index))

    def apply(self, visit: Visit) -> None:
        """Make the rank slow from now on."""
        if "seed" in visit.memory:
            return  # with at=chaos.EVERY it is slow already
        visit.memory["seed"] = visit.seed
        note_collective(visit)
        if self.share is not None:
            visit.keep_until_exit(throttled(self.share))
        else:
            visit.delay += self._delay(visit.seed, visit.index)

    def _delay(self, seed: int, number: int) -> float:
        if self.profile is not None:
            return float(self.profile[derive_seed(seed, number) % len(self.profile)])
        return 0.0 if self.share is not None else self.delay or DELAY_SECONDS


@register
class SlowGradientSync(RankFault):
    """The reduction of gradients takes longer, in all ranks.

    ``at`` counts the reducing collectives (all_reduce, reduce, reduce_scatter) of each rank.

    Args:
        delay: Seconds, or ``"150ms"``.

    Imitates: a switch that is overloaded, a link that fell back to a lower rate, traffic of a
    different job on the same network.

    Fidelity: each rank waits before it begins the collective. A collective that overlaps with
    computation (a bucket of DDP) delays the computation too.

    Source: A. Jayarajan et al., Priority-based Parameter Propagation for Distributed DNN Training,
    MLSys 2019

    Example: @chaos.slow_gradient_sync(delay="200ms", at=2)
    """

    searchable = ()
    site = "collective"
    delay: Any = 1.0

    def check(self) -> None:
        """Convert the delay to seconds."""
        if not is_drawn(self.delay):
            seconds = parse_positive_duration(self.delay, f"{self.name}: delay")
            object.__setattr__(self, "delay", seconds)

    @property
    def key(self) -> Key:
        """Count reducing collectives alone."""
        return (self.site, "reducing")

    def apply(self, visit: Visit) -> None:
        """Delay the collective."""
        note_collective(visit)
        visit.sleep(self.delay)
