"""Sessions made of entries alone: each kind of chaos test, without running one.

``python -m tests.synthetic_journal FILE [TRIALS]`` writes one as a journal.
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

from pytest_mlchaos.core import entries
from pytest_mlchaos.core.entries import Line
from pytest_mlchaos.reports.journal_reader import SessionLog, session_of, timings_path

__all__ = ["lines", "session", "write_journal"]

ENVIRONMENT = {
    "platform": "Linux x86_64",
    "pytest": "9.2.0",
    "pytest-mlchaos": "0.4.0",
    "python": "3.11.9",
    "torch": "2.13.0",
}
PATHS = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.jsonl")


def session(trials: int = 600) -> SessionLog:
    """Return a session with every kind of test, and at least ``trials`` trials."""
    return session_of(lines(trials))


def write_journal(path: Path, trials: int = 600) -> None:
    """Write the session as a journal and its timings."""
    beside = timings_path(path)
    rows: dict[Path, list[str]] = {path: [], beside: []}
    for line in lines(trials):
        timed = isinstance(line.entry, (entries.Timing, entries.Progress))
        rows[beside if timed else path].append(line.text() + "\n")
    for file, texts in rows.items():
        file.write_text("".join(texts))


def lines(trials: int = 600) -> list[Line]:
    """Return the lines of the session."""
    dice = random.Random(14)
    found = [
        *exploration("tests/test_nano.py::test_any_moment", 133, dice),
        *exploration("tests/test_trainer.py::test_resumes_from_any_crash", 81, dice, bad=61),
        *exploration("tests/test_etl.py::test_nightly_load", 260, dice, interrupted=True),
        *training("tests/test_nano.py::test_oom_is_survived", dice),
        *training("tests/test_trainer.py::test_loss_after_preemption", dice, diverges=True),
        *serving("tests/test_api.py::test_slo_under_a_slow_feature_store", dice, slow=True),
        *serving("tests/test_api.py::test_fallback_keeps_the_slo", dice),
        *world("tests/test_ddp.py::test_lost_rank_fails_fast", hung=True),
        *world("tests/test_ddp.py::test_elastic_restart"),
        *inconclusive("tests/test_drift.py::test_gate_sees_shifted_features"),
        Line(
            "tests/test_gpu.py::test_lost_gpu",
            0,
            entries.Test(outcome="skipped", file="tests/test_gpu.py", line=9),
        ),
        *running("tests/test_tune.py::test_study_resumes"),
        *search(
            "tests/test_loader.py::test_bad_batches", 120, dice, fails=lambda visit: visit >= 37
        ),
    ]
    made = sum(isinstance(line.entry, entries.Trial) for line in found)
    number = 0
    while made < trials:
        count = min(50, trials - made)
        breaks = (lambda visit: visit in (7, 8, 9)) if number % 9 == 4 else (lambda visit: False)
        name = f"tests/test_jobs_{number // 20}.py::test_job_survives[{number}]"
        found += search(name, count, dice, fails=breaks)
        made += count
        number += 1
    return found


def end(test: str, outcome: str, line: int = 12, **facts: object) -> Line:
    """Return the line of a test's end."""
    file = test.partition("::")[0]
    return Line(
        test,
        0,
        entries.Test(outcome=outcome, file=file, line=line, environment=ENVIRONMENT, **facts),
    )


def timing(test: str, of: str, seconds: float, trial: int = 0, **more: object) -> Line:
    """Return the line of a duration."""
    return Line(test, trial, entries.Timing(of=of, seconds=round(seconds, 4), start=1.8e9, **more))


def exploration(
    test: str, count: int, dice: random.Random, *, bad: int = 0, interrupted: bool = False
) -> list[Line]:
    """Return an exploration of crash states."""
    steps, saves = 40, []
    for step in range(2, steps + 1, 4):
        saves += [(step, PATHS[0]), (step, PATHS[2])]
        if step % 12 == 6:
            saves.append((step, PATHS[1]))
    tried = 97 if interrupted else count
    states = []
    wrong = set(dice.sample(range(tried), 3 if interrupted else bad))
    for number in range(tried):
        step = 1 + number * (steps - 1) // max(1, count - 1)
        path = PATHS[dice.choices((0, 1, 2), (5, 2, 3))[0]]
        torn = number % 3 != 0
        size = dice.choice((0, 4096, 8192, 14575))
        what = f"{path.rpartition('/')[2]} cut at byte {size} of 20512, after step {step}"
        facts = {
            "state": f"{path.rpartition('/')[2]}@{size}#{step}.{number}",
            "path": path,
            "what": what if torn else f"after step {step}, with {path.rpartition('/')[2]} complete",
            "step": step,
            "until": step + 1,
            "torn": torn,
        }
        if number in wrong and dice.random() < 0.4:
            verdict = dice.choice(("failed", "failed", "failed", "hung"))
            cause = (
                "resume raised EOFError: Ran out of input"
                if verdict == "failed"
                else "no step for 30 s: waiting for a lock"
            )
            facts |= {"verdict": verdict, "cause": cause, "place": "train.py:41"}
        elif number in wrong:
            facts |= {
                "verdict": "diverged",
                "cause": "step 4: data order (the position in the epoch is not restored)",
                "divergence_step": 4 + dice.randrange(3),
                "component": dice.choice(("data order", "data order", "rng.torch")),
            }
        else:
            facts |= {"verdict": "recovered", "lost_steps": dice.randrange(4), "resumed_at": step}
        states.append(entries.State(exploration=0, **facts))
    whole = entries.Exploration(
        number=0,
        states=count,
        tried=tried,
        bad=len(wrong),
        steps=steps,
        writes=len(saves),
        saves=tuple(saves),
        measured=True,
        max_lost_steps=3,
        interrupted=interrupted,
        notes=() if bad else ("the run of 31 states was decided by an equal state",),
    )
    found = [Line(test, 1, state) for state in states] + [Line(test, 1, whole)]
    found += [
        Line(test, 1, entries.ResultEntry(number=0, method="mlchaos.explore_crashes")),
        *curves(test, 1, dice, steps, (steps,)),
        timing(test, "exploration", 7.1 * count / 80, 1),
        timing(test, "test", 7.4 * count / 80),
    ]
    if interrupted:
        return [*found, end(test, "interrupted", trials=1, message="mlchaos: interrupted")]
    verdict = "failed" if bad else "passed"
    failed = bool(bad)
    first = next((one for one in states if one.verdict == "failed"), None)
    found += [
        Line(
            test,
            1,
            entries.Judgement(
                oracle="CrashReport.assert_recovers",
                verdict=verdict,
                result=0,
                error="NotRecovered" if failed else "",
            ),
        ),
        Line(
            test,
            1,
            entries.Trial(outcome=verdict, visits={"train.step": steps, "data.batch": steps}),
        ),
    ]
    if first is None:
        return [*found, end(test, "passed", trials=1, line=21)]
    text = (
        f"mlchaos: {count} crash states in {steps} steps ({len(saves)} checkpoint writes), checked "
        f"in 7.1 s: {count - bad} recover, {bad} do not\n"
        f"  failed    20x  resume raised EOFError: Ran out of input\n"
        f"                 first: {first.what}\n"
        "  diverged  41x  first divergence at step 4: data order\n"
        "                 (the position in the epoch is not restored)\n"
        f'  lost work: at most 3 steps, restart: 0.09 s\n  reproduce: @chaos.crash(state="{first.state}")'
    )
    return [
        *found,
        end(
            test,
            "failed",
            line=33,
            trials=1,
            error="NotRecovered",
            message=text,
            place="train.py:41",
            reproduce=f'@chaos.crash(state="{first.state}")',
            replay=f"crash(state={first.state!r})",
        ),
    ]


def curves(
    test: str,
    trial: int,
    dice: random.Random,
    steps: int,
    attempts: tuple[int, ...],
    *,
    worse: int = 0,
) -> list[Line]:
    """Return the losses of the golden run and of a faulted one."""
    noise = [dice.uniform(-0.03, 0.03) for _ in range(steps)]
    golden = [round(2.3 * math.exp(-3 * i / steps) + 0.2 + noise[i], 4) for i in range(steps)]
    golden = [round(value / golden[0], 4) for value in golden]
    values: list[float | None] = []
    for number, length in enumerate(attempts):
        first = steps - length if number else 0
        values += [golden[(first + i) % steps] for i in range(length)]
    if worse:
        values[-worse:] = [
            round((value or 0) + 0.35 + dice.uniform(0, 0.2), 4) for value in values[-worse:]
        ]
        values[-3] = None
    return [
        Line(
            test,
            trial,
            entries.Curve(result=0, golden=True, values=tuple(golden), attempts=(steps,)),
        ),
        Line(test, trial, entries.Curve(result=0, values=tuple(values), attempts=attempts)),
    ]


def training(test: str, dice: random.Random, *, diverges: bool = False) -> list[Line]:
    """Return a supervised run under a fixed schedule."""
    steps, attempts = 100, (60, 72) if diverges else (41, 30, 63)
    fault = "preempt" if diverges else "gpu_oom"
    verdict = "failed" if diverges else "passed"
    site = "train.backward" if fault == "gpu_oom" else "train.step"
    total = sum(attempts)
    at = [sum(attempts[: number + 1]) - 1 for number in range(len(attempts) - 1)]
    ended = "SimulatedCrash" if diverges else "OutOfMemoryError"
    found = [
        *(
            Line(
                test,
                1,
                entries.StrikeEntry(
                    fault=f"{fault}(at={at})", site=site, visit=visit, details={"path": "job"}
                ),
            )
            for visit in at
        ),
        Line(
            test,
            1,
            entries.ResultEntry(
                number=0,
                method="mlchaos.run",
                struck=len(at),
                attempts=(*(f"ended by {ended} after step {n}" for n in attempts[:-1]), "finished"),
                steps=attempts,
            ),
        ),
        *curves(test, 1, dice, steps, attempts, worse=40 if diverges else 0),
        Line(
            test,
            1,
            entries.Judgement(
                oracle="Run.assert_recovered",
                verdict=verdict,
                result=0,
                error="NotRecovered" if diverges else "",
            ),
        ),
        Line(
            test,
            1,
            entries.Trial(
                outcome=verdict,
                schedule=f"{fault}(at={at[0]})",
                visits={
                    "train.step": total,
                    "train.forward": total,
                    "train.backward": total,
                    "data.batch": total + 2,
                    "storage.write": 14,
                    "call features:FeatureStore.fetch": 9,
                },
                error="NotRecovered" if diverges else "",
                cause="NotRecovered: first divergence at step 61: optimizer state (train.py:77 in train)"
                if diverges
                else "",
                place="train.py:77 in train" if diverges else "",
            ),
        ),
        timing(test, "trial", 1.31, 1),
        timing(test, "test", 1.52),
    ]
    more = {
        "error": "NotRecovered",
        "place": "train.py:77",
        "message": "mlchaos: failed under 1 declared fault, 1 strike\n  struck: preempt at train.step 59\n"
        "  first divergence at step 61: optimizer state\n  (momentum is not in the checkpoint)",
        "reproduce": "@chaos.preempt(at=59)",
        "replay": "preempt(at=59)",
    }
    return [
        *found,
        end(
            test,
            verdict,
            faults=(f"{fault}(at={at[0]})" if diverges else f"{fault}(at={at})",),
            trials=1,
            strikes=len(at),
            **(more if diverges else {}),
        ),
    ]


def serving(test: str, dice: random.Random, *, slow: bool = False) -> list[Line]:
    """Return a load on a service."""
    count = 400
    struck = tuple(range(120, 180, 2))
    starts = tuple(round(i * 0.01, 3) for i in range(count))
    latencies = tuple(
        round(
            dice.gauss(0.045, 0.008) + (dice.uniform(0.08, 0.3) if slow and i in struck else 0), 5
        )
        for i in range(count)
    )
    failed = tuple(i for i in struck if slow and i % 6 == 0)
    verdict = "failed" if slow else "passed"
    target = "features:FeatureStore.fetch"
    found = [
        *(
            Line(
                test,
                1,
                entries.StrikeEntry(
                    fault=f"latency_spike(at=range(120, 180, 2), target={target!r})",
                    site="call",
                    visit=i,
                    details={"target": target, "seconds": 0.2},
                ),
            )
            for i in struck
        ),
        Line(test, 1, entries.ResultEntry(number=0, method="Service.drive", struck=len(struck))),
        Line(
            test,
            1,
            entries.Requests(
                result=0,
                failed=failed,
                struck=struck,
                starts=starts,
                latencies=latencies,
            ),
        ),
        Line(
            test,
            1,
            entries.Judgement(
                oracle="Load.assert_slo",
                arguments={"p99": "150ms", "error_rate": 0.01},
                verdict=verdict,
                result=0,
                error="SloMissed" if slow else "",
            ),
        ),
        Line(
            test,
            1,
            entries.Trial(
                outcome=verdict,
                schedule="latency_spike(at=range(120, 180, 2))",
                visits={"serve.request": count, f"call {target}": count},
                error="SloMissed" if slow else "",
                cause="SloMissed: the SLO is missed over 400 requests: (tests/test_api.py:31 in test_slo)"
                if slow
                else "",
                place="tests/test_api.py:31 in test_slo" if slow else "",
            ),
        ),
        timing(test, "test", 0.84),
    ]
    more = {
        "error": "SloMissed",
        "place": "tests/test_api.py:31",
        "message": "the SLO is missed over 400 requests:\n  p99 = 0.291 s, must be at most 0.15 s\n"
        "  slowest: request 144, answered, 0.331 s",
        "reproduce": f'@chaos.latency_spike(target="{target}", at=range(120, 180, 2))',
        "replay": "latency_spike(target='features:FeatureStore.fetch', at=range(120, 180, 2))",
    }
    declared = (f'latency_spike(target="{target}", at=range(120, 180, 2))',)
    return [
        *found,
        end(test, verdict, faults=declared, trials=1, strikes=30, **(more if slow else {})),
    ]


def world(test: str, *, hung: bool = False) -> list[Line]:
    """Return a world of ranks."""
    verdict = "failed" if hung else "passed"
    ends = ("lost", "hung", "hung", "finished") if hung else ("finished",) * 4
    words = {
        "lost": "killed by rank_failure at step 12",
        "hung": "in all_reduce, no progress for 5 s",
        "finished": "returned",
    }
    outcome = {"lost": "halted", "hung": "hung", "finished": "finished"}
    steps = (12, 12, 12, 30) if hung else (30,) * 4
    found = [
        Line(
            test,
            1,
            entries.StrikeEntry(
                fault="rank_failure(rank=0, at=12)",
                site="train.step",
                visit=12,
                details={"rank": 0},
            ),
        ),
        Line(test, 1, entries.ResultEntry(number=0, method="World.run", struck=1)),
        *(
            Line(
                test,
                1,
                entries.Rank(
                    result=0, rank=rank, outcome=outcome[how], ended=words[how], steps=steps[rank]
                ),
            )
            for rank, how in enumerate(ends)
        ),
        Line(
            test,
            1,
            entries.Judgement(
                oracle="WorldRun.assert_failed_fast" if hung else "WorldRun.assert_in_sync",
                verdict=verdict,
                result=0,
                error="RankHung" if hung else "",
            ),
        ),
        Line(
            test,
            1,
            entries.Trial(
                outcome=verdict,
                schedule="rank_failure(rank=0, at=12)",
                visits={"train.step": sum(steps), "collective.all_reduce": 4 * 30},
                error="RankHung" if hung else "",
                cause="RankHung: ranks 1 and 2 did not end within 5 s after rank 0 failed"
                if hung
                else "",
                place="ddp.py:88 in train" if hung else "",
            ),
        ),
        timing(test, "test", 5.4 if hung else 0.9),
    ]
    more = {
        "error": "RankHung",
        "place": "ddp.py:88",
        "message": "ranks 1 and 2 did not end within 5 s after rank 0 failed\n  rank 1: all_reduce, ddp.py:88",
        "reproduce": "@chaos.rank_failure(rank=0, at=12)",
        "replay": "rank_failure(rank=0, at=12)",
    }
    return [
        *found,
        end(
            test,
            verdict,
            faults=("rank_failure(rank=0)",),
            trials=1,
            strikes=1,
            **(more if hung else {}),
        ),
    ]


def search(test: str, count: int, dice: random.Random, *, fails: object) -> list[Line]:
    """Return a search over schedules. The last trial repeats the smallest failing schedule."""
    visits = {"data.batch": 64, "train.step": 64, "storage.write": 6}
    found = [Line(test, 1, entries.Trial(outcome="passed", probing=True, visits=visits))]
    found.append(timing(test, "trial", 0.02, 1))
    bad: list[int] = []
    for number in range(2, count + 1):
        at = sorted(dice.sample(range(64), 1 + (number % 7 == 0)))
        hit = [visit for visit in at if fails(visit)]  # type: ignore[operator]
        if number == count and bad:
            at = hit = [min(bad)]
        schedule = ", ".join(f"corrupt_batch(at={visit})" for visit in at)
        for visit in at:
            found.append(
                Line(
                    test,
                    number,
                    entries.StrikeEntry(
                        fault=f"corrupt_batch(at={visit})",
                        site="data.batch",
                        visit=visit,
                        details={"share": 0.25},
                    ),
                )
            )
        bad += hit[:1]
        found += [
            Line(
                test,
                number,
                entries.Judgement(
                    oracle="Run.assert_converged",
                    verdict="failed" if hit else "passed",
                    result=0,
                    error="NotConverged" if hit else "",
                ),
            ),
            Line(
                test,
                number,
                entries.Trial(
                    outcome="failed" if hit else "passed",
                    schedule=schedule,
                    visits=visits,
                    error="NotConverged" if hit else "",
                    cause="NotConverged: the loss is not finite (loader.py:52 in train)"
                    if hit
                    else "",
                    place="loader.py:52 in train" if hit else "",
                ),
            ),
            timing(test, "trial", dice.uniform(0.01, 0.03), number),
        ]
    found.append(timing(test, "test", 0.03 * count))
    if not bad:
        return [
            *found,
            Line(
                test,
                0,
                entries.Point(name="batch skipped", place="loader.py:50", held=count - 1),
            ),
            end(test, "passed", faults=("corrupt_batch",), trials=count, strikes=count - 1),
        ]
    smallest = f"corrupt_batch(at={min(bad)})"
    return [
        *found,
        end(
            test,
            "failed",
            faults=("corrupt_batch",),
            trials=count,
            strikes=count,
            untried=("corrupt_batch at data.batch 3", "corrupt_batch at data.batch 61"),
            error="NotConverged",
            message=f"mlchaos: {count} schedules tried (shrinking included) over data.batch 64 times: "
            f"{len(bad)} fail\n  {len(bad)}x  NotConverged: the loss is not finite\n"
            f"       smallest: {smallest}",
            place="loader.py:52",
            reproduce=f"@chaos.{smallest}",
            replay=smallest,
        ),
    ]


def inconclusive(test: str) -> list[Line]:
    """Return a test that saw too little."""
    return [
        Line(
            test,
            1,
            entries.StrikeEntry(
                fault="label_shift(at=0)", site="data.table", visit=0, details={"rows": 40}
            ),
        ),
        Line(
            test,
            1,
            entries.Judgement(
                oracle="assert_no_drift", verdict="inconclusive", error="Inconclusive"
            ),
        ),
        Line(
            test,
            1,
            entries.Trial(
                outcome="failed",
                schedule="label_shift(at=0)",
                visits={"data.table": 1},
                error="Inconclusive",
                cause="Inconclusive: 40 rows are too few to tell a drift of 0.1",
                place="tests/test_drift.py:18",
            ),
        ),
        end(
            test,
            "failed",
            faults=("label_shift(at=0)",),
            trials=1,
            strikes=1,
            error="Inconclusive",
            message="INCONCLUSIVE: 40 rows are too few to tell a drift of 0.1. Give at least 400 rows",
            place="tests/test_drift.py:18",
            reproduce="@chaos.label_shift(at=0)",
            replay="label_shift(at=0)",
        ),
    ]


def running(test: str) -> list[Line]:
    """Return a test whose session was killed."""
    return [
        *(
            Line(test, number, entries.Trial(outcome="passed", schedule=f"crash(at={number})"))
            for number in range(1, 13)
        ),
        Line(test, 0, entries.Progress(what="schedules", done=12, total=50, bad=0)),
    ]


if __name__ == "__main__":
    write_journal(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 600)
