"""Contain all uses of private parts of pytest. No other module of the package uses any.

A trial needs its own function-scoped fixtures, but pytest sets up an item only once. So the item is
torn down to its parent and set up again, as pytest does between two items.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.logging import caplog_handler_key, caplog_records_key
from _pytest.tmpdir import tmppath_result_key

__all__ = ["data_fixtures", "is_built_in", "own_directories", "set_up_again", "source_marks"]


def set_up_again(item: pytest.Function, between: Callable[[], object]) -> None:
    """Tear down the item's function-scoped fixtures, call ``between``, and make fresh ones."""
    _forget_output(item)
    # The teardown of tmp_path reads the outcome that pytest's report hook stores. There is no
    # outcome yet for a trial before the last one.
    item.stash.setdefault(tmppath_result_key, {})
    # The handler of caplog lives as long as the item's call, but a trial must start without
    # records.
    if caplog_handler_key in item.stash:
        item.stash[caplog_handler_key].reset()
        item.stash[caplog_records_key]["call"] = item.stash[caplog_handler_key].records
    state = item.session._setupstate
    state.teardown_exact(item.parent)  # type: ignore[arg-type]  # only its listchain() is used
    between()
    item._initrequest()
    for cached in ("_instance", "_obj"):  # a test method gets a new instance
        item.__dict__.pop(cached, None)
    state.setup(item)
    # no report hook stores an outcome if this trial is interrupted
    item.stash.setdefault(tmppath_result_key, {})


def _forget_output(item: pytest.Item) -> None:
    """Drop the output and logs of the trial before, so that a failure shows only those of its own
    trial.
    """
    plugins = item.config.pluginmanager
    capture, logs = plugins.getplugin("capturemanager"), plugins.getplugin("logging-plugin")
    if capture is not None and capture.is_globally_capturing():
        capture.read_global_capture()
    if logs is not None:
        logs.report_handler.reset()


def own_directories(config: pytest.Config) -> list[Path]:
    """Return the base temporary directory of the session, which contains each ``tmp_path``.

    Return nothing if that plugin is switched off.
    """
    factory = getattr(config, "_tmp_path_factory", None)
    return [factory.getbasetemp()] if factory is not None else []


def source_marks(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """Return the item's marks of that name in source order: class first, then decorators from the
    top.
    """
    return list(reversed(list(item.iter_markers(name))))


def data_fixtures(item: pytest.Item) -> tuple[str, ...]:
    """Return the names of a test's fixtures that may bring data.

    These are all but those of pytest and of this plugin. Those of an installed plugin count if the
    test itself names them: others (an event loop) work for the plugin.
    """
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return ()
    plugins = {
        plugin.__name__.partition(".")[0]
        for plugin, _ in item.config.pluginmanager.list_plugin_distinfo()
        if hasattr(plugin, "__name__")
    }
    return tuple(
        name
        for name in getattr(item, "fixturenames", ())
        if any(
            not is_built_in(one) and (name in info.argnames or _package(one) not in plugins)
            for one in info.name2fixturedefs.get(name, ())
        )
    )


def is_built_in(fixture: object) -> bool:
    """Return True if pytest or this plugin defines a fixture."""
    return _package(fixture) in ("_pytest", "pytest_mlchaos")


def _package(fixture: object) -> str:
    module = str(getattr(getattr(fixture, "func", None), "__module__", ""))
    return module.partition(".")[0]
