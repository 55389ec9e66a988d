"""Judge a circuit breaker by the calls of what it protects."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from ...core.replies import Reply
from ...core.sites import key_of
from ...core.validation import COUNT, Rule, check_arguments, parse_duration
from ...errors import CircuitStuck, Inconclusive
from ..bounds import seconds
from .load_result import LoadResult, first_few

__all__ = ["CircuitVerdicts"]

CALLS = Rule("a number of calls, 1 or more", COUNT.holds)


class CircuitVerdicts(LoadResult):
    """Judge that calls stop while they fail, and come back."""

    @check_arguments("assert_circuit_opens", after=CALLS)
    def assert_circuit_opens(self, target: str, *, after: int, within: object = None) -> None:
        """Raise ``CircuitStuck`` unless the app stops to call a target that fails.

        A call fails if a fault strikes its request, and the reply is not the golden run's. After
        ``after`` such calls in a row, the next request that arrives must be answered without a call.
        From time to time, the app may try again. Requests that do not call the target in the golden
        run are not judged.

        Args:
            target: The function that the circuit breaker protects, for example
                ``"pkg.mod:Store.get"``. Write it as a text in the test.
            after: The number of failures in a row after which the circuit must be open.
            within: Judge that the circuit closes again, too: requests that arrive this long or more
                after the last fault has ended (seconds, or ``"30s"``) must call the target.

        Raises:
            CircuitStuck: The circuit stays closed, or stays open.
            Inconclusive: The calls cannot be attributed to requests.
            BadArgument: The target never fails that often before a further request.
        """
        grace = None if within is None else parse_duration(within, "within")
        made = self._calls_of(target, "assert_circuit_opens")
        self._compare_under_faults("assert_circuit_opens")
        golden = self._golden_load.calls.get(key_of(target), ())
        callers = {call.request for call in golden}
        if None in callers or None in {call.request for call in made}:
            raise Inconclusive(
                f"assert_circuit_opens: {target} is called by code that works for several requests, "
                f"so its calls cannot be attributed to one"
            )
        calls = collections.Counter(call.request for call in made)
        asking = sorted(
            (reply for reply in self.replies if reply.number in callers),
            key=lambda reply: reply.start,
        )
        opened, late = self._opening(asking, calls, after)
        if late:
            head = f"the circuit stays closed: {target} is still called after {after} failures in a row"
            way_out = "if the app already tries again by then, drive requests at a higher rate="
            raise CircuitStuck("\n  ".join([head, *first_few(late), way_out]))
        self._need(
            "assert_circuit_opens",
            opened,
            f"{target} never failed {after} times in a row before a further request that calls it, "
            f"so there is nothing to judge. Let more calls fail, or drive more requests",
        )
        if grace is not None and opened:
            self._check_closing(asking, calls, grace, target)

    def _opening(
        self, asking: Sequence[Reply], calls: collections.Counter[int | None], after: int
    ) -> tuple[bool, list[str]]:
        """Return whether the circuit had to open, and the requests that called all the same."""
        failures, since, opened = 0, None, False
        late = []
        for reply in asking:
            is_due = since is not None and reply.start >= since
            opened = opened or is_due
            number = calls[reply.number]
            if not number or not self._is_failing(reply, number):
                if number or is_due:
                    failures, since = 0, None
                continue
            if is_due:
                late.append(f"{reply}, {reply.outcome}: {number} calls")
            failures += number
            if failures >= after and since is None:
                since = reply.start + reply.latency
        return opened, late

    def _is_failing(self, reply: Reply, number: int) -> bool:
        """Return True if faults made all calls of a request fail."""
        place = self.replies.index(reply)
        return len(reply.faults) >= number and (
            not reply.ok or self._compared.difference(place, reply) is not None
        )

    def _check_closing(
        self,
        asking: Sequence[Reply],
        calls: collections.Counter[int | None],
        grace: float,
        target: str,
    ) -> None:
        ended = self._fault_ended or 0.0
        judged = [reply for reply in asking if reply.start >= ended + grace]
        self._need(
            "assert_circuit_opens",
            bool(judged),
            f"no request arrived {seconds(grace)} or more after the last fault, which ended "
            f"{seconds(ended)} into the load. Drive more requests, or give rate=",
        )
        without = [str(reply) for reply in judged if not calls[reply.number]]
        if without:
            head = (
                f"the circuit did not close again {seconds(grace)} after the last fault: no call of "
                f"{target} in {len(without)} of {len(judged)} requests"
            )
            raise CircuitStuck("\n  ".join([head, *first_few(without)]))
