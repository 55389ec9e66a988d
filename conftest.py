"""Set up the tests: pytester, and a choice of tests that this environment can run."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import zlib
from concurrent.futures import thread as pools

import hypothesis
import pytest

pytest_plugins = ["pytester"]

HAS_TORCH = importlib.util.find_spec("torch") is not None


def pytest_ignore_collect(collection_path, config):
    """Leave out test modules that need torch if it is missing. Their first line says that they need
    it.
    """
    if HAS_TORCH or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    return "needs torch" in collection_path.read_text().partition("\n")[0] or None


def pytest_addoption(parser):
    """Let CI run a part of the slow tests each day."""
    parser.addoption(
        "--part", metavar="K/N", help="of the tests, run those of part K of N (K from 0)"
    )


def pytest_collection_modifyitems(config, items):
    """Leave slow tests to ``-m slow``, unless a test is named; skip what needs a real GPU if there
    is none.
    """
    if config.getoption("--part"):
        part, parts = map(int, config.getoption("--part").split("/"))
        others = [item for item in items if zlib.crc32(item.nodeid.encode()) % parts != part]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]
    if not config.option.markexpr and not any("::" in argument for argument in config.args):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            built = "" if torch.version.cuda else f", and torch {torch.__version__} has no CUDA"
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device{built}"))


def pytest_configure():
    """Restore SIGINT, which a shell ignores in background jobs (``&``), or the signals of some
    tests would be lost. A busy machine draws examples slowly, and that must not fail a test.
    """
    hypothesis.settings.register_profile(
        "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("busy")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Fail if a test has left a thread. It would silently keep the run from ending."""
    own = threading.current_thread(), threading.main_thread(), *pools._threads_queues
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread not in own]
    for thread in left:
        thread.join(5)
    if stuck := [thread.name for thread in left if thread.is_alive()]:
        sys.stderr.write(f"a test has left these threads running: {', '.join(stuck)}\n")
        sys.stderr.flush()
        os._exit(1)


@pytest.fixture(autouse=True)
def _no_project_is_left():
    """Forget the subjects that a test ran by itself, as the plugin does after each chaos test.

    Their folders would decide in the next test which modules are the user's.
    """
    yield
    if user_code := sys.modules.get("pytest_mlchaos.engine.user_code"):
        user_code.set_project(user_code.Project())


@pytest.fixture
def example(_everything_is_loaded, _warm_pytest, pytester, monkeypatch):
    """Provide a project of the test's own: files in, outcome out."""
    # pytest prints failures twice if one of the first two is set.
    for name in ("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    # Python would use the compiled form of a file that changes within a second and keeps its
    # length.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    from pytest_mlchaos.core.faults import FAULTS
    from tests.example import Example

    known = dict(FAULTS)
    yield Example(pytester, _warm_pytest)
    FAULTS.clear()
    FAULTS.update(known)


@pytest.fixture(scope="session")
def _warm_pytest():
    """Provide the process that forks pytests. It starts at the first request."""
    from examples.warm_pytest import WarmPytest

    warm = WarmPytest(
        "torch",
        "torch.utils.data",
        "torch._dynamo",
        "pandas",
        "pyarrow.parquet",
        "scipy.stats",
        "cv2",
        "cloudpickle",
    )
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def _everything_is_loaded():
    """Load modules that register themselves, or are slow to import.

    pytester forgets the modules that a run in this process imports.
    """
    import hypothesis.internal.conjecture.optimiser
    import hypothesis.strategies._internal.flatmapped  # noqa: F401
    import numpy.random  # noqa: F401

    import pytest_mlchaos.decorators
    import pytest_mlchaos.plugin.fixture
    import pytest_mlchaos.plugin.test_runner
    import pytest_mlchaos.reports.catalogue
    import pytest_mlchaos.reports.collector
    import pytest_mlchaos.search.explore  # noqa: F401
    from pytest_mlchaos import faults, sites

    faults.load()
    sites.load()
    if importlib.util.find_spec("trio") is not None:
        import trio.testing  # noqa: F401  # anyio's plugin imports it in each run
    if HAS_TORCH:
        import torch  # noqa: F401
        from torch.utils.data import DataLoader  # noqa: F401
