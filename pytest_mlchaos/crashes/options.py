"""Check the keywords of ``mlchaos.explore_crashes``, and combine them with the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.limits import Limits
from ..core.settings import Settings
from ..core.shards import Shard
from ..core.validation import FLAG, format_value, index, optional, parse_duration
from ..errors import BadArgument
from ..processes.processors import idle_processors, processors
from .baseline import Baseline, Judge
from .explore import states_of
from .recording.strace_process import check_strace
from .runners import Runner
from .sweep import ExplorationOptions

__all__ = ["CALLER", "CrashOptions"]

CALLER = "mlchaos.explore_crashes"
_AUTOMATIC = ("jobs", "horizon")
WORTHWHILE_SECONDS = 1.0
"""With ``jobs="auto"``, states are only resumed at a time if a run takes this long."""
WORTHWHILE_STATES = 20
"""With ``jobs="auto"``, states are only resumed at a time if there are so many."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrashOptions:
    """The checked keywords of ``mlchaos.explore_crashes``.

    ``storage_options`` are for the client of a URL. ``allow_remote`` permits a URL on a different
    machine. ``runner`` and ``judge`` are those of a world of ranks. ``shard`` is that of a session
    that is divided among machines.
    """

    torn_writes: bool = True
    durability: str = "process"
    isolation: str = "auto"
    jobs: int | str = "auto"
    horizon: int | str | None = "auto"
    cross_device: bool = False
    depth: int = 1
    timeout: Any = None
    rtol: float = 0.0
    atol: float = 0.0
    storage_options: Mapping[str, Any] | None = None
    allow_remote: bool = False
    compare: str | Sequence[str] | None = None
    record: str = "auto"
    budget: Any = None
    max_states: int | None = None
    require_all: bool | None = None
    exhaustive: bool = False
    runner: Callable[[Any, Any, Any], Runner] | None = None
    judge: Callable[..., Judge] | None = None
    shard: Shard | None = None

    def __post_init__(self) -> None:
        choices_of = {
            "durability": ("process", "power"),
            "isolation": ("auto", "in-process", "process"),
            "record": ("auto", "syscalls"),
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise BadArgument(
                    f"{CALLER}: {name} must be {' or '.join(map(repr, choices))}, got "
                    f"{format_value(getattr(self, name))}"
                )
        for name in ("jobs", "depth", "horizon", "max_states"):
            value = getattr(self, name)
            if (value is None and name != "depth") or (value == "auto" and name in _AUTOMATIC):
                continue
            if not index(value):
                or_auto = ", or 'auto'" if name in _AUTOMATIC else ""
                raise BadArgument(
                    f"{CALLER}: {name} must be 1 or more{or_auto}, got {format_value(value)}"
                )
        if self.parallel > 1 and self.isolation == "in-process":
            raise BadArgument(
                f"{CALLER}: jobs={self.jobs} needs fresh processes, but isolation is 'in-process'"
            )
        for name, rule in {"exhaustive": FLAG, "require_all": optional(FLAG)}.items():
            value = getattr(self, name)
            if not rule.holds(value):
                raise BadArgument(
                    f"{CALLER}: {name} must be {FLAG.words}, got {format_value(value)}"
                )
        if self.record == "syscalls":
            if self.isolation == "in-process":
                raise BadArgument(
                    f"{CALLER}: record='syscalls' needs fresh processes, but isolation is "
                    f"'in-process'"
                )
            check_strace(CALLER)
        for name in ("timeout", "budget"):
            value = getattr(self, name)
            if value is None:
                continue
            seconds = parse_duration(value, name)
            if not seconds:
                raise BadArgument(f"{CALLER}: {name} must be positive, got {format_value(value)}")
            object.__setattr__(self, name, seconds)

    def with_settings(self, settings: Settings) -> CrashOptions:
        """Return the options, with those of the settings that no keyword gives.

        Of two limits, the lower one holds.
        """
        limits = [one for one in (self.max_states, settings.max_states) if one is not None]
        jobs = settings.jobs if self.jobs == "auto" else self.jobs
        isolation = self.isolation
        if (bounds := Limits.of(settings).names) and self.runner is None:
            if isolation == "in-process":
                raise BadArgument(
                    f"{CALLER}: the setting {bounds} needs fresh processes, but isolation is "
                    f"'in-process'"
                )
            isolation = "process"
        return dataclasses.replace(
            self,
            isolation=isolation,
            jobs=self.jobs if self.isolation == "in-process" else jobs,
            max_states=min(limits, default=None),
            require_all=settings.require_all if self.require_all is None else self.require_all,
        )

    def exploration(
        self, only: str | None, is_over: Callable[[], bool], seed: int | None = None
    ) -> ExplorationOptions:
        """Return the options of the search.

        A state that was asked for is tried even after the budget.
        """
        return ExplorationOptions(
            torn_writes=self.torn_writes,
            power=self.durability == "power",
            horizon=self.horizon,  # type: ignore[arg-type]  # checked above
            exhaustive=self.exhaustive,
            max_states=self.max_states if only is None else None,
            seed=seed or 0,
            depth=self.depth,
            only=only,
            shard=self.shard if only is None else None,
            is_over=is_over if only is None else lambda: False,
        )

    @property
    def patterns(self) -> list[str] | None:
        """Return the patterns of the files to compare, or None if none were given."""
        return (
            [self.compare]
            if isinstance(self.compare, str)
            else None
            if self.compare is None
            else list(self.compare)
        )

    @property
    def parallel(self) -> int:
        """Return the number of runs at a time that was asked for, or 1 for ``"auto"``."""
        return self.jobs if isinstance(self.jobs, int) else 1

    def workers(self, first: Baseline) -> int:
        """Return the number of parallel runs, at most one per processor.

        ``"auto"`` uses the processors that other programs leave, if the runs are so long that they gain more time than one
        golden run per worker takes. ``first`` has the golden run.
        """
        if self.jobs != "auto":
            return min(self.parallel, processors())
        return idle_processors() if first.runner.is_fresh and self.gains(first) else 1

    def gains(self, first: Baseline) -> bool:
        """Return True if runs at a time gain more time than their golden runs take."""
        if self.jobs != "auto" or first.second.duration < WORTHWHILE_SECONDS:
            return False
        states = states_of(first, self.exploration(None, lambda: False))
        mine = len(states)
        if self.shard is not None:
            mine = mine * len(self.shard.indexes) // self.shard.count
        return processors() > 1 and mine >= WORTHWHILE_STATES
