"""Judge if a world ended in the state of its golden run."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

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
            GoldenRunFailed: A rank fails without faults, too.
        """
        self._compare_under_faults("assert_recovered")
        record = self._record.unfinished
        if record is not None:
            self._check_cause(record)
            raise NotRecovered(
                f"rank {record.rank} did not finish: it {self._how(record)}\n{self.story()}"
            ) from record.load_error()
        found = self._unlike_golden(rtol, atol)
        # What differs from a golden world of an earlier trial is compared with a fresh one.
        if found and self._renew_golden():
            found = self._unlike_golden(rtol, atol)
        if found:
            rank, difference = next(iter(found.items()))
            agreed = self._agreed(found, rtol, atol)
            why = from_golden(self._traces(faults=False), self._traces(faults=True))
            raise NotRecovered(
                f"rank {rank} did not end in the state of its golden run\n  "
                f"{difference}\n{agreed}{why}{self.story()}"
            )

    def _unlike_golden(self, rtol: float, atol: float) -> dict[int, str]:
        """Return by rank the first difference from its golden run."""
        judged, found = False, {}
        # An elastic world may end with fewer ranks than it began with.
        for rank, golden in zip(self.ranks, self.golden.ranks, strict=False):
            trained = bool(rank.parameters) and bool(golden.parameters)
            judged = judged or trained or rank.value is not None or golden.value is not None
            difference = first_difference(
                rank.value, golden.value, rtol=rtol, atol=atol, name="returned value"
            )
            if difference is None and trained:
                difference = first_difference(
                    rank.parameters,
                    golden.parameters,
                    rtol=rtol,
                    atol=atol,
                    name="trained parameters",
                )
            if difference is None:
                difference = newly_not_finite(
                    rank._record.load_not_finite(), golden._record.load_not_finite()
                )
            if difference is not None:
                found[rank.rank] = difference
        if not judged:
            raise BadArgument(
                "assert_recovered has nothing to judge: the ranks returned None and took no torch "
                "optimizer step in their last attempt. "
                "Return the final state (model.state_dict(), the step, the metrics) from the "
                "subject"
            )
        return found

    def _agreed(self, found: Container[int], rtol: float, atol: float) -> str:
        """Return a line if all ranks have the same wrong parameters, or else an empty text.

        A comparison of the ranks with each other would pass.
        """
        if len(self.ranks) < 2 or not all(rank.rank in found for rank in self.ranks):
            return ""
        first, *others = (_whole(rank.parameters) for rank in self.ranks)
        if not first or any(
            first_difference(other, first, rtol=rtol, atol=atol) is not None for other in others
        ):
            return ""
        return "  all ranks agree with each other, but not with the golden run\n"


def _whole(parameters: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the parameters, or nothing if they are sharded: then each rank has its own ones."""
    flat = [tensor for group in parameters for tensor in group]
    return [] if any(hasattr(tensor, "placements") for tensor in flat) else flat
