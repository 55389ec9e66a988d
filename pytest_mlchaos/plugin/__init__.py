"""Implement pytest's hooks: options, marks, the fixture, and the journal.

Each pytest session loads this module, so heavy modules are imported by the first chaos test.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..core import interrupts
from ..core.privacy import show_values, shows_values
from ..core.safety import PRODUCTION, check_patterns, refuse_production
from ..core.settings import Settings
from ..errors import (
    BadArgument,
    FaultError,
    InjectionForbidden,
    LimitReached,
    MissingExtra,
    MlchaosError,
    NeverStruck,
    UnknownFault,
    Vacuous,
)
from ..reports.outputs import OUTPUTS, Output, check_writable
from ..reports.tally import Tally
from . import fault_coverage, policy, session_budget, shard_option
from .detection_report import DetectionReport, add_options, texts_of_detections
from .policy import pytest_addhooks as pytest_addhooks
from .policy import pytest_load_initial_conftests as pytest_load_initial_conftests

if TYPE_CHECKING:
    from ..core.entries import Line
    from ..engine import patching
    from . import test_runner
    from .fixture import Mlchaos
    from .live import LiveReport

__all__: list[str] = []

_patches: pytest.StashKey[patching.Patches] = pytest.StashKey()
_mark: pytest.StashKey[int] = pytest.StashKey()
_trials: pytest.StashKey[test_runner.Trials] = pytest.StashKey()
_began: pytest.StashKey[list[float]] = pytest.StashKey()
_selected: pytest.StashKey[list[str]] = pytest.StashKey()
_ended: pytest.StashKey[Any] = pytest.StashKey()

COLLECTOR = "mlchaos-collector"
"""The name of the plugin that collects the entries of the journal."""
NOT_EXPECTED = (
    BadArgument,
    FaultError,
    InjectionForbidden,
    LimitReached,
    NeverStruck,
    Vacuous,
)
"""Errors about the test, not about its subject. ``xfail`` does not hide them."""

USES_FIXTURE = pytest.mark.mlchaos
"""The mark of a test that uses the fixture and declares no fault. Only this object is without
``fault=``.
"""

_MARKS = (
    "mlchaos(fault, at=None, p=None, times=None, where=None, rank=None, **parameters): inject a "
    "fault into the code under test. "
    "Write it as a decorator: @chaos.gpu_oom(at=7). `pytest --mlchaos-faults` lists the faults. "
    "Select with -m mlchaos or -m \"mlchaos(fault='gpu_oom')\".",
    "mlchaos_steady_state(check, during=True): a check that must hold before, during and after the "
    "faults. Write it as @chaos.steady_state(check).",
    f"mlchaos_settings({', '.join(Settings.table())}): the settings of one chaos test. Write them "
    f"as @chaos.settings(...).",
)
_SHOW_VALUES = "show keys, values and error messages in reports, which may contain your data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of ``Settings``, each on the command line and in the ini file, and a few
    more.
    """
    group = parser.getgroup("mlchaos", "chaos tests of machine-learning code (pytest-mlchaos)")
    for name, setting in Settings.table().items():
        optional: dict[str, Any] = (
            {} if setting.implied is None else {"nargs": "?", "const": setting.implied}
        )
        group.addoption(
            f"--mlchaos-{name.replace('_', '-')}",
            dest=f"mlchaos_{name}",
            metavar=setting.metavar,
            help=setting.text,
            **optional,
        )
        parser.addini(f"mlchaos_{name}", f"{setting.text} (as --mlchaos-{name.replace('_', '-')})")
    group.addoption(
        "--mlchaos-replay",
        dest="mlchaos_replay",
        metavar="FAULTS",
        help="run the selected chaos tests under these faults: 'gpu_oom(at=7)'",
    )
    group.addoption(
        "--mlchaos-keep-state",
        dest="mlchaos_keep_state",
        metavar="DIR",
        help="keep the crash states that a report names in DIR",
    )
    group.addoption(
        "--mlchaos-off",
        dest="mlchaos_off",
        action="store_true",
        help="run chaos tests without any fault",
    )
    group.addoption(
        "--mlchaos-faults",
        dest="mlchaos_faults",
        action="store_true",
        help="list all faults, and exit",
    )
    group.addoption(
        "--mlchaos-journal",
        dest="mlchaos_journal",
        metavar="FILE",
        help="write what happened to FILE, as JSON lines",
    )
    shard_option.add_option(group)
    group.addoption(
        "--mlchaos-live",
        dest="mlchaos_live",
        metavar="PORT",
        nargs="?",
        const="0",
        help="serve the report of the running session on this port of 127.0.0.1, or on any",
    )
    _add_outputs(parser, group)
    fault_coverage.add_options(parser, group)
    policy.add_options(parser, group)
    add_options(parser, group)
    group.addoption(
        "--mlchaos-show-values", dest="mlchaos_show_values", action="store_true", help=_SHOW_VALUES
    )
    parser.addini(
        "mlchaos_show_values", f"{_SHOW_VALUES} (as --mlchaos-show-values)", "bool", False
    )
    parser.addini(
        "mlchaos_production",
        "environment variables (NAME=pattern) that forbid injecting faults",
        "linelist",
        list(PRODUCTION),
    )


def _add_outputs(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    for output in OUTPUTS:
        group.addoption(output.option, dest=_dest(output), **output.arguments)
        if output.variable:
            text = f"{output.text} (false: not where {output.variable} is set)"
            parser.addini(_dest(output), text, "bool", True)


@pytest.hookimpl(tryfirst=True)  # before pytest-split's, so that its hook comes after ours
def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks. Stop at a bad command line or ini file."""
    config.stash[_mark] = interrupts.count_open()
    if "WORLD_SIZE" in os.environ and config.getoption("mlchaos_journal") is not None:
        from .launched import journal_of_rank

        config.option.mlchaos_journal = journal_of_rank(config.option.mlchaos_journal)
    shard_option.begin(config)
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    policy.configure(config)
    # A session inside a test of a different session must restore that session's choice.
    config.add_cleanup(functools.partial(show_values, shows_values()))
    show_values(
        bool(config.getoption("mlchaos_show_values") or config.getini("mlchaos_show_values"))
    )
    if _configured(config) or config.getoption("mlchaos_replay") is not None:
        _check(config, late=False)
    config.pluginmanager.register(Tally(), "mlchaos-tally")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(DetectionReport(), "mlchaos-detections")
    if not hasattr(config, "workerinput"):
        _check_outputs(config)
        outputs = _wanted_outputs(config)
        if outputs or fault_coverage.measures_coverage(config):
            from ..reports.collector import Collector

            journal, live = outputs.pop("mlchaos_journal", None), _live_report(config)
            targets = {
                output: outputs[name] for output in OUTPUTS if (name := _dest(output)) in outputs
            }
            collector = Collector(live.journal if live else journal, targets)
            config.pluginmanager.register(collector, COLLECTOR)
            shard_option.note(config, collector)
            if live:
                live.collector = collector
    fault_coverage.configure(config)


def _live_report(config: pytest.Config) -> LiveReport | None:
    """Register the plugin that serves the live report, if it is wanted."""
    given = config.getoption("mlchaos_live")
    if given is None:
        return None
    from .live import LIVE, LiveReport, port_of

    try:
        live = LiveReport(port_of(given), config.getoption("mlchaos_journal"))
    except BadArgument as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(live, LIVE)
    return live


def _dest(output: Output) -> str:
    return f"mlchaos_{output.name.replace('-', '_')}"


def _wanted_outputs(config: pytest.Config) -> dict[str, str]:
    """Return the values of the options that need the journal, by the names of the options."""
    names = ["mlchaos_journal", "mlchaos_live", *map(_dest, OUTPUTS)]
    found = {name: value for name in names if (value := config.getoption(name)) is not None}
    by_itself = {
        _dest(output): output.implied or ""
        for output in OUTPUTS
        if output.is_on_by_itself and config.getini(_dest(output))
    }
    return by_itself | found


def pytest_sessionstart(session: pytest.Session) -> None:
    """Show the progress of explorations. pytest's terminal reporter and xdist's exist now."""
    session_budget.begin(session.config)
    plugins, line = session.config.pluginmanager, None
    if sys.stdout.isatty() or os.environ.get("CI"):
        from .progress_line import line_for

        if line := line_for(session.config):
            plugins.register(line, "mlchaos-progress")
    tally = plugins.get_plugin("mlchaos-tally")
    if plugins.has_plugin("dsession") and isinstance(tally, Tally):
        from .progress_channel import Workers

        live = plugins.get_plugin("mlchaos-live")
        plugins.register(Workers(tally, line, live), "mlchaos-workers")


def _check_outputs(config: pytest.Config) -> None:
    """Raise a usage error if an output path is not writable, or if a production pattern is wrong."""
    journal, keep = config.getoption("mlchaos_journal"), config.getoption("mlchaos_keep_state")
    try:
        check_patterns(config.getini("mlchaos_production"))
        if journal is not None:
            check_writable("--mlchaos-journal", journal, "a file")
        if keep is not None:
            check_writable("--mlchaos-keep-state", keep, "a directory")
        for output in OUTPUTS:
            if (target := config.getoption(_dest(output))) is not None:
                output.check(output.option, target)
    except (BadArgument, MissingExtra) as error:
        raise pytest.UsageError(str(error)) from None


def _configured(config: pytest.Config) -> bool:
    """Return True if any setting comes from the command line or the ini file."""
    return any(
        config.getoption(f"mlchaos_{name}") is not None or config.getini(f"mlchaos_{name}")
        for name in Settings.table()
    )


def _check(config: pytest.Config, late: bool) -> None:
    """Read the settings and the replay once, so that a mistake ends the session.

    A conftest file may register faults until the tests are collected, so an unknown fault is only
    an error if ``late``.
    """
    from .marks import replayed_schedule, settings_of

    try:
        settings_of(config)
        replayed_schedule(config)
    except UnknownFault as error:
        if late:
            raise pytest.UsageError(f"--mlchaos-replay: {error}") from None
    except BadArgument as error:
        raise pytest.UsageError(f"mlchaos: {error}") from None


def _note_source(config: pytest.Config) -> None:
    """Find out the commit and the configuration, if an output needs them."""
    if _wanted_outputs(config):
        from .provenance import note_source

        note_source(config)


@pytest.hookimpl(tryfirst=True)  # before ``-m`` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that use the fixture. Check the replay: all faults are registered now."""
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and ("mlchaos" in item.fixturenames or item.get_closest_marker("mlchaos_steady_state"))
            and item.get_closest_marker("mlchaos") is None
        ):
            item.add_marker(USES_FIXTURE)
        if item.get_closest_marker("mlchaos") is not None:
            fault_coverage.find_modules(config)
            _note_source(config)
    if config.getoption("mlchaos_replay") is not None and not hasattr(config, "workerinput"):
        _check(config, late=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which chaos tests the session is to run, so that a journal names those that it did not."""
    config = session.config
    if config.option.collectonly or not _wanted_outputs(config):
        return
    found = [item.nodeid for item in session.items if item.get_closest_marker("mlchaos")]
    if hasattr(config, "workerinput"):
        config.stash[_selected] = found  # it travels with the first report
    elif (collector := config.pluginmanager.get_plugin(COLLECTOR)) is not None:
        collector.select(found)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Print the catalogue of faults and exit, for ``--mlchaos-faults``."""
    if not config.getoption("mlchaos_faults"):
        return None
    from .. import faults
    from ..reports.catalogue import catalogue

    faults.load()
    print(catalogue())  # noqa: T201  # The user asked for this output.
    return 0


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return the settings that differ from their defaults."""
    if config.getoption("mlchaos_off"):
        return "mlchaos: off"
    found = []
    if _configured(config):
        from .marks import settings_of

        found.append(settings_of(config).changed())
    if shows_values():
        found.append("values are shown in reports")
    return f"mlchaos: {', '.join(found)}" if found else None


def _is_chaos(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        if item.get_closest_marker("mlchaos") is not None:
            kind = type(item).__name__.removesuffix("Item").lower()
            raise BadArgument(
                f"chaos faults work on test functions and methods, not on a {kind} ({item.name}). "
                f"Put the decorators on functions "
                "instead of the whole module or class, or move the test into a function"
            )
        return False
    return item.get_closest_marker("mlchaos") is not None or "mlchaos" in item.fixturenames


def _hide_frames() -> None:
    """Leave the frames of this package out of tracebacks: a failure shows the user's code.
    ``--full-trace`` shows them.
    """
    for name, module in sys.modules.copy().items():
        if name.startswith("pytest_mlchaos."):
            vars(module)["__tracebackhide__"] = True


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Show an error of collection again, without the frames of this package."""
    report = yield
    if (
        report.failed
        and (call := getattr(report, "call", None)) is not None
        and call.excinfo is not None
    ):
        _hide_frames()
        shown = collector.repr_failure(call.excinfo)
        report.longrepr = type(report.longrepr)(shown) if isinstance(shown, str) else shown
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, Any, Any]:
    """Warn about chaos decorators on a function that pytest does not collect: they have no effect."""
    collected = yield
    if not collected and inspect.isfunction(obj) and getattr(obj, "pytestmark", None):
        from ..core.faults import chaos_marks

        if marks := ", ".join(f"@chaos.{fault}" for fault in chaos_marks(obj)):
            text = f"{marks} on {name}(), which is not a test, has no effect. Put the decorator on the test that calls it"
            collector.warn(pytest.PytestCollectionWarning(text))
    return collected


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run the body of a chaos test as trials, in place of ``item.runtest``."""
    if not _is_chaos(item):
        return (yield)
    from ..core.progress import followed_by
    from ..engine.attribution import forget_scopes
    from ..engine.patching import Patches
    from ..engine.scopes import forget_all
    from ..engine.user_code import Project, for_project
    from .progress_channel import follow
    from .test_runner import Trials

    forget_all()
    project = Project.of_test(
        (item.config.rootpath, item.path.parent), getattr(item, "module", None)
    )
    mark = interrupts.count_open()
    patches = item.stash[_patches] = Patches()
    # An item with marks and fixtures is a Function.
    item.stash[_trials] = Trials(item, item.runtest, patches, _grow_of(item.config))  # type: ignore[arg-type]
    # Pytest calls item.runtest next.
    item.runtest = item.stash[_trials]  # type: ignore[method-assign]
    progress = follow(item)
    found: list[str] | None = None
    interrupted: BaseException | None = None
    start = time.time()
    try:
        with for_project(project), followed_by(progress):
            return (yield)
    except BaseException as error:
        interrupted = None if isinstance(error, Exception) else error
        if isinstance(error, KeyboardInterrupt | pytest.exit.Exception):
            found = _take_notes(error)
        raise
    finally:
        try:
            # pytest re-raises KeyboardInterrupt, so no hook for the tear-down runs after this one.
            interrupts.leave(mark, patches.undo)
        except BaseException:
            interrupts.leave(mark, patches.undo)  # the user pressed Ctrl-C twice
            raise
        finally:
            if interrupted is not None:
                patches.sweep()
                _keep_interrupted(item, interrupted, start)
            progress.end(found if found is None else [*_found_so_far(item), *found])
            item.__dict__.pop("runtest", None)
            forget_all()
            forget_scopes()


def _found_so_far(item: pytest.Item) -> list[str]:
    """Return the reports of the explorations and of the search of an interrupted test."""
    from .trial_runner import EXPLORED

    reports = [report.text() for report in item.stash.get(EXPLORED, [])]
    trials = item.stash[_trials]
    return [*reports, *([trials.interrupted] if trials.interrupted else [])]


def _take_notes(error: BaseException) -> list[str]:
    """Remove our notes from an interruption and return them.

    pytest would write them into its one line, and xdist would not send them.
    """
    notes: list[str] = getattr(error, "__notes__", [])
    ours = [note for note in notes if note.startswith("mlchaos: ")]
    notes[:] = [note for note in notes if note not in ours]
    return ours


def _grow_of(config: pytest.Config) -> Callable[[Line], object]:
    """Return a function that appends a line to the growing journal."""
    collector = config.pluginmanager.get_plugin(COLLECTOR)
    return collector.grow if collector is not None else lambda line: None


def _keep_interrupted(item: pytest.Item, error: BaseException, start: float) -> None:
    """Add what was found to the journal. pytest makes no report on an interrupted test."""
    collector = item.config.pluginmanager.get_plugin(COLLECTOR)
    if collector is not None:
        collector.add(item.stash[_trials].ended("interrupted", error, start, time.time() - start))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Close the contexts that several interruptions in a row have left open."""
    interrupts.leave(session.config.stash[_mark])
    scopes = sys.modules.get(f"{__name__.partition('.')[0]}.engine.scopes")
    if scopes is not None:
        scopes.forget_all()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Undo the patches that an interruption left, and those that a fixture restored at its
    tear-down.
    """
    if _patches in item.stash:
        item.stash[_patches].undo()
    try:
        return (yield)
    finally:
        if _trials in item.stash:
            item.stash[_trials].forget()
        if _patches in item.stash:
            item.stash[_patches].sweep()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Attach figures and the journal to the report, which xdist sends to the main process."""
    if call.excinfo is not None:
        from ..core.help import add_help

        _hide_frames()
        add_help(call.excinfo.value)
    report = yield
    if (
        hasattr(report, "wasxfail")
        and call.excinfo is not None
        and isinstance(call.excinfo.value, NOT_EXPECTED)
    ):
        # xfail expects a failure of the code under test. These errors say that the test shows
        # nothing.
        del report.wasxfail
        report.outcome = "failed"
    if report.failed and call.excinfo is not None and _is_word_of_the_tool(item, call.excinfo):
        report.longrepr = call.excinfo.exconly()
    if call.when == "call" and _trials in item.stash:
        _attach(item, report, call)
    elif call.when == "teardown" and report.failed and _ended in item.stash:
        _attach_torn_down(item, report, call)
    elif call.when == "setup" and not report.passed and item.get_closest_marker("mlchaos"):
        _attach_unstarted(item, report, call)
    return report


def _attach(item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Attach the figures of a test to its report, and its entries if an output needs them."""
    from ..reports.exports.junit import properties
    from ..reports.journal_reader import TestLog
    from ..reports.rows import rows_of
    from .trial_runner import EXPLORED

    ran = item.stash[_trials]
    explored = item.stash.get(EXPLORED, [])
    is_wanted = bool(_wanted_outputs(item.config)) or fault_coverage.measures_coverage(item.config)
    error = call.excinfo.value if call.excinfo is not None else None
    lines = ran.ended(report.outcome, error, call.start, call.duration)
    if ran.declares or explored:
        log = TestLog(item.nodeid, lines)
        # pytest copies the item's properties into each report, and has made this one already.
        for owner in (item, report):
            owner.user_properties.extend(properties(log))
        # Vars of a report travel from the workers of xdist.
        report.mlchaos = {  # type: ignore[attr-defined]
            "trials": ran.runs,
            "strikes": ran.strikes,
            "real_clock": ran.on_the_real_clock,
            "rows": rows_of(log),
            "untried": ran.untried if report.passed else [],
        }
    report.mlchaos_points = fault_coverage.texts_of_points(lines)  # type: ignore[attr-defined]
    report.mlchaos_detections = texts_of_detections(lines)  # type: ignore[attr-defined]
    if is_wanted:
        report.mlchaos_lines = [line.text() for line in lines]  # type: ignore[attr-defined]
        _attach_selected(item, report)
        item.stash[_ended] = next(one.entry for one in lines if one.entry.kind == "test")
    explored.clear()
    ran.lines.clear()  # pytest keeps its items


def _attach_unstarted(
    item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]
) -> None:
    """Attach the entry of a chaos test that was skipped, or whose fixtures failed."""
    if _wanted_outputs(item.config):
        from ..core.entries import Line
        from .provenance import provenance_of
        from .test_entry import end_of_test

        error = call.excinfo.value if call.excinfo is not None else None
        end = end_of_test(item, None, report.outcome, error)
        entries = filter(None, [provenance_of(item, ()), end])
        report.mlchaos_lines = [  # type: ignore[attr-defined]
            Line(item.nodeid, 0, entry).text() for entry in entries
        ]
        _attach_selected(item, report)


def _attach_torn_down(
    item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None]
) -> None:
    """Attach a new end of a test whose fixtures failed at their tear-down: it has not passed."""
    from ..core.entries import Line
    from .test_entry import end_of_test

    error = call.excinfo.value if call.excinfo is not None else None
    failed = end_of_test(item, None, "failed", error)
    before = item.stash[_ended]
    if before.outcome != "failed":
        end = dataclasses.replace(
            before, outcome="failed", error=failed.error, message=failed.message, place=failed.place
        )
        report.mlchaos_lines = [Line(item.nodeid, 0, end).text()]  # type: ignore[attr-defined]


def _attach_selected(item: pytest.Item, report: pytest.TestReport) -> None:
    """Attach the tests that a worker of xdist is to run, to its first report."""
    report.mlchaos_selected = item.config.stash.get(_selected, [])  # type: ignore[attr-defined]
    item.config.stash[_selected] = []


def _is_word_of_the_tool(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    """Return True if our error has no frame of the test in its traceback: then the frames do not
    help.
    """
    return isinstance(excinfo.value, MlchaosError) and not any(
        entry.path == item.path for entry in excinfo.traceback
    )


@pytest.fixture
def mlchaos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mlchaos:
    """Run a training function or pipeline under this test's faults, and judge the result.

    A run that a fault ends is restarted: ``mlchaos.run(train, tmp_path).assert_recovered()``.
    """
    from ..breaking.baselines import Baselines
    from ..core.slugs import slug_of
    from ..crashes.tested import TestInfo
    from .fixture import Mlchaos
    from .marks import settings_of
    from .session_budget import name_of_budget, within_session
    from .trial_runner import EXPLORED, as_typed

    def workdirs() -> list[Path]:
        """Return the test's own directory. The subject need not receive it as an argument."""
        found = request.node.funcargs.get("tmp_path")
        return [found] if found is not None else []

    keep = request.config.getoption("mlchaos_keep_state")

    def may_crash() -> bool:
        """Return False with ``--mlchaos-off``. Raise ``InjectionForbidden`` in production."""
        if request.config.getoption("mlchaos_off"):
            return False
        refuse_production(request.config.getini("mlchaos_production"))
        return True

    bundle = request.config.getoption("mlchaos_bundle")
    began = request.node.stash.setdefault(_began, [])
    shown = TestInfo(
        as_typed(request.node),
        Path(keep).absolute() if keep else None,
        Path(bundle).absolute() / slug_of(request.node.nodeid) / "state" if bundle else None,
        request.node.path.parent,
        lambda: name_of_budget(request.config, settings_of(request.config, request.node)),
        began,
        request.node.stash.setdefault(EXPLORED, []),
        shard_option.shard_of_states(request.node),
    )

    def baselines() -> Baselines:
        """Return the file of the baselines, for this test."""
        path = request.config.rootpath / request.config.getini("mlchaos_baselines")
        update = bool(request.config.getoption("mlchaos_update_baselines"))
        return Baselines(path, request.node.nodeid, update=update)

    return Mlchaos(
        tmp_path_factory.getbasetemp(),
        workdirs,
        lambda: within_session(request.config, settings_of(request.config, request.node)),
        shown,
        may_crash,
        baselines,
    )
