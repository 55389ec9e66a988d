"""Run an action as soon as a module has been imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence

from .patching import Patches

__all__ = ["when_imported"]


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
