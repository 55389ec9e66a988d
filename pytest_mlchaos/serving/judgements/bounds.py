"""Judge a load by its service level objective, under faults and after them."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.replies import Reply
from ...core.validation import parse_duration
from ...errors import BadArgument, NotRecovered, SloMissed
from ..slo import Bounds, seconds
from .load_result import LoadResult, first_few

__all__ = ["SloVerdicts"]


class SloVerdicts(LoadResult):
    """Judge latencies and errors."""

    def assert_slo(self, **bounds: object) -> None:
        """Call ``assert_slo`` with these replies: ``load.assert_slo(p99="150ms",
        error_rate=0.01)``.

        Raises:
            SloMissed: A bound is exceeded.

        Fidelity: on the virtual clock, latencies only measure waiting. To judge a model that is
        slow to compute, use ``@chaos.settings(clock="real")``.
        """
        missed = _find_missed(self.replies, Bounds(bounds))
        if missed:
            raise SloMissed(
                "\n  ".join(
                    [
                        f"the SLO is missed over {len(self.replies)} requests:",
                        *missed,
                        *self._worst(),
                    ]
                )
            )

    def _worst(self) -> list[str]:
        slowest = max(self.replies, key=lambda reply: reply.latency)
        failed = next((reply for reply in self.replies if not reply.ok), None)
        lines = [f"slowest: {slowest}, {slowest.outcome}, {seconds(slowest.latency)}"]
        return lines + ([f"first error: {failed}, {failed.outcome}"] if failed is not None else [])

    def assert_recovered(
        self, *, within: object, like_golden: bool = True, **bounds: object
    ) -> None:
        """Raise ``NotRecovered`` unless the SLO holds again soon after the faults.

        A fault ends when its failure is raised, or its delay has passed. The replies to requests
        that arrived ``within`` this time after the last fault, or later, are judged together.

        Args:
            within: The time to recover: seconds, or ``"2s"``, on the trial's clock.
            like_golden: If true, the replies must also equal those of the golden load, except for
                what two golden loads do not have in common (times, request ids). An app that
                answers with its fallback for ever has not recovered.
            **bounds: As for ``assert_slo``.

        Raises:
            NotRecovered: The SLO does not hold, or a reply differs.
            BadArgument: The load ends before there is such a reply.
        """
        self._compare_under_faults("assert_recovered")
        grace, slo = parse_duration(within, "within"), Bounds(bounds)
        ended = self._fault_ended
        if ended is None:
            self._is_judged("assert_recovered", False)
            ended, grace = 0.0, 0.0
        after = sorted(
            (reply for reply in self.replies if reply.start >= ended), key=lambda reply: reply.start
        )
        judged = [reply for reply in after if reply.start >= ended + grace]
        if not judged:
            raise BadArgument(
                f"assert_recovered: no request arrived {seconds(grace)} or more after the last "
                f"fault, which ended {seconds(ended)} into "
                "the load. Drive more requests, or give rate="
            )
        missed = _find_missed(judged, slo)
        if missed:
            raise NotRecovered(
                f"the SLO did not hold {seconds(grace)} after the last fault, over {len(judged)} "
                f"requests:\n  " + "\n  ".join([*missed, _recovery(after, ended, slo)])
            )
        if like_golden and self._golden is not None:
            self._check_golden(judged, grace)

    def _check_golden(self, judged: Sequence[Reply], grace: float) -> None:
        wrong = []
        for place, reply in enumerate(self.replies):
            difference = self._compared.difference(place, reply) if reply in judged else None
            if difference:
                wrong.append(f"{reply}: {difference}")
        if wrong:
            head = f"different from the golden run {seconds(grace)} after the last fault: {len(wrong)} of {len(judged)} replies"
            way_out = "if these replies are correct, assert_recovered(..., like_golden=False) judges only the SLO"
            raise NotRecovered("\n  ".join([head, *first_few(wrong), *self._remarks(), way_out]))


def _find_missed(replies: Sequence[Reply], slo: Bounds) -> list[str]:
    return slo.missed([reply.latency for reply in replies], sum(not reply.ok for reply in replies))


def _recovery(after: Sequence[Reply], ended: float, slo: Bounds) -> str:
    """Describe from when on the SLO held."""
    holds = next(
        (reply for place, reply in enumerate(after) if not _find_missed(after[place:], slo)), None
    )
    return (
        "it never held again"
        if holds is None
        else f"it held {seconds(holds.start - ended)} after it, from {holds} on"
    )
