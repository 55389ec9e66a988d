"""Hold what a test declares, and what its code shows that it will judge."""

from __future__ import annotations

from typing import Any

__all__ = ["Declarations"]


class Declarations:
    """Tell a trial what its test is like. The test runner sets the attributes before the trial.

    Attributes:
        idle: The reason why no fault can strike, in a test that judges faults.
        drawn: True if a search drew the schedule, and False if the test declares it.
        by_composite: True if a composite fault declares the schedule.
        decides: True if this trial alone decides the test: no search, and no --mlchaos-off.
        judges_leaks: False if the test has no assertion on what a load leaves behind.
        judges_orphans: True if a judgement asks for processes that ranks leave.
        judges_privacy: True if a judgement asks for the noise of optimizer steps.
        records_steps: True if a judgement compares the ranks after each step.
        records_collectives: True if a judgement reads the log of collectives of the ranks.
        kept: What the trials of one test share, by key: results that depend on the key alone.
    """

    idle = ""
    drawn = False
    by_composite = False
    decides = False
    judges_leaks = True
    judges_orphans = False
    judges_privacy = False
    records_steps = False
    records_collectives = False
    kept: dict[bytes, Any] | None = None
