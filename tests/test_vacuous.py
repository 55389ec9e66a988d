"""Tests that would pass whatever their subject did are refused, by the error that names the reason."""

from __future__ import annotations

import importlib.util

import pytest

HAS_TORCH = importlib.util.find_spec("torch") is not None
JOB = '''
import json, pickle
from pytest_mlchaos import visit


def load(n):
    return n


def train(path):
    """Four steps, a checkpoint after each."""
    file = path / "state.json"
    done = json.loads(file.read_text()) if file.exists() else 0
    for step in range(done, 4):
        visit("train.step")
        (path / "state.tmp").write_text(json.dumps(step + 1))
        (path / "state.tmp").replace(file)
    return 4


def process(path):
    rows = [load(n) for n in range(3)]
    (path / "out.json").write_text(json.dumps(rows))
    return rows


def handle(n):
    return load(n)


def rank():
    load(0)
    return 1


def empty(*args):
    pass
'''
TEST = "import contextlib, job, pytest\n{marks}\ndef test_it(mlchaos, tmp_path):\n    {body}\n"
NO_FAULT = "this test declares no fault"
NOT_JUDGED = "nothing judged the result of"
SET_UP = "fell outside the code that"
FAIL = '@chaos.call_failure(target="job:load", at=0)'
SURVIVE = "try: job.load(0)\n    except RuntimeError: pass"

PLANTED = {
    # -- no fault is declared, and the judgement compares the run with itself
    "run, no fault": ("", "mlchaos.run(job.train, tmp_path).assert_recovered()", NO_FAULT),
    "run in a process, no fault": (
        "",
        'mlchaos.run(job.train, tmp_path, isolation="process").assert_recovered()',
        NO_FAULT,
    ),
    "run, no fault, bound on restarts": (
        "",
        "mlchaos.run(job.train, tmp_path, max_restarts=0).assert_recovered()",
        NO_FAULT,
    ),
    "run, no fault, emergency save": (
        "",
        "mlchaos.run(job.train, tmp_path).assert_emergency_save()",
        NO_FAULT,
    ),
    "run, no fault, effective batch": (
        "",
        "mlchaos.run(job.train, tmp_path).assert_same_effective_batch()",
        NO_FAULT,
    ),
    "pipeline, no fault": (
        "",
        "mlchaos.pipeline(job.process, tmp_path).assert_same_output()",
        NO_FAULT,
    ),
    "pipeline, no fault, complete": (
        "",
        "mlchaos.pipeline(job.process, tmp_path).assert_complete()",
        NO_FAULT,
    ),
    "pipeline, no fault, again": (
        "",
        "mlchaos.pipeline(job.process, tmp_path).again().assert_same_output()",
        NO_FAULT,
    ),
    "service, no fault, isolated": (
        "",
        "mlchaos.serve(job.handle).drive(range(3)).assert_isolated()",
        NO_FAULT,
    ),
    "service, no fault, fallback": (
        "",
        "mlchaos.serve(job.handle).drive(range(3)).assert_fallback(value=0)",
        NO_FAULT,
    ),
    "service, no fault, recovered": (
        "",
        "mlchaos.serve(job.handle).drive(range(3)).assert_recovered(within=1, error_rate=0)",
        NO_FAULT,
    ),
    "world, no fault": ("", "mlchaos.world().run(job.rank).assert_recovered()", NO_FAULT),
    "world, no fault, failed fast": (
        "",
        "mlchaos.world().run(job.rank).assert_failed_fast()",
        NO_FAULT,
    ),
    # -- nothing judges the result
    "run, no oracle": ("@chaos.crash(at=1)", "mlchaos.run(job.train, tmp_path)", NOT_JUDGED),
    "run, no oracle, no fault": ("", "mlchaos.run(job.train, tmp_path)", NOT_JUDGED),
    "run, searched, no oracle": ("@chaos.crash", "mlchaos.run(job.train, tmp_path)", NOT_JUDGED),
    "run, kept and not judged": (
        "@chaos.crash(at=1)",
        "run = mlchaos.run(job.train, tmp_path)",
        NOT_JUDGED,
    ),
    "run, only printed": (
        "@chaos.crash(at=1)",
        "print(mlchaos.run(job.train, tmp_path))",
        NOT_JUDGED,
    ),
    "run, only its golden run": (
        "@chaos.crash(at=1)",
        "assert mlchaos.run(job.train, tmp_path).golden.value == 4",
        NOT_JUDGED,
    ),
    "run in a process, no oracle": (
        "@chaos.crash(at=1)",
        'mlchaos.run(job.train, tmp_path, isolation="process")',
        NOT_JUDGED,
    ),
    "crashes, no oracle": ("", "report = mlchaos.explore_crashes(job.train, tmp_path)", NOT_JUDGED),
    "crashes, only printed": (
        "",
        "print(mlchaos.explore_crashes(job.train, tmp_path))",
        NOT_JUDGED,
    ),
    "crashes, another report judged": (
        "",
        'mlchaos.explore_crashes(job.train, tmp_path / "a").assert_recovers()\n    '
        'mlchaos.explore_crashes(job.train, tmp_path / "b")',
        NOT_JUDGED,
    ),
    "pipeline, no oracle": (FAIL, "mlchaos.pipeline(job.process, tmp_path)", NOT_JUDGED),
    "pipeline, no oracle, searched": (
        '@chaos.call_failure(target="job:load")',
        "mlchaos.pipeline(job.process, tmp_path)",
        NOT_JUDGED,
    ),
    "service, no oracle": (FAIL, "mlchaos.serve(job.handle).drive(range(3))", NOT_JUDGED),
    "service, no oracle, no fault": (
        "",
        "load = mlchaos.serve(job.handle).drive(range(3))",
        NOT_JUDGED,
    ),
    "world, no oracle": (FAIL, "mlchaos.world().run(job.rank)", NOT_JUDGED),
    # -- set-up code in the body takes the fault
    "pipeline, set-up strike": (
        FAIL,
        f"{SURVIVE}\n    mlchaos.pipeline(job.process, tmp_path).assert_same_output()",
        SET_UP,
    ),
    "pipeline, set-up strike, by hand": (
        FAIL,
        f"{SURVIVE}\n    assert mlchaos.pipeline(job.process, tmp_path).value == [0, 1, 2]",
        SET_UP,
    ),
    "run, set-up strike": (
        '@chaos.call_delay(target="json:dumps", delay="1s", at=0)',
        "import json; json.dumps(1)\n    mlchaos.run(job.train, tmp_path).assert_recovered()",
        SET_UP,
    ),
    "service, set-up strike": (
        FAIL,
        f"{SURVIVE}\n    mlchaos.serve(job.handle).drive(range(3)).assert_isolated()",
        SET_UP,
    ),
    "service, set-up strike, slo": (
        FAIL,
        f"{SURVIVE}\n    mlchaos.serve(job.handle).drive(range(3)).assert_slo(error_rate=0)",
        SET_UP,
    ),
    "service, set-up strike, fallback": (
        FAIL,
        f"{SURVIVE}\n    mlchaos.serve(job.handle).drive(range(3)).assert_fallback(value=0)",
        "assert_fallback: no fault struck while these 3 requests were handled",
    ),
    "only a warm-up is struck": (
        FAIL,
        "mlchaos.pipeline(job.process, tmp_path)\n    mlchaos.pipeline(job.process, "
        "tmp_path).assert_same_output()",
        SET_UP,
    ),
    # -- an empty subject
    "run, empty subject": (
        "@chaos.crash",
        "mlchaos.run(job.empty, tmp_path).assert_recovered()",
        "BadArgument|NeverStruck",
    ),
    "run, empty subject, pinned": (
        "@chaos.crash(at=0)",
        "assert mlchaos.run(job.empty).value is None",
        "NeverStruck",
    ),
    "crashes, empty subject": (
        "",
        "mlchaos.explore_crashes(job.empty, tmp_path).assert_recovers()",
        "BadArgument",
    ),
    "pipeline, empty subject": (
        FAIL,
        "mlchaos.pipeline(job.empty).assert_same_output()",
        "BadArgument|NeverStruck",
    ),
    "service, empty subject": (
        FAIL,
        "mlchaos.serve(lambda request: None).drive(range(3)).assert_isolated()",
        "NeverStruck",
    ),
    "world, empty subject": (
        "@chaos.rank_failure(at=0)",
        "mlchaos.world().run(job.empty).assert_finished()",
        "NeverStruck",
    ),
    # -- somebody swallows what the fault does
    "run, swallowed crash": (
        "@chaos.crash(at=1)",
        "def swallows():\n        for _ in range(3):\n            try: visit('train.step')\n       "
        "     except BaseException: pass\n"
        "        return 1\n"
        "    mlchaos.run(swallows).assert_recovered()",
        "CrashSwallowed",
    ),
    "pipeline, swallowed crash": (
        "@chaos.crash(at=0)",
        "def swallows():\n        try: visit('train.step')\n        except BaseException: return "
        "1\n"
        "    mlchaos.pipeline(swallows).assert_same_output()",
        "CrashSwallowed",
    ),
    "run, swallowed verdict": (
        "@chaos.call_failure(target='job:load', at=0)",
        "try: mlchaos.run(lambda: [0, job.load(1)][0] or swallowed, max_restarts=0)\n    except "
        "Exception: pass",
        "Vacuous: GaveUp was raised, but test_it.py:",
    ),
    "pipeline, swallowed verdict": (
        '@chaos.truncated_read(path="*.txt")',
        "(tmp_path / 'a.txt').write_text('x' * 99)\n    with contextlib.suppress(Exception):\n"
        "        mlchaos.pipeline(lambda: (tmp_path / 'a.txt').read_text()).assert_same_output()",
        "Vacuous: SilentlyDifferent was raised, but test_it.py:",
    ),
    "service, swallowed verdict": (
        FAIL,
        "load = mlchaos.serve(job.handle).drive(range(3))\n    try: "
        "load.assert_slo(error_rate=0)\n    except AssertionError: print('no')",
        "Vacuous: SloMissed was raised, but test_it.py:",
    ),
    "crashes, swallowed verdict": (
        "",
        "try: mlchaos.explore_crashes(job.empty, tmp_path).assert_recovers()\n    except: pass",
        "Vacuous: BadArgument was raised, but test_it.py:",
    ),
    # -- fewer strikes than declared
    "some of the visits": (
        '@chaos.call_delay(target="job:load", delay=1, at=[1, 400])',
        "[job.load(n) for n in range(3)]",
        "struck 1 visit of 2",
    ),
    "fewer times in a row": (
        '@chaos.call_delay(target="job:load", delay=1, at=1, times=3)',
        "[job.load(n) for n in range(3)]",
        "struck 2 visits of 3",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_vacuous_test_is_refused_for_its_reason(example, name):
    """Every entry point: without a fault, without a judgement, with a fault that hits set-up code,
    empty, or swallowed.
    """
    if "world" in name and not HAS_TORCH:
        pytest.skip("worlds need torch")
    marks, body, reason = PLANTED[name]
    outcome = (
        example.with_file("job.py", JOB)
        .with_tests(TEST.format(marks=marks, body=body))
        .run(failed=1)
    )
    assert any(part in outcome.text for part in reason.split("|")), outcome.text


SOUND = {
    "a fault-free baseline says so": (
        "@chaos.settings(allow_quiet=True)",
        "mlchaos.run(job.train, tmp_path).assert_recovered()",
    ),
    "judgements that need no fault": ("", "assert mlchaos.run(job.train, tmp_path).value == 4"),
    "a bound on the restarts is a judgement": (
        "@chaos.call_delay(target='json:dumps', at=1)",
        "mlchaos.run(job.train, tmp_path, max_restarts=0)",
    ),
    "attributes are looked at": (
        "@chaos.crash(at=1)",
        "assert mlchaos.run(job.train, tmp_path).restarts == 1",
    ),
    "a warm-up need not be judged": (
        '@chaos.call_failure(target="job:load", at=4)',
        "service = mlchaos.serve(job.handle)\n    service.drive(range(3))\n    "
        "service.drive(range(3)).assert_isolated()",
    ),
    "a model is trained in the body, and then served": (
        "@chaos.call_delay(target='json:dumps', at=1)",
        "assert job.train(tmp_path) == 4\n    "
        "mlchaos.serve(job.handle).drive(range(3)).assert_slo(error_rate=0)",
    ),
    "set-up code passes the site before the visit that strikes": (
        '@chaos.call_failure(target="job:load", at=1)',
        "job.load(0)\n    mlchaos.pipeline(job.process, tmp_path).assert_same_output()",
    ),
    "set-up code passes a site that is searched": (
        '@chaos.call_failure(target="job:load")',
        f"{SURVIVE}\n    mlchaos.pipeline(job.process, tmp_path).assert_same_output()",
    ),
    "an expected verdict is named": (
        FAIL,
        "load = mlchaos.serve(job.handle).drive(range(3))\n    with pytest.raises(AssertionError): "
        "load.assert_slo(error_rate=0)",
    ),
    "a handler that looks at what it caught": (
        FAIL,
        "load = mlchaos.serve(job.handle).drive(range(3))\n    try: load.assert_slo(error_rate=0)\n"
        "    except Exception as error: assert 'missed' in str(error)",
    ),
    "a call that is made again after the fault": (
        FAIL,
        "mlchaos.pipeline(job.process, tmp_path).again().assert_same_output()",
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_test_that_shows_something_passes(example, name):
    """The refusals above must accept these."""
    marks, body = SOUND[name]
    example.with_file("job.py", JOB).with_tests(
        f"import contextlib, job, pytest\n{marks}\ndef test_it(mlchaos, tmp_path):\n    {body}\n"
    ).run(passed=1)


def test_decorators_on_a_subject_are_refused(example):
    """They have no effect there, whatever entry point the subject is given to."""
    outcome = example.with_tests("""
        import functools

        @chaos.crash(at=1)
        def train(path=None): return 1

        def test_run(mlchaos): mlchaos.run(train)
        def test_partial(mlchaos): mlchaos.pipeline(functools.partial(train, None))
        def test_crashes(mlchaos, tmp_path): mlchaos.explore_crashes(train, tmp_path)
        def test_served(mlchaos): mlchaos.serve(train)
    """).run(failed=4)
    outcome.has(
        "BadArgument: mlchaos.run: @chaos.crash on the subject train() has no effect: put the "
        "decorator on the test"
    )
    outcome.has(
        "mlchaos.pipeline: @chaos.crash on the subject",
        "mlchaos.explore_crashes: @chaos.crash",
        "mlchaos.serve: @chaos.crash",
    )


def test_collection_warns_of_decorators_on_a_helper(example):
    """A function that is not collected runs without its fault."""
    example.with_tests("""
        @chaos.crash(at=1)
        def helper(): pass

        class TestIt:
            @chaos.settings(seed=1)
            def helper(self): pass
            def test_it(self): pass
    """).run(passed=1, warnings=2).has(
        "@chaos.crash on helper(), which is not a test, has no effect. Put the decorator on the "
        "test that calls it",
        "@chaos.settings on helper()",
    )


@pytest.mark.parametrize(
    "expected", ["", "raises=AssertionError", "raises=Exception", "strict=True"]
)
def test_errors_about_the_test_are_not_hidden_by_xfail(example, expected):
    """An expected failure is one of the subject."""
    example.with_file("job.py", JOB).with_tests(f"""
        import job, pytest

        @pytest.mark.xfail({expected})
        @chaos.crash(at=99)
        def test_never_struck(mlchaos, tmp_path): assert mlchaos.run(job.train, tmp_path).value == 4

        @pytest.mark.xfail({expected})
        def test_vacuous(mlchaos, tmp_path): mlchaos.run(job.train, tmp_path)

        @pytest.mark.xfail({expected})
        @chaos.crash(at="x")
        def test_argument(): pass

        @pytest.mark.xfail({expected})
        @chaos.crash(at=1)
        def test_subject(mlchaos, tmp_path): assert mlchaos.run(job.train, tmp_path).value == 5
    """).run(failed=3, xfailed=1).has("NeverStruck", "Vacuous", "BadArgument")


def test_marks_on_doctests_are_refused(example):
    """Their module's marks would be ignored without a word."""
    source = '''
        """
        >>> 1 + 1
        2
        """
        from pytest_mlchaos import chaos
        pytestmark = chaos.crash(at=0)
        '''
    example.with_file("test_it.py", source).run("--doctest-modules", failed=1).has(
        "BadArgument: chaos faults work on test functions and methods, not on a doctest"
    )


EXPLORES = """
    import job
    from pathlib import Path
    def train(workdir):
        with open(Path(__file__).with_name("runs"), "a") as log: log.write(".")
        return job.train(workdir)
    def test_it(mlchaos, tmp_path):
        report = mlchaos.explore_crashes(train, tmp_path)
        print(report)
        report.assert_recovers(max_lost_steps=0)
"""


def test_an_exploration_that_is_off_runs_the_subject_once(example):
    """Like a test with decorators, it passes, and the summary says that nothing was tried."""
    project = example.with_file("job.py", JOB).with_tests(EXPLORES)
    outcome = project.run("--mlchaos-off", "-rP", passed=1)
    outcome.has("mlchaos: no crash state was tried", "0 crash states   not tried")
    outcome.has("mlchaos: 1 chaos test, 1 trial, 0 faults struck")
    assert (project.pytester.path / "runs").read_text() == "."


@pytest.mark.parametrize("variable", ["MLCHAOS_FORBID=1", "APP_ENV=production"])
def test_an_exploration_that_is_forbidden_fails(example, monkeypatch, variable):
    """Like a test with decorators, and before the subject runs. ``--mlchaos-off`` is a way on."""
    monkeypatch.setenv(*variable.split("="))
    project = example.with_file("job.py", JOB).with_tests(EXPLORES)
    project.run(failed=1).has("InjectionForbidden: ", "--mlchaos-off")
    assert not (project.pytester.path / "runs").exists()
    project.run("--mlchaos-off", passed=1)


IDLE = {
    "the payload as it is": "return visit.payload",
    "an equal copy": "return list(visit.payload)",
    "nothing": "pass",
    "a delay of no time": "visit.sleep(0)",
    "a change that is undone": "visit.payload.append(1); visit.payload.pop()",
}
BUSY = {
    "a changed copy": "return [*visit.payload, 1]",
    "a change in place": "visit.payload.append(1)",
    "an equal list of other types": "return [float(number) for number in visit.payload]",
    "an error": "raise OSError",
    "a delay": "visit.sleep(1)",
    "an action for later": "visit.defer(list)",
    "what it says itself": "visit.record_injection()",
    "a context until the process ends": "import contextlib; visit.keep_until_exit(contextlib.nullcontext())",
}


@pytest.mark.parametrize("what", [*IDLE, *BUSY])
def test_a_strike_that_changes_nothing_is_none(example, what):
    """A user's fault that leaves the payload as it was, and does nothing else, never struck."""
    source = f"""
        import contextlib

        @chaos.register
        class Does(Fault):
            '''A fault of the user's own.'''
            site = "numbers"

            def apply(self, visit):
                {(IDLE | BUSY)[what]}

        @chaos.does(at=0)
        def test_it(mlchaos):
            with contextlib.suppress(OSError):
                mlchaos.visit("numbers", [1, 2])
    """
    if what in BUSY:
        example.with_tests(source).run(passed=1)
    else:
        example.with_tests(source).run(failed=1).has(
            "does(at=0) never struck: numbers was passed 1 time, but found nothing to do there"
        )


def test_an_object_that_cannot_be_compared_counts_as_changed(example):
    """Its attributes may have changed."""
    example.with_tests("""
        class Thing: pass

        @chaos.register
        class Breaks(Fault):
            '''A fault of the user's own.'''
            site = "things"
            def apply(self, visit): visit.payload.broken = True

        @chaos.breaks(at=0)
        def test_it(mlchaos): assert mlchaos.visit("things", Thing()).broken
    """).run(passed=1)


@pytest.mark.parametrize(
    "kind", ["async def apply(self, visit): return 1", "def apply(self, visit): yield 1"]
)
def test_an_apply_that_does_nothing_when_it_is_called_is_refused(example, kind):
    """A coroutine or a generator would be taken for a strike."""
    example.with_tests(f"""
        @chaos.register
        class Idle(Fault):
            '''A fault of the user's own.'''
            site = "numbers"
            {kind}
    """).run(errors=1).has("BadArgument: Idle: apply() is a", "Make it a plain function")
