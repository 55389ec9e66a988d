"""Judge if the ranks of a world agree with each other."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence

from ...core.validation import FLAG, TOLERANCE, check_arguments
from ...errors import BadArgument, GoldenRunFailed, OutOfSync, RankFailed
from ...oracles.state import first_difference
from ..rank_run import RankRun
from ..step_states import BUFFERS, GENERATORS, Key, Parting, equal_keys, partings
from ..world_diagnosis import from_each_other
from .world_result import WorldResult

__all__ = ["AgreementVerdicts"]

_ORDER = ("parameters", "optimizer state", BUFFERS, GENERATORS)


class AgreementVerdicts(WorldResult):
    """Compare the ranks with each other."""

    @check_arguments(
        "assert_in_sync",
        rtol=TOLERANCE,
        atol=TOLERANCE,
        values=FLAG,
        every_step=FLAG,
        generators=FLAG,
    )
    def assert_in_sync(
        self,
        *,
        rtol: float = 0.0,
        atol: float = 0.0,
        values: bool = False,
        every_step: bool = True,
        generators: bool = False,
    ) -> None:
        """Raise ``OutOfSync`` unless all ranks that finished trained the same parameters.

        The parameters at the end are compared. Without a tolerance, parameters and optimizer
        state are compared after every step, too, and buffers after the last one. Of these, only
        those count that are equal in all ranks after every step of the golden run: workers that
        average their parameters now and then, and running statistics of a rank's own batches, are
        not out of sync. Of a sharded tensor, the pieces that several ranks hold are compared. If
        no rank took a torch optimizer step, the returned values are compared.

        States are compared after every step if the test function, or a function of its module,
        calls this assertion.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            values: If true, also compare the returned values.
            every_step: If false, states before the end may differ, for a job that notices a
                difference and repairs it.
            generators: If true, global random number generators that are equal in all ranks after
                every step of the golden run must stay equal. A rank that draws once more, for
                example for a back-off, breaks this rule.

        Raises:
            OutOfSync: Two ranks differ.
            RankFailed: Fewer than two ranks finished.
            BadArgument: There is nothing to compare.
        """
        finished = [rank for rank in self.ranks if rank.finished]
        if len(self.ranks) < 2:
            raise BadArgument("assert_in_sync needs a world of two ranks or more")
        if len(finished) < 2:
            raise RankFailed(f"cannot compare ranks: fewer than two ranks finished\n{self.story()}")
        trained = any(rank.parameters for rank in finished)
        if not trained and all(rank.value is None for rank in finished):
            raise BadArgument(
                "assert_in_sync has nothing to compare: the ranks returned None and took no torch "
                "optimizer step. Return the final state"
            )
        first, *others = finished
        compare = functools.partial(first_difference, rtol=rtol, atol=atol, across_ranks=True)
        for rank in others:
            found = None
            if trained:
                found = compare(rank.parameters, first.parameters, name="trained parameters")
            if found is None and (values or not trained):
                found = compare(rank.value, first.value, name="returned value")
            if found is not None:
                why = from_each_other(self._traces(faults=True), rank.rank, first.rank)
                where = self._first_parting(first, rank)
                raise OutOfSync(
                    f"rank {rank.rank} and rank {first.rank} ended in different states\n  "
                    f"{found}\n{where}{why}{self.story()}"
                )
        if not rtol and not atol:
            self._check_steps(finished, every_step=every_step, generators=generators)
        self._check_joined("assert_in_sync")

    def _check_steps(
        self, finished: Sequence[RankRun], *, every_step: bool, generators: bool
    ) -> None:
        """Raise ``OutOfSync`` if the states after a step differ, unlike in the golden run."""
        first, *others = finished
        for rank in others:
            parted = self._judged_partings(
                first, rank, every_step=every_step, generators=generators
            )
            # Only a fresh golden run shows what must be equal in this trial.
            if parted and self._renew_golden():
                parted = self._judged_partings(
                    first, rank, every_step=every_step, generators=generators
                )
            if parted:
                again = (
                    "\n  they agree at the end: use every_step=False for a job that repairs itself"
                    if every_step and parted[0].key.component not in (BUFFERS, GENERATORS)
                    else ""
                )
                raise OutOfSync(
                    f"rank {rank.rank} and rank {first.rank} were in different states "
                    f"{parted[0].when}\n{_describe(parted)}{again}\n{self.story()}"
                )

    def _judged_partings(
        self, one: RankRun, other: RankRun, *, every_step: bool, generators: bool
    ) -> list[Parting]:
        """Return where the states of two ranks differ, as far as that matters."""
        mine, theirs = one._record.load_states(), other._record.load_states()
        if mine is None or theirs is None:
            return []
        last = len(mine.steps) - 1 if len(mine.steps) == len(theirs.steps) else math.inf
        judged = [
            parting
            for parting in partings(mine, theirs)
            if (
                generators
                if parting.key.component == GENERATORS
                else parting.last == last or (every_step and parting.key.component != BUFFERS)
            )
        ]
        if not judged:
            return []
        equal = self._equal_in_golden()
        return [parting for parting in judged if parting.key in equal]

    def _equal_in_golden(self) -> Collection[Key]:
        """Return the parts of the state that are equal in all ranks of the golden run."""
        states = [rank._record.load_states() for rank in self.golden.ranks]
        return equal_keys(states) if all(state is not None for state in states) else set()

    def _first_parting(self, one: RankRun, other: RankRun) -> str:
        """Return a line about the first step after which two ranks differ, or an empty text."""
        mine, theirs = one._record.load_states(), other._record.load_states()
        if mine is None or theirs is None:
            return ""
        try:
            equal = self._equal_in_golden()
        except GoldenRunFailed:
            return ""
        found = [parting for parting in partings(mine, theirs) if parting.key in equal]
        return f"{_describe(found)}\n" if found else ""

    def _check_joined(self, judgement: str) -> None:
        if not any(record.joined for record in self._record.ranks):
            raise BadArgument(
                f"{judgement}: no rank initialized its process group, so the ranks did not "
                f"communicate. Call "
                f"torch.distributed.init_process_group in the subject\n{self.story()}"
            )


def _describe(parted: Sequence[Parting]) -> str:
    """Describe what differs after the first of these steps."""
    step = parted[0].first
    keys = [parting.key for parting in parted if parting.first == step]
    keys.sort(key=lambda key: _ORDER.index(key.component))
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"  first {parted[0].when}: {keys[0].component}, {keys[0].name}{more}"
