"""What a subject is given, kept as it was at the start: for restarts, and for a golden run in directories of its own."""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import os
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Inputs"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

_RECORDS = (argparse.Namespace, types.SimpleNamespace)


class Inputs:
    """A subject and its arguments, as they were before it ran.

    A crash destroys memory: each restart gets fresh copies of the objects that were passed. The disk survives: paths stay the
    same in a restart. The golden run gets copies of the directories, as they were at the start. What a closure or a
    ``functools.partial`` holds counts as passed. An object that cannot be copied is shared.
    """

    def __init__(self, subject: Callable[..., Any], args: tuple[Any, ...], scratch: Path) -> None:
        self._subject, self._args = subject, args
        self._kept = _copied((subject, args))
        self._scratch = scratch
        self._mapping: dict[Path, Path] = {}
        self._home: Path | None = None
        here = [Path.cwd()] if Path.cwd().is_relative_to(scratch) else []
        roots = _outermost({*here, *filter(self._is_writable, _paths((subject, args)))})
        if roots:
            self._home = Path(tempfile.mkdtemp(prefix="mlchaos-golden-", dir=scratch))
            for number, root in enumerate(roots):
                self._mapping[root] = self._home / str(number) / root.name
                _copy_tree(root, self._mapping[root])

    def _is_writable(self, path: Path) -> bool:
        """Whether a path is the test's own: in a temporary directory, or inside the project; elsewhere lie inputs, often huge."""
        roots = (self._scratch, Path(tempfile.gettempdir()), Path.cwd())
        return any(root in path.parents for root in roots) and path not in Path.cwd().parents

    def first(self) -> Callable[[], Any]:
        """The subject with the very objects that were passed."""
        return functools.partial(self._subject, *self._args)

    def again(self) -> Callable[[], Any]:
        """The subject with fresh copies, for a restart."""
        subject, args = _copied(self._kept)
        return functools.partial(subject, *args)

    @contextlib.contextmanager
    def golden(self) -> Iterator[Callable[[], Any]]:
        """The subject with fresh copies and directories of its own; once."""
        subject, args = _mapped(_copied(self._kept), self._mapping)
        here = Path.cwd()
        moved = _moved(here, self._mapping)
        try:
            if moved != here:
                os.chdir(moved)
            yield functools.partial(subject, *args)
        finally:
            os.chdir(here)
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)


def _copied(value: Any) -> Any:
    """Deep copies; of tuples and partials part by part, so that one thing that cannot be copied shares only itself."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(_copied, value))
    if isinstance(value, functools.partial):
        return functools.partial(_copied(value.func), *_copied(value.args), **{k: _copied(v) for k, v in value.keywords.items()})
    if isinstance(value, types.FunctionType) and value.__closure__:
        return _with_cells(value, _copied)
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # whatever a foreign __deepcopy__ raises: locks, sockets, generators
        return value


def _with_cells(function: types.FunctionType, change: Callable[[Any], Any]) -> types.FunctionType:
    """A function whose closure holds changed values; the same function where none changes."""
    before = [_content(cell) for cell in function.__closure__ or ()]
    after = [value if value is function else change(value) for value in before]
    if all(new is old for new, old in zip(after, before, strict=True)):
        return function
    cells = tuple(types.CellType(value) for value in after)
    fresh = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    fresh.__kwdefaults__ = function.__kwdefaults__
    fresh.__dict__.update(function.__dict__)
    return fresh


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _as_path(value: Any) -> Path | None:
    """The absolute path that a value stands for, if it does: a PathLike, or a text that is an absolute path or names a directory."""
    if isinstance(value, os.PathLike):
        return Path(os.path.abspath(value))
    if isinstance(value, str) and value and len(value) < 4096 and "\0" not in value and (os.path.isabs(value) or os.path.isdir(value)):
        return Path(os.path.abspath(value))
    return None


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.FunctionType):
        return [_content(cell) for cell in value.__closure__ or ()]
    if isinstance(value, _RECORDS) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return list(vars(value).values()) if hasattr(value, "__dict__") else []
    return []


def _paths(value: Any, seen: set[int] | None = None) -> Iterator[Path]:
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    path = _as_path(value)
    if path is not None:
        yield path
    for child in _children(value):
        yield from _paths(child, seen)


def _outermost(paths: set[Path]) -> list[Path]:
    """Paths that lie in no other of them."""
    return sorted(path for path in paths if not any(other != path and path.is_relative_to(other) for other in paths))


def _copy_tree(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("mlchaos-golden-*"))
    elif source.exists():
        shutil.copy2(source, target)


def _moved(path: Path, mapping: dict[Path, Path]) -> Path:
    for old, new in mapping.items():
        if path.is_relative_to(old):
            return new / path.relative_to(old)
    return path


def _mapped(value: Any, mapping: dict[Path, Path]) -> Any:
    """The value with every path moved; lists, dicts and records (copies already) are changed in place."""
    path = _as_path(value)
    if path is not None:
        moved = _moved(path, mapping)
        if moved == path:
            return value
        return str(moved) if isinstance(value, str) else type(value)(moved) if isinstance(value, Path) else moved
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_mapped(child, mapping) for child in value)
    if isinstance(value, functools.partial):
        keywords = {name: _mapped(child, mapping) for name, child in value.keywords.items()}
        return functools.partial(_mapped(value.func, mapping), *_mapped(value.args, mapping), **keywords)
    if isinstance(value, types.FunctionType):
        return _with_cells(value, lambda child: _mapped(child, mapping))
    if isinstance(value, list):
        value[:] = [_mapped(child, mapping) for child in value]
    elif isinstance(value, dict):
        value.update({name: _mapped(child, mapping) for name, child in value.items()})
    elif _children(value) and hasattr(value, "__dict__"):
        for name, child in vars(value).items():
            vars(value)[name] = _mapped(child, mapping)
    return value
