"""Judge a load by its service level objective, under faults and after them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from ...core.replies import Reply
from ...core.validation import parse_duration
from ...errors import BadArgument, NotRecovered
from ..bounds import Bounds, Findings, Measured, seconds
from ..slo import raise_missed
from .load_result import LoadResult, first_few

__all__ = ["SloVerdicts", "judge_bounds"]

TRIED_STARTS = 200
"""The number of requests from which on a report looks whether the SLO held."""


class SloVerdicts(LoadResult):
    """Judge latencies and errors."""

    def assert_slo(self, *, confidence: float | None = None, **bounds: object) -> None:
        """Raise ``SloMissed`` unless the load keeps within ``bounds``:
        ``load.assert_slo(p99="150ms", error_rate=0.01)``.

        A request whose client left, or was slow, counts nowhere. If it fails, it counts.

        Args:
            confidence: Judge what these requests show about all requests, for example with the
                confidence 0.95 for each bound. A bound that too few requests decide raises
                ``Inconclusive``, with the number that it takes. Without it, these requests alone
                are judged. So are ``max`` and a share of 0, which no number of requests can show.
            **bounds: At least one bound. Of ``pytest_mlchaos.assert_slo``: ``p50`` or any other
                percentile, ``max``, ``error_rate`` and ``availability``. ``ttft_p99`` limits the
                time to the first token, and ``itl_p99`` the times between tokens, at any
                percentile. ``goodput`` is the least share of requests that succeed within all
                bounds on times, or their number a second (a number above 1, or ``"0.5/s"``). Of
                several percentiles, the bound of the highest one counts there.

        Raises:
            SloMissed: A bound is exceeded.
            Inconclusive: There are too few requests for the confidence.

        Fidelity: on the virtual clock, latencies only measure waiting. To judge a model that is
        slow to compute, use ``@chaos.settings(clock="real")``. With ``confidence``, times between
        tokens count as independent of each other.
        """
        slo, counted = Bounds(bounds, confidence), self._counted
        if not counted:
            raise BadArgument(
                f"assert_slo: the clients of all {len(self.replies)} requests left or were slow, so "
                f"there is nothing to judge. Drive requests whose clients stay"
            )
        raise_missed(judge_bounds(counted, slo), len(counted), self._worst(counted))

    @functools.cached_property
    def recovery_time(self) -> float | None:
        """The seconds that the app took to recover, on the trial's clock.

        They pass from the end of the last fault to the arrival of the first request from which on
        all replies succeed, and equal those of the golden load. None if no fault struck, or if the
        app does not recover in this load.
        """
        ended = self._fault_ended
        if ended is None:
            return None

        def is_right(place: int) -> bool:
            reply = self.replies[place]
            return reply.ok and not self._compared.difference(place, reply)

        return self._recovered_after(ended, is_right)

    def _worst(self, counted: Sequence[Reply]) -> list[str]:
        slowest = max(counted, key=lambda reply: reply.latency)
        failed = next((reply for reply in counted if not reply.ok), None)
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
            **bounds: As for ``assert_slo``. Without any, the replies must only be as in the golden
                load.

        Raises:
            NotRecovered: The SLO does not hold, or a reply differs.
            BadArgument: The load ends before there is such a reply (if schedules are searched, in
                all of them).
        """
        self._compare_under_faults("assert_recovered")
        grace = parse_duration(within, "within")
        slo = None if like_golden and not bounds else Bounds(bounds)
        ended = self._fault_ended
        if ended is None:
            self._is_judged("assert_recovered", False)
            ended, grace = 0.0, 0.0
        after = sorted(
            (reply for reply in self._counted if reply.start >= ended),
            key=lambda reply: reply.start,
        )
        judged = [reply for reply in after if reply.start >= ended + grace]
        self._judged("assert_recovered", bool(judged))
        if not judged and not self._strict():
            return  # a different schedule of the search strikes early enough
        if not judged:
            raise BadArgument(
                f"assert_recovered: no request arrived {seconds(grace)} or more after the last "
                f"fault, which ended {seconds(ended)} into "
                "the load. Drive more requests, or give rate="
            )
        missed = [] if slo is None else _find_missed(judged, slo)
        if missed and slo is not None:
            raise NotRecovered(
                f"the SLO did not hold {seconds(grace)} after the last fault, over {len(judged)} "
                f"requests:\n  " + "\n  ".join([*missed, _recovery(after, ended, slo)])
            )
        if like_golden and self._golden is not None:
            self._check_golden(judged, grace)

    def _check_golden(self, judged: Sequence[Reply], grace: float) -> None:
        wrong, chosen = [], set(map(id, judged))
        for place, reply in enumerate(self.replies):
            is_judged = id(reply) in chosen
            difference = self._compared.difference(place, reply) if is_judged else None
            if difference:
                wrong.append(f"{reply}: {difference}")
        if wrong:
            head = f"different from the golden run {seconds(grace)} after the last fault: {len(wrong)} of {len(judged)} replies"
            way_out = "if these replies are correct, assert_recovered(..., like_golden=False) judges only the SLO"
            raise NotRecovered("\n  ".join([head, *first_few(wrong), *self._remarks(), way_out]))


def judge_bounds(replies: Sequence[Reply], slo: Bounds) -> Findings:
    """Return the findings about some replies of a load."""
    measured = [Measured(reply.latency, reply.ok, reply.ttft, reply.itl) for reply in replies]
    begun = min(reply.start for reply in replies)
    return slo.judge(measured, max(reply.start + reply.latency for reply in replies) - begun)


def _find_missed(replies: Sequence[Reply], slo: Bounds) -> list[str]:
    return judge_bounds(replies, slo).missed


def _recovery(after: Sequence[Reply], ended: float, slo: Bounds) -> str:
    """Describe from when on the SLO held. In a long load, look at a part of the requests."""
    step = max(1, len(after) // TRIED_STARTS)
    places = range(0, len(after), step)
    holds = next((after[place] for place in places if not _find_missed(after[place:], slo)), None)
    if holds is None:
        return "it never held again"
    known = "it held" if step == 1 else "it held, at the latest,"
    return f"{known} {seconds(holds.start - ended)} after it, from {holds} on"
