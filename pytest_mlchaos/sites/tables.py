"""``data.table``: each table that pandas, pyarrow, polars or NumPy has read, and those that a pipeline is given."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.imports import when_imported
from ..engine.patching import Patches
from ..engine.tables import is_frame, is_table

__all__ = ["arm_table"]
__tracebackhide__ = True  # a failure shows the user's code, not ours

SITE = "data.table"
MODULES = ("pandas", "polars", "pyarrow.parquet", "pyarrow.csv", "pyarrow.json", "pyarrow.feather", "pyarrow.orc")
"""Each public function of these that is called ``read_…`` makes visits, if it gives a table."""
TEXT_READERS = ("loadtxt", "genfromtxt")
"""NumPy's; what ``numpy.load`` gives is mostly no table."""
FILES = (("pyarrow.parquet", "ParquetFile"), ("pyarrow.parquet", "ParquetDataset"), ("pyarrow.orc", "ORCFile"))
"""Classes of open files, whose ``read…`` methods make visits."""


@site(SITE, "A table that has been read, or is given to a pipeline. Payload: the table. Attribute: the reader's name.")
def arm_table(controller: Controller, patches: Patches, key: Key) -> None:
    """Wraps the readers of each library, now or as soon as it is imported."""
    passing = _Passing(controller)
    for module in (*MODULES, "numpy"):
        when_imported(module, patches, functools.partial(_wrap_readers, module, patches, passing))
    for module, name in FILES:
        when_imported(module, patches, functools.partial(_wrap_methods, module, name, patches, passing))


def _wrap_readers(module: str, patches: Patches, passing: _Passing) -> None:
    """The module's readers, under every name by which they were imported."""
    loaded = sys.modules[module]
    names = TEXT_READERS if module == "numpy" else [name for name in dir(loaded) if name.startswith("read_")]
    counts = is_table if module == "numpy" else is_frame
    with patches.together():  # replaced at its end: all are looked up before
        for name in names:
            original = getattr(loaded, name)
            if not callable(original) or inspect.isclass(original):
                continue
            patches.replace_everywhere(original, passing.reader(original, counts, f"{module}.{name}"))


def _wrap_methods(module: str, name: str, patches: Patches, passing: _Passing) -> None:
    cls = getattr(sys.modules[module], name, None)
    for method, original in list(vars(cls).items()) if cls is not None else ():
        if inspect.isfunction(original) and (method.startswith("read") or method == "iter_batches"):
            patches.set(cls, method, passing.reader(original, is_frame, f"{module}.{name}.{method}"))


class _Passing:
    """Makes visits of what the outermost call of a reader gives; readers call each other."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._here = threading.local()

    def reader(self, original: Callable[..., Any], counts: Callable[[Any], bool], name: str) -> Callable[..., Any]:
        """A reader with a visit behind it, which has its name as an attribute."""

        @functools.wraps(original)
        def read(*args: Any, **kwargs: Any) -> Any:
            return self.behind(lambda: original(*args, **kwargs), counts, name)

        return read

    def behind(self, call: Callable[[], Any], counts: Callable[[Any], bool], name: str) -> Any:
        """What a call gives, each table of it behind its visit."""
        if getattr(self._here, "on", False):
            return call()
        self._here.on = True
        try:
            found = call()
        finally:
            self._here.on = False
        return self.passed(found, counts, name)

    def passed(self, found: Any, counts: Callable[[Any], bool], name: str) -> Any:
        """A table; a list or a dict of tables (of a workbook's sheets, a page's tables); or something that gives one after the other."""
        if counts(found):
            return self._visited(found, name)
        if isinstance(found, (list, dict)):
            items = list(found.items()) if isinstance(found, dict) else list(enumerate(found))
            for place, table in items:
                if counts(table):
                    found[place] = self._visited(table, name)
            return found
        return _Chunks(found, self, counts, name) if isinstance(found, Iterator) else found

    def _visited(self, table: Any, name: str) -> Any:
        return self.controller.visit(SITE, table, {"reader": name})


class _Chunks:
    """An iterator of tables, each behind its visit; everything else is the reader's own (``isinstance`` takes it for one)."""

    def __init__(self, reader: Any, passing: _Passing, counts: Callable[[Any], bool], name: str) -> None:
        self._mlchaos = reader, passing, counts, name

    @property  # type: ignore[misc]  # what isinstance asks when the type itself does not fit
    def __class__(self) -> Any:
        return type(self._mlchaos[0])

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        reader, passing, counts, source = self._mlchaos
        return passing.behind(reader.__next__, counts, source)

    def __enter__(self) -> Any:
        self._mlchaos[0].__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._mlchaos[0].__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        if name == "_mlchaos":
            raise AttributeError(name)
        reader, passing, counts, source = self._mlchaos
        found = getattr(reader, name)
        return passing.reader(found, counts, source) if name in ("read", "get_chunk") else found
