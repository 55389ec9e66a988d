"""Snapshot the global state of a process before a session, and compare it afterwards."""

from __future__ import annotations

import copyreg
import os
import random
import signal
import sys
import threading
import time
import types

from pytest_mlchaos.core import interrupts
from pytest_mlchaos.crashes.recording import audit_events
from pytest_mlchaos.engine import attribution, controller, scopes

__all__ = ["Processes", "changed", "state"]

NOT_OURS = (
    "_pytest",
    "pluggy",
    "pytest",
    "pytest_",
    "hypothesis",
    "scenarios",
    "test_",
    "conftest",
    "_hypothesis",
    "tests",
)
"""Whose names change from session to session: the test tools themselves."""
FUNCTIONS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    type,
    staticmethod,
    classmethod,
    property,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
)
_sleep = time.sleep


def state(only=None):
    """Name and value of all that a fault, a trial or a supervised run may have changed; ``only``:
    of these modules.
    """
    found = {}
    for name, module in [(name, sys.modules[name]) for name in only or list(sys.modules)]:
        if isinstance(module, types.ModuleType) and not name.startswith(NOT_OURS):
            for key, value in list(vars(module).items()):
                if isinstance(value, FUNCTIONS):
                    found[name, key] = value
                    if isinstance(value, type) and value.__module__ == name:
                        found.update(
                            {
                                (name, key, part): held
                                for part, held in list(vars(value).items())
                                if isinstance(held, FUNCTIONS)
                            }
                        )
    found.update(
        {("signal", int(number)): signal.getsignal(number) for number in signal.valid_signals()}
    )
    found["profile"], found["trace"], found["thread profile"] = (
        sys.getprofile(),
        sys.gettrace(),
        threading.getprofile(),
    )
    if hasattr(sys, "monitoring"):
        found.update({("monitoring", tool): sys.monitoring.get_tool(tool) for tool in range(6)})
    found["cwd"] = os.getcwd()
    found.update(
        {
            ("environ", key): value
            for key, value in os.environ.items()
            if not key.startswith("PYTEST")
        }
    )
    found.update({("copyreg", kind): how for kind, how in copyreg.dispatch_table.items()})
    found["stdout"], found["stderr"], found["meta_path"] = (
        sys.stdout,
        sys.stderr,
        tuple(sys.meta_path),
    )
    found["random"] = random.getstate()
    found["affinity"] = tuple(os.sched_getaffinity(0))
    found["controllers"], found["open contexts"] = len(controller._active), interrupts.count_open()
    found["deferred"] = (
        interrupts._signals.depth,
        len(interrupts._signals.handlers),
        len(interrupts._signals.pending),
    )
    found["listeners"], found["inside"], found["scope"] = (
        len(audit_events._listeners),
        scopes.inside(),
        attribution._SCOPE.get(),
    )
    if "torch" in sys.modules:
        found.update(_of_torch(sys.modules["torch"]))
    return found


def _of_torch(torch):
    from torch.nn.modules import module
    from torch.optim import optimizer
    from torch.utils import _python_dispatch as dispatch

    yield "torch threads", torch.get_num_threads()
    yield "torch random", torch.get_rng_state().numpy().tobytes()
    yield "dispatch modes", dispatch._len_torch_dispatch_stack()
    for owner in (module, optimizer):
        for name, value in vars(owner).items():
            if name.startswith("_global_") and isinstance(value, dict):
                yield (owner.__name__, name), tuple(value)


def changed(before, now):
    """Return the names of values that changed or vanished. New ones count outside of modules."""
    return [
        key
        for key in {**before, **now}
        if (key in before or not (isinstance(key, tuple) and key[0] in sys.modules))
        and key in before  # what came with a module that was imported meanwhile
        and not _same(before[key], now.get(key))
    ] + [
        key
        for key in now
        if isinstance(key, tuple) and key[0] in ("environ", "copyreg") and key not in before
    ]


def _same(one, other):
    if isinstance(one, (types.MethodType, tuple, str, int, bytes)):
        return one == other
    return one is other


def threads_left(seconds=3.0):
    """Threads of the plugin's that should be gone by now."""
    until = time.monotonic() + seconds
    while True:
        left = [
            one.name
            for one in threading.enumerate()
            if one.name.startswith("mlchaos-") and one.name != "mlchaos-timeout"
        ]
        if not left or time.monotonic() > until:
            return left
        _sleep(0.01)


class Processes:
    """The processes that carry a mark in their environment."""

    def __init__(self, mark):
        self._mark = mark.encode()

    def count(self):
        """Return the number of live objects, including this one."""
        return len(self._found())

    def _found(self):
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    marked = self._mark in environ.read()
                with open(f"/proc/{name}/stat") as stat:
                    dead = stat.read().rpartition(")")[2].split()[0] in "ZX"
            except OSError:
                continue
            if marked and not dead:
                found.append(int(name))
        return found

    def more_than(self, most, seconds=5.0):
        """Return how many more there are than ``most``, once they had time to end."""
        until = time.monotonic() + seconds
        while (left := self.count() - most) > 0 and time.monotonic() < until:
            _sleep(0.01)
        return max(0, left)

    def told(self):
        """Their command lines."""
        lines = []
        for pid in self._found():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    lines.append(
                        f"{pid}: {file.read()[:60].replace(bytes(1), b' ').decode(errors='replace')}"
                    )
            except OSError:
                continue
        return lines
