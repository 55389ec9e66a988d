"""The exceptions that pytest-mlchaos raises, in one tree:

```text
Exception
└── MlchaosError
    ├── BadArgument            (also ValueError)      a keyword, option or mark is wrong
    │   ├── UnknownFault                              no fault has this name
    │   └── TargetNotFound                            a dotted target does not resolve
    ├── MissingExtra           (also ImportError)     an optional package is not installed
    ├── MissingProgram                                a program is not on the PATH
    ├── InjectionForbidden                            this environment refuses injected faults
    │   └── PolicyRefused                             the policy of the repository refuses a test
    ├── FaultError                                    a fault has a bug
    │   └── PayloadMismatch                           a fault does not support its payload
    ├── GoldenRunFailed                               the subject fails without any fault
    ├── LimitReached                              a run exceeded a limit of the test, and was ended
    ├── SteadyStateFailed                             the steady state does not hold before any fault
    ├── NonDeterministicSubject                       two runs without faults differ
    ├── NotReproducible                               a failing schedule passed when it was repeated
    └── Verdict                (also AssertionError)  a failed test
        ├── NeverStruck                               a declared fault never struck
        ├── Vacuous                                   the test would pass with any subject
        ├── CrashSwallowed                            user code went on after the crash
        ├── CrashNotRestarted                         a crash reached the test
        ├── Interrupted                               an injected KeyboardInterrupt reached the test
        ├── GaveUp                                    the subject did not finish within its restarts
        ├── TrialTimeout                              a trial exceeded its time limit
        │   └── NeverAnswered                         a request is never answered, or polls without
        end
        ├── StateDiffers                              two states differ
        ├── NotRecovered                              a run did not end in the golden run's state
        ├── BatchDiffers                              an optimizer step received a different
        gradient
        ├── NoEmergencySave                           a process did not save its state after SIGTERM
        ├── Drifted                                   the distribution of values has changed
        ├── Worse                                     a metric is worse by more than the margin
        ├── MetricMissed                              a metric, rate or slice is beyond its bound
        ├── Regressed                                 a breaking point is below its baseline
        ├── NotSteady                                 the steady state did not hold under faults
        ├── Inconclusive                              the evidence is too small: not a pass
        ├── SilentlyDifferent                         the output differs, without an error
        │   ├── OtherContent                          the next call did not correct different files
        │   └── StaleResult                           the output is not that of the changed input
        ├── Incomplete                                a part of the golden run's output is missing
        ├── HalfWritten                               an error left a file neither old nor complete
        ├── Unnoticed                                 a fault changed the result, without an alarm
        ├── FalseAlarm                                an alarm is on although no fault struck
        ├── NotIdempotent                             calling again changes the output
        ├── NotExactlyOnce                            a record is lost, or there twice
        ├── LeftBehind                                locks, temporary or other files were left
        ├── NotReleased                               descriptors, threads or processes leak
        ├── TooManyCalls                              a function was called too often
        ├── TooSlow                                   a run took longer than its limit
        ├── ServiceFailed                             a served app did not start, or did not shut
        down
        ├── SloMissed                                 latencies or errors exceed their bounds
        ├── NoFallback                                a reply under a fault is not the declared
        fallback
        ├── NotRolledBack                             a worse version still serves users
        ├── NotPromoted                               a version that is not worse was not let through
        ├── PromotedBlind                             a version was promoted that served no request
        ├── MixedVersions                             versions or settings do not belong together
        ├── NotIsolated                               a fault changed a reply that it did not strike
        ├── Unavailable                               too few requests got a good answer
        ├── RequestLost                               a request got no good answer
        ├── SessionLost                               a session went on with a different state
        ├── SplitBrain                                two leaders accepted requests at once
        ├── SilentlyWrong                             a reply is wrong, and not an error
        ├── WorkGoesOn                                work goes on after its client has left
        ├── NotShed                                   an overloaded app does not refuse requests
        ├── QueueGrows                                more requests wait than allowed, or ever more
        ├── CircuitStuck                              a circuit breaker does not open, or not close
        ├── NotRowIndependent                         a batch changes what a row predicts
        ├── RankFailed                                a rank of a world did not finish
        ├── RankHung                                  a rank did not end in time after a different
        one failed
        ├── OutOfSync                                 the ranks of a world were in different states
        ├── MismatchedCollectives                     the ranks of a world launched different collectives
        ├── Orphaned                                  a rank of a world left a process running
        ├── BrokenModel                               a global model is empty or not finite, in
        silence
        ├── Leaks                                     an attack learns something about the training data
        ├── Unfair                                    a group or a client is treated worse than the others
        └── NotConverged                              the loss is not finite, or not low enough in
        time

BaseException
└── SimulatedCrash             the process has crashed. ``except Exception`` does not catch it.
```
"""

from __future__ import annotations

made: list[MlchaosError] | None = None
"""The errors made while a test's body runs, to find those that it catches and drops.

None at other times.
"""


class MlchaosError(Exception):
    """The base of every error that this plugin raises, except a simulated crash."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if made is not None:
            made.append(self)


class BadArgument(MlchaosError, ValueError):
    """An argument, option or mark is wrong. The message shows it and the fix."""


class UnknownFault(BadArgument):
    """No fault is registered under this name."""


class TargetNotFound(BadArgument):
    """A dotted target (``"pkg.mod:obj.method"``) cannot be resolved, or cannot be patched."""


class MissingExtra(MlchaosError, ImportError):
    """An optional package is not installed.

    The message has the ``pip install`` command for its extra, or for the package itself if no extra
    has it.
    """

    def __init__(self, what: str, package: str, extra: str | None) -> None:
        install = package if extra is None else f"'pytest-mlchaos[{extra}]'"
        super().__init__(
            f"{what} needs {package}, which is not installed: python -m pip install {install}"
        )


class MissingProgram(MlchaosError):
    """A program is not on the ``PATH``. The message says where to get it."""


class InjectionForbidden(MlchaosError):
    """Faults are refused: ``MLCHAOS_FORBID`` is set, or the environment looks like production."""


class PolicyRefused(InjectionForbidden):
    """The policy in ``pyproject.toml`` refuses a test or one of its faults.

    Each line of the message names the rule, the test, the fault, and what to do.
    """


class FaultError(MlchaosError):
    """A fault has a bug. This says nothing about the subject."""


class PayloadMismatch(FaultError):
    """A fault does not support its payload. The message gives the type, shape and dtype."""


class GoldenRunFailed(MlchaosError):
    """The subject raised in its golden run, in which no fault strikes."""


class LimitReached(MlchaosError):
    """A run used more memory, processor time or disk than the settings of its test allow.

    It was ended, so this says nothing about its recovery.
    """


class SteadyStateFailed(MlchaosError):
    """The steady state of a test does not hold before any fault, so its set-up is wrong."""


class NonDeterministicSubject(MlchaosError):
    """Two runs of the subject differ without a fault, so a difference says nothing about a fault.

    Attributes:
        step: The step of the first difference.
        component: The component of the first difference.
    """

    def __init__(self, text: str, *, step: int = 0, component: str = "") -> None:
        super().__init__(text)
        self.step = step
        self.component = component


class NotReproducible(MlchaosError):
    """A schedule failed, and passed when it was repeated.

    The test depends on more than its schedule.
    """


class Verdict(MlchaosError, AssertionError):
    """A failed test: the subject, or the test itself, does not hold what it should."""


class NeverStruck(Verdict):
    """A declared fault never struck, so the test proved nothing about it.

    Set ``@chaos.settings(allow_quiet=True)`` to allow that.
    """


class Vacuous(Verdict):
    """The test would pass with any subject: no fault is declared, nothing is judged, or no fault
    struck what is judged."""


class CrashSwallowed(Verdict):
    """User code caught the simulated crash and went on, which a real process cannot do."""


class CrashNotRestarted(Verdict):
    """A crash left the test body. Run the subject under ``mlchaos.run``, which restarts it."""


class Interrupted(Verdict):
    """An injected ``KeyboardInterrupt`` left the test body: no code handled it, and no
    ``mlchaos.run`` restarted the subject."""


class GaveUp(Verdict):
    """The subject, or a world of ranks, did not finish within its restarts.

    Attributes:
        ended_by: The fault that ended each attempt, as it prints.
    """

    def __init__(self, text: str, *, ended_by: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.ended_by = ended_by


class TrialTimeout(Verdict):
    """A trial took longer than the setting ``timeout``.

    Attributes:
        place: The line where it was.
    """

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.place = place


class NeverAnswered(TrialTimeout):
    """A request is never answered, or polls without end.

    The message names the line where it waits.
    """


class StateDiffers(Verdict):
    """Two states differ. The message names the first difference and its size."""


class NotRecovered(Verdict):
    """A run under faults, or resumed from a crash state, did not end in the state of its golden
    run."""


class BatchDiffers(Verdict):
    """An optimizer step received a different gradient than in the golden run.

    Samples were duplicated, dropped, or scaled differently.
    """


class NoEmergencySave(Verdict):
    """A process got SIGTERM and did not save its state in time, or the restart did not resume
    from it."""


class Unavailable(Verdict):
    """Too few requests got a good answer."""


class RequestLost(Verdict):
    """A request got no good answer."""


class SessionLost(Verdict):
    """A session went on with a state that is not its own."""


class SplitBrain(Verdict):
    """Two leaders accepted requests at the same time."""


class ServiceFailed(Verdict):
    """An app under ``mlchaos.serve`` did not start, or did not shut down. The message says why."""


class SloMissed(Verdict):
    """Latencies, or the share of errors, exceed the bounds of a service level objective."""


class NoFallback(Verdict):
    """A reply that a fault struck is not the fallback that the test declares."""


class NotIsolated(Verdict):
    """A reply that no fault struck differs from the golden run's."""


class SilentlyWrong(Verdict):
    """A reply differs from the golden run's, and is neither the declared fallback nor an error."""


class WorkGoesOn(Verdict):
    """Work for a request goes on after its client has left."""


class NotShed(Verdict):
    """An overloaded app refuses no request, refuses it late, or serves the others too slowly."""


class QueueGrows(Verdict):
    """More requests wait in an app than allowed, or ever more."""


class CircuitStuck(Verdict):
    """A circuit breaker does not open while its dependency fails, or does not close again."""


class NotRowIndependent(Verdict):
    """The prediction for a row depends on the other rows of its batch."""


class NotRolledBack(Verdict):
    """A worse version still serves users, or was withdrawn too late."""


class NotPromoted(Verdict):
    """A version that is not worse was rolled back, or never let through."""


class PromotedBlind(Verdict):
    """A version was promoted although no measurement of it had been seen."""


class MixedVersions(Verdict):
    """After a rollout, models, features or settings of two versions serve users together."""


class RankFailed(Verdict):
    """A rank of a world did not finish."""


class RankHung(Verdict):
    """A rank of a world did not end in time after a different one had failed."""


class OutOfSync(Verdict):
    """The ranks of a world were in different states."""


class MismatchedCollectives(Verdict):
    """The ranks of a world launched different collectives."""


class Orphaned(Verdict):
    """A rank of a world left a process running."""


class BrokenModel(Verdict):
    """A global model of a federation is empty, not finite or of a different form, without an error."""


class Unfair(Verdict):
    """A gap between groups of people is above its limit, a fault harms one group more than the
    others, or a client of a federation is served worse than in the golden run."""


class Leaks(Verdict):
    """An attack learns what it must not: who was in the training data, what the records were, or
    the model itself."""


class NotConverged(Verdict):
    """A loss is not finite, or not below its bound by the given step."""


class Drifted(Verdict):
    """The distribution of values differs from that of their reference, or cannot be compared
    with it.

    The message names the columns.
    """


class Worse(Verdict):
    """A metric is worse by more than the margin, or not finite."""


class MetricMissed(Verdict):
    """A metric, an error of calibration, a rate or a slice is shown to be beyond its bound."""


class NotAccounted(Verdict):
    """A run spent more privacy than it reports, or took steps without noise."""


class BudgetExceeded(Verdict):
    """A run spent more privacy than its budget."""


class NotSteady(Verdict):
    """The steady state of a test did not hold during the faults, or does not hold after them."""


class Regressed(Verdict):
    """A subject breaks under a weaker fault than its baseline says. The message has both intervals."""


class Inconclusive(Verdict):
    """The evidence is too small: too few seeds, or no budget for the remaining crash states.

    It is a failure.

    If a strike may have hit one of several requests, the message names these.
    """


class SilentlyDifferent(Verdict):
    """A pipeline returned, and its output differs from that of its golden run."""


class PassedOn(SilentlyDifferent):
    """A pipeline returned values as a fault had left them in its input. The rest is right."""


class Incomplete(Verdict):
    """A pipeline's output lacks a part of its golden run's, or has more."""


class OtherContent(SilentlyDifferent):
    """A pipeline raised and left a complete file with different content, and the next call did
    not correct it."""


class StaleResult(SilentlyDifferent):
    """The input changed between two calls, and the output is not that of a fresh run on the new
    input."""


class HalfWritten(Verdict):
    """A pipeline raised, and left a file that is neither as it was nor complete."""


class Unnoticed(Verdict):
    """A fault changed the result, and no error, alarm or flag says so."""


class FalseAlarm(Verdict):
    """An alarm is on in the golden run, in which no fault strikes."""


class NotIdempotent(Verdict):
    """Calling a pipeline again does not give the output of one call."""


class NotExactlyOnce(Verdict):
    """A record of the golden run is missing, or there more often."""


class NotReleased(Verdict):
    """Each call of a pipeline leaves descriptors, threads or child processes open."""


class TooManyCalls(Verdict):
    """A function was called more often than the test allows."""


class LeftBehind(Verdict):
    """A pipeline left files, locks or directories that its golden run does not leave."""


class TooSlow(Verdict):
    """A run took longer than its limit, on the trial's clock."""


class SimulatedCrash(BaseException):
    """The process has crashed, as by SIGKILL.

    It is not an ``Exception``, because user code that catches errors must not survive its own
    death.
    """

    in_main_thread = True
    cure = "run it under mlchaos.run(train, ...), as a scheduler would"
