"""Judge if the ranks of a world agree with each other."""

from __future__ import annotations

import functools

from ...core.validation import FLAG, TOLERANCE, check_arguments
from ...errors import BadArgument, OutOfSync, RankFailed
from ...oracles.state import first_difference
from ..world_diagnosis import from_each_other
from .world_result import WorldResult

__all__ = ["AgreementVerdicts"]


class AgreementVerdicts(WorldResult):
    """Compare the ranks with each other."""

    @check_arguments("assert_in_sync", rtol=TOLERANCE, atol=TOLERANCE, values=FLAG)
    def assert_in_sync(self, *, rtol: float = 0.0, atol: float = 0.0, values: bool = False) -> None:
        """Raise ``OutOfSync`` unless all ranks that finished trained the same parameters.

        Of a sharded parameter, the pieces that several ranks hold are compared. If no rank took a
        torch optimizer step, the returned values are compared.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.
            values: If true, also compare the returned values.

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
                raise OutOfSync(
                    f"rank {rank.rank} and rank {first.rank} ended in different states\n  "
                    f"{found}\n{why}{self.story()}"
                )
        self._check_joined("assert_in_sync")

    def _check_joined(self, judgement: str) -> None:
        if not any(record.joined for record in self._record.ranks):
            raise BadArgument(
                f"{judgement}: no rank initialized its process group, so the ranks did not "
                f"communicate. Call "
                f"torch.distributed.init_process_group in the subject\n{self.story()}"
            )
