"""What the installed plugin costs a test run that has no chaos test (POSIX: it reads the children's CPU time)."""

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
RUN = "import sys, pytest; code = pytest.main(sys.argv[1:])"
SHOW = f"{RUN}; print('loaded:', *sorted({{name.partition('.')[0] for name in sys.modules}})); sys.exit(code)"


def _pytest(code: str, folder: Path, plugin: str) -> str:
    """Run pytest on one empty test file in a process of its own."""
    command = [sys.executable, "-c", code, "-q", "-p", plugin, "-p", "no:cacheprovider", "-c", "pytest.ini", "test_empty.py"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _loaded(folder: Path, plugin: str) -> set[str]:
    return set(_pytest(SHOW, folder, plugin).rpartition("loaded:")[2].split())


def measure(quick: bool) -> list[Figure]:
    """Whole processes with ``-p mlchaos`` against ``-p no:mlchaos``."""
    cpu: Samples = {"mlchaos": [], "no:mlchaos": []}

    def seconds(folder: Path, plugin: str) -> float:
        start, used = time.perf_counter(), _cpu()
        _pytest(RUN, folder, plugin)
        cpu[plugin].append(_cpu() - used)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_empty.py").write_text("def test_empty():\n    pass\n")
        extra = _loaded(folder, "mlchaos") - _loaded(folder, "no:mlchaos")
        wall = interleaved(15 if quick else 60, {plugin: functools.partial(seconds, folder, plugin) for plugin in cpu})
    heavy = sorted(extra.intersection(HEAVY))
    return [
        _figure("plugin load: wall time", wall),
        _figure("plugin load: CPU time", {plugin: used[-len(wall[plugin]) :] for plugin, used in cpu.items()}),
        Figure(
            what="plugin load: heavy modules",
            unit="modules",
            measured=Spread.of([len(heavy)]),
            quiet=len(heavy),
            budget=0,
            note=f"heavy: {', '.join(heavy) or 'none'}; top-level packages that only the plugin loads: {', '.join(sorted(extra))}",
        ),
    ]


def _figure(what: str, samples: Samples) -> Figure:
    apart = milliseconds(*(Spread.of(samples[plugin]).median for plugin in ("mlchaos", "no:mlchaos")))
    note = f"difference of the medians {apart:.1f} ms"
    return compare(what, samples, "mlchaos", "no:mlchaos", milliseconds, "ms", budget=10, note=note)
