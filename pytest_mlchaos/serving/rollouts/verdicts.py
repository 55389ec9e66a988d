"""Judge one rollout: was a worse version caught, and a good one let through?"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...core.entries import Entry, RecoveryTime, Requests, Timing
from ...core.journal import Strike
from ...core.results import Result
from ...core.validation import WHOLE, check_arguments, format_seconds, optional, parse_duration
from ...errors import (
    BadArgument,
    Inconclusive,
    MixedVersions,
    NotPromoted,
    NotRolledBack,
    PromotedBlind,
)
from .records import Answer, Call, Check, Outcome, Trace
from .sequential import Verdict

__all__ = ["Rollout"]

LAST_ANSWERS = 50
"""The number of last answers that show which version serves users at the end."""
SHOWN_CALLS = 8


class Rollout(Result):
    """One rollout: its outcome, who was harmed, and the judgements.

    Attributes:
        old: The version that served all users at the start.
        new: The version that was rolled out.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        strict: Callable[[], bool] = bool,
        judged: Callable[[str, bool], None] = lambda who, judges: None,
    ) -> None:
        self._trace = trace
        self._strict = strict
        self._judged = judged
        self.old, self.new = trace.old, trace.new

    def _entries(self, number: int, is_virtual: bool) -> Iterator[Entry]:
        yield Requests(
            result=number,
            failed=tuple(one.number for one in self._trace.answers if one.failed),
        )
        if not self._harmed or not self.is_worse:
            return
        took = None if self.mttr is None else round(self.mttr, 4)
        if is_virtual:
            yield RecoveryTime(result=number, seconds=took)
        elif took is not None:
            yield Timing(of="recovery", number=number, seconds=took)

    def _about(self) -> str:
        harm = f"{self.harmed_users} users harmed, {len(self.faults)} faults"
        return f"<Rollout of {self.new}: {self.outcome}, {len(self.answers)} requests, {harm}>"

    # -- what happened -----------------------------------------------------------------------------

    @property
    def answers(self) -> Sequence[Answer]:
        """Return the answers to users, in order."""
        return self._trace.answers

    @property
    def calls(self) -> Sequence[Call]:
        """Return the calls of ``deploy``, ``split``, ``promote`` and ``rollback``, in order."""
        return self._trace.calls

    @property
    def checks(self) -> Sequence[Check]:
        """Return the analyses, in order."""
        return self._trace.checks

    @property
    def faults(self) -> tuple[Strike, ...]:
        """Return the strikes during the rollout."""
        return self._trace.strikes

    @property
    def outcome(self) -> Outcome:
        """Return what the controller did last: ``promoted``, ``rolled back``, ``paused`` or ``not
        deployed``."""
        if self._deployed is None:
            return "not deployed"
        last = self._last("promote", "rollback")
        if last is None:
            return "paused"
        return "promoted" if last.name == "promote" else "rolled back"

    @property
    def promoted(self) -> bool:
        """Return True if the new version was promoted, and not rolled back later."""
        return self.outcome == "promoted"

    @property
    def rolled_back(self) -> bool:
        """Return True if the new version was rolled back."""
        return self.outcome == "rolled back"

    @property
    def verdict(self) -> Verdict:
        """Return ``"pass"``, ``"fail"`` or ``"inconclusive"``, as the controller decided."""
        found: dict[Outcome, Verdict] = {"promoted": "pass", "rolled back": "fail"}
        return found.get(self.outcome, "inconclusive")

    @property
    def served(self) -> int:
        """Return the number of users' requests that the new version answered."""
        return sum(one.version == self.new for one in self.answers)

    @functools.cached_property
    def _harmed(self) -> list[Answer]:
        return [one for one in self.answers if one.version == self.new and one.is_bad]

    @property
    def harmed(self) -> int:
        """Return the number of bad answers of the new version: errors, wrong or slow ones."""
        return len(self._harmed)

    @property
    def harmed_users(self) -> int:
        """Return the number of users that received a bad answer of the new version."""
        return len({one.user for one in self._harmed})

    @property
    def metric(self) -> str:
        """Return the metric by which the new version is worse: ``errors``, ``quality`` or
        ``latency``. Empty if it harmed no user."""
        verdict, metric = self._trace.evidence
        if verdict == "fail":
            return metric
        counts = {
            "errors": sum(one.failed for one in self._harmed),
            "quality": sum(one.wrong > 0 for one in self._harmed),
            "latency": sum(one.slow for one in self._harmed),
        }
        return max(counts, key=lambda name: counts[name]) if self._harmed else ""

    @property
    def caught_after(self) -> int | None:
        """Return the number of requests from the deployment to the rollback. None without one."""
        last = max((one.number for one in self.answers if one.version == self.new), default=-1)
        backs = [one.number for one in self.calls if one.name == "rollback" and one.ok]
        effective = next((number for number in backs if number > last), None)
        if self._deployed is None or effective is None or not self.rolled_back:
            return None
        return effective - self._deployed.number

    @property
    def mttr(self) -> float | None:
        """Return the seconds from the first bad answer of the new version to its last one.

        None if it gave none, or still serves.
        """
        if not self._harmed or self._serves_new:
            return None
        return self._harmed[-1].time - self._harmed[0].time

    @property
    def is_worse(self) -> bool | None:
        """Return True if the new version is worse than the old one, and False if it is not.

        A fault or the test may say so. Without that, the default test on all answers decides. None
        if these are too few.
        """
        damages = [one for one in self._trace.damages if one.effect == "worse"]
        if damages:  # one below the margin is neither worse nor good
            is_small = all(one.share < self._trace.margin for one in damages)
            return None if is_small else True
        if self._trace.is_worse is not None:
            return self._trace.is_worse
        verdict, _ = self._trace.evidence
        if verdict == "fail":
            return True if self._trace.excess >= self._trace.margin else None
        return False if verdict == "pass" else None

    # -- judgements --------------------------------------------------------------------------------

    def assert_safe(self) -> None:
        """Raise unless the rollout ended as it should, whatever happened to it.

        A worse version must be rolled back, and one that is not worse must be promoted. If a fault
        hindered the rollout itself, it may also end with the old version. A version without any
        measurement may not be promoted, and the versions must belong together at the end.

        Raises:
            NotRolledBack: A worse version still serves users.
            NotPromoted: A version that is not worse was not let through.
            PromotedBlind: The new version was promoted without any measurement.
            MixedVersions: Models, features or settings of two versions serve users together.
            Inconclusive: There were too few requests to tell.
        """
        self.assert_never_promoted_blind()
        if self.outcome == "not deployed":
            self._check_consistent()
            return
        worse = self.is_worse
        if worse and not self._is_starting_slowly:
            self._check_caught("assert_safe")
        elif not self._is_hindered:
            self._check_let_through(worse)
        self._check_consistent()

    @check_arguments("assert_caught", within=optional(WHOLE), at_most_harmed=optional(WHOLE))
    def assert_caught(
        self, *, within: int | None = None, at_most_harmed: int | None = None
    ) -> None:
        """Raise ``NotRolledBack`` unless the worse version was caught in time.

        Args:
            within: The largest number of requests from the deployment to the rollback.
            at_most_harmed: The largest number of users that received a bad answer.

        Raises:
            NotRolledBack: It still serves, or was caught too late.
            Inconclusive: It answered no request.
            BadArgument: The new version is not worse (if schedules are searched, in none of them).
        """
        worse = self.is_worse is True
        self._judged("assert_caught", worse)
        if not worse:
            if self._strict():
                raise BadArgument(
                    f"assert_caught: {self.new} is not worse than {self.old}, so there is nothing "
                    f"to catch. Declare a fault, for example @chaos.bad_deploy, or use "
                    f"assert_promoted()"
                )
            return
        self._check_caught("assert_caught")
        after = self.caught_after
        if within is not None and after is not None and after > within:
            raise NotRolledBack(
                self._report(f"{self.new} was caught after {after} requests, more than {within}")
            )
        if at_most_harmed is not None and self.harmed_users > at_most_harmed:
            raise NotRolledBack(
                self._report(
                    f"{self.new} harmed {self.harmed_users} users before it was caught, more than "
                    f"{at_most_harmed}"
                )
            )

    def assert_rolled_back(self, *, within: Any = None) -> None:
        """Raise ``NotRolledBack`` unless the old version serves all users again.

        Args:
            within: The longest time from the first bad answer to the last answer of the new
                version: seconds, or ``"5m"``, on the trial's clock.

        Raises:
            NotRolledBack: The new version still serves users, or did for too long.
        """
        limit = None if within is None else parse_duration(within, "assert_rolled_back: within")
        if self._serves_new or not (self.rolled_back or self.outcome == "not deployed"):
            raise NotRolledBack(self._report(f"{self.new} was not rolled back: {self._ending}"))
        ours = [one for one in self.answers if one.version == self.new]
        if limit is not None and ours:
            since = (self._harmed or ours)[0].time
            took = ours[-1].time - since
            if took > limit:
                raise NotRolledBack(
                    self._report(
                        f"the rollback of {self.new} took {format_seconds(took)}, more than "
                        f"{format_seconds(limit)}"
                    )
                )

    def assert_promoted(self) -> None:
        """Raise ``NotPromoted`` unless the new version serves all users.

        Raises:
            NotPromoted: It was rolled back, or is not the only one that answers.
            PromotedBlind: It was promoted without any measurement.
            Inconclusive: It answered no request, and the rollout pauses.
        """
        self.assert_never_promoted_blind()
        if self.outcome == "paused" and not self._saw_traffic:
            raise Inconclusive(
                self._report(f"{self.new} answered no request, so the rollout pauses")
            )
        if not self.promoted or self._versions_at_the_end - {self.new}:
            raise NotPromoted(self._report(f"{self.new} was not promoted: {self._ending}"))

    def assert_consistent(self) -> None:
        """Raise ``MixedVersions`` unless what serves users at the end belongs together.

        After a promotion or a rollback, all answers must come from that version, its model must get
        its own features, and the configuration must be the right one.

        Raises:
            MixedVersions: Something is left of the other version.
        """
        self._check_consistent()

    def assert_never_promoted_blind(self) -> None:
        """Raise ``PromotedBlind`` if the new version was promoted without any measurement.

        It had answered no request, or the metrics of it were missing in each analysis.

        Raises:
            PromotedBlind: It was promoted all the same.
        """
        for call in self.calls:
            if call.name != "promote" or not call.ok:
                continue
            if not self._answered_before(call.number):
                raise PromotedBlind(
                    self._report(f"{self.new} was promoted before it had answered any request")
                )
            seen = [check for check in self.checks if check.number <= call.number]
            if self._trace.hooked and seen and not any(check.seen for check in seen):
                raise PromotedBlind(
                    self._report(
                        f"{self.new} was promoted although none of {len(seen)} analyses had metrics "
                        f"of it"
                    )
                )

    # -- parts -------------------------------------------------------------------------------------

    def _last(self, *names: str) -> Call | None:
        return next((one for one in reversed(self.calls) if one.name in names and one.ok), None)

    @property
    def _deployed(self) -> Call | None:
        return next((one for one in self.calls if one.name == "deploy" and one.ok), None)

    @property
    def _last_answers(self) -> Sequence[Answer]:
        return self.answers[-LAST_ANSWERS:]

    @property
    def _versions_at_the_end(self) -> set[str]:
        return {one.version for one in self._last_answers if one.version is not None}

    @property
    def _serves_new(self) -> bool:
        return self.new in self._versions_at_the_end

    @property
    def _saw_traffic(self) -> bool:
        return self._answered_before(len(self.answers))

    def _answered_before(self, number: int) -> bool:
        """Return True if the new version had answered a request, or may have."""
        return self._trace.mirrored > 0 or any(
            one.phase != "before" and one.version in (self.new, None)
            for one in self.answers[:number]
        )

    @property
    def _is_starting_slowly(self) -> bool:
        damages = self._trace.damages
        return any(one.effect == "not_ready" for one in damages) and not any(
            one.effect == "worse" for one in damages
        )

    @property
    def _is_hindered(self) -> bool:
        """Return True if a fault struck that is not about the quality of the new version."""
        return bool(self.faults)

    @property
    def _was_blind(self) -> bool:
        return self._trace.hooked and any(not check.seen for check in self.checks[-1:])

    @property
    def _ending(self) -> str:
        versions = " and ".join(sorted(self._versions_at_the_end)) or "no known version"
        return f"the rollout ended as {self.outcome}, and {versions} answered the last requests"

    def _check_caught(self, who: str) -> None:
        if not self._saw_traffic:
            raise Inconclusive(
                self._report(
                    f"{who}: no request reached {self.new}, so it is unknown if it would have been "
                    f"caught"
                )
            )
        if self.outcome == "paused" and self._was_blind:
            return
        if self._serves_new or self.promoted:
            if not self._harmed and self._trace.is_worse is None:
                raise Inconclusive(
                    self._report(
                        f"{who}: none of the {self.served} answers of {self.new} was seen to be "
                        f"worse, so nothing could catch it. Send more requests, or measure what is "
                        f"worse, by labels= or latency="
                    )
                )
            raise NotRolledBack(
                self._report(f"{self.new} is worse, and was not rolled back: {self._ending}")
            )

    def _check_let_through(self, worse: bool | None) -> None:
        if self.promoted and not self._versions_at_the_end - {self.new}:
            return
        if not self._saw_traffic and self.outcome == "paused":
            return  # an analysis without data must pause
        if worse is None or (self.outcome == "paused" and self._trace.evidence[0] != "pass"):
            unknown = sum(one.version is None for one in self.answers)
            if unknown > self.served:
                raise Inconclusive(
                    self._report(
                        f"it is unknown which version answered {unknown} of {len(self.answers)} "
                        f"requests. Give the dict of models as versions=, or let each answer name "
                        f"its version, as in {{'version': 'v2'}}"
                    )
                )
            raise Inconclusive(
                self._report(
                    f"{self.new} answered {self.served} requests, too few to tell if it is worse. "
                    f"The rollout ended as {self.outcome}. Send more with requests=, or say "
                    f"worse=True or worse=False"
                )
            )
        if self.promoted:
            return  # what is left of the old version is a matter of consistency
        raise NotPromoted(
            self._report(f"{self.new} is not worse, and was not promoted: {self._ending}")
        )

    def _check_consistent(self) -> None:
        wrong = []
        expected = {"promoted": self.new, "rolled back": self.old, "not deployed": self.old}
        version = expected.get(self.outcome)
        others = self._versions_at_the_end - {version} if version is not None else set()
        if others:
            count = sum(one.version in others for one in self._last_answers)
            wrong.append(
                f"{' and '.join(sorted(others))} answered {count} of the last "
                f"{len(self._last_answers)} requests"
            )
        skewed = [
            one
            for one in self._last_answers
            if one.features is not None and one.version not in (None, one.features)
        ]
        if skewed:
            wrong.append(
                f"the model {skewed[0].version} got the features of {skewed[0].features} in "
                f"{len(skewed)} of the last {len(self._last_answers)} requests"
            )
        if self._trace.config_drifted:
            wrong.append(f"the configuration differs: {', '.join(self._trace.config_drifted)}")
        wrong += self._changed_text(wrong)
        if wrong:
            head = f"versions do not belong together after the rollout ended as {self.outcome}"
            raise MixedVersions(self._report("\n  ".join([f"{head}:", *wrong])))

    def _changed_text(self, explained: Sequence[str]) -> list[str]:
        """Say that the old version answers differently from before the deployment."""
        changed = self._trace.changed
        if not changed or explained or self.outcome != "rolled back":
            return []
        return [
            f"{self.old} answers {len(changed)} of {self._trace.compared} requests differently from "
            f"before the deployment, such as request {changed[0]}. The rollback left something of "
            f"{self.new}, such as its features"
        ]

    def _report(self, head: str) -> str:
        """Return a failure's text: what broke, and the story of the rollout."""
        trace = self._trace
        lines = [head]
        if self._harmed:
            users = len({one.user for one in self.answers})
            lines.append(
                f"{self.new} answered {self.served} of {len(self.answers)} requests. It harmed "
                f"{self.harmed_users} of {users} users, first in request {self._harmed[0].number}"
            )
        if trace.evident_at and self._deployed is not None:
            lines.append(
                f"evident by {self.metric or 'a metric'} after "
                f"{trace.evident_at - self._deployed.number} requests, by the default test"
            )
        if self.checks:
            lines.append(_checks_text(self.checks, trace.decides))
        lines.append(f"calls: {_calls_text(self.calls)}")
        return "\n  ".join(lines)


def _checks_text(checks: Sequence[Check], decides: str) -> str:
    counts: dict[str, int] = {}
    for check in checks:
        name = "no verdict" if check.verdict is None else check.verdict
        counts[name] = counts.get(name, 0) + 1
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    blind = sum(not check.seen for check in checks)
    unseen = f", {blind} without metrics of the new version" if blind else ""
    failed = next((check.error for check in checks if check.error is not None), None)
    raised = "" if failed is None else f". The first error: {type(failed).__name__}"
    return f"{len(checks)} analyses by {decides}: {said}{unseen}{raised}"


def _calls_text(calls: Sequence[Call]) -> str:
    shown = [_call_text(one) for one in calls[:SHOWN_CALLS]]
    if len(calls) > SHOWN_CALLS:
        shown = [*shown[: SHOWN_CALLS - 2], "...", *map(_call_text, calls[-2:])]
    return ", ".join(shown) or "none"


def _call_text(call: Call) -> str:
    share = f" {list(call.weights.values())[-1]:.0%}" if call.weights else ""
    ended = (
        f" ({type(call.error).__name__})"
        if call.error is not None
        else " (refused)"
        if call.refused
        else ""
    )
    return f"{call.name}{share} at request {call.number}{ended}"
