"""The few private parts of pytest that are used, and why. Nothing else in the package touches any.

A trial needs function-scoped fixtures of its own. pytest sets an item up once; so the item is torn down to its parent and set
up again, which is what pytest does between two items.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.logging import caplog_handler_key, caplog_records_key
from _pytest.tmpdir import tmppath_result_key

__all__ = ["own_directories", "set_up_again", "source_marks"]


def set_up_again(item: pytest.Function, between: Callable[[], object]) -> None:
    """Tear down the item's function-scoped fixtures, call ``between``, and make fresh ones."""
    _forget_output(item)
    # tmp_path's teardown looks for the outcome that pytest's report hook stores: a trial before the last has none.
    item.stash.setdefault(tmppath_result_key, {})
    if caplog_handler_key in item.stash:  # caplog's handler lives as long as the item's call: a trial starts with no records
        item.stash[caplog_handler_key].reset()
        item.stash[caplog_records_key]["call"] = item.stash[caplog_handler_key].records
    state = item.session._setupstate
    state.teardown_exact(item.parent)  # type: ignore[arg-type]  # only its listchain() is used
    between()
    item._initrequest()
    for cached in ("_instance", "_obj"):  # a test method gets a new instance
        item.__dict__.pop(cached, None)
    state.setup(item)
    item.stash.setdefault(tmppath_result_key, {})  # and if this trial is interrupted, nobody stores one


def _forget_output(item: pytest.Item) -> None:
    """Drop what the trial before has printed and logged: a failure shows the output of the trial that is reported."""
    plugins = item.config.pluginmanager
    capture, logs = plugins.getplugin("capturemanager"), plugins.getplugin("logging-plugin")
    if capture is not None and capture.is_globally_capturing():
        capture.read_global_capture()
    if logs is not None:
        logs.report_handler.reset()


def own_directories(config: pytest.Config) -> list[Path]:
    """The session's base temporary directory, below which ``tmp_path`` and its kind are made; none where that plugin is switched off."""
    factory = getattr(config, "_tmp_path_factory", None)
    return [factory.getbasetemp()] if factory is not None else []


def source_marks(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """The item's marks of that name, in the order in which they stand in the source: class first, decorators from the top."""
    return list(reversed(list(item.iter_markers(name))))
