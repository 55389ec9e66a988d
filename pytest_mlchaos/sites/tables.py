"""Define ``data.table``: each table that a library has read, or a pipeline receives.

The libraries are pandas, pyarrow, polars and NumPy.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..core.sites import Key, site
from ..engine.controller import Controller
from ..engine.import_hooks import when_imported
from ..engine.patching import Patches
from ..engine.stand_ins import Proxy, unbound
from ..engine.table_types import has_fields, is_frame, is_table

__all__ = ["arm_table"]

SITE = "data.table"
MODULES = (
    "pandas",
    "polars",
    "pyarrow.parquet",
    "pyarrow.csv",
    "pyarrow.json",
    "pyarrow.feather",
    "pyarrow.orc",
    "pyarrow.ipc",
)
"""The modules whose public functions ``read_…`` make visits if they return a table.

Readers from ``open_csv`` do so too.
"""
NUMPY_READERS: dict[str, Callable[[Any], bool]] = {
    "loadtxt": is_table,
    "genfromtxt": is_table,
    "load": has_fields,
}
"""The readers of NumPy. The result of ``numpy.load`` counts as a table only if it has fields."""
FILES = {
    ("pyarrow.parquet", "ParquetFile"): ("iter_batches",),
    ("pyarrow.parquet", "ParquetDataset"): (),
    ("pyarrow.orc", "ORCFile"): (),
    ("pyarrow.ipc", "RecordBatchFileReader"): ("get_batch", "get_record_batch"),
    ("pyarrow.ipc", "RecordBatchStreamReader"): ("__next__", "get_next_batch"),
    ("pandas", "HDFStore"): ("get", "select", "select_column", "select_as_multiple"),
}
"""Classes of open files, whose methods ``read…``, and those listed, make visits."""


@site(
    SITE,
    "A table that has been read, or is given to a pipeline. Payload: the table. Attribute: the "
    "reader's name.",
)
def arm_table(controller: Controller, patches: Patches, key: Key) -> None:
    """Wrap the readers of each library, now or as soon as it is imported."""
    passing = _Passing(controller)
    for module in (*MODULES, "numpy"):
        when_imported(module, patches, functools.partial(_wrap_readers, module, patches, passing))
    for (module, name), methods in FILES.items():
        when_imported(
            module,
            patches,
            functools.partial(_wrap_methods, module, name, methods, patches, passing),
        )
    when_imported("polars", patches, functools.partial(_wrap_scans, "polars", patches, passing))


def _wrap_readers(module: str, patches: Patches, passing: _Passing) -> None:
    """Wrap the module's readers, under each name by which they were imported."""
    loaded = sys.modules[module]
    names = (
        NUMPY_READERS
        if module == "numpy"
        else [name for name in dir(loaded) if name.startswith("read_") or name == "open_csv"]
    )
    # Replaced at the end, after all have been looked up.
    with patches.together():
        for name in names:
            original = getattr(loaded, name)
            if not callable(original) or inspect.isclass(original):
                continue
            counts = NUMPY_READERS[name] if module == "numpy" else is_frame
            patches.replace_everywhere(
                original, unbound(passing.reader(original, counts, f"{module}.{name}"), original)
            )


def _wrap_methods(
    module: str, name: str, methods: tuple[str, ...], patches: Patches, passing: _Passing
) -> None:
    cls = getattr(sys.modules[module], name, None)
    for method in dir(cls) if cls is not None else ():
        original = getattr(cls, method)
        if inspect.isroutine(original) and (method.startswith("read") or method in methods):
            patches.set(
                cls, method, passing.reader(original, is_frame, f"{module}.{name}.{method}")
            )


def _wrap_scans(module: str, patches: Patches, passing: _Passing) -> None:
    """Wrap the lazy readers. Each makes a visit with its whole table, when the scan is made."""
    loaded = sys.modules[module]
    with patches.together():
        for name in dir(loaded):
            if name.startswith("scan_"):
                original = getattr(loaded, name)
                patches.replace_everywhere(original, passing.scan(original, f"{module}.{name}"))


class _Passing:
    """Makes visits of the results of readers.

    Readers call each other, so only the outermost call counts.
    """

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self._here = threading.local()

    def reader(
        self, original: Callable[..., Any], counts: Callable[[Any], bool], name: str
    ) -> Callable[..., Any]:
        """Return a reader with a visit after it. The reader's name is an attribute of the visit."""

        @functools.wraps(original)
        def read(*args: object, **kwargs: object) -> Any:
            return self.behind(lambda: original(*args, **kwargs), counts, name)

        return read

    def scan(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return a lazy reader with a visit of its whole table.

        polars plans a query from the columns that exist.
        """

        @functools.wraps(original)
        def scan(*args: object, **kwargs: object) -> Any:
            found = original(*args, **kwargs)
            if getattr(self._here, "on", False) or not hasattr(found, "collect"):
                return found
            try:
                table = found.collect()
            except Exception:  # noqa: BLE001  # the query raises the same error when it runs
                return found
            struck = self._visited(table, name)
            return found if struck is table else struck.lazy()

        return scan

    def behind(self, call: Callable[[], Any], counts: Callable[[Any], bool], name: str) -> Any:
        """Return the result of a call, with a visit for each table in it."""
        if getattr(self._here, "on", False):
            return call()
        self._here.on = True
        try:
            found = call()
        finally:
            self._here.on = False
        return self.passed(found, counts, name)

    def passed(self, found: object, counts: Callable[[Any], bool], name: str) -> Any:
        """Pass a result through its visits.

        It may be a table, a list or dict of tables (sheets of a workbook, tables of a page), or an
        iterator of tables.
        """
        if counts(found):
            return self._visited(found, name)
        if isinstance(found, (list, dict)):
            items = list(found.items()) if isinstance(found, dict) else list(enumerate(found))
            for place, table in items:
                if counts(table):
                    found[place] = self._visited(table, name)
            return found
        gives_tables = isinstance(found, Iterator) or (
            isinstance(found, Iterable) and hasattr(found, "close")
        )
        return _Chunks(found, self, counts, name) if gives_tables else found

    def _visited(self, table: object, name: str) -> Any:
        return self.controller.visit(SITE, table, {"reader": name})


READING = ("read", "get_chunk", "read_all", "read_next_batch", "read_pandas")
"""The methods by which such readers return tables, one by one or all."""


class _Chunks(Proxy):
    """An iterator of tables with a visit for each. All else is passed to the reader."""

    __slots__ = ("_mlchaos_passing",)

    def __init__(
        self, reader: Any, passing: _Passing, counts: Callable[[Any], bool], name: str
    ) -> None:
        super().__init__(reader)
        self._mlchaos_passing = passing, counts, name

    def __iter__(self) -> Any:
        iterator = iter(self._mlchaos)
        return self if iterator is self._mlchaos else _Chunks(iterator, *self._mlchaos_passing)

    def __next__(self) -> Any:
        passing, counts, source = self._mlchaos_passing
        return passing.behind(self._mlchaos.__next__, counts, source)

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name not in READING:
            return found
        passing, counts, source = self._mlchaos_passing
        return passing.reader(found, counts, source)
