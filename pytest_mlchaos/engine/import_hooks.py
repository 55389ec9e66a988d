"""Run actions when modules are imported."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .patching import Patches

__all__ = ["watch_imports", "when_imported"]


def when_imported(name: str, patches: Patches, action: Callable[[], object]) -> None:
    """Run an action when a module is imported.

    Args:
        name: The name of the module.
        patches: The patches of the trial, which remove the hook at the end.
        action: A function that is called now if the module is imported, else right after its first
            import in this trial.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(
        getattr(module, "__spec__", None), "_initializing", False
    ):
        action()
        return
    finder = _Finder(name, action)
    sys.meta_path.insert(0, finder)
    patches.on_undo(finder.leave)


@contextlib.contextmanager
def watch_imports(
    begin: Callable[[], object],
    end: Callable[[], object],
    of: Callable[[importlib.machinery.ModuleSpec], bool] = lambda spec: True,
) -> Iterator[None]:
    """Call ``begin`` before a new module is executed, and ``end`` after it.

    Args:
        begin: Called before the module.
        end: Called after the module, however it ends.
        of: Returns True for the modules that count. What such a module imports is part of it.
    """
    # Python has no public hook around the execution of every module.
    bootstrap: Any = importlib.__dict__["_bootstrap"]
    load = bootstrap._load_unlocked
    watching = threading.local()

    def _load_unlocked(spec: importlib.machinery.ModuleSpec) -> Any:
        if getattr(watching, "on", False) or not of(spec):
            return load(spec)
        watching.on = True
        begin()
        try:
            return load(spec)
        finally:
            end()
            watching.on = False

    # Python leaves the frames of importlib out of tracebacks, if nothing is between them.
    _load_unlocked.__code__ = _load_unlocked.__code__.replace(co_filename=load.__code__.co_filename)
    with Patches() as patches:
        patches.set(bootstrap, "_load_unlocked", _load_unlocked)
        yield


class _Finder(importlib.abc.MetaPathFinder):
    """A finder for one module, which adds an action to its execution."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self._name = name
        self._action: Callable[[], object] | None = action

    def leave(self) -> None:
        self._action = None
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec that later finders give, with the action after its execution."""
        if fullname != self._name:
            return None
        finders = list(sys.meta_path)
        behind = finders[finders.index(self) + 1 :] if self in finders else finders
        specs = (
            finder.find_spec(fullname, path, target)
            for finder in behind
            if hasattr(finder, "find_spec")
        )
        spec = next((spec for spec in specs if spec is not None), None)
        loader = spec.loader if spec is not None else None
        if loader is not None:
            execute = loader.exec_module

            def executed(module: types.ModuleType) -> None:
                vars(loader).pop("exec_module", None)  # the loader outlives the trial
                execute(module)
                if self._action is not None:
                    self._action()

            loader.exec_module = executed  # type: ignore[method-assign]  # on this loader only
        return spec
