"""The plugin as users meet it: marks, options, reports."""

from __future__ import annotations

import importlib.util
import json
import re
import time

import pytest

from .example import entries_in

HAS = {
    name: importlib.util.find_spec(name) is not None
    for name in ("xdist", "pytest_timeout", "pytest_asyncio", "anyio", "trio", "torch")
}


def needs(name):
    """Skip without an optional plugin."""
    return pytest.mark.skipif(not HAS[name], reason=f"needs {name}")


SENSOR = """
@chaos.register
class StuckSensor(Fault):
    '''A sensor repeats a value.'''
    site = "sensor.read"
    value: float = 0.0
    def apply(self, visit):
        return self.value

def read(count=10):
    return [visit("sensor.read", float(n + 1)) for n in range(count)]
"""


@pytest.fixture
def sensors(example):
    """A project with a site and a fault of its own."""
    import textwrap

    return lambda tests: example.with_tests(SENSOR + textwrap.dedent(tests))


def test_a_fixed_fault_makes_one_trial(sensors):
    """It strikes where it says, and the journal of the trial shows it."""
    sensors("""
        @chaos.stuck_sensor(at=[2, 4], value=-1.0)
        def test_it(mlchaos):
            assert read(6) == [1.0, 2.0, -1.0, 4.0, -1.0, 6.0]
            assert [s.visit for s in mlchaos.journal] == [2, 4]
            assert mlchaos.schedule.line == "stuck_sensor(at=[2, 4], value=-1.0)"
    """).run(passed=1)


@pytest.mark.slow
def test_an_open_fault_is_explored_and_shrunk_to_the_earliest_visit(sensors):
    """The report is grouped, smallest first, with a line to paste and no trace of Hypothesis."""
    outcome = sensors("""
        @chaos.stuck_sensor
        def test_it():
            assert 0.0 not in read()[6:]
    """).run(failed=1)
    assert outcome.reproduce == ["@chaos.stuck_sensor(at=6)"]
    assert outcome.replay == "stuck_sensor(at=6)"
    outcome.has(
        "schedules tried (shrinking included) over sensor.read 10 times",
        "struck: stuck_sensor(at=6) at sensor.read 6",
        "smallest: stuck_sensor(at=6)",
    )
    for word in ("hypothesis/", "Falsifying", "@seed", "reproduce_failure", "pytest_mlchaos/"):
        assert word not in outcome.text


@pytest.mark.slow
def test_the_pasted_decorator_and_the_replay_option_reproduce_the_failure(sensors):
    """And a replayed schedule that does not break the test passes."""
    source = """
        @chaos.stuck_sensor
        def test_it():
            assert 0.0 not in read()[6:]
    """
    sensors(source.replace("@chaos.stuck_sensor", "@chaos.stuck_sensor(at=6)")).run(failed=1)
    sensors(source).run("--mlchaos-replay", "stuck_sensor(at=6)", "test_it.py::test_it", failed=1)
    sensors(source).run("--mlchaos-replay=@chaos.stuck_sensor(at=2)", passed=1)


def test_each_trial_has_fresh_fixtures(sensors):
    """Function-scoped ones, tmp_path included; wider ones are shared; teardown runs as often as
    set-up.
    """
    sensors("""
        import pytest
        log = []
        @pytest.fixture(scope="module")
        def shared():
            log.append("module"); yield; print("torn", log.count("up"), log.count("down"))
        @pytest.fixture
        def model(shared):
            log.append("up"); yield {}; log.append("down")
        @pytest.fixture(autouse=True)
        def always(): log.append("auto")
        class TestIt:
            @chaos.stuck_sensor
            @chaos.settings(max_trials=7, seed=0)
            def test_it(self, model, tmp_path):
                assert model == {} and not hasattr(self, "used") and list(tmp_path.iterdir()) == []
                model["used"] = self.used = True
                (tmp_path / "x").touch()
                read()
            def test_after(self):
                assert log.count("module") == 1
                assert log.count("up") == log.count("down") == 8, log
                assert log.count("auto") == 9
    """).run(passed=2)


def test_a_failing_trial_shows_its_own_output_and_locals(sensors):
    """The test raises the smallest failing trial's own exception, from a real run."""
    outcome = sensors("""
        @chaos.stuck_sensor
        def test_it():
            values = read()
            assert values[3] == 4.0, f"the fourth was {values[3]}"
    """).run(failed=1)
    outcome.has("AssertionError: the fourth was 0.0", "test_it.py:", "def test_it():")


@pytest.mark.slow
def test_several_causes_are_grouped_smallest_first(sensors):
    """Each with its own smallest schedule."""
    outcome = sensors("""
        @chaos.stuck_sensor
        @chaos.settings(seed=1)
        def test_it():
            values = read(4)
            if values[3] == 0.0:
                raise KeyError("late")
            assert values[1] != 0.0
    """).run(failed=1)
    outcome.has(
        "smallest: settings(seed=1); stuck_sensor(at=1)",
        "smallest: settings(seed=1); stuck_sensor(at=3)",
        "KeyError: 'late'",
    )
    assert outcome.text.index("stuck_sensor(at=1)") < outcome.text.index("stuck_sensor(at=3)")


@pytest.mark.slow
def test_parameters_are_drawn_and_shrunk(sensors):
    """From one_of and from Hypothesis strategies; the simplest that fails is reported."""
    outcome = sensors("""
        from hypothesis import strategies as st
        @chaos.stuck_sensor(value=chaos.one_of(1.0, 3.0, 4.0))
        def test_one_of():
            assert 3.0 not in read(2)
        @chaos.stuck_sensor(at=1, value=st.integers(0, 1000).map(float))
        def test_strategy():
            assert max(read(2)) < 123
    """).run(failed=2)
    assert outcome.reproduce == [
        "@chaos.stuck_sensor(at=0, value=3.0)",
        "@chaos.stuck_sensor(at=1, value=123.0)",
    ]


def test_marks_work_on_classes_modules_and_parameters(sensors):
    """Wherever pytest takes a mark."""
    sensors("""
        import pytest
        pytestmark = chaos.stuck_sensor(at=0, value=7.0)
        @chaos.stuck_sensor(at=1, value=8.0)
        class TestIt:
            @pytest.mark.parametrize("third", [3.0, pytest.param(9.0, marks=chaos.stuck_sensor(at=2, value=9.0))])
            def test_it(self, third):
                assert read(4) == [7.0, 8.0, third, 4.0]
    """).run(passed=2)


@pytest.mark.slow
def test_marks_select_tests(sensors):
    """By name and by fault."""
    project = sensors("""
        import pytest
        @chaos.stuck_sensor(at=0)
        def test_sensor(): read()
        @chaos.crash(at=0)
        def test_crash(mlchaos): assert mlchaos.run(lambda: visit("train.step") or 1).value == 1
        def test_plain(): pass
    """)
    project.run("-m", "mlchaos", passed=2, deselected=1)
    project.run("-m", "mlchaos(fault='crash')", passed=1, deselected=2)
    project.run("--strict-markers", passed=3)


@pytest.mark.slow
def test_marks_select_tests_that_use_the_fixture(sensors):
    """Also through a different fixture. Without a fault of their own, they need none."""
    project = sensors("""
        import pytest
        @pytest.fixture
        def trained(mlchaos): return mlchaos
        def test_direct(mlchaos): pass
        def test_indirect(trained): pass
        @chaos.stuck_sensor(at=0)
        def test_fault(mlchaos): read()
        def test_plain(): pass
    """)
    project.run("--strict-markers", "-m", "mlchaos", passed=3, deselected=1)
    project.run("-m", "not mlchaos", passed=1, deselected=3)


@pytest.mark.slow
def test_marks_fixture_and_options_describe_themselves(sensors):
    """``--markers``, ``--fixtures``, ``--help`` and the catalogue."""
    project = sensors("def test_it(): pass")
    project.run("--markers").has(
        "@pytest.mark.mlchaos(fault, at=None", "@pytest.mark.mlchaos_settings(max_trials"
    )
    project.run("--fixtures").has("mlchaos", "judge the result")
    project.run("--help").has(
        "--mlchaos-max-trials=N",
        "--mlchaos-replay=FAULTS",
        "mlchaos_max_faults",
        "mlchaos_production",
    )
    project.run("--mlchaos-faults").has(
        "chaos.gpu_oom(phase='backward', op=0,", "Fidelity:", "Imitates:", "chaos.corrupt_batch"
    )


@pytest.mark.slow
def test_off_makes_marks_inert(sensors):
    """No fault strikes, and none need strike; the fixture still runs subjects."""
    sensors("""
        @chaos.stuck_sensor(at=0)
        @chaos.crash(at=0)
        def test_it(mlchaos):
            assert mlchaos.run(read, 3).value == [1.0, 2.0, 3.0]
        @chaos.nonsense_target if False else chaos.call_failure(target="nowhere:fn")
        def test_bad_target(): pass
    """).run("--mlchaos-off", passed=2).has("mlchaos: off")


@pytest.mark.slow
def test_settings_come_from_mark_ini_and_command_line_in_that_order(sensors):
    """The command line has the last word; the header shows what was changed."""
    project = sensors("""
        @chaos.stuck_sensor
        def test_ini(): read(50)
        @chaos.stuck_sensor
        @chaos.settings(max_trials=5)
        def test_mark(): read(50)
        trials = []
        @chaos.stuck_sensor
        def test_fails(): trials.append(1); read(50); assert len(trials) < 4
    """).with_ini("mlchaos_max_trials = 3")
    assert "schedule" in project.run("-k", "fails", failed=1).text
    journal = project.pytester.path / "journal.jsonl"
    for args, expected in (
        ([], {"test_ini": 3, "test_mark": 5}),
        (["--mlchaos-max-trials=4"], {"test_ini": 4, "test_mark": 4}),
    ):
        outcome = project.run("-k", "ini or mark", f"--mlchaos-journal={journal}", *args, passed=2)
        outcome.has(f"mlchaos: max_trials={4 if args else 3}")
        entries = entries_in(journal, "strike")
        tried = {
            name: len({e["trial"] for e in entries if e["test"].endswith(name)})
            for name in expected
        }
        assert tried == expected


@pytest.mark.slow
def test_huge_settings_are_bounded_by_what_there_is_to_try(sensors):
    """A test of three visits has no more schedules than they allow, whatever the settings say."""
    sensors("""
        @chaos.stuck_sensor(value=1.0)
        @chaos.stuck_sensor(value=2.0)
        def test_it(): read(3)
    """).run(
        "--mlchaos-max-faults=1000000000000",
        "--mlchaos-max-trials=40",
        "--mlchaos-seed=1",
        passed=1,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "ini", "message"),
    [
        (
            ["--mlchaos-max-trials=many"],
            "",
            "mlchaos: --mlchaos-max-trials must be a whole number of 1 or more, got 'many' (str)",
        ),
        (
            ["--mlchaos-max-trials=²"],
            "",
            "--mlchaos-max-trials must be a whole number of 1 or more, got '²' (str)",
        ),
        (
            ["--mlchaos-seed=٣"],
            "",
            "--mlchaos-seed must be a whole number of 0 or more, got '٣' (str)",
        ),
        (["--mlchaos-budget=1e12"], "", "--mlchaos-budget must be in seconds"),
        (["--mlchaos-timeout=99999999999"], "", "--mlchaos-timeout must be at most 1e+09 seconds"),
        (["--mlchaos-journal=."], "", "--mlchaos-journal must be a file, got '.'"),
        (["--mlchaos-journal="], "", "--mlchaos-journal must be a file, got an empty name"),
        (
            ["--mlchaos-journal=/proc/none/journal.jsonl"],
            "",
            "--mlchaos-journal: '/proc/none/journal.jsonl' cannot be written",
        ),
        (
            ["--mlchaos-journal=pytest.ini/journal.jsonl"],
            "",
            "--mlchaos-journal: 'pytest.ini/journal.jsonl' cannot be written",
        ),
        (
            ["--mlchaos-keep-state=pytest.ini"],
            "",
            "--mlchaos-keep-state must be a directory, got 'pytest.ini'",
        ),
        (
            ["--mlchaos-keep-state="],
            "",
            "--mlchaos-keep-state must be a directory, got an empty name",
        ),
        (
            ["--mlchaos-keep-state=/proc/none"],
            "",
            "--mlchaos-keep-state: '/proc/none' cannot be written",
        ),
        (
            [],
            "mlchaos_production = ENV",
            "mlchaos_production: each pattern must be NAME=pattern, such as 'ENV=prod*', got 'ENV' "
            "(str)",
        ),
        ([], "mlchaos_production = =prod", "mlchaos_production: each pattern must be NAME=pattern"),
        (["--mlchaos-timeout=soon"], "", "--mlchaos-timeout must be in seconds, or a text such as"),
        ([], "mlchaos_seed = x", "mlchaos_seed must be a whole number of 0 or more, got 'x' (str)"),
        (
            ["--mlchaos-replay=gpu_oom(at=)"],
            "",
            "a schedule must be faults such as 'gpu_oom(at=7); crash(at=9)'",
        ),
        (
            ["--mlchaos-replay=gpu_oom(att=1)"],
            "",
            "gpu_oom got an unknown keyword 'att' (did you mean 'at'?)",
        ),
        (
            ["--mlchaos-replay=gpu_omm(at=1)"],
            "",
            "unknown fault 'gpu_omm' (did you mean 'gpu_oom'?)",
        ),
    ],
)
def test_a_bad_command_line_stops_at_start_up(sensors, args, ini, message):
    """One line, before any test has run."""
    outcome = sensors("@chaos.stuck_sensor(at=0)\ndef test_it(): read()").with_ini(ini).run(*args)
    assert outcome.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "passed" not in outcome.outcomes
    outcome.has(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            "@chaos.stuck_sensor(att=1)",
            "BadArgument: stuck_sensor got an unknown keyword 'att' (did you mean 'at'?)",
        ),
        ("@chaos.stuck_sensor(at='x')", "at must be a visit number"),
        ("@chaos.stuck_sensor(value='x')", "value must be float, got 'x' (str)"),
        (
            "@chaos.stuck_sensor(3)",
            "faults take keywords only, as in @chaos.gpu_oom(at=7), got 3 (int)",
        ),
        (
            "@chaos.settings(max_trails=1)\n@chaos.stuck_sensor",
            "unknown setting 'chaos.settings: max_trails' (did you mean 'max_trials'?)",
        ),
        (
            "@chaos.call_failure(target='json:dumpz', at=0)",
            "TargetNotFound: target 'json:dumpz': json has no attribute 'dumpz'",
        ),
        (
            "@chaos.call_failure(target='json:dumpz')",
            "TargetNotFound: target 'json:dumpz': json has no attribute 'dumpz'",
        ),
        (
            "@chaos.call_failure(target=chaos.one_of('json:dumps', 'json:dumpz'))",
            "json has no attribute 'dumpz'",
        ),
        ("@pytest.mark.mlchaos(at=3)", "pytest.mark.mlchaos needs fault=. Write a decorator"),
        (
            "@chaos.crash(site=st.text())",
            "a parameter that decides the site cannot be a strategy. Use chaos.one_of",
        ),
    ],
)
def test_a_bad_mark_fails_that_one_test_in_a_line(sensors, declared, message):
    """The others run; no traceback of ours."""
    outcome = sensors(
        f"import pytest\nfrom hypothesis import strategies as st\n{declared}\ndef test_bad(): "
        f"read()\ndef test_good(): pass"
    ).run(failed=1, passed=1)
    outcome.has(message)
    assert "pytest_mlchaos/" not in outcome.text


@pytest.mark.slow
def test_an_unknown_fault_is_an_attribute_error_that_names_the_likely_one(example):
    """At import, as for any misspelt name."""
    example.with_tests("@chaos.gpu_omm\ndef test_it(): pass").run(errors=1).has(
        "chaos has no fault 'gpu_omm' (did you mean 'gpu_oom'?)"
    )


@pytest.mark.slow
def test_a_fault_that_never_struck_fails_the_test_by_name(sensors):
    """Explored, pinned too late, improbable, or at a site that is not passed; with the sites that
    were.
    """
    outcome = sensors("""
        @chaos.stuck_sensor(at=[10, 20])
        def test_late(): read()
        @chaos.crash(site="door.open")
        def test_elsewhere(): read()
        @chaos.crash(at=0, site="door.open")
        def test_elsewhere_pinned(): read()
        @chaos.stuck_sensor(p=0.000001)
        def test_improbable(): read()
        @chaos.stuck_sensor(at=3, where=lambda visit: False)
        def test_where(): read()
    """).run(failed=5)
    outcome.has(
        "stuck_sensor(at=[10, 20]) never struck: sensor.read was passed 10 times (visits 0 to 9)",
        "crash(site='door.open') never struck: door.open was never passed",
        "sites passed: sensor.read 10 times",
        "but p=1e-06 chose none of them with this seed. Raise p",
        "but where= was false at each visit that was due",
    )


@pytest.mark.slow
def test_a_rank_outside_of_a_world_is_named(sensors):
    """The fault waits for a rank of a world, and the test has none."""
    sensors("""
        @chaos.stuck_sensor(at=3, rank=1)
        def test_it(): read()
    """).run(failed=1).has(
        "stuck_sensor(at=3, rank=1) never struck", "but not in rank 1 of a world (mlchaos.world)"
    )


@pytest.mark.slow
def test_a_predicate_prints_as_the_visits_that_it_chose(sensors):
    """The pinned line was run, and failed in the same way."""
    sensors("""
        @chaos.stuck_sensor(at=chaos.EVERY, where=lambda visit: visit.index == 4, value=-1.0)
        def test_it():
            assert min(read()) >= 0
    """).run(failed=1).has("reproduce: @chaos.stuck_sensor(at=4, value=-1.0)")


@pytest.mark.slow
def test_a_line_that_does_not_reproduce_is_not_shown(sensors):
    """A predicate that depends on more than the visit cannot be replaced by visits."""
    outcome = sensors("""
        calls = []

        @chaos.stuck_sensor(at=chaos.EVERY, where=lambda visit: calls.append(visit.index) or visit.index == 4, value=-1.0)
        def test_it():
            calls.clear()
            values = read()
            assert not calls or min(values) >= 0
    """).run(failed=1)
    outcome.has("reproduce: run this test as it is", "does not print")
    assert not outcome.reproduce


@pytest.mark.slow
def test_never_struck_hides_no_exception_that_came_before(sensors):
    """The user's own error is the news."""
    outcome = sensors("""
        @chaos.stuck_sensor(at=99)
        def test_it():
            read(); raise RuntimeError("my own")
    """).run(failed=1)
    outcome.has("RuntimeError: my own")
    assert "never struck" not in outcome.text


@pytest.mark.slow
def test_a_broken_fault_is_reported_as_that_and_ends_the_exploration(sensors):
    """The report names the class and the line, and does not blame the subject."""
    outcome = sensors("""
        @chaos.register
        class Clumsy(Fault):
            '''Breaks.'''
            site = "sensor.read"
            def apply(self, visit):
                return visit.payload + "x"
        @chaos.clumsy
        def test_it():
            try: read()
            except Exception: pass
    """).run(failed=1)
    outcome.has(
        "FaultError: the fault Clumsy has a bug", "TypeError", "This says nothing about the subject"
    )
    assert "schedules tried" not in outcome.text


@pytest.mark.slow
def test_a_test_that_depends_on_more_than_its_schedule_is_told_so(sensors):
    """A failure that does not repeat is an error of its own kind."""
    sensors("""
        runs = []
        @chaos.stuck_sensor
        def test_it():
            read(); runs.append(1)
            assert len(runs) != 2
    """).run(failed=1).has("NotReproducible", "and passed when it was repeated")


@pytest.mark.slow
def test_a_test_that_fails_without_faults_says_so(sensors):
    """The first trial is without any."""
    sensors("""
        @chaos.stuck_sensor
        def test_it(): read(); assert False, "anyway"
    """).run(failed=1).has("AssertionError: anyway", "this is the first trial, without any fault")


@pytest.mark.slow
def test_skips_and_expected_failures_stay_what_they_are(sensors):
    """pytest.skip in the body, xfail marks; a test that every fault makes skip has tested nothing."""
    sensors("""
        import pytest
        @chaos.stuck_sensor
        def test_skip(): read(); pytest.skip("no")
        @pytest.mark.xfail(strict=True)
        @chaos.stuck_sensor
        def test_xfail(): assert 0.0 not in read()
        @chaos.stuck_sensor
        def test_skip_under_fault():
            if 0.0 in read(): pytest.skip("no")
        @chaos.stuck_sensor
        def test_skip_under_some():
            if 0.0 in read()[:5]: pytest.skip("no")
    """).run(skipped=2, xfailed=1, passed=1)


@pytest.mark.slow
def test_a_trial_that_hangs_is_cut_off_and_shrunk(sensors):
    """By the setting timeout, with the place where it stood."""
    outcome = sensors("""
        import threading
        @chaos.stuck_sensor
        @chaos.settings(timeout="200ms", max_trials=5, clock="real")
        def test_it():
            if 0.0 in read(3): threading.Event().wait(60)
    """).run(failed=1)
    outcome.has(
        "TrialTimeout: the trial took longer than 0.2 s",
        "It was in wait (",
        ", called by test_it (",
        "@chaos.stuck_sensor(at=0)",
    )


@pytest.mark.slow
@needs("pytest_timeout")
def test_the_users_own_time_out_ends_the_exploration_at_once(sensors):
    """pytest-timeout fires once: nothing may go on without it. The next test is untouched."""
    start = time.monotonic()
    outcome = sensors("""
        import pytest, threading
        @pytest.mark.timeout(1)
        @chaos.stuck_sensor
        @chaos.settings(clock="real")
        def test_it():
            if 0.0 in read(3): threading.Event().wait(60)
        def test_next(): assert read(2) == [1.0, 2.0]
    """).run(failed=1, passed=1)
    assert time.monotonic() - start < 20
    outcome.has("Timeout (>1.0s) from pytest-timeout", "struck: stuck_sensor(")


@pytest.mark.slow
def test_a_budget_ends_the_exploration_in_time(sensors):
    """The report shows what was found until then."""
    sensors("""
        import time
        @chaos.stuck_sensor
        @chaos.settings(max_trials=10000, budget="300ms", clock="real")
        def test_it(): time.sleep(0.02); read(200)
    """).run(passed=1)


@pytest.mark.slow
def test_a_given_of_the_users_own_runs_under_pinned_faults(sensors):
    """Visits are counted from 0 in each example; an open fault is refused with the cure."""
    outcome = sensors("""
        from hypothesis import given, settings, strategies as st
        seen = []
        @chaos.stuck_sensor(at=1)
        @given(st.integers())
        @settings(max_examples=20, database=None)
        def test_pinned(number):
            seen.append(number)
            assert read(3) == [1.0, 0.0, 3.0]
        def test_many(): assert len(seen) >= 20
        @chaos.stuck_sensor(at=1)
        @given(st.integers(0, 100))
        @settings(database=None)
        def test_fails(number): read(3); assert number < 10
        @chaos.stuck_sensor
        @given(st.integers())
        def test_open(number): read()
    """).run(passed=2, failed=2)
    # Not "number=10": Hypothesis 6.170 leaves the value out.
    outcome.has("needs pinned faults: give each fault at=", "assert 10 < 10")


@pytest.mark.slow
@needs("pytest_asyncio")
def test_async_tests_of_pytest_asyncio_are_explored(sensors):
    """Each trial in an event loop of its own."""
    outcome = sensors("""
        import asyncio, pytest
        loops = set()
        @pytest.mark.asyncio
        @chaos.stuck_sensor
        async def test_it(tmp_path):
            loops.add(id(asyncio.get_running_loop())); await asyncio.sleep(0)
            assert 0.0 not in read()[3:]
        @pytest.mark.asyncio
        @chaos.stuck_sensor(at=1)
        async def test_pinned(mlchaos): assert read(2) == [1.0, 0.0]
    """).run(failed=1, passed=1)
    assert outcome.reproduce == ["@chaos.stuck_sensor(at=3)"]


@pytest.mark.slow
@needs("anyio")
def test_async_tests_of_anyio_are_explored(sensors):
    """On each backend."""
    outcome = sensors("""
        import anyio, pytest
        @pytest.mark.anyio
        @chaos.stuck_sensor
        async def test_it(tmp_path):
            await anyio.sleep(0)
            assert 0.0 not in read()[3:]
    """).run("-p", "anyio", failed=2 if HAS["trio"] else 1)
    assert set(outcome.reproduce) == {"@chaos.stuck_sensor(at=3)"}


@pytest.mark.slow
def test_unittest_methods_are_refused_with_a_word(sensors):
    """They are run by unittest, not by pytest."""
    sensors("""
        import unittest
        class TestIt(unittest.TestCase):
            @chaos.stuck_sensor(at=0)
            def test_it(self): read()
    """).run(failed=1).has("not on methods of unittest.TestCase")


@pytest.mark.slow
@pytest.mark.parametrize("args", [("-p", "no:xdist"), ("-n0",), ("-n2",)], ids=" ".join)
def test_it_works_with_and_without_xdist(sensors, args):
    """The same report, the same journal, byte for byte; a failure's line to paste comes home from
    the worker.
    """
    if args[0] != "-p" and not HAS["xdist"]:
        pytest.skip("needs xdist")
    project = sensors("""
        import pytest
        @chaos.stuck_sensor
        @pytest.mark.parametrize("limit", [2, 3, 4])
        def test_it(limit): assert 0.0 not in read()[limit:]
        @chaos.stuck_sensor(p=0.3)
        def test_passes(): read()
    """)
    journal = project.pytester.path / "j.jsonl"
    outcome = project.run(
        *args,
        "--mlchaos-seed=3",
        f"--mlchaos-journal={journal}",
        interpreter=True,
        failed=3,
        passed=1,
    )
    assert sorted(line for line in outcome.reproduce if "settings" not in line) == [
        f"@chaos.stuck_sensor(at={n})" for n in (2, 3, 4)
    ]
    project.run("-p", "no:xdist", "--mlchaos-seed=3", "--mlchaos-journal=k.jsonl", interpreter=True)
    assert journal.read_bytes() == (project.pytester.path / "k.jsonl").read_bytes()
    assert journal.stat().st_size > 1000


@pytest.mark.slow
def test_the_journal_is_the_same_a_hundred_times(sensors):
    """One seed, one journal, byte for byte."""
    project = sensors("""
        import pytest
        @pytest.mark.parametrize("turn", range(10))
        @chaos.stuck_sensor(value=chaos.one_of(0.0, 2.0))
        @chaos.crash(p=0.1, times=2, site="door.open")
        def test_it(mlchaos, turn):
            def subject():
                values = read()
                for _ in range(20): visit("door.open")
                return values
            assert len(mlchaos.run(subject).value) == 10
    """)
    journals = set()
    for number in range(10):
        path = project.pytester.path / f"{number}.jsonl"
        project.run(
            "--mlchaos-seed=7", "--mlchaos-max-trials=8", f"--mlchaos-journal={path}", passed=10
        )
        turns = {}
        for entry in entries_in(path, "strike"):
            turns.setdefault(entry.pop("test"), []).append(json.dumps(entry, sort_keys=True))
        assert len(turns) == 10
        journals |= {"\n".join(lines) for lines in turns.values()}
    assert len(journals) == 1
    assert journals.pop().count("\n") > 10


@pytest.mark.slow
def test_another_plugin_may_own_the_names_chaos(sensors):
    """A mark, a fixture, an option and an ini option of that name do not disturb this plugin, nor
    it them.
    """
    project = sensors("""
        import pytest
        @pytest.mark.chaos
        @chaos.stuck_sensor(at=0)
        def test_it(chaos, request):
            assert chaos == "theirs" and request.config.getoption("chaos") == "x"
            assert read(1) == [0.0]
    """).with_file(
        "conftest.py",
        """
        import pytest
        def pytest_addoption(parser):
            parser.addoption("--chaos", dest="chaos"); parser.addini("chaos", "theirs")
        def pytest_configure(config):
            config.addinivalue_line("markers", "chaos: theirs")
        @pytest.fixture(name="chaos")
        def their_chaos(): return "theirs"
        """,
    )
    project.run("--strict-markers", "--chaos=x", passed=1)


@pytest.mark.slow
def test_it_loads_by_name_without_autoload(sensors, monkeypatch):
    """``pytest -p mlchaos``; and not at all when it is blocked."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    project = (
        sensors("@chaos.stuck_sensor(at=0)\ndef test_it(mlchaos): assert read(1) == [0.0]")
        .with_ini("")
        .with_file("pytest.ini", "[pytest]\n")
    )
    project.run("-p", "mlchaos", fresh=True, passed=1)
    project.run(fresh=True, errors=1).has("fixture 'mlchaos' not found")


@pytest.mark.slow
def test_ctrl_c_ends_the_session_and_leaves_nothing_patched(sensors):
    """In the middle of an exploration; the journal is written all the same."""
    project = sensors("""
            import json, os, signal
            trials = []
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            @chaos.call_delay(target="json:dumps", delay=0.01)
            @chaos.settings(max_trials=100000)
            def test_it(tmp_path):
                trials.append(1)
                for _ in range(20):
                    json.dumps({})
                    if len(trials) == 7:
                        os.kill(os.getpid(), signal.SIGINT)
    """).with_file(
        "conftest.py",
        """
        import json
        original = json.dumps
        def pytest_sessionfinish(): print("restored" if json.dumps is original else "PATCHED")
        """,
    )
    outcome = project.run("-s", "--mlchaos-journal=j.jsonl", fresh=True)
    assert outcome.exit_code == pytest.ExitCode.INTERRUPTED
    outcome.has("KeyboardInterrupt", "restored")
    assert "PATCHED" not in outcome.text
    assert (project.pytester.path / "j.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MLCHAOS_FORBID": "1"}, "MLCHAOS_FORBID is set"),
        ({"APP_ENV": "Production"}, "this looks like production (APP_ENV matches"),
    ],
)
def test_nothing_is_injected_where_it_is_forbidden(sensors, monkeypatch, environment, message):
    """Nor in what looks like production; with the faults off, and without faults, tests run."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    project = sensors(
        "@chaos.stuck_sensor(at=0)\ndef test_it(): read()\ndef test_plain(mlchaos): read()"
    )
    project.run(failed=1, passed=1).has(message, "--mlchaos-off")
    project.run("--mlchaos-off", passed=2)


@pytest.mark.slow
def test_the_fixture_is_for_the_body_of_a_test(sensors):
    """In other places the fixture says that there is not a trial."""
    sensors("""
        import pytest
        @pytest.fixture
        def early(mlchaos): return mlchaos.run(read)
        def test_it(early): pass
    """).run(errors=1).has("works only while the body of a test runs")


@pytest.mark.slow
def test_a_green_session_says_how_much_was_tried(sensors):
    """One line for all chaos tests; none where there is none; the XML has it for each test."""
    project = sensors("""
        @chaos.stuck_sensor
        @chaos.settings(max_trials=4)
        def test_it(): read()
        @chaos.stuck_sensor(at=[0, 1])
        def test_other(): read()
        def test_plain(mlchaos): read()
    """)
    project.run("--junitxml=report.xml", passed=3).has("mlchaos: 2 chaos tests, 6 trials, ")
    assert (
        'name="mlchaos" value="1 trials, 2 faults struck"'
        in (project.pytester.path / "report.xml").read_text()
    )
    assert "mlchaos: " not in project.run("-k", "plain", passed=1).text.replace("plugins: ", "")


@pytest.mark.slow
def test_junit_and_last_failed_work_as_ever(sensors):
    """The report is in the XML; ``--lf``, ``-x`` and a node id select as usual."""
    project = sensors("""
        import pytest
        @chaos.stuck_sensor
        @pytest.mark.parametrize("limit", [3, 99])
        def test_it(limit): assert 0.0 not in read()[limit:]
    """)
    project.run("--junitxml=report.xml", failed=1, passed=1)
    assert (
        "reproduce: @chaos.stuck_sensor(at=3)" in (project.pytester.path / "report.xml").read_text()
    )
    project.run("test_it.py::test_it[99]", passed=1)
    project.run("-p", "cacheprovider", "-x", failed=1)
    project.run("-p", "cacheprovider", "--lf", failed=1, passed=0)


@pytest.mark.slow
def test_one_value_of_a_pinned_fault_is_drawn_at_a_time(sensors):
    """Alternatives are alternatives: the one that breaks is found, and not hidden by another."""
    outcome = sensors("""
        @chaos.stuck_sensor(at=1, value=chaos.one_of(5.0, -1.0, 6.0))
        def test_it():
            values = read(3)
            assert values[1] in (2.0, 5.0, 6.0)
    """).run(failed=1)
    assert outcome.reproduce == ["@chaos.stuck_sensor(at=1, value=-1.0)"]


@pytest.mark.slow
def test_each_declaration_has_to_strike(sensors):
    """Another of the same kind does not stand in for it."""
    outcome = sensors("""
        @chaos.stuck_sensor(at=500)
        @chaos.stuck_sensor
        def test_explored(): read()
        @chaos.stuck_sensor(at=500)
        @chaos.stuck_sensor(at=1)
        def test_fixed(): read()
    """).run(failed=2)
    assert outcome.text.count("stuck_sensor(at=500) never struck") >= 2


QUIET_TESTS = """
    {mark}
    @chaos.stuck_sensor(at=500)
    @chaos.stuck_sensor(at=1)
    def test_fixed(): read()
    {mark}
    @chaos.stuck_sensor(at=500)
    @chaos.stuck_sensor
    def test_explored(): read()
    {mark}
    @chaos.stuck_sensor
    def test_no_visit(): pass
    {mark}
    @chaos.stuck_sensor(value=chaos.one_of(1.0, 2.0))
    def test_no_visit_of_any_variant(): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "args", "ini"),
    [
        ("@chaos.settings(allow_quiet=True)", [], ""),
        ("", ["--mlchaos-allow-quiet"], ""),
        ("@chaos.settings(allow_quiet=False)", ["--mlchaos-allow-quiet=true"], ""),
        ("", [], "mlchaos_allow_quiet = true"),
    ],
)
def test_allow_quiet_permits_faults_that_strike_nothing(sensors, mark, args, ini):
    """With a fixed schedule, in an exploration, and if no visit exists."""
    sensors(QUIET_TESTS.format(mark=mark)).with_ini(ini).run(*args, passed=4)


@pytest.mark.slow
def test_without_allow_quiet_a_silent_fault_fails(sensors):
    """The command line can take the permission back."""
    sensors(QUIET_TESTS.format(mark="")).run(failed=4)
    sensors(QUIET_TESTS.format(mark="@chaos.settings(allow_quiet=True)")).run(
        "--mlchaos-allow-quiet=false", failed=4
    )


@pytest.mark.slow
def test_allow_quiet_hides_no_failure(sensors):
    """Faults that do strike are judged as ever."""
    outcome = sensors("""
        @chaos.settings(allow_quiet=True)
        @chaos.stuck_sensor(at=1)
        def test_fixed(): assert 0.0 not in read()
        @chaos.settings(allow_quiet=True)
        @chaos.stuck_sensor
        def test_explored(): assert 0.0 not in read()
    """).run(failed=2)
    assert outcome.reproduce == ["@chaos.stuck_sensor(at=1)", "@chaos.stuck_sensor(at=0)"]


@pytest.mark.slow
def test_what_the_user_pinned_is_not_shrunk(sensors):
    """A fixed and an open fault of one kind: only the open one moves."""
    outcome = sensors("""
        @chaos.stuck_sensor(at=4, value=4.0)
        @chaos.stuck_sensor(value=-1.0)
        def test_it():
            values = read()
            assert not (values[4] == 4.0 and -1.0 in values)
        @chaos.crash(p=0.9, site="door.open")
        @chaos.crash(site="door.open")
        def test_p(mlchaos):
            mlchaos.run(lambda: visit("door.open") or 1, max_restarts=0)
    """).run(failed=2)
    assert "@chaos.stuck_sensor(at=4, value=4.0)" in outcome.reproduce
    assert "@chaos.stuck_sensor(at=0, value=-1.0)" in outcome.reproduce
    assert "TypeError" not in outcome.text


@pytest.mark.slow
def test_of_alternatives_the_first_that_fails_is_reported(sensors):
    """The order in one_of is the user's idea of simple."""
    outcome = sensors("""
        @chaos.stuck_sensor(value=chaos.one_of(1000.5, -2000.25, 0.0))
        def test_it():
            assert all(value in range(1, 11) for value in read())
        @chaos.stuck_sensor(value=chaos.one_of(3.0, -2000.25, 0.0))
        def test_second():
            assert all(value in range(1, 11) for value in read())
    """).run(failed=2)
    assert outcome.reproduce == [
        "@chaos.stuck_sensor(at=0, value=1000.5)",
        "@chaos.stuck_sensor(at=0, value=-2000.25)",
    ]


@pytest.mark.slow
def test_a_failure_shows_the_output_of_the_trial_that_is_reported(sensors):
    """Not what fifty others printed and logged."""
    outcome = sensors("""
        import logging
        @chaos.stuck_sensor
        def test_it():
            values = read(3)
            print("printed", values); logging.getLogger("x").warning("logged %s", values)
            assert 0.0 not in values[1:]
    """).run(failed=1)
    assert outcome.text.count("printed [1.0, 0.0, 3.0]") == 1
    assert outcome.text.count("printed [") == 1
    assert outcome.text.count("logged [") == 1


@pytest.mark.slow
def test_failures_show_no_frames_of_the_package_unless_all_are_asked_for(example):
    """Neither in a test's failure nor in one of collection."""
    project = example.with_tests("""
        def test_it(mlchaos):
            mlchaos.run(1)
    """).with_file(
        "test_collected.py",
        "from pytest_mlchaos import chaos\n@chaos.gpu_omm\ndef test_it(): ...\n",
    )
    outcome = project.run("--continue-on-collection-errors", failed=1, errors=1)
    outcome.has("mlchaos.run(1)", "@chaos.gpu_omm")
    frames = re.compile(r"pytest_mlchaos/\w+/?\w*\.py:\d+")
    assert not frames.search(outcome.text), outcome.text
    assert frames.search(project.run("--continue-on-collection-errors", "--full-trace").text)
