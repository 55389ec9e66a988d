"""A run inside another run's subject is refused: both would count the visits, and end the process,
of one another.
"""

from __future__ import annotations

import textwrap

import pytest

ENTRIES = {
    "mlchaos.run": "mlchaos.run(inner, folder)",
    "mlchaos.explore_crashes": "mlchaos.explore_crashes(inner, folder)",
    "mlchaos.pipeline": "mlchaos.pipeline(inner, folder)",
}
INNER = """
    import contextlib, threading

    def inner(folder):
        (folder / "x").write_text("1")
        return 1
"""


@pytest.fixture
def project(example):
    """A project with these tests."""
    return lambda tests: example.with_tests(textwrap.dedent(INNER) + textwrap.dedent(tests))


@pytest.mark.slow
@pytest.mark.parametrize("outside", ENTRIES)
def test_a_run_inside_another_ones_subject_is_refused(project, outside):
    """The error names both, and what to do."""
    tests = [
        f"""
        def test_{number}(mlchaos, tmp_path):
            def outer(folder):
                {inside}
                return 1
            folder = tmp_path
            {ENTRIES[outside].replace("inner", "outer")}
        """
        for number, inside in enumerate(ENTRIES.values())
    ]
    outcome = project("".join(map(textwrap.dedent, tests))).run(failed=3)
    assert outcome.has("Call it in the test, after the first one has returned")
    assert outcome.has(
        *(f"{inside} was called inside the subject of {outside}" for inside in ENTRIES)
    )


def test_a_refusal_that_the_subject_catches_fails_the_test(project):
    """BadArgument is a ValueError, which a subject may take for a failure of its own."""
    project("""
        def test_it(mlchaos, tmp_path):
            def outer(folder):
                try:
                    mlchaos.run(inner, folder)
                except ValueError:
                    return 0
            mlchaos.run(outer, tmp_path)
    """).run(failed=1).has("mlchaos.run was called inside the subject of mlchaos.run")


@pytest.mark.slow
def test_a_run_beside_another_one_in_a_thread_is_refused(project):
    """Two runs at a time would share one count of visits."""
    project("""
        def test_it(mlchaos, tmp_path):
            def nested(folder):
                with contextlib.suppress(ValueError):
                    mlchaos.run(inner, folder)

            def outer(folder):
                thread = threading.Thread(target=nested, args=(folder,))
                thread.start()
                thread.join()
            mlchaos.run(outer, tmp_path)
    """).run(failed=1).has("or in a thread beside it")


@pytest.mark.slow
def test_a_service_inside_a_run_is_allowed_and_runs_follow_each_other(project):
    """Subjects may serve and drive an app, and a second run may follow one that failed."""
    project("""
        import pytest

        def test_it(mlchaos, tmp_path):
            def serves(folder):
                return [reply.value for reply in mlchaos.serve(lambda request: request + 1).drive([1, 2]).replies]

            assert mlchaos.run(serves, tmp_path).value == [2, 3]
            with pytest.raises(ZeroDivisionError):
                mlchaos.run(lambda: 1 / 0)
            assert mlchaos.run(inner, tmp_path).restarts == 0
            mlchaos.explore_crashes(inner, tmp_path / "a", isolation="in-process").assert_recovers(from_scratch=True)
    """).run(passed=1)
