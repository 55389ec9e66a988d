"""Judge if a world ended in the state of its golden run."""

from __future__ import annotations

from ...core.validation import TOLERANCE, check_arguments
from ...errors import BadArgument, NotRecovered
from ...oracles.state import first_difference
from ...runs.finite_state import newly_not_finite
from ..world_diagnosis import from_golden
from .world_result import WorldResult

__all__ = ["RecoveryVerdicts"]


class RecoveryVerdicts(WorldResult):
    """Compare each rank with the same rank of the golden world."""

    @check_arguments("assert_recovered", rtol=TOLERANCE, atol=TOLERANCE)
    def assert_recovered(self, *, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raise ``NotRecovered`` unless every rank ended in the state that it has in the golden
        run.

        Returned values and trained parameters are compared, rank by rank (of a sharded parameter,
        the shards). Nothing may be NaN or infinite that is finite in the golden run.

        Args:
            rtol: Values may differ by ``atol + rtol * abs(expected)``.
            atol: See ``rtol``.

        Raises:
            NotRecovered: A rank differs.
            GaveUp: Faults ended the world more often than ``restarts`` allows.
        """
        self._compare_under_faults("assert_recovered")
        for record in self._record.ranks:
            if record.outcome != "finished":
                self._check_restarts(record)
                raise NotRecovered(
                    f"rank {record.rank} did not finish: it {self._how(record)}\n{self.story()}"
                ) from record.load_error()
        judged = False
        for rank, golden in zip(self.ranks, self.golden.ranks, strict=True):
            trained = bool(rank.parameters) and bool(golden.parameters)
            judged = judged or trained or rank.value is not None or golden.value is not None
            found = first_difference(
                rank.value, golden.value, rtol=rtol, atol=atol, name="returned value"
            )
            if found is None and trained:
                found = first_difference(
                    rank.parameters,
                    golden.parameters,
                    rtol=rtol,
                    atol=atol,
                    name="trained parameters",
                )
            if found is None:
                found = newly_not_finite(
                    rank._record.load_not_finite(), golden._record.load_not_finite()
                )
            if found is not None:
                why = from_golden(self._traces(faults=False), self._traces(faults=True))
                raise NotRecovered(
                    f"rank {rank.rank} did not end in the state of its golden run\n  "
                    f"{found}\n{why}{self.story()}"
                )
        if not judged:
            raise BadArgument(
                "assert_recovered has nothing to judge: the ranks returned None and took no torch "
                "optimizer step in their last attempt. "
                "Return the final state (model.state_dict(), the step, the metrics) from the "
                "subject"
            )
