"""Which code is the user's: libraries may be anywhere, and so may the project."""

from __future__ import annotations

import functools
import json
import os
import sys
import textwrap
import zipfile

import pytest

from pytest_mlchaos.engine import user_code
from pytest_mlchaos.engine.user_code import (
    Project,
    for_project,
    is_installed,
    is_users,
    take_subject,
)


@pytest.fixture
def folder(tmp_path):
    """A folder with a project in it, of which nothing is known yet."""
    (tmp_path / "project").mkdir()
    with for_project(Project((str(tmp_path / "project"),))):
        yield tmp_path


def written(path, text=""):
    """The file, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def installed(target, *files, origin=None):
    """Return what pip leaves of a distribution in a folder."""
    for file in files:
        written(target / file)
    written(
        target / "dist-1.0.dist-info" / "METADATA",
        "Metadata-Version: 2.1\nName: dist\nVersion: 1.0\n",
    )
    written(
        target / "dist-1.0.dist-info" / "RECORD",
        "".join(f"{file},sha256=x,0\n" for file in files) + "dist-1.0.dist-info/RECORD,,\n",
    )
    if origin is not None:
        written(target / "dist-1.0.dist-info" / "direct_url.json", json.dumps(origin))


@pytest.mark.parametrize(
    ("file", "marks", "users"),
    [
        ("project/train.py", [], True),
        ("project/src/pkg/train.py", ["project/src/pkg.egg-info/SOURCES.txt"], True),
        ("project/bin/train", [], True),
        ("project/model.cpython-311-x86_64-linux-gnu.so", [], True),
        ("elsewhere/lib/tool.py", [], False),
        ("project2/train.py", [], False),
        ("project/.venv/lib/python3.11/site-packages/tool.py", [], False),
        ("project/.venv/lib/python3.11/tool.py", ["project/.venv/pyvenv.cfg"], False),
        ("project/envs/a/lib/python3.11/tool.py", ["project/envs/a/conda-meta/history"], False),
        ("project/usr/lib/python3/dist-packages/tool.py", [], False),
        ("project/__pypackages__/3.11/lib/tool.py", [], False),
        ("project/eggs/tool-1.0-py3.11.egg/tool.py", [], False),
        ("project/train.py", ["project/pyvenv.cfg"], True),
        ("project/train.py", ["pyvenv.cfg"], True),
        ("project/fast.pyx", [], False),
        ("project/fast.pxi", [], False),
    ],
)
def test_a_file_is_the_users_by_where_it_is(folder, file, marks, users):
    """In the project, and not in an environment below it; an environment around the project makes
    no library of it.
    """
    for mark in marks:
        written(folder / mark)
    assert is_users(str(written(folder / file))) is users


@pytest.mark.parametrize(
    "name",
    [
        "<string>",
        "<attrs generated init Model>",
        "<frozen importlib._bootstrap>",
        "pandas/_libs/x.py",
        "stringsource",
    ],
)
def test_generated_code_is_never_the_users(folder, monkeypatch, name):
    """Compiled code names files relative to the folder that it was built in."""
    monkeypatch.chdir(folder / "project")
    assert not is_users(name)


def test_what_pip_installed_into_a_folder_of_the_project_is_a_library(folder):
    """``pip install --target lib``: what the distribution lists, and not what the user keeps beside
    it.
    """
    lib = folder / "project" / "lib"
    installed(lib, "tool.py", "space/tool/__init__.py")
    assert not is_users(str(lib / "tool.py"))
    assert not is_users(str(lib / "space" / "tool" / "__init__.py"))
    assert is_users(str(written(lib / "mine.py")))
    assert is_users(str(written(lib / "space" / "mine" / "__init__.py")))


def test_what_was_installed_around_the_project_is_a_library_if_it_is_on_the_path(
    folder, monkeypatch
):
    """``PYTHONPATH=/shared/lib``, with the project somewhere in there."""
    installed(folder, "project/tool.py")
    monkeypatch.syspath_prepend(str(folder))
    assert not is_users(str(folder / "project" / "tool.py"))
    assert is_users(str(written(folder / "project" / "mine.py")))


def test_an_editable_install_is_the_users(folder, monkeypatch):
    """Its source may be outside of the project."""
    site, source = folder / "env" / "site-packages", folder / "common"
    installed(
        site,
        "__editable__.dist.pth",
        origin={"url": source.as_uri(), "dir_info": {"editable": True}},
    )
    monkeypatch.syspath_prepend(str(site))
    assert is_users(str(written(source / "dist" / "train.py")))
    assert not is_users(str(written(folder / "uncommon" / "train.py")))


def test_links_are_followed_both_ways(folder, monkeypatch):
    """A link to the project is the project; a link to a library is a library; pip's links into a
    cache are one, too.
    """
    site, project = folder / "env" / "site-packages", folder / "project"
    mine, tool = written(project / "pkg" / "mine.py"), written(site / "tool.py")
    (folder / "alias").symlink_to(project, target_is_directory=True)
    (site / "pkg").symlink_to(project / "pkg", target_is_directory=True)
    (project / "tool.py").symlink_to(tool)
    (project / "libs").symlink_to(site, target_is_directory=True)
    assert is_users(str(mine))
    assert is_users(str(folder / "alias" / "pkg" / "mine.py"))
    assert is_users(str(site / "pkg" / "mine.py"))
    assert not is_users(str(project / "tool.py"))
    assert not is_users(str(project / "libs" / "tool.py"))
    installed(site, "cached/__init__.py")
    (site / "cached" / "__init__.py").unlink()
    (site / "cached" / "__init__.py").symlink_to(
        written(project / ".cache" / "abc" / "__init__.py")
    )
    monkeypatch.syspath_prepend(str(site))
    assert not is_users(str(site / "cached" / "__init__.py"))
    with for_project(Project((str(folder / "alias"),))):
        assert is_users(str(mine))


def test_a_linked_file_outside_of_the_project_is_what_it_is_called(folder):
    """Bazel links each source file into a folder of its own."""
    (folder / "project" / "test_x.py").symlink_to(written(folder / "workspace" / "test_x.py"))
    assert is_users(str(folder / "project" / "test_x.py"))


def test_a_zip_file_counts_as_a_folder(folder):
    """The modules of one that holds a distribution are a library's."""
    for name, record in (("lib.zip", True), ("mine.zip", False)):
        with zipfile.ZipFile(folder / "project" / name, "w") as archive:
            archive.writestr("tool.py", "")
            if record:
                archive.writestr("dist-1.0.dist-info/METADATA", "Name: dist\nVersion: 1.0\n")
                archive.writestr("dist-1.0.dist-info/RECORD", "tool.py,,\n")
    assert not is_users(str(folder / "project" / "lib.zip" / "tool.py"))
    assert is_users(str(folder / "project" / "mine.zip" / "tool.py"))


def test_the_standard_library_and_this_package_are_never_the_users(tmp_path):
    """Even if the whole disk is the project, as where pytest is given folders that have no other in
    common.
    """
    with for_project(Project((os.path.abspath(os.sep),))):
        assert not is_users(os.__file__)
        assert not is_users(user_code.__file__)
        assert not is_users(pytest.__file__)
        assert is_users(str(written(tmp_path / "train.py")))


def test_without_a_project_all_is_the_users_that_is_not_installed(tmp_path):
    """Oracles used outside of pytest have no project."""
    with for_project(Project()):
        assert is_users(str(written(tmp_path / "train.py")))
        assert not is_users(str(written(tmp_path / "site-packages" / "tool.py")))
        assert not is_users(pytest.__file__)


@pytest.fixture
def module(folder, monkeypatch):
    """Makes a package ``installed_job`` in a folder for packages, with a function, a class and an
    object; gives its module ``work``.
    """

    def make(origin=None, site="site-packages"):
        target = folder / "env" / site
        installed(
            target,
            "installed_job/__init__.py",
            "installed_job/work.py",
            "other_tool.py",
            origin=origin,
        )
        written(
            target / "installed_job" / "work.py",
            "class Job:\n    def run(self, x): return x\n    def __call__(self, x): return "
            "x\n\ndef work(x): return x\n",
        )
        monkeypatch.syspath_prepend(str(target))
        import installed_job.work

        return installed_job.work

    yield make
    for name in ("installed_job", "installed_job.work"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "subject",
    [
        lambda module: module.work,
        lambda module: functools.partial(module.work, 1),
        lambda module: module.Job,
        lambda module: functools.wraps(module.work)(lambda x: x),
    ],
    ids=["function", "partial", "class", "wrapped"],
)
def test_the_subjects_package_is_the_users_wherever_it_is(module, subject):
    """All of its top-level package, and nothing else that is installed there; until the test is
    over.
    """
    work = module()
    site = os.path.dirname(os.path.dirname(work.__file__))
    with for_project(user_code.current_project()):
        take_subject(subject(work))
        assert is_users(work.__file__)
        assert is_users(os.path.join(site, "installed_job", "__init__.py"))
        assert not is_users(os.path.join(site, "other_tool.py"))
    assert not is_users(work.__file__)


@pytest.mark.parametrize(
    ("origin", "users"),
    [(None, False), ({"url": "file:///home/me/job", "dir_info": {}}, True)],
    ids=["index", "folder"],
)
@pytest.mark.parametrize(
    "subject",
    [lambda module: module.Job().run, lambda module: module.Job()],
    ids=["method", "object"],
)
def test_an_object_of_a_library_does_not_make_the_library_the_users(module, subject, origin, users):
    """``trainer.fit`` and a web framework's app are subjects; their class is the user's if the user
    installed it from a folder.
    """
    work = module(origin)
    take_subject(subject(work))
    assert is_users(work.__file__) is users


def test_a_subject_outside_of_the_project_brings_its_folder(folder, monkeypatch):
    """Its neighbours are the user's, too; built-in functions bring nothing."""
    code = compile("def work(): pass", str(written(folder / "jobs" / "work.py")), "exec")
    namespace = {"__name__": "work"}
    exec(code, namespace)
    take_subject(namespace["work"])
    take_subject(print)
    take_subject(os.path.join)
    assert is_users(str(written(folder / "jobs" / "helper.py")))
    assert not is_users(os.__file__)


def test_an_installed_file_is_told_without_a_project(folder):
    """No storage fault touches a library's files, wherever it is; data of the user's it may."""
    installed(folder / "project" / "lib", "tool/data.json")
    assert is_installed(pytest.__file__)
    assert is_installed(str(written(folder / "env" / "site-packages" / "tool" / "data.json")))
    assert not is_installed(str(written(folder / "project" / "data.json")))


LIBRARY = """
    CACHE = {}

    def check(x):
        if x in CACHE:
            raise RuntimeError("never twice in a process")
        CACHE[x] = True

    def refuse(path):
        raise ValueError(f"cannot read {path.name}")
"""
JOB = """
    import shared_tool

    SEEN = []

    def train(workdir):
        SEEN.append(1)
        shared_tool.CACHE.setdefault("runs", [])
        shared_tool.CACHE["runs"].append(len(SEEN))
        path = workdir / "n.txt"
        text = path.read_text() if path.exists() else "0"
        if not text.isdigit():
            shared_tool.refuse(path)
        for n in range(int(text), 3):
            path.write_text(str(n + 1))
        return len(SEEN)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["shared", "project/lib", "env/site-packages"])
def test_an_exploration_leaves_libraries_alone_wherever_they_are(example, monkeypatch, where):
    """Their containers are not put back between runs, and reports name the user's line; the user's
    containers are put back.
    """
    pytester = example.pytester
    target = pytester.path / where.replace("project/", "")
    if where == "shared":
        target = pytester.path.parent / f"{pytester.path.name}-shared"
    project = example.with_file("job.py", JOB).with_tests("""
        import job, shared_tool

        def test_it(mlchaos, tmp_path):
            report = mlchaos.explore_crashes(job.train, tmp_path, isolation="in-process")
            assert len(shared_tool.CACHE["runs"]) > 4 and set(shared_tool.CACHE["runs"]) == {1} and job.SEEN == []
            failed = [str(outcome.error) for outcome in report.failures]
            assert failed and set(failed) == {"cannot read n.txt"}
            assert "job.py:13 in train" in str(report), str(report)
    """)
    if where == "project/lib":
        installed(target, "shared_tool.py")
    written(target / "shared_tool.py", textwrap.dedent(LIBRARY))
    monkeypatch.syspath_prepend(str(target))
    monkeypatch.delitem(sys.modules, "shared_tool", raising=False)
    project.run(passed=1)
