"""Define the result of a pipeline's call, with its golden run and its next call."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

from ..core.entries import Entry, RecoveryTime, Timing
from ..core.records import Output
from ..core.validation import (
    CALLABLE,
    check_arguments,
    optional,
)
from ..errors import (
    BadArgument,
    Incomplete,
    NonDeterministicSubject,
    NotRecovered,
    SimulatedCrash,
)
from ..runs.verdicts import Run
from .calls import Calls, Step
from .left_files import judged_files
from .outputs import (
    all_patterns,
    output_difference,
    tells_apart,
)

__all__ = ["CalledPipeline"]

CACHES = ("*[Cc]ache*",)
"""File and directory names of caches.

A cache may hold more than a fresh run puts there, if the input has changed.
"""


class CalledPipeline(Run):
    """The result of a call, and what the judgements need: its golden run, its difference from it,
    and further calls.
    """

    def __init__(
        self,
        output: Output,
        calls: Calls,
        steps: Sequence[Step],
        *,
        cleared: bool = False,
    ) -> None:
        super().__init__(output.record, None, self._look_at_golden_output)
        self.error = output.error
        self._output = output
        self._calls, self._steps = calls, tuple(steps)
        self._cleared = cleared
        self._calls_made = output.calls
        # The call before this one, on the same directories.
        self._previous: Self | None = None
        # The next call, if an assertion has made it already.
        self._next: Self | None = None

    def _about(self) -> str:
        return f"<PipelineRun that {self.attempts[0].ended}, {len(self.faults)} faults>"

    @functools.cached_property
    def golden(self) -> Self:
        """Return the same calls without faults, from the same start, in its own copy of the
        directories.

        If the input has changed, it is a fresh run on the new input.
        """
        return self._make_golden(self._fresh_steps)

    @property
    def _changed(self) -> bool:
        return any(step is not None for step in self._steps)

    @property
    def _fresh_steps(self) -> tuple[Step, ...]:
        """Return all changes of the input, and the calls since the last one."""
        last = max((place for place, step in enumerate(self._steps) if step), default=-1)
        return (*filter(None, self._steps), *self._steps[last + 1 :])

    def _make_golden(self, steps: Sequence[Step]) -> Self:
        return type(self)(self._calls.golden(steps), self._calls, steps)

    def _look_at_golden_output(self, look: Callable[[Any], Any]) -> Any:
        return self._calls.golden(self._fresh_steps, look).record.looked

    @check_arguments("again", changed=optional(CALLABLE))
    def again(self, *, changed: Callable[..., object] | None = None) -> Self:
        """Make the same call once more, without faults, on the same directories and with the same
        objects.

        After a crash, the call is made as in a new process, with fresh copies of the objects. The
        expected output is that of as many calls without faults, where a call that raised does not
        count. An error does not count as success here. The assertions on this run fail.

        Args:
            changed: A function that changes the input before the call: a new day, or a correction
                of an old one. It receives the pipeline's arguments, if it takes any. Then the
                expected output is that of a fresh run: one call on the new input, with the initial
                directories and empty caches. Files whose name says ``cache``, and files that an
                earlier call has left and a fresh run does not write, are not judged.
        """
        made, self._next = self._next, None
        if made is not None and changed is None:
            return made
        last = made or self
        before_change = None
        if changed is not None:
            # Make it now: input at a remote store cannot be restored later.
            before_change = self._make_golden((*filter(None, last._steps), None))
        output = self._calls.again(isinstance(last.error, SimulatedCrash), changed)
        before = last._steps if last.error is None else last._steps[:-1]
        steps = (*before, None) if changed is None else (*before, changed, None)
        again = type(self)(output, self._calls, steps, cleared=True)
        again._previous = last
        again._handed = self._handed  # the second call has to recover from the faults of the first
        if before_change is not None:
            again._before_change = before_change
        return again

    def _difference(self, rtol: float, atol: float, patterns: tuple[str, ...]) -> str | None:
        """Return the first difference from the golden run in words, or None."""
        left = self._before_change._output.after if self._changed else {}
        return output_difference(self._output, self.golden._output, rtol, atol, patterns, left)

    @functools.cached_property
    def _before_change(self) -> Self:
        """Return the golden run on the input before its last change."""
        last = max(place for place, step in enumerate(self._steps) if step)
        changes = tuple(filter(None, self._steps[:last]))
        return self._make_golden((*changes, None))

    def _first_difference(self, judgement: str, rtol: float, atol: float) -> str | None:
        patterns = self._patterns(())
        self._check_judged(patterns)
        return self._difference(rtol, atol, patterns)

    def _has_raised(self) -> bool:
        if self.error is not None:
            self._check_cleared()
        return self.error is not None

    def _check_noise(self, rtol: float, atol: float) -> None:
        self._check_reproducible(rtol, atol, self._patterns(()))

    def _look_without_faults(self, judgement: str) -> None:
        """Note an assertion that has something to judge without any fault, too."""
        handed = self._handed
        if handed is not None:
            handed.looked, handed.compared = True, judgement

    def _call_next(self) -> Self:
        """Make the next call for an assertion, unless one has made it already."""
        if self._next is None:
            self._next = self.again()
        return self._next

    def _patterns(self, ignore: str | Iterable[str]) -> tuple[str, ...]:
        return (*all_patterns(ignore), *(CACHES if self._changed else ()))

    def _compare_under_faults(self, judgement: str) -> None:
        """Refuse a comparison that no fault can have influenced.

        A pipeline that fails by itself is exempt, because its golden run reports the failure.
        """
        if self._changed:  # it is compared with a different run: one on the new input
            self._look_without_faults(judgement)
        elif self.error is None or not self._handed or not self._handed.quiet:
            super()._compare_under_faults(judgement)

    def _check_unchanged(self, name: str, judgement: str) -> None:
        """Refuse to read a file that a later call has changed."""
        path = self._calls.find(name)
        state = self._output.after[name]
        if (
            path is None
            or hashlib.blake2b(path.read_bytes(), digest_size=len(state.digest)).digest()
            != state.digest
        ):
            raise BadArgument(
                f"{judgement}: {name} has changed since this call. Call {judgement} before again()"
            )

    @property
    def recovery_time(self) -> float | None:
        """Return the seconds from the end of the last fault to the first right output.

        These are seconds on the trial's clock. The output may be that of this call or of an earlier
        one (before ``again``), or that of a call that an assertion has made. None if no fault struck, or no output was right so far.
        """
        calls = list(self._all_calls())
        ended = [one._output.fault_ended for one in calls if one._output.fault_ended is not None]
        right = (one for one in reversed(calls) if one._is_right())
        first = next(right, None) if ended else None
        return None if first is None else max(0.0, first._output.ended - max(ended))

    def _judged_entries(self, number: int) -> Iterator[Entry]:
        """Yield the time to recovery once, when an assertion has compared all calls."""
        handed = self._handed
        calls = list(self._all_calls())
        is_compared = all(one.error is not None or "golden" in vars(one) for one in calls)
        if handed is None or handed.is_timed or not is_compared:
            return
        took = self.recovery_time
        if took is not None and calls[0].error is None:
            handed.is_timed = True
            seconds = round(took, 3)
            if handed.is_virtual and not any(one._output.record.real_time for one in calls):
                yield RecoveryTime(result=number, seconds=seconds)
            else:
                yield Timing(of="recovery", number=number, seconds=seconds)

    def _all_calls(self) -> Iterator[CalledPipeline]:
        """Yield the calls, the last one first."""
        call: CalledPipeline | None = self._next or self
        while call is not None:
            yield call
            call = call._previous

    def _is_right(self) -> bool:
        return self.error is None and self._difference(0.0, 0.0, self._patterns(())) is None

    def _entry(self, key: str | int | None, whose: str, judgement: str) -> Any:
        if self.error is not None:
            raise Incomplete(
                f"the pipeline {self.attempts[0].ended}, so it returned no values to judge"
            )
        return super()._entry(key, whose, judgement)

    def _check_judged(self, patterns: tuple[str, ...]) -> None:
        golden = self.golden._output
        if golden.record.kept is None and judged_files(golden, patterns) == judged_files(
            golden, patterns, before=True
        ):
            raise BadArgument(
                "there is nothing to judge: the golden run returned None and changed no file below "
                "the test's own directories, and wrote no object through fsspec. "
                "Return the output, let the pipeline write below tmp_path, or name the place with "
                "outputs="
            )
        if self._changed and not tells_apart(golden, self._before_change._output, patterns):
            raise BadArgument(
                "again: changed must change the output: a fresh run on the new input gives the "
                "same output as before the change, so a stale result cannot show"
            )

    def _check_cleared(self) -> None:
        if self._cleared:
            raise NotRecovered(
                f"no fault strikes any more, but the pipeline still {self.attempts[0].ended}"
            ) from self.error

    def _check_reproducible(self, rtol: float, atol: float, patterns: tuple[str, ...]) -> None:
        second = self._calls.golden(self._fresh_steps)
        if difference := output_difference(second, self.golden._output, rtol, atol, patterns):
            raise NonDeterministicSubject(
                f"two runs of the pipeline without faults differ: {difference}. Fix its seeds, set "
                f"rtol=, or leave a file out with ignore="
            )
