"""An operation that a hook announced ends when its frame is left, whichever way. Torch-free, for
every Python.
"""

from __future__ import annotations

import contextlib
import sys

import pytest

from pytest_mlchaos.core.clock import RealClock
from pytest_mlchaos.core.sites import Visit
from pytest_mlchaos.engine.gate import Gate
from pytest_mlchaos.sites.torch_train import close_with


def opened(log):
    """A gate with something open behind it."""
    stack = contextlib.ExitStack()
    stack.callback(lambda: log.append("closed"))
    visit = Visit("some.site", 0, stack=stack, records_itself=True)
    return Gate(visit, RealClock())


def helper(fails):
    """Called inside the operation."""
    if fails:
        raise KeyError("inside")


def operation(log, fails):
    """Imitate torch's wrapper of ``Optimizer.step``: it announces itself, works, and may fail."""
    close_with(sys._getframe(), opened(log))
    log.append("works")
    helper(fails)
    return "done"


@pytest.mark.parametrize("fails", [False, True])
def test_the_gate_closes_exactly_when_the_frame_is_left(fails):
    """Before the caller's handler runs, and a profiler of the user's goes on as before."""
    log, seen = [], []
    sys.setprofile(mine := (lambda frame, event, arg: seen.append((event, frame.f_code.co_name))))
    try:
        try:
            assert operation(log, fails) == "done"
        except KeyError:
            log.append("handled")
        assert sys.getprofile() is mine
    finally:
        sys.setprofile(None)
    assert log == ["works", "closed", *(["handled"] if fails else [])]
    assert ("return", "operation") in seen
    assert ("call", "helper") in seen
