"""Every exception that pytest-mlchaos raises, in one tree:

```text
Exception
└── MlchaosError
    ├── BadArgument            (also ValueError)      a keyword, option or mark that makes no sense
    │   ├── UnknownFault                              no fault of that name is registered
    │   └── TargetNotFound                            a dotted target that does not resolve
    ├── MissingExtra           (also ImportError)     an optional package is not installed
    ├── InjectionForbidden                            this environment refuses injected faults
    ├── FaultError                                    a fault is itself broken: no verdict on the subject
    │   └── PayloadMismatch                           a fault met a payload that it cannot work on
    ├── GoldenRunFailed                               the subject fails without any fault
    ├── NonDeterministicSubject                       two runs of the subject differ without any fault
    ├── NotReproducible                               a failing schedule passed when it was repeated
    └── Verdict                (also AssertionError)  a judgement on the test or on its subject
        ├── NeverStruck                               a declared fault struck nowhere
        ├── Vacuous                                   the test passed and showed nothing: no fault, no judgement, or not of what was struck
        ├── CrashSwallowed                            user code went on after its process was gone
        ├── CrashNotRestarted                         a crash reached the test: nothing restarted the subject
        ├── Interrupted                               an injected KeyboardInterrupt reached the test
        ├── GaveUp                                    the subject did not finish within its restarts
        ├── TrialTimeout                              a trial took longer than its time-out
        │   └── NeverAnswered                         a request waits for what nothing will bring, or polls without end
        ├── StateDiffers                              two states are not the same
        ├── NotRecovered                              a run, or one resumed from a crash state, did not end in the golden run's state
        ├── BatchDiffers                              an optimizer step was given another gradient than in the golden run
        ├── NoEmergencySave                           a process that was told to end did not save, or not in time, or in vain
        ├── Drifted                                   values are distributed otherwise than the reference
        ├── Worse                                     a metric is worse by more than the margin
        ├── Inconclusive                              too few seeds, or crash states, were tried to tell: no pass
        ├── SilentlyDifferent                         another output than the golden run's, and no error
        │   └── OtherContent                          whole files with other content that an error left, and the next call too
        ├── Incomplete                                a part of the golden run's output is missing
        ├── HalfWritten                               an error that left a file neither old nor whole
        ├── ServiceFailed                             a served app did not start, or did not shut down
        ├── SloMissed                                 latencies or errors are beyond their bounds
        ├── NoFallback                                a reply under a fault is not the declared fallback
        ├── NotIsolated                               a fault changed a reply that it did not strike
        ├── RankFailed                                a rank of a world did not finish
        ├── RankHung                                  a rank of a world did not end in time after another had failed
        ├── OutOfSync                                 the ranks of a world ended in different states
        └── NotConverged                              the loss is not finite, or not low enough in time

BaseException
└── SimulatedCrash             the process is gone; no ``except Exception`` catches it
```
"""

from __future__ import annotations

made: list[MlchaosError] | None = None
"""The errors made while a test's body runs: what it catches and drops is looked for among them. None at other times."""


class MlchaosError(Exception):
    """Base of everything that this plugin raises on purpose, a simulated crash apart."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if made is not None:
            made.append(self)


class BadArgument(MlchaosError, ValueError):
    """An argument, option or mark is wrong; the message shows it, and the cure."""


class UnknownFault(BadArgument):
    """No fault is registered under that name."""


class TargetNotFound(BadArgument):
    """A dotted target (``"pkg.mod:obj.method"``) does not resolve, or cannot be patched."""


class MissingExtra(MlchaosError, ImportError):
    """An optional package is missing; the message holds the ``pip install`` to run (of the package itself, where no extra has it)."""

    def __init__(self, what: str, package: str, extra: str | None) -> None:
        install = package if extra is None else f"'pytest-mlchaos[{extra}]'"
        super().__init__(f"{what} needs {package}, which is not installed: python -m pip install {install}")


class InjectionForbidden(MlchaosError):
    """Faults are refused here: ``MLCHAOS_FORBID`` is set, or the environment looks like production."""


class FaultError(MlchaosError):
    """A fault is broken. This is an error of the tool or of a user's own fault, never of the subject."""


class PayloadMismatch(FaultError):
    """A fault met a payload that it cannot work on; the message gives its type, shape and dtype."""


class GoldenRunFailed(MlchaosError):
    """The subject raised in its golden run, where no fault strikes."""


class NonDeterministicSubject(MlchaosError):
    """Two runs of the subject differ though no fault struck: a difference says nothing about the fault.

    ``step`` and ``component`` say where they differ first.
    """

    def __init__(self, text: str, *, step: int = 0, component: str = "") -> None:
        super().__init__(text)
        self.step = step
        self.component = component


class NotReproducible(MlchaosError):
    """A schedule failed, and passed when it was repeated: the test depends on more than its schedule."""


class Verdict(MlchaosError, AssertionError):
    """A judgement: the test fails."""


class NeverStruck(Verdict):
    """A fault was declared and never struck, so the test proved nothing about it.

    ``@chaos.settings(allow_quiet=True)`` permits that.
    """


class Vacuous(Verdict):
    """The test would pass whatever its subject did: no fault is declared, nothing is judged, or nothing that was judged was struck."""


class CrashSwallowed(Verdict):
    """User code caught the simulated crash and went on, which no real process could."""


class CrashNotRestarted(Verdict):
    """A crash left the test body: run the subject under ``mlchaos.run``, which restarts it."""


class Interrupted(Verdict):
    """An injected ``KeyboardInterrupt`` left the test body: nothing handled it, and nothing restarted the subject."""


class GaveUp(Verdict):
    """The subject, or a world of ranks, did not finish within the restarts that it had.

    ``ended_by``: the fault that ended each attempt, as it prints.
    """

    def __init__(self, text: str, *, ended_by: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.ended_by = ended_by


class TrialTimeout(Verdict):
    """A trial took longer than the setting ``timeout``; ``place`` says where it stood then."""

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.place = place


class NeverAnswered(TrialTimeout):
    """A request waits for something that nothing will bring, or polls without end; the message names the line where it waits."""


class StateDiffers(Verdict):
    """Two states differ; the message names the first differing entry and by how much."""


class NotRecovered(Verdict):
    """A run under faults, or one resumed from a crash state, did not end in the state of its golden run."""


class BatchDiffers(Verdict):
    """An optimizer step was given another gradient than in the golden run: samples twice, or missing, or scaled otherwise."""


class NoEmergencySave(Verdict):
    """A process got SIGTERM, and did not save its state, or not in time, or the restart did not go on from it."""


class ServiceFailed(Verdict):
    """An app under ``mlchaos.serve`` did not start, or did not shut down; the message says why."""


class SloMissed(Verdict):
    """Latencies, or the share of errors, are beyond the bounds of a service level objective."""


class NoFallback(Verdict):
    """A reply that was given while a fault struck is not the fallback that the test declares."""


class NotIsolated(Verdict):
    """A reply during which no fault struck differs from the golden run's: a fault harmed a bystander."""


class RankFailed(Verdict):
    """A rank of a world did not finish."""


class RankHung(Verdict):
    """A rank of a world did not end in time after another one had failed."""


class OutOfSync(Verdict):
    """The ranks of a world ended in different states."""


class NotConverged(Verdict):
    """A loss is not finite, or not below its bound by the step asked for."""


class Drifted(Verdict):
    """Values are distributed otherwise than their reference, or cannot be compared with it; the message names the columns."""


class Worse(Verdict):
    """A metric is worse by more than the margin, or not finite."""


class Inconclusive(Verdict):
    """What was tried decides nothing: too few seeds for a metric, or crash states for which no budget was left. It is a failure.

    Of a strike that may have hit one of several requests, the message names these.
    """


class SilentlyDifferent(Verdict):
    """A pipeline returned, and its output is not that of its golden run."""


class Incomplete(Verdict):
    """A pipeline's output lacks a part of what its golden run put out, or has more."""


class OtherContent(SilentlyDifferent):
    """A pipeline raised and left a file that is whole, with content that differs, and the next call did not end as its golden run."""


class HalfWritten(Verdict):
    """A pipeline raised, and left a file that is neither as it was nor whole."""


class SimulatedCrash(BaseException):
    """The process is gone, as by SIGKILL.

    Not an ``Exception``: user code that catches errors must not survive its own death.
    """

    in_main_thread = True
    cure = "run it under mlchaos.run(train, ...), as a scheduler would"
