"""Compare the answers of the old version before a rollout, and after a rollback."""

from __future__ import annotations

from typing import Any

from .driver import RunningRollout
from .records import Trace
from .versions import same_value

__all__ = ["Samples"]

ASKED = 20
"""The number of requests that are asked again."""
FAILED = object()


class Samples:
    """A few answers of a controller that answers by its own code. No user sees them.

    Such a controller may give its old model the new features after a rollback, and nothing but its
    answers show that. Only requests with the same answer twice before the deployment are compared.
    No fault strikes meanwhile.
    """

    def __init__(self, rollout: RunningRollout) -> None:
        self._rollout = rollout
        self._stable: dict[int, Any] | None = None

    def take(self) -> None:
        """Ask before the deployment. Answers that differ from those of the last time are dropped."""
        if not self._rollout.answers_itself:
            return
        found = self._asked(range(ASKED) if self._stable is None else self._stable)
        self._stable = {
            number: value
            for number, value in found.items()
            if value is not FAILED
            and (self._stable is None or same_value(value, self._stable[number]))
        }

    def compare(self, trace: Trace) -> None:
        """Ask again after a rollback, and note which answers differ."""
        others = [one for one in trace.strikes if not one.site.startswith("rollout.")]
        if not self._stable or others or self._rollout.weights != {trace.old: 1.0}:
            return
        if not any(one.name == "rollback" and one.ok for one in trace.calls):
            return
        found = self._asked(self._stable)
        trace.compared = len(found)
        trace.changed = tuple(one for one in found if not same_value(found[one], self._stable[one]))

    def _asked(self, numbers: Any) -> dict[int, Any]:
        rollout = self._rollout
        with rollout.chaos.without_faults():
            return {number: self._answer(number) for number in list(numbers)}

    def _answer(self, number: int) -> Any:
        try:
            return self._rollout.finish(self._rollout.answer_again(number))
        except Exception:  # noqa: BLE001  # an error is an answer, too
            return FAILED
