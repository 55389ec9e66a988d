"""Take a rollout through its steps, and let the controller or the default analysis decide."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ...core.privacy import error_text
from ...errors import BadArgument, GoldenRunFailed
from .driver import RunningRollout
from .metrics import Metrics
from .options import Options
from .records import Answer, Call, Check
from .samples import Samples
from .sequential import Verdict
from .subjects import Hook, Shape, read_verdict

__all__ = ["Flow"]

TRIES = 3
"""How often the plugin calls a method of the controller that fails under a fault."""
MIRRORING = ("blue_green", "shadow")
"""The strategies that mirror requests to the new version while its share is 0."""
MAX_WINDOW = 3200
"""The largest number of requests for one analysis."""
SETTLE = 50
"""The number of requests after which the plugin looks which version answers."""


class Flow:
    """The steps of one rollout.

    A controller with an analysis that returns verdicts decides by them. One whose other methods
    call ``promote`` or ``rollback`` decides by these calls. Without either, the default analysis
    decides.
    """

    def __init__(
        self,
        rollout: RunningRollout,
        shape: Shape,
        options: Options,
        analyse: Callable[..., Any] | None,
    ) -> None:
        self._rollout, self._options = rollout, options
        function = analyse or shape.hook
        self._hook = Hook(function) if function is not None else None
        self._own = shape.own_calls if analyse is None else frozenset()
        self._verdicts = analyse is not None or (shape.hook is not None and shape.returns_verdicts)
        self._acts = not self._verdicts and bool(self._own & {"promote", "rollback"})
        self._by_default = not self._verdicts and not self._acts
        hooked = self._hook is not None and self._hook.takes_metrics and not self._by_default
        rollout.trace.hooked = hooked
        rollout.tell = None if shape.recorder is None else functools.partial(_tell, shape.recorder)
        rollout.trace.decides = "the default analysis" if self._by_default else "the controller"
        self.samples = Samples(rollout)
        self._step = self._last_step = 0

    def run(self) -> None:
        """Roll the new version out, and look what is left of it."""
        rollout, options = self._rollout, self._options
        self._begin()
        if not self._deployed():
            self._settle()
            return
        steps = options.steps
        if not rollout.can_ask and any(steps):  # it routes, so nothing can be mirrored
            steps = tuple(weight for weight in steps if weight)
        for step, weight in enumerate(steps):
            self._step, self._last_step = step, len(steps) - 1
            self._set_weight(weight)
            verdict = self._checked()
            if self._is_decided or (self._acts and self._has_tried("rollback")):
                break
            if verdict == "fail":
                self._roll_back()
                break
            if verdict == "inconclusive":
                break  # it pauses
        else:
            if not (self._acts and "promote" in self._own):
                self._promote()
        self._settle()

    def drive_by(self, program: Callable[[Any], Any], platform: Any) -> None:
        """Let a program of the user's roll the new version out."""
        rollout = self._rollout
        self._begin()
        rollout.trace.decides, rollout.trace.hooked = "the controller", True
        try:
            with rollout.calls_by("controller"):
                rollout.finish(program(platform))
        except Exception:
            rollout.check()
            if not rollout.struck:
                raise
        rollout.check()
        self._last_look()

    # -- the parts ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Let the old version answer the first requests."""
        rollout = self._rollout
        self.samples.take()
        rollout.send(min(self._options.per_check, max(1, rollout.left // 10)))
        self._check_baseline()
        self.samples.take()

    def _check_baseline(self) -> None:
        """Refuse traffic that the old version cannot answer."""
        answers = self._rollout.trace.answers
        if all(one.failed for one in answers) and not self._rollout.struck:
            error = next((one.error for one in answers if one.error is not None), None)
            raise GoldenRunFailed(
                f"mlchaos.rollout: {self._rollout.old} fails for each of {len(answers)} requests "
                f"before the deployment{'' if error is None else f': {error_text(error)}'}"
            ) from error

    @property
    def _is_decided(self) -> bool:
        return self._rollout.phase == "after"

    def _has_tried(self, name: str) -> bool:
        return any(call.name == name for call in self._rollout.trace.calls)

    def _deployed(self) -> bool:
        """Deploy the new version. Return False if that fails each time."""
        for _ in range(TRIES):
            if self._call("deploy", self._rollout.new).ok:
                return True
            self._rollout.send(1)
        return False

    def _call(self, name: str, *args: Any) -> Call:
        return self._rollout.call(name, *args)

    def _set_weight(self, weight: float) -> None:
        rollout = self._rollout
        rollout.mirrors = weight == 0 and self._options.strategy in MIRRORING
        current = rollout.weights.get(rollout.new, 0.0)
        if self._is_decided or ("split" in self._own and self._acts and current > 0):
            return
        weights = {rollout.old: 1 - weight, rollout.new: weight}
        for _ in range(TRIES):
            if self._call("split", weights).ok:
                return

    def _checked(self) -> Verdict:
        """Analyse until this step is over."""
        rollout, options = self._rollout, self._options
        verdict: Verdict | None = None
        last_step = self._step == self._last_step
        waits = last_step and self._acts and "promote" in self._own
        most = options.checks + options.patience
        number, size = 0, options.per_check
        blind = 0  # analyses without data, in a row
        while rollout.left > 0 and (
            blind <= options.patience if self._by_default else number < most
        ):
            rollout.send(size)
            if self._is_decided:
                break
            number += 1
            verdict = self._analysed("rollout")
            blind = 0 if rollout.trace.checks[-1].seen else blind + 1
            if self._is_decided or verdict == "fail":
                break
            if self._by_default:
                if verdict == "pass":
                    break
            elif verdict == "inconclusive":
                if not blind:  # the analysis may need more requests
                    size = min(2 * size, MAX_WINDOW)
            elif (verdict == "pass" and size > options.per_check) or number >= (
                most if waits else options.checks
            ):
                break
        if verdict is None:
            unread = rollout.left <= 0 and number == 0
            return "inconclusive" if unread else "pass"
        return verdict

    def _analysed(self, stage: str) -> Verdict | None:
        """Analyse the answers since the last analysis. None if the controller returns nothing."""
        rollout = self._rollout
        metrics = rollout.metrics(step=self._step, stage=stage)
        found: Verdict | None = None
        metric = ""
        error: Exception | None = None
        if self._hook is not None:
            try:
                with rollout.calls_by("controller"):
                    value = rollout.finish(self._hook(metrics))
                found = self._read(value)
            except Exception as raised:
                if isinstance(raised, BadArgument) or not rollout.struck:
                    raise
                rollout.check()
                error, found = raised, "inconclusive"
        expected, metric = self._default(metrics)
        if expected == "fail" and not rollout.trace.evident_at:
            rollout.trace.evident_at = len(rollout.trace.answers)
        if self._by_default:
            found = expected
        seen = metrics.get("candidate", {}).get("requests", 0)
        weight = rollout.weights.get(rollout.new, 0.0)
        rollout.trace.checks.append(
            Check(len(rollout.trace.answers), found, metric, weight, seen, error)
        )
        return found

    def _read(self, value: Any) -> Verdict | None:
        if not self._verdicts:
            return None
        return read_verdict(value) or "inconclusive"

    def _default(self, metrics: Metrics) -> tuple[Verdict, str]:
        """Return the verdict of the default analysis. Metrics that are missing prove nothing."""
        if not metrics.get("candidate", {}).get("requests", 0) or _is_nan(metrics):
            return "inconclusive", ""
        return self._rollout.comparison.verdict()

    def _promote(self) -> None:
        for _ in range(TRIES):
            promoted = self._call("promote").ok
            if promoted and self._answers_with(self._rollout.new):
                return
        if not promoted or self._by_default:
            self._roll_back()

    def _roll_back(self) -> None:
        for _ in range(TRIES):
            if self._call("rollback").ok and self._answers_with(self._rollout.old):
                return

    def _answers_with(self, version: str, number: int = SETTLE) -> bool:
        """Send requests. Return True if all get answers of this version, as far as that is known."""
        rollout = self._rollout
        first = len(rollout.trace.answers)
        rollout.spare += max(0, number - rollout.left)
        rollout.send(number)
        sent = rollout.trace.answers[first:]
        return all(
            one.version in (version, None) and one.features in (version, None) for one in sent
        )

    def _settle(self) -> None:
        """Go on after the decision, as the controller may react to its effect.

        A rollback that took effect ends the rollout, so the analyses end.
        """
        rollout, options = self._rollout, self._options
        rollout.mirrors = False
        reacts = self._hook is not None and not self._by_default
        worse = any(one.effect == "worse" for one in rollout.trace.damages)
        sizes = [options.per_check] * options.checks
        if worse:  # the analysis may need more requests
            sizes += [2 * options.per_check, 4 * options.per_check, 8 * options.per_check]
        for size in sizes if reacts and self._is_decided else ():
            promoted = rollout.weights.get(rollout.new) == 1
            if rollout.left < size or self._answers_with(rollout.old, size):
                break
            verdict = self._analysed("promoted" if promoted else "rolled back")
            if verdict == "fail":
                self._roll_back()
        self._last_look()

    def _last_look(self) -> None:
        """Send a few more requests, also beyond the limit, to see what answers now."""
        rollout = self._rollout
        rollout.spare += max(0, SETTLE - rollout.left)
        rollout.send(SETTLE)


def _tell(recorder: Callable[..., Any], answer: Answer, **more: Any) -> None:
    """Hand an answer to the controller, by the names of the arguments that it takes."""
    value, seconds = more["value"], more["seconds"]
    known = {
        "version": answer.version,
        "model_version": answer.version,
        "ok": not answer.failed,
        "success": not answer.failed,
        "failed": answer.failed,
        "is_error": answer.failed,
        "error": answer.error,
        "latency": seconds,
        "seconds": seconds,
        "request": more["request"],
        "user": answer.user,
        "status": "error" if answer.failed else "ok",
    }
    known |= dict.fromkeys(("response", "reply", "result", "answer", "value"), value)
    recorder(
        **{name: known[name] for name in inspect.signature(recorder).parameters if name in known}
    )


def _is_nan(metrics: Metrics) -> bool:
    rate = metrics.get("candidate", {}).get("error_rate")
    return rate is None or rate != rate
