"""Sessions as the journal records them, for the tests of its readers."""

from __future__ import annotations

from pytest_mlchaos.core import entries
from pytest_mlchaos.core.entries import Line
from pytest_mlchaos.reports.journal_reader import SessionLog, session_of

__all__ = ["CRASHES", "NEVER", "OWN", "PASSED", "SEARCH", "WRONG", "everything", "session"]

PASSED = "tests/test_job.py::test_passes"
CRASHES = "tests/test_job.py::test_any_moment[a|b]"
SEARCH = "tests/test_job.py::test_search"
OWN = "tests/test_job.py::test_own_error"
NEVER = "tests/test_job.py::test_never"
WRONG = "tests/test_job.py::test_inconclusive"
START = 1_780_000_000.0


def session(*parts: tuple[str, int, entries.Entry], problems=()) -> SessionLog:
    """A session of these entries, each with its test and its trial."""
    return session_of([Line(*part) for part in parts], problems)


def everything() -> SessionLog:
    """A session with each kind of end."""
    return session(*_passed(), *_crashes(), *_search(), *_own(), *_never(), *_wrong())


def _times(test, *timings):
    return [(test, trial, entries.Timing(start=start, **rest)) for trial, start, rest in timings]


def _passed():
    return [
        (PASSED, 1, entries.Trial(outcome="passed", probing=True, visits={"train.step": 6})),
        (
            PASSED,
            2,
            entries.Trial(outcome="passed", schedule="crash(at=3)", visits={"train.step": 7}),
        ),
        (PASSED, 2, entries.StrikeEntry(fault="crash(at=3)", site="train.step", visit=3)),
        (
            PASSED,
            2,
            entries.ResultEntry(
                number=0,
                method="mlchaos.run",
                struck=1,
                attempts=("SimulatedCrash at train.step 3", "finished"),
                steps=(3, 4),
            ),
        ),
        (PASSED, 2, entries.Judgement(oracle="Run.assert_recovered", verdict="passed", result=0)),
        (
            PASSED,
            0,
            entries.Test(
                outcome="passed",
                file="tests/test_job.py",
                line=10,
                faults=("crash()",),
                trials=2,
                strikes=1,
                environment={"python": "3.11.7", "torch": "2.13.0"},
            ),
        ),
        *_times(
            PASSED,
            (0, START, {"of": "test", "seconds": 2.0}),
            (1, START + 0.1, {"of": "trial", "seconds": 0.4}),
            (2, START + 0.6, {"of": "trial", "seconds": 1.2}),
            (2, START + 0.7, {"of": "result", "number": 0, "seconds": 1.0}),
        ),
    ]


def _state(state, verdict, **rest):
    return (CRASHES, 1, entries.State(exploration=0, state=state, verdict=verdict, **rest))


def _crashes():
    cut = {"path": "last.ckpt", "step": 3, "until": 4, "torn": True}
    raised = {"cause": "EOFError: Ran out of input", "place": "src/train.py:12 in load"}
    order = {"component": "data order", "cause": "data order (the position is not restored)"}
    return [
        (
            CRASHES,
            1,
            entries.Exploration(
                number=0,
                states=5,
                tried=5,
                bad=4,
                steps=9,
                writes=3,
                saves=((3, "last.ckpt"), (6, "last.ckpt")),
                measured=True,
                max_lost_steps=3,
            ),
        ),
        _state("#9", "recovered", what="complete", step=9, resumed_at=6, lost_steps=3),
        _state("last.ckpt@0#3", "failed", what="last.ckpt cut at byte 0 of 14575", **cut, **raised),
        _state("last.ckpt@7#3", "failed", what="last.ckpt cut at byte 7 of 14575", **cut, **raised),
        _state("#4", "diverged", what="complete", step=4, divergence_step=5, **order),
        _state("#7", "diverged", what="complete", step=7, divergence_step=8, **order, follows="#4"),
        (
            CRASHES,
            1,
            entries.Trial(
                outcome="failed",
                error="NotRecovered",
                cause="NotRecovered: 5 crash states",
                place="tests/test_job.py:22 in test_any_moment",
            ),
        ),
        (
            CRASHES,
            1,
            entries.Judgement(
                oracle="CrashReport.assert_recovers",
                verdict="failed",
                result=0,
                error="NotRecovered",
            ),
        ),
        (
            CRASHES,
            0,
            entries.Test(
                outcome="failed",
                file="tests/test_job.py",
                line=20,
                trials=1,
                error="NotRecovered",
                message="mlchaos: 5 crash states in 9 steps: 1 recovers, 4 do not\n"
                "  failed    2x  resume raised EOFError: Ran out of input",
                place="src/train.py:12 in load",
                reproduce='@chaos.crash(state="last.ckpt@0#3")',
                replay="crash(state='last.ckpt@0#3')",
            ),
        ),
        *_times(
            CRASHES,
            (0, START + 3, {"of": "test", "seconds": 7.0}),
            (1, START + 3, {"of": "trial", "seconds": 6.9}),
            (1, 0.0, {"of": "exploration", "number": 0, "seconds": 6.5, "restart": 0.09}),
            (1, 0.0, {"of": "state", "number": 0, "name": "last.ckpt@0#3", "seconds": 0.2}),
        ),
    ]


def _search():
    failed = {"outcome": "failed", "error": "NotRecovered", "place": "tests/test_job.py:33 in test"}
    message = (
        "the parameters differ from step 5 on\n"
        "mlchaos: 12 schedules tried, 3 fail\n"
        "  reproduce: @chaos.gpu_oom(at=7)\n"
        '         or: pytest "tests/test_job.py::test_search" --mlchaos-replay "gpu_oom(at=7)"'
    )
    return [
        (SEARCH, 1, entries.Trial(outcome="passed", probing=True, visits={"train.step": 9})),
        (SEARCH, 2, entries.StrikeEntry(fault="gpu_oom(at=7)", site="train.step", visit=7)),
        (SEARCH, 2, entries.StrikeEntry(fault="crash(at=8)", site="train.step", visit=8)),
        (
            SEARCH,
            2,
            entries.Trial(
                schedule="gpu_oom(at=7); crash(at=8)", cause="NotRecovered: differs", **failed
            ),
        ),
        (SEARCH, 3, entries.StrikeEntry(fault="gpu_oom(at=7)", site="train.step", visit=7)),
        (
            SEARCH,
            3,
            entries.Trial(
                schedule="gpu_oom(at=7)",
                cause="NotRecovered: the parameters differ from step 5 on",
                **failed,
            ),
        ),
        (SEARCH, 4, entries.StrikeEntry(fault="crash(at=8)", site="train.step", visit=8)),
        (
            SEARCH,
            4,
            entries.Trial(
                outcome="failed",
                schedule="crash(at=8)",
                error="KeyError",
                cause="KeyError: 'optimizer'",
                place="src/my files/train.py:40 in load",
            ),
        ),
        (
            SEARCH,
            0,
            entries.Test(
                outcome="failed",
                file="tests/test_job.py",
                line=30,
                faults=("gpu_oom()", "crash()"),
                trials=4,
                strikes=4,
                error="NotRecovered",
                message=message,
                place="tests/test_job.py:33 in test",
                reproduce="@chaos.gpu_oom(at=7)",
                replay="gpu_oom(at=7)",
            ),
        ),
        *_times(SEARCH, (0, START + 11, {"of": "test", "seconds": 3.0})),
    ]


def _own():
    return [
        (OWN, 1, entries.StrikeEntry(fault="call_failure(at=0)", site="call", visit=0)),
        (
            OWN,
            1,
            entries.Trial(
                outcome="failed",
                schedule="call_failure(at=0)",
                error="RuntimeError",
                cause="RuntimeError: lost",
                place="tests/test_job.py:44 in test_own_error",
            ),
        ),
        (
            OWN,
            0,
            entries.Test(
                outcome="failed",
                file="tests/test_job.py",
                line=41,
                trials=1,
                strikes=1,
                error="RuntimeError",
                message="RuntimeError: lost",
                place="tests/test_job.py:44 in test_own_error",
                reproduce="@chaos.call_failure(at=0)",
                replay="call_failure(at=0)",
            ),
        ),
    ]


def _never():
    return [
        (NEVER, 1, entries.Trial(outcome="passed", schedule="gpu_oom(at=90)")),
        (
            NEVER,
            0,
            entries.Test(
                outcome="failed",
                file="tests/test_job.py",
                line=50,
                trials=1,
                error="NeverStruck",
                message="gpu_oom(at=90) never struck\nsites passed: train.step (9 visits)",
            ),
        ),
    ]


def _wrong():
    return [
        (
            WRONG,
            1,
            entries.Trial(outcome="failed", error="Inconclusive", cause="Inconclusive: too little"),
        ),
        (
            WRONG,
            1,
            entries.Judgement(
                oracle="assert_not_worse", verdict="inconclusive", error="Inconclusive"
            ),
        ),
        (
            WRONG,
            0,
            entries.Test(
                outcome="failed",
                file="tests/test_job.py",
                line=60,
                trials=1,
                error="Inconclusive",
                message="Inconclusive: too little",
            ),
        ),
    ]
