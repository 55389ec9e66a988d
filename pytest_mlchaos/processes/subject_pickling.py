"""Send a subject to a different process: as a pickle, and with the files of its modules."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import pickle
import sys
import zipimport
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any

from ..core.privacy import error_text
from ..engine.user_code import is_users
from ..errors import BadArgument

__all__ = ["PickledOnce", "SameFiles", "dumps", "dumps_with", "is_found_by_name", "same_files"]


def dumps(value: object) -> bytes:
    """Return the pickle of a value.

    If cloudpickle is installed, lambdas and local functions can be sent too.

    Raises:
        BadArgument: The value cannot be pickled. The message has the reason, and a fix if there is
            one.
    """
    try:
        import cloudpickle
    except ImportError:
        cloudpickle = None
    try:
        data = _by_value(value, cloudpickle) if cloudpickle else pickle.dumps(value)
    except BadArgument:  # an error from a value inside
        raise
    except Exception as error:  # any __reduce__ may fail
        cure = (
            ""
            if cloudpickle
            else ". Lambdas and local functions need cloudpickle: python -m pip install 'pytest-mlchaos[process]'"
        )
        raise BadArgument(f"{error_text(error)}{cure}") from error
    return data


def _by_value(value: object, cloudpickle: ModuleType) -> bytes:
    file = io.BytesIO()
    _pickler(cloudpickle)(file).dump(value)
    return file.getvalue()


def dumps_with(value: object, stand_in: Callable[[Any], Any]) -> bytes:
    """Return a pickle for comparisons only, in which some objects are replaced.

    Args:
        value: A value that ``dumps`` can pickle.
        stand_in: A function that returns data to write for an object, or None to write the object
            itself.
    """
    base: Any = pickle.Pickler
    with contextlib.suppress(ImportError):
        import cloudpickle

        base = _pickler(cloudpickle)
    file = io.BytesIO()
    kind = type("Pickler", (base,), {"persistent_id": lambda self, one: stand_in(one)})
    kind(file).dump(value)
    return file.getvalue()


@functools.cache
def _pickler(cloudpickle: ModuleType) -> Callable[[io.BytesIO], pickle.Pickler]:
    """Return cloudpickle's pickler, changed so that code objects keep their file.

    Since 3.1.3, cloudpickle writes ``<dynamic-code>`` instead. Such a frame has no source line, and
    would count as generated code.
    """
    base: Any = cloudpickle.Pickler

    def reduce_code(code: CodeType) -> tuple[Any, ...]:
        # Nested code objects pass here too.
        return _code_of_file, (code.co_filename, *base.dispatch_table[CodeType](code))

    return type(
        "Pickler",
        (base,),
        {"dispatch_table": ChainMap({CodeType: reduce_code}, base.dispatch_table)},
    )


def _code_of_file(filename: str, make: Callable[..., CodeType], args: tuple[Any, ...]) -> CodeType:
    """Make a code object in the receiving process, with its original file."""
    return make(*args).replace(co_filename=filename)


class PickledOnce:
    """A value that is pickled once although several processes receive it.

    Each gets its own copy.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self._data = b""

    def __reduce__(self) -> tuple[Any, ...]:
        self._data = self._data or dumps(self._value)
        return pickle.loads, (self._data,)


@dataclasses.dataclass(frozen=True)
class SameFiles(importlib.abc.MetaPathFinder):
    """A finder that loads the user's modules from the same files as the runner.

    It works in each of pytest's import modes.
    """

    files: Mapping[str, tuple[str | None, Sequence[str] | None]]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> Any:
        """Return the module's spec, if the runner has imported the module."""
        if fullname not in self.files:
            return None
        file, folders = self.files[fullname]
        if file is not None:
            return importlib.util.spec_from_file_location(
                fullname, file, submodule_search_locations=list(folders) if folders else None
            )
        spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = list(folders or ())
        return spec


def same_files() -> SameFiles:
    """Return the user's modules in this process, and others that cannot be found by their name."""
    found: dict[str, tuple[str | None, Sequence[str] | None]] = {}
    # There are thousands of modules, in some hundred packages.
    is_found = functools.cache(is_found_by_name)
    for name, module in sys.modules.copy().items():
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if name == "__main__" or not isinstance(file, str) or not file.endswith(".py"):
            continue
        is_sent = is_users(file) or not is_found(name.partition(".")[0])
        if is_sent and not _is_zipped(module):
            found[name] = (file, _folders(module))
    for name in list(found):
        # Packages without a file, or made by pytest's import mode.
        while name := name.rpartition(".")[0]:
            if _is_without_file(sys.modules.get(name)):
                found.setdefault(name, (None, _folders(sys.modules.get(name))))
    return SameFiles(found)


def is_found_by_name(name: str) -> bool:
    """Return True if a search of ``sys.path`` finds a module's package in its present folder."""
    names = getattr(sys.modules.get(name.partition(".")[0]), "__dict__", {})
    files = [str(folder) for folder in names.get("__path__") or ()] or [str(names.get("__file__"))]
    search = _search(tuple(sys.path), os.getcwd())
    return any(os.path.dirname(os.path.abspath(file)) in search for file in files)


@functools.lru_cache(8)
def _search(entries: tuple[str, ...], here: str) -> frozenset[str]:
    return frozenset(
        os.path.join(here, entry) if not os.path.isabs(entry) else os.path.normpath(entry)
        for entry in entries
    )


def _is_zipped(module: object) -> bool:
    """Return True for a module in a zip file, which has no file of its own."""
    return isinstance(
        getattr(getattr(module, "__spec__", None), "loader", None), zipimport.zipimporter
    )


def _is_without_file(package: object) -> bool:
    """Return True for a package that is not imported, or was made without a file.

    An object in the place of a module (``torch.backends.cudnn``) has a file, which is found in its
    package.
    """
    return package is None or (
        type(package) is ModuleType and vars(package).get("__file__") is None
    )


def _folders(package: object) -> Sequence[str] | None:
    """Return the folders of a package's modules, or None if it is not a package."""
    path = getattr(package, "__dict__", {}).get("__path__")
    return None if path is None else [str(folder) for folder in path]
