"""Decide which code is the user's own. Reports name it, and its state is restored between runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import inspect
import json
import os
import sys
import sysconfig
import types
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..core.interrupts import uninterruptible
from .scopes import INTERNAL_OPERATION, within

__all__ = [
    "INTERPRETER",
    "PACKAGE",
    "Project",
    "add_folder",
    "current_project",
    "for_project",
    "is_installed",
    "is_users",
    "set_project",
    "take_subject",
    "user_place",
]

PACKAGE = str(Path(__file__).resolve().parents[1])
"""The folder of this package."""
INTERPRETER = tuple(
    {
        text
        for name, path in sysconfig.get_paths().items()
        if path
        and name not in ("data", "scripts")  # the folder of an environment may hold a project
        for text in (os.path.normcase(path), os.path.normcase(os.path.realpath(path)))
    }
)
"""The folders of the standard library and of this interpreter's packages."""
_LIBRARIES = frozenset({"site-packages", "dist-packages", "__pypackages__"})
_ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")
_CYTHON = (".pyx", ".pxi", ".pxd")


@dataclasses.dataclass(frozen=True)
class Project:
    """The user's folders, and the top-level packages of the subject and the test.

    These are the user's even if they are installed.
    """

    folders: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @classmethod
    def of_test(cls, folders: Iterable[str | os.PathLike[str]], module: object) -> Project:
        """Return the project of a test: these folders, and the package of the test's module."""
        return cls(
            tuple(dict.fromkeys(os.fspath(folder) for folder in folders)),
            tuple(_packages_of(getattr(module, "__name__", ""), "")),
        )

    def __add__(self, other: Project) -> Project:
        return Project(
            tuple(dict.fromkeys((*self.folders, *other.folders))),
            tuple(dict.fromkeys((*self.packages, *other.packages))),
        )


_project = Project()
_known: dict[str, bool] = {}
"""The results for the current project, by file name."""


def current_project() -> Project:
    """Return the project whose code counts as the user's.

    If it has no folders, all code counts that is not installed.
    """
    return _project


def set_project(project: Project) -> None:
    """Use this project from now on.

    A new process uses it for the project of its parent.
    """
    global _project, _known
    if project != _project:
        _project = project
        _known = _results_of(project, tuple(sys.path))


@functools.lru_cache(8)
def _results_of(project: Project, path: tuple[str, ...]) -> dict[str, bool]:
    """Return the results that are known for a project. Trials of one test alternate between two."""
    return {}


@uninterruptible
def for_project(project: Project) -> Iterator[None]:
    """Use this project, and the subjects that are added inside, until the end of the context."""
    before = _project
    set_project(project)
    try:
        yield
    finally:
        set_project(before)


def take_subject(subject: object) -> None:
    """Count a subject's folder and its top-level package as the user's.

    A function or class counts even if it is installed. An object or its bound method
    (``trainer.fit``, a FastAPI app) often belongs to a library, so its class counts only if it was
    not installed from a package index.
    """
    found = Project()
    for module, file, is_object in _origins(subject):
        if (
            file
            and not _is_generated(file)
            and module.partition(".")[0] not in {*sys.stdlib_module_names, _PACKAGE_NAME}
        ):
            packages = _packages_of(module, file)
            if not is_object or not _is_from_an_index(file):
                found += Project((os.path.dirname(os.path.abspath(file)),), tuple(packages))
    set_project(_project + found)


def add_folder(folder: str | os.PathLike[str]) -> None:
    """Count a folder as part of the project."""
    set_project(_project + Project((os.fspath(folder),)))


def is_users(filename: str) -> bool:
    """Return True for a file of the user's own code.

    The user's code is in the project: pytest's root, the test's folder, the subject's folder, or an
    editable install. It is not in a folder for installed packages, and not a file of an installed
    distribution. The top-level packages of the subject and of the test always count. Generated code
    and Cython's files never count, because a report could not show their lines.
    """
    found = _known.get(filename)
    if found is None:
        found = _known[filename] = _is_users(filename)
    return found


def _is_users(filename: str) -> bool:
    if _is_generated(filename):
        return False
    file = _file(filename) if os.path.isabs(filename) else _file(os.path.abspath(filename))
    if file.is_ours:
        return False
    if any(file.is_below(package) for package in _project.packages):
        return True
    if file.is_standard or (file.is_packaged and file.real_is_packaged):
        return False
    if not _project.folders:
        return not is_installed(filename)
    return any(
        _belongs(file, folder)
        for folder in (*_project.folders, *_editable_folders(tuple(sys.path)))
    )


def _is_generated(filename: str) -> bool:
    if filename.startswith("<") or filename.endswith(_CYTHON):
        return True
    # Compiled code names files of the machine that built it.
    return not os.path.isabs(filename) and not os.path.exists(filename)


def _belongs(file: _File, folder: str) -> bool:
    """Return True if a file is part of the project in that folder.

    It is there, and was not installed there.

    If a link leads into the project, for example from a folder for packages, its true path decides.
    If not, the path that Python knows decides.
    """
    given, real = _both(folder)
    if _is_below(file.real, real):
        return not _is_packaged(file.real, real) and not _is_recorded(file.given, given)
    if _is_below(file.given, given):
        return not _is_packaged(file.given, given) and not file.real_is_packaged
    return False


def is_installed(filename: str) -> bool:
    """Return True for a file of an environment, or of an installed distribution.

    The distribution is in a folder of ``sys.path``.
    """
    file = _file(os.path.abspath(filename))
    return (
        file.is_ours
        or file.is_standard
        or _is_packaged(file.given, "")
        or _is_packaged(file.real, "")
    )


def _is_packaged(path: str, project: str) -> bool:
    """Return True for a file of an environment or of a distribution.

    An environment that holds the whole project does not count.
    """
    folder = os.path.dirname(path)
    if _is_library(folder) or any(
        root != project and _is_below(root, project) for root in _environments(folder)
    ):
        return True
    return _is_recorded(path, project)


def _is_recorded(path: str, project: str) -> bool:
    """Return True if an installed distribution lists this file.

    It is installed in the project or in ``sys.path``.
    """
    searched = _expand_search_path(tuple(sys.path))
    return any(
        path in _recorded_files(folder)
        for folder in _above(path)
        if (project and _is_below(folder, project)) or folder in searched
    )


# -- folders ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _File:
    """A file as Python names it and with links resolved.

    The facts do not depend on the project.
    """

    given: str
    real: str
    is_ours: bool
    is_standard: bool
    is_packaged: bool
    real_is_packaged: bool

    def is_below(self, folder: str) -> bool:
        given, real = _both(folder)
        return _is_below(self.real, real) or _is_below(self.given, given)


@functools.cache
def _file(path: str) -> _File:
    given, real = _normal(path), _real(path)
    return _File(
        given=given,
        real=real,
        is_ours=any(_is_below(one, folder) for one in (given, real) for folder in _both(PACKAGE)),
        is_standard=any(_is_below(one, folder) for one in (given, real) for folder in INTERPRETER),
        is_packaged=_is_library(os.path.dirname(given)),
        real_is_packaged=_is_library(os.path.dirname(real)),
    )


def _normal(path: str) -> str:
    return os.path.normcase(os.path.normpath(path))


@functools.cache
def _both(folder: str) -> tuple[str, str]:
    """Return the path of a folder, as given and with links resolved."""
    return _normal(os.path.abspath(folder)), _normal(os.path.realpath(folder))


@functools.cache
def _expand_search_path(search: tuple[str, ...]) -> frozenset[str]:
    return frozenset(path for entry in search for path in _both(entry or os.getcwd()))


def _real(path: str) -> str:
    """Return a path with links resolved.

    The results for folders are cached, because many files share them.
    """
    folder, name = os.path.split(path)
    return _normal(
        os.path.realpath(path)
        if not name or os.path.islink(path)
        else os.path.join(_real_folder(folder), name)
    )


@functools.cache
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _is_below(path: str, folder: str) -> bool:
    """Return True if a normal path is this folder, or inside it. Each path is inside ``""``."""
    return (
        not folder
        or path == folder
        or path.startswith(folder if folder.endswith(os.sep) else folder + os.sep)
    )


def _above(path: str) -> Iterator[str]:
    """Yield the folders that contain a file, the innermost first."""
    while (folder := os.path.dirname(path)) != path:
        yield folder
        path = folder


@functools.cache
def _is_library(folder: str) -> bool:
    """Return True for a folder of installed packages, or inside one. An egg counts."""
    parent, name = os.path.split(folder)
    return name in _LIBRARIES or name.endswith(".egg") or (parent != folder and _is_library(parent))


@functools.cache
def _environments(folder: str) -> tuple[str, ...]:
    """Return the virtual (or conda) environments that contain a folder."""
    parent = os.path.dirname(folder)
    own = (
        (folder,)
        if any(os.path.exists(os.path.join(folder, mark)) for mark in _ENVIRONMENT_MARKS)
        else ()
    )
    return own if parent == folder else (*own, *_environments(parent))


def _recorded_files(folder: str) -> frozenset[str]:
    """Return the files that distributions installed into this folder (or zip file).

    Editable installs are left out.
    """
    found = _records.get(folder)
    if found is None:
        # The storage sites ask about the files that are read below: this ends the recursion.
        _records[folder] = frozenset()
        with within(INTERNAL_OPERATION):
            found = _records[folder] = frozenset(_list_files(folder))
    return found


_records: dict[str, frozenset[str]] = {}


def _list_files(folder: str) -> Iterator[str]:
    for distribution in importlib.metadata.distributions(path=[folder]):
        text = distribution.read_text("RECORD")
        base = folder
        if text is None:
            text = distribution.read_text("installed-files.txt") or ""
            base = str(getattr(distribution, "_path", folder))
        for line in text.splitlines():
            name = line.rsplit(",", 2)[0].strip('"') if line.count(",") >= 2 else line
            yield (
                os.path.normcase(f"{base}{os.sep}{name}")
                if ".." not in name
                else _normal(os.path.join(base, name))
            )


@functools.cache
def _editable_folders(search: tuple[str, ...]) -> tuple[str, ...]:
    """Return the source folders of editable installs."""
    found: dict[str, None] = {}
    for entry in search:
        with contextlib.suppress(OSError), within(INTERNAL_OPERATION):
            for name in os.listdir(entry or "."):
                if name.endswith(".dist-info"):
                    origin = _origin_of(os.path.join(entry, name))
                    if origin.get("dir_info", {}).get("editable"):
                        found[
                            urllib.request.url2pathname(urllib.parse.urlsplit(origin["url"]).path)
                        ] = None
                elif name.endswith(".egg-link"):
                    found[
                        Path(entry, name).read_text(encoding="utf-8").partition("\n")[0].strip()
                    ] = None
    return tuple(found)


def _origin_of(dist_info: str) -> dict[str, Any]:
    """Return the origin of a distribution that was not installed from a package index (PEP 610)."""
    try:
        with open(os.path.join(dist_info, "direct_url.json"), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# -- subjects --------------------------------------------------------------------------------------


_PACKAGE_NAME = __name__.partition(".")[0]


def _origins(subject: Any) -> Iterator[tuple[str, str, bool]]:
    """Yield the module and the file of each part of a subject.

    The third value is True for an object of a class.
    """
    if isinstance(subject, functools.partial):
        for part in (subject.func, *filter(callable, (*subject.args, *subject.keywords.values()))):
            yield from _origins(part)
        return
    if isinstance(subject, types.MethodType) and not isinstance(subject.__self__, type):
        yield from _origins_in(type(subject.__self__).__module__, is_object=True)
        return
    with contextlib.suppress(ValueError):  # wrappers that wrap each other
        subject = inspect.unwrap(subject)
    if isinstance(subject, types.MethodType):
        subject = subject.__self__
    if isinstance(subject, type):
        yield from _origins_in(subject.__module__, is_object=False)
    elif isinstance(subject, types.FunctionType):
        yield subject.__module__ or "", subject.__code__.co_filename, False
    elif isinstance(getattr(subject, "__qualname__", None), str):  # a function of a compiled module
        yield from _origins_in(subject.__module__ or "", is_object=False)
    else:
        yield from _origins_in(type(subject).__module__, is_object=True)


def _origins_in(module: str, *, is_object: bool) -> Iterator[tuple[str, str, bool]]:
    file = getattr(sys.modules.get(module), "__file__", None)
    if isinstance(file, str):
        yield module, file, is_object


def _packages_of(module: str, file: str) -> list[str]:
    """Return the folders of a module's top-level package, or its file if it has no package.

    Different projects share a namespace package. There, it is the first package below.
    """
    # In a test run, __main__ belongs to pytest.
    parts = module.split(".") if module != "__main__" else []
    for count in range(1, len(parts) + 1):
        names = getattr(sys.modules.get(".".join(parts[:count])), "__dict__", {})
        if isinstance(names.get("__file__"), str):
            return (
                [str(folder) for folder in names["__path__"]]
                if "__path__" in names
                else [names["__file__"]]
            )
    return [file] if file else []


def _is_from_an_index(file: str) -> bool:
    """Return True for a file of a distribution from a package index.

    The user's own folders and repositories do not count.
    """
    path = os.path.abspath(file)
    for folder in _above(path):
        for distribution in importlib.metadata.distributions(path=[folder]):
            if (
                record := distribution.read_text("RECORD")
            ) and f"\n{Path(os.path.relpath(path, folder)).as_posix()}," in f"\n{record}":
                return not _origin_of(str(getattr(distribution, "_path", "")))
    return False


def _shown_file(file: str) -> str:
    """Return a file's path in the project, or its name if it is elsewhere."""
    for folder in _project.folders[:1]:
        with contextlib.suppress(ValueError):
            return Path(file).relative_to(folder).as_posix()
    return Path(file).name


def user_place(error: BaseException) -> str:
    """Return the innermost line of user code in an error's traceback, or an empty text.

    It reads ``src/train.py:12 in train``, with the path in the root directory of pytest.
    """
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_users(code.co_filename):
            place = f"{_shown_file(code.co_filename)}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return place
