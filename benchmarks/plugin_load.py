"""Measure what the installed plugin adds to a test run without chaos tests.

It needs POSIX, because it reads the CPU time of child processes.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Figure, Samples, Spread, compare, interleaved, milliseconds

HEAVY = ("torch", "numpy", "hypothesis", "pandas")
EMPTY = "empty_plugin"
RUN = "import sys, pytest; code = pytest.main(sys.argv[1:])"
SHOW = f"{RUN}; print('loaded:', *sorted({{name.partition('.')[0] for name in sys.modules}})); sys.exit(code)"


def _pytest(code: str, folder: Path, plugin: str) -> str:
    """Run pytest on one empty test file in a process of its own."""
    command = [
        sys.executable,
        "-c",
        code,
        "-q",
        "-p",
        plugin,
        "-p",
        "no:cacheprovider",
        "-c",
        "pytest.ini",
        "test_empty.py",
    ]
    # The folder is on sys.path because of -c.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is not compiled at each start
    return subprocess.run(
        command, cwd=folder, env=env, check=True, capture_output=True, text=True
    ).stdout


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _loaded(folder: Path, plugin: str) -> set[str]:
    return set(_pytest(SHOW, folder, plugin).rpartition("loaded:")[2].split())


def measure(quick: bool) -> list[Figure]:
    """Measure whole processes with ``-p mlchaos``, with ``-p no:mlchaos``, and with an empty
    plugin.

    pytest looks up the empty plugin's name, too.
    """
    cpu: Samples = {"mlchaos": [], "no:mlchaos": [], EMPTY: []}

    def seconds(folder: Path, plugin: str) -> float:
        start, used = time.perf_counter(), _cpu()
        _pytest(RUN, folder, plugin)
        cpu[plugin].append(_cpu() - used)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_empty.py").write_text("def test_empty():\n    pass\n")
        (folder / f"{EMPTY}.py").write_text("")
        extra = _loaded(folder, "mlchaos") - _loaded(folder, "no:mlchaos")
        wall = interleaved(
            15 if quick else 60,
            {plugin: functools.partial(seconds, folder, plugin) for plugin in cpu},
        )
    used = {plugin: values[-len(wall[plugin]) :] for plugin, values in cpu.items()}
    return [
        _compare("plugin load: wall time", wall, "no:mlchaos"),
        _compare("plugin load: CPU time", used, "no:mlchaos"),
        _compare("plugin load: CPU time, beyond an empty plugin", used, EMPTY),
        _heavy(extra),
    ]


def _compare(what: str, samples: Samples, base: str) -> Figure:
    apart = milliseconds(*(Spread.of(samples[plugin]).median for plugin in ("mlchaos", base)))
    return compare(
        what,
        samples,
        "mlchaos",
        base,
        milliseconds,
        "ms",
        budget=10,
        note=f"difference of the medians {apart:.1f} ms",
    )


def _heavy(extra: set[str]) -> Figure:
    heavy = sorted(extra.intersection(HEAVY))
    note = f"heavy: {', '.join(heavy) or 'none'}; packages that only the plugin loads: {', '.join(sorted(extra))}"
    return Figure(
        what="plugin load: heavy modules",
        unit="modules",
        measured=Spread.of([len(heavy)]),
        quiet=len(heavy),
        budget=0,
        note=note,
    )
