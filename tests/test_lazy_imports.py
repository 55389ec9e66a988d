"""Test that an exploration, or a golden run of a service, leaves only imports for later tests."""

from __future__ import annotations

import sys
import types

import pytest

from pytest_mlchaos.crashes.leaks import Leftovers
from pytest_mlchaos.engine.user_code import Project, for_project
from pytest_mlchaos.runs.module_globals import GlobalContainers

PACKAGE = {
    "plugins/__init__.py": """
        REGISTRY, ORDER, NAMES, LOADED = {"base": dict}, ["base"], set(), {}
        NESTED = {"kinds": {}}
        MANY = [1, 1]

        def register(name):
            def add(cls):
                assert name not in REGISTRY, f"{name} is registered already"
                REGISTRY[name] = cls
                ORDER.append(name)
                NAMES.add(name)
                NESTED["kinds"][name] = cls
                MANY.extend([1, 2])
                return cls
            return add
    """,
    "plugins/lazy.py": """
        from plugins import register
        from plugins import deeper

        TABLE = {"rows": []}

        @register("lazy")
        class Lazy:
            pass
    """,
    "plugins/deeper.py": """
        import plugins
        plugins.BACKEND = "deeper"
        plugins.LOADED["early"] = True
    """,
}
FOREIGN_SUITE = """
    import sys
    import plugins

    def test_the_submodule_is_there():
        import plugins.lazy
        assert plugins.lazy is sys.modules["plugins.lazy"] and plugins.BACKEND == "deeper"

    def test_its_registration_is_there():
        import plugins.lazy
        assert plugins.REGISTRY == {"base": dict, "lazy": plugins.lazy.Lazy}
        assert plugins.ORDER == ["base", "lazy"] and plugins.NAMES == {"lazy"}
        assert plugins.NESTED == {"kinds": {"lazy": plugins.lazy.Lazy}} and plugins.MANY == [1, 1, 1, 2]

    def test_nothing_else_is():
        import plugins.lazy
        assert plugins.lazy.TABLE == {"rows": []}
        assert set(plugins.LOADED) <= {"early"} | {key for key, held in plugins.LOADED.items() if held is plugins.lazy}
"""
JOB = """
    import importlib

    import plugins

    def train(workdir):
        plugins.LOADED["before"] = True
        plugins.ORDER.append("a run's own")
        lazy = importlib.import_module("plugins.lazy")
        plugins.REGISTRY["lazy"]()
        plugins.ORDER.remove("a run's own")
        plugins.REGISTRY["a run's own"] = train
        lazy.TABLE["rows"].append(len(lazy.TABLE["rows"]))
        path = workdir / "n.txt"
        for n in range(int(path.read_text() or 0) if path.exists() else 0, 3):
            path.write_text(str(n + 1))
        return len(lazy.TABLE["rows"]), sorted(plugins.REGISTRY)
"""


@pytest.fixture
def project(example, monkeypatch):
    """The package, and a job that imports half of it late."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("plugins", "job", "test_foreign"):
            monkeypatch.delitem(sys.modules, name)
    for name, source in PACKAGE.items():
        example = example.with_file(name, source)
    return example.with_file("job.py", JOB).with_file("test_foreign.py", FOREIGN_SUITE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "explored",
    [
        "mlchaos.explore_crashes(job.train, tmp_path, isolation='in-process').assert_recovers()",
        "mlchaos.explore_crashes(job.train, tmp_path).assert_recovers()",
        "service = mlchaos.serve(lambda number: job.train(tmp_path)); load = service.drive([1, "
        "2]); assert load.replies and load.golden",
    ],
    ids=["crashes in process", "crashes", "served"],
)
def test_a_suite_passes_after_an_exploration_as_before_it(project, explored):
    """Late imports, and what they registered, stay; what the runs left in containers does not."""
    suite = (
        "test_foreign.py"
        if "serve" not in explored
        else "test_foreign.py::test_its_registration_is_there"
    )
    project.with_tests(f"""
        import job

        def test_it(mlchaos, tmp_path):
            {explored}
    """).run(
        "test_it.py",
        suite.replace("::test_its_registration_is_there", "::test_the_submodule_is_there"),
        interpreter=True,
        failed=0,
    )


@pytest.mark.slow
def test_an_ordinary_test_finds_a_submodule_that_was_imported_late(example, monkeypatch):
    """``import pkg`` at the top, ``import pkg.io`` in the subject: the name in the package is
    there, in the next exploration, too.
    """
    for name in ("late_pkg", "late_pkg.io"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    example.with_file("late_pkg/__init__.py", "").with_file(
        "late_pkg/io.py", "def save(path, text):\n    path.write_text(text)\n"
    ).with_tests("""
        import late_pkg

        def job(workdir):
            import late_pkg.io
            path = workdir / "n.txt"
            for n in range(int(path.read_text() or 0) if path.exists() else 0, 3):
                late_pkg.io.save(path, str(n + 1))

        def test_explored(mlchaos, tmp_path):
            mlchaos.explore_crashes(job, tmp_path).assert_recovers()

        def test_after(tmp_path):
            job(tmp_path)

        def test_explored_again(mlchaos, tmp_path):
            mlchaos.explore_crashes(job, tmp_path).assert_recovers()
    """).run(passed=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guard", "told"),
    [
        ("", "restored before each run, as a new process would find it: test_it.model"),
        (
            "Guard.ready = True",
            "each run in a fresh process: it leaves a value in test_it.model, where the next run "
            "would find it",
        ),
    ],
    ids=["name", "name and class"],
)
def test_a_model_in_a_modules_name_does_not_survive_a_crash(example, guard, told):
    """The name is put back, between the runs and at the end; if something else says that it is
    bound, the runs need fresh processes.
    """
    example.with_tests(f"""
        model = None

        class Guard:
            ready = False

        def train(workdir):
            global model
            path = workdir / "n.txt"
            if model is None:
                model = [0 if path.exists() else 1]
                {guard}
            path.write_text("x")
            path.write_text("y")
            return model[0]

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(train, tmp_path)
            assert report.failures
            assert {told!r} in str(report), str(report)

        def test_after():
            assert (model is None) is not Guard.ready
    """).run(passed=2)


GUARDS = {
    "a name": "global ready\n            if not ready:\n                ready = True",
    "a class": "if not Guard.ready:\n                Guard.ready = True",
    "an object": "if not guard.__dict__:\n                guard.ready = True",
    "a cache": "if first():",
}


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS)
def test_a_container_is_left_filled_if_what_guards_it_cannot_be_put_back(example, guard):
    """Half of a run's traces gone would break the next test: it would find the guard, and not what
    that guards.
    """
    example.with_tests(f"""
        import functools

        FILLED, ready = {{}}, False

        class Guard:
            ready = False

        guard = Guard()

        @functools.cache
        def first():
            FILLED["x"] = 1

        def train(workdir):
            {guard}
                FILLED["x"] = 1
            (workdir / "n.txt").write_text("done")
            return FILLED["x"]

        def test_it(mlchaos, tmp_path):
            assert mlchaos.explore_crashes(train, tmp_path).outcomes

        def test_after(tmp_path):
            assert train(tmp_path) == 1
    """).run(passed=2)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module."""
    made = types.ModuleType("of_the_user")
    made.__file__ = str(tmp_path / "of_the_user.py")
    monkeypatch.setitem(sys.modules, "of_the_user", made)
    with for_project(Project((str(tmp_path),))):
        yield made


def test_a_container_that_holds_modules_stays_as_it_is(module):
    """They stay imported; a loader would not look for them again."""
    module.LOADED, module.PLAIN = {}, {}
    kept = GlobalContainers()
    module.LOADED["sys"], module.PLAIN["x"] = sys, 1
    kept.restore()
    assert list(module.LOADED) == ["sys"]
    assert module.PLAIN == {}


def test_the_modules_that_are_loaded_are_no_container_of_the_users(module, monkeypatch):
    """``from sys import modules``."""
    module.modules, module.holder = sys.modules, [sys.modules]
    kept = GlobalContainers()
    monkeypatch.setitem(sys.modules, "came_later", types.ModuleType("came_later"))
    kept.restore()
    assert "came_later" in sys.modules


def test_an_import_that_fails_has_done_what_it_has_done(module, tmp_path, monkeypatch):
    """Python does not undo it either; its error shows no frame of ours."""
    (tmp_path / "breaks.py").write_text("import of_the_user\nof_the_user.SEEN.append(1)\n1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module.SEEN = []
    kept = GlobalContainers()
    with kept.following_imports(), pytest.raises(ZeroDivisionError) as caught:
        import breaks  # noqa: F401
    assert [entry.name for entry in caught.traceback] == [
        "test_an_import_that_fails_has_done_what_it_has_done",
        "<module>",
    ]
    module.SEEN.append(2)
    kept.restore()
    assert module.SEEN == [1]


def test_a_module_attribute_that_an_import_sets_is_no_runs_doing(module, tmp_path, monkeypatch):
    """Nor is a name that is bound to what was imported."""
    (tmp_path / "sets.py").write_text("import of_the_user\nof_the_user.BACKEND = 'set'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module.BACKEND, module.json, module.count = None, None, 1000
    before = Leftovers()
    with before.following_imports():
        import json

        import sets  # noqa: F401

        module.json = json
        module.count = int("1000")
    assert before.in_globals() == []
    module.count += 1
    module.late = print
    assert before.in_globals() == ["of_the_user.count"]
    monkeypatch.delitem(sys.modules, "sets")


def test_a_function_that_a_run_replaces_comes_back_and_so_does_a_name_that_it_deletes(module):
    """The next run would wrap the wrapper."""
    module.step, module.spare = (lambda: 1), 2000
    step, before = module.step, Leftovers()
    module.step = lambda: step() + 1
    del module.spare
    assert sorted(before.in_globals()) == ["of_the_user.spare", "of_the_user.step"]
    before.restore()
    assert module.step is step
    assert module.spare == 2000
