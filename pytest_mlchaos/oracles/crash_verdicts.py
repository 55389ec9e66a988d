"""The verdict on one resumed run, held against the golden one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.crashes import CrashOutcome, CrashState, Divergence, Ran, Trace
from ..errors import BadArgument
from .diagnosis import align, first_divergence
from .state import first_difference

__all__ = ["CrashJudge"]

CLEARLY = 2
"""Files fewer that an earlier state had to write, where writes alone tell the progress: by one they differ for other reasons too."""


class CrashJudge:
    """Judges resumed runs, in the order of time: whether one began from scratch is told by those before it."""

    def __init__(self, golden: Ran, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        self._golden = golden
        self._rtol = rtol
        self._atol = atol
        self._files = golden.files
        self._writes: int | None = None
        self._best: tuple[int, CrashState] | None = None
        if golden.value is None and not golden.trace.final and not golden.files:
            raise BadArgument(
                "mlchaos.explore_crashes: there is nothing to judge: the subject returned None, took no optimizer step of torch's and "
                "left no file; return the final state (model.state_dict(), the step, the metrics) from it"
            )

    @property
    def steps(self) -> int:
        """Of the golden run."""
        return len(self._golden.trace.steps)

    def differs(self, ran: Ran) -> Divergence | None:
        """How a second run of the whole differs from the golden one; where files alone are judged, those that differ are no longer."""
        self._writes = ran.writes
        if self._by_files():
            same = {path: digest for path, digest in self._files.items() if ran.files.get(path) == digest}
            if same:
                self._files = same
        found = self._difference(ran)
        if found is None:
            return None
        return first_divergence(self._golden.trace, ran.trace, 0) or found

    def matching(self, trace: Trace) -> int:
        """How many of a resumed run's last steps were the golden run's, in everything that is traced."""
        at, golden = align(self._golden.trace, trace), self._golden.trace.steps
        if at is None or at + len(trace.steps) > len(golden):
            return 0
        count = 0
        for place in reversed(range(len(trace.steps))):
            mine, theirs = trace.steps[place], golden[at + place]
            if mine.digests != theirs.digests or mine.data != theirs.data:
                break
            count += 1
        return count

    def outcome(self, state: CrashState, ran: Ran) -> CrashOutcome:
        """The verdict."""
        at = self._resumed_at(ran)
        recovery = ran.trace.steps[0].began if ran.trace.steps else None
        common: dict[str, Any] = {
            "resumed_at": at,
            "recovery_time": recovery,
            "duration": ran.duration,
            "output": ran.output,
            "place": ran.place,
        }
        if ran.hung is not None:
            return CrashOutcome(state, "hung", error=TimeoutError(f"it stood {ran.hung}"), **common)
        if ran.error is not None:
            return CrashOutcome(state, "failed", error=ran.error, **common)
        lost = None if at is None else max(0, state.step - at)
        if not ran.trace.stopped and (found := self._difference(ran)) is not None:
            divergence = first_divergence(self._golden.trace, ran.trace, at) if self.steps else None
            return CrashOutcome(state, "diverged", lost_steps=lost, divergence=divergence or found, value=ran.value, **common)
        lost = lost if lost is not None else max(0, len(ran.trace.steps) - (self.steps - state.step))
        detail = self._from_scratch(state, ran, at)
        return CrashOutcome(state, "restarted" if detail else "recovered", lost_steps=lost, detail=detail, **common)

    def _resumed_at(self, ran: Ran) -> int | None:
        if not self.steps or (not ran.trace.steps and (ran.error is not None or ran.hung is not None)):
            return None
        return align(self._golden.trace, ran.trace)

    # -- the same end ------------------------------------------------------------------------------------------

    def _by_files(self) -> bool:
        return self._golden.value is None and not self._golden.trace.final

    def _difference(self, ran: Ran) -> Divergence | None:
        """How the end differs: in what was returned, trained, or (where there is neither) left in files."""
        golden = self._golden
        words = first_difference(ran.value, golden.value, rtol=self._rtol, atol=self._atol, name="returned value")
        if words is not None:
            return Divergence(self.steps, "returned value", words)
        trained = golden.trace.final.get("parameters"), ran.trace.final.get("parameters")
        if None not in trained and trained[0] != trained[1] and not (self._rtol or self._atol):
            return Divergence(self.steps, "parameters", "the trained parameters are others at the end")
        if self._by_files():
            return _files(self._files, ran.files, self.steps)
        return None

    # -- progress ----------------------------------------------------------------------------------------------

    def _from_scratch(self, state: CrashState, ran: Ran, at: int | None) -> str:
        """That a run began from scratch although one from an earlier state did not, in words; or nothing."""
        progress, clearly, unit = (at, 1, "step") if self.steps else (self._saved(ran), CLEARLY, "write")
        if progress is None:
            return ""
        best = self._best
        if best is None or progress > best[0]:
            self._best = (progress, state)
        if best is None or progress > 0 or best[0] < clearly:
            return ""
        what = best[1].what
        where = f"went on from step {best[0]}" if unit == "step" else "went on from a checkpoint"
        return f"it began from scratch, although a checkpoint had been complete: with {what} ({best[1].id}), it {where}"

    def _saved(self, ran: Ran) -> int | None:
        return None if not self._writes else max(0, self._writes - ran.writes)


def _files(expected: Mapping[str, bytes], held: Mapping[str, bytes], step: int) -> Divergence | None:
    for path in sorted(expected):
        if path not in held:
            return Divergence(step, "files", f"{path} is missing at the end")
        if held[path] != expected[path]:
            return Divergence(step, "files", f"{path} has another content at the end")
    return None
