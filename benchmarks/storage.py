"""Measure an operation on storage in an armed trial in which nothing is due, and the time to arm
one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import Figure, Spread, compare, interleaved, milliseconds, percent, real_seconds

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites

BUDGET = 15.0
TRIAL_BUDGET = 1.0
LARGE_BUDGET = 5.0
"""The budget for 64 MiB, in percent."""
CYCLES = 200
MIB = bytes(1 << 20)
FAR = 10**9


def _cycle(path: Path) -> None:
    """Do two operations: an open, and a raw write at the close."""
    with open(path, "wb") as file:
        file.write(b"x" * 100)


def _read(path: Path) -> None:
    """Do two operations: an open and a raw read."""
    with open(path, "rb") as file:
        file.read()


def _rename(path: Path) -> None:
    """Rename a file twice, there and back."""
    os.replace(path, f"{path}.other")
    os.replace(f"{path}.other", path)


def _descriptor(path: Path) -> None:
    """Do three operations: an open, a write and a read of a descriptor."""
    number = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(number, b"x" * 100)
    os.lseek(number, 0, os.SEEK_SET)
    os.read(number, 100)
    os.close(number)


def _write_64_mib(path: Path) -> None:
    """Write 64 pieces of 1 MiB."""
    with open(path, "wb") as file:
        for _ in range(64):
            file.write(MIB)


def _read_64_mib(path: Path) -> None:
    """Read 64 pieces of 1 MiB."""
    with open(path, "rb") as file:
        while file.read(len(MIB)):
            pass


def measure(quick: bool) -> list[Figure]:
    """Measure each kind of operation, bare and armed, divided by the operations that a trial
    counts.
    """
    load_faults()
    load_sites()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "test0").mkdir()
        path = base / "test0" / "file.bin"
        kinds: dict[str, tuple[Callable[[Any], object], Any]] = {
            "open, write, close": (_cycle, path),
            "open, read, close": (_read, path),
            "rename": (_rename, path),
            "os.open, os.write, os.read": (_descriptor, path),
        }
        if importlib.util.find_spec("fsspec") is not None:
            import fsspec

            memory = fsspec.filesystem("memory")
            kinds["fsspec memory: pipe, cat"] = (_pipe_and_cat, memory)
        if importlib.util.find_spec("torch") is not None:
            kinds["torch.save, torch.load"] = (_save_and_load, path)
        figures = [
            _per_operation(name, base, action, argument, quick)
            for name, (action, argument) in kinds.items()
        ]
        large = base / "test0" / "large.bin"
        figures += [
            _of_64_mib("write", base, _write_64_mib, large, quick),
            _of_64_mib("read", base, _read_64_mib, large, quick),
        ]
        large.unlink()
        _cycle(base / "outside.bin")
        return [*figures, _outside(base, quick), _arming(base, quick)]


def _pipe_and_cat(memory: Any) -> None:
    memory.pipe("/bench/x", b"x" * 100)
    memory.cat("/bench/x")


def _save_and_load(path: Path) -> None:
    import torch

    torch.save([1, 2, 3], path)
    torch.load(path)


def _armed(base: Path) -> Any:
    return trial(
        Schedule((create("crash", site="storage", at=FAR),)), Patches(), clock="virtual", own=[base]
    )


def _counted(base: Path, action: Callable[[Any], object], argument: Any) -> int:
    """Return how many operations one call makes."""
    with _armed(base) as controller:
        action(argument)
        return controller.count("storage")


def _seconds(
    context: Callable[[], Any], action: Callable[[Any], object], argument: Any, cycles: int
) -> float:
    with context():
        action(argument)
        start = real_seconds()
        for _ in range(cycles):
            action(argument)
        return (real_seconds() - start) / cycles


def _per_operation(
    what: str, base: Path, action: Callable[[Any], object], argument: Any, quick: bool
) -> Figure:
    operations = _counted(base, action, argument)
    cycles = CYCLES if action is not _save_and_load else 20
    sides = {
        "bare": functools.partial(_seconds, contextlib.nullcontext, action, argument, cycles),
        "armed": functools.partial(
            _seconds, functools.partial(_armed, base), action, argument, cycles
        ),
    }
    samples = interleaved(20 if quick else 100, sides)
    bare = Spread.of(samples["bare"]).median * 1e6
    figure = compare(
        f"storage: {what}",
        samples,
        "armed",
        "bare",
        lambda one, other: (one - other) / operations * 1e6,
        "µs",
        budget=BUDGET,
    )
    return dataclasses.replace(
        figure, note=f"per operation, {operations} of them; bare all together {bare:.1f} µs"
    )


def _of_64_mib(
    what: str, base: Path, action: Callable[[Any], object], path: Path, quick: bool
) -> Figure:
    """Measure a large transfer."""
    sides = {
        "bare": functools.partial(_seconds, contextlib.nullcontext, action, path, 1),
        "armed": functools.partial(_seconds, functools.partial(_armed, base), action, path, 1),
    }
    return compare(
        f"storage: {what} 64 MiB",
        interleaved(8 if quick else 30, sides),
        "armed",
        "bare",
        percent,
        "%",
        budget=LARGE_BUDGET,
    )


def _outside(base: Path, quick: bool) -> Figure:
    """Measure a file that does not belong to the test, so nothing is counted."""
    elsewhere = functools.partial(_armed, base / "nowhere")
    sides = {
        "bare": functools.partial(
            _seconds, contextlib.nullcontext, _read, base / "outside.bin", CYCLES
        ),
        "armed": functools.partial(_seconds, elsewhere, _read, base / "outside.bin", CYCLES),
    }
    samples = interleaved(20 if quick else 100, sides)
    return compare(
        "storage: open, read, close elsewhere",
        samples,
        "armed",
        "bare",
        lambda one, other: (one - other) * 1e6,
        "µs",
    )


def _arming(base: Path, quick: bool) -> Figure:
    """Measure arming and disarming a trial, which patches each alias in each loaded module.

    The first trial searches all modules, and is not measured.
    """

    def seconds() -> float:
        start = real_seconds()
        with _armed(base):
            pass
        return real_seconds() - start

    samples = interleaved(20 if quick else 100, {"bare": lambda: 0.0, "armed": seconds})
    figure = compare(
        "storage: a trial", samples, "armed", "bare", milliseconds, "ms", budget=TRIAL_BUDGET
    )
    return dataclasses.replace(figure, note=f"{len(sys.modules)} modules are loaded")
