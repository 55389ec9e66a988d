"""The command line of ``run``: its own options, and the arguments that it leaves to pytest."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from ..core.validation import parse_whole
from ..errors import BadArgument
from ..reports.outputs import OUTPUTS
from .engine import Session
from .engines import ENGINES

__all__ = ["RunOptions", "add_options", "read_options"]

SHARDS_PER_WORKER = 32
"""A worker gets several shards at a time. More of them let the last shares be smaller."""
MAX_SHARDS = 100_000
_CHANGED_MEANWHILE = ("--lf", "--last-failed", "--sw", "--stepwise")
_ROOT_FILES = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg", "setup.py")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The options of one ``run``.

    Attributes:
        engine: The name of the engine.
        workers: The number of workers.
        shards: The number of shards.
        attempts: The number of workers that a shard may lose.
        address: The address of the cluster, or None for the engine's default.
        journal: The file that gets the joined journal, or None.
        report: The file that gets the report without times, or None.
        keep: The directory that gets the journals of the shares, or None.
        session: The session.
    """

    engine: str
    workers: int
    shards: int
    attempts: int
    address: str | None
    journal: Path | None
    report: Path | None
    keep: Path | None
    session: Session


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run`` to its parser."""
    parser.add_argument(
        "--on", metavar="ENGINE", default="local", help=f"the engine: {', '.join(ENGINES)}"
    )
    parser.add_argument(
        "--workers", metavar="N", help="the number of workers. Without it, one per core here"
    )
    parser.add_argument(
        "--shards",
        metavar="N",
        help=f"the number of shards. Without it, {SHARDS_PER_WORKER} per worker",
    )
    parser.add_argument(
        "--attempts",
        metavar="N",
        default="3",
        help="how many workers may die with a shard before it is given up (default: 3)",
    )
    parser.add_argument(
        "--address", metavar="ADDRESS", help="the address of the cluster, for ray and dask"
    )
    parser.add_argument(
        "--mlchaos-journal", metavar="FILE", dest="journal", help="the joined journal"
    )
    parser.add_argument(
        "--report", metavar="FILE", help="write the report without times, as JSON or as text"
    )
    parser.add_argument(
        "--journals", metavar="DIR", dest="keep", help="keep the journal of each share here"
    )


def read_options(given: argparse.Namespace, rest: Sequence[str]) -> RunOptions:
    """Check the options of ``run``. ``rest`` are the arguments of pytest.

    Raises:
        BadArgument: An option is wrong.
    """
    if given.on not in ENGINES:
        raise BadArgument(
            f"--on={given.on}: expected one of {', '.join(ENGINES)}. SLURM and Kubernetes need no "
            f"engine: see docs/howto/cluster.md"
        )
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    workers = _number("--workers", given.workers, cores, 10_000)
    shards = _number("--shards", given.shards, workers * SHARDS_PER_WORKER, MAX_SHARDS)
    arguments = [argument for argument in rest if argument != "--"]
    _check(arguments)
    project, folder = _project(Path.cwd())
    return RunOptions(
        engine=given.on,
        workers=min(workers, shards),
        shards=shards,
        attempts=_number("--attempts", given.attempts, 3, 100),
        address=given.address,
        journal=None if given.journal is None else Path(given.journal).absolute(),
        report=None if given.report is None else Path(given.report).absolute(),
        keep=None if given.keep is None else Path(given.keep).absolute(),
        session=Session(
            [_relative(argument) for argument in arguments],
            str(project),
            folder,
            max(1, cores // workers) if given.on == "local" else 1,
        ),
    )


def _number(option: str, text: str | None, default: int, largest: int) -> int:
    if text is None:
        return default
    number = parse_whole(text) if text.isdecimal() else None
    if number is None or not 1 <= number <= largest:
        raise BadArgument(f"{option}={text}: expected a number from 1 to {largest}")
    return number


def _check(arguments: Sequence[str]) -> None:
    """Refuse arguments that would be wrong in each worker."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if name == "--mlchaos-shard":
            raise BadArgument("--mlchaos-shard: `run` divides the session into shards by itself")
        if name in _CHANGED_MEANWHILE:
            raise BadArgument(
                f"{name}: workers change what failed last while others read it. Name the tests"
            )
        if name in {output.option for output in OUTPUTS}:
            raise BadArgument(
                f"{name}: each worker would write its own. Use --mlchaos-journal=FILE here, and "
                f"then: python -m pytest_mlchaos report FILE {name.replace('mlchaos-', '')}"
            )


def _project(folder: Path) -> tuple[Path, str]:
    """Return the directory of the project, which the workers get, and this one relative to it."""
    for above in (folder, *folder.parents):
        if any((above / name).is_file() for name in _ROOT_FILES):
            return above, os.path.relpath(folder, above)
    return folder, "."


def _relative(argument: str) -> str:
    """Make an absolute path below this directory relative, because workers have it elsewhere."""
    path, colons, rest = argument.partition("::")
    if os.path.isabs(path) and Path(path).exists():
        inside = os.path.relpath(path)
        if not inside.startswith(os.pardir):
            return f"{inside}{colons}{rest}"
    return argument
