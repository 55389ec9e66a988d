"""Judge if the ranks of a world launched the same collectives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from ...core.collectives import POINT_TO_POINT, CollectiveRecord
from ...core.records import Launched
from ...errors import BadArgument, MismatchedCollectives
from .world_result import WorldResult, describe_collective

__all__ = ["CollectiveVerdicts"]

_UNEVEN = frozenset({"all_to_all"})
"""Operations in which each rank may give a different number of elements."""

Log = Mapping[int, CollectiveRecord]
Ranks = Mapping[int, Launched]


class CollectiveVerdicts(WorldResult):
    """Compare the collectives of the ranks with each other."""

    def assert_no_desync(self) -> None:
        """Raise ``MismatchedCollectives`` unless all ranks launched the same collectives.

        In each group, the collectives with the same number are compared: operation, type and
        number of elements, and root. A rank that returned must have launched all that the others
        did. If a rank did not finish, ranks must also have waited for the groups that they share
        in the same order. Gloo pairs the collective of one rank with a later one of a different
        rank, and raises no error.

        Raises:
            MismatchedCollectives: Two ranks launched different ones.
            BadArgument: No collective was recorded, or the plugin did not find the assertion in
                the test function or in a function of its module.

        Fidelity: operations between two ranks (``send``, ``recv``) are not compared. Each rank's
        last 10,000 collectives are, in each attempt.
        """
        attempts = self._record.launched
        if not any(rank.collectives.total for ranks in attempts for rank in ranks):
            raise BadArgument(
                "assert_no_desync: no collective was recorded. The ranks must launch some, and the "
                "assertion must be in the test function itself or in a function of its module, "
                "because collectives are recorded while the world runs"
            )
        for number, ranks in enumerate(attempts, 1):
            found = next(_mismatches({rank.rank: rank for rank in ranks}), None)
            if found is not None:
                which = f"attempt {number}, " if len(attempts) > 1 else ""
                raise MismatchedCollectives(f"{which}{found}\n{self.story()}")


def _mismatches(ranks: Ranks) -> Iterator[str]:
    """Yield the differences in words, group by group, the first one of each."""
    groups = dict.fromkeys(
        record.group for rank in ranks.values() for record in rank.collectives.records
    )
    for group in groups:
        logs = {number: _log(ranks, number, group) for number in group}
        if (found := _first_mismatch(ranks, group, logs)) is not None:
            yield found
    if any(rank.outcome != "finished" for rank in ranks.values()):
        yield from _different_orders(ranks)


def _log(ranks: Ranks, number: int, group: tuple[int, ...]) -> Log:
    """Return the collectives of a rank in a group, by their numbers."""
    if number not in ranks:
        return {}
    return {
        record.sequence: record
        for record in ranks[number].collectives.records
        if record.group == group and record.op not in POINT_TO_POINT
    }


def _first_mismatch(ranks: Ranks, group: tuple[int, ...], logs: Mapping[int, Log]) -> str | None:
    # The logs keep the last collectives only. Compare what all of them can still have.
    begin = max((min(log) for log in logs.values() if log), default=0)
    end = max((max(log) for log in logs.values() if log), default=-1)
    for sequence in range(begin, end + 1):
        held = {number: log.get(sequence) for number, log in logs.items()}
        kinds = {_kind(record) for record in held.values() if record is not None}
        absent = [
            number
            for number, record in held.items()
            if record is None and number in ranks and ranks[number].outcome == "finished"
        ]
        if len(kinds) > 1 or absent:
            which = "" if len(group) == len(ranks) else f" of group {list(group)}"
            shown = ", ".join(
                f"rank {number} {_about(record, kinds)}"
                for number, record in held.items()
                if record is not None or number in absent
            )
            return f"collective {sequence}{which}: {shown}"
    return None


def _different_orders(ranks: Ranks) -> Iterator[str]:
    """Yield pairs of ranks that waited for the groups that they share in different orders."""
    for one, other in itertools.combinations(ranks.values(), 2):
        orders = [
            [
                (record.group, record.sequence)
                for record in rank.collectives.records
                if record.waits
                and record.op not in POINT_TO_POINT
                and {one.rank, other.rank} <= set(record.group)
            ]
            for rank in (one, other)
        ]
        common = set(orders[0]) & set(orders[1])
        first, second = ([key for key in order if key in common] for order in orders)
        for mine, theirs in zip(first, second, strict=True):
            if mine != theirs:
                yield (
                    f"rank {one.rank} waited for collective {mine[1]} of group "
                    f"{list(mine[0])} first, and rank {other.rank} for collective {theirs[1]} "
                    f"of group {list(theirs[0])}"
                )
                break


def _kind(record: CollectiveRecord) -> tuple[object, ...]:
    """Return what must be equal in all ranks of the group."""
    size = None if record.op in _UNEVEN else record.size
    return record.op, record.dtype, size, record.peer


def _about(record: CollectiveRecord | None, kinds: set[tuple[object, ...]]) -> str:
    if record is None:
        return "none"
    if len({kind[0] for kind in kinds}) > 1 or len(kinds) == 1:
        return record.op
    return describe_collective(record)
