"""Run another project's tests plain and with faults that are armed but never strike, and compare
the outcomes test by test.

    python tests/armed_quiet.py --faults storage FOLDER [pytest's arguments ...]
    python tests/armed_quiet.py --faults storage --package test test_zipfile.py ...
    python tests/armed_quiet.py --faults storage,tables --package pandas.tests.io test_parquet.py ...

Armed faults must change nothing: each test has to end as it ends without them. A test that ends
differently in one of two plain runs is
flaky, and is left out. As a pytest plugin (``-p armed_quiet``), this file arms the faults and
writes the outcomes down.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

LATE = 10**9
"""A visit that no test reaches."""
FAULTS = {
    "storage": [
        {"fault": "flaky_storage"},
        {"fault": "truncated_read", "path": "*"},
        {"fault": "damaged_file"},
    ],
    "tables": [{"fault": "missing_feature"}],
    "batches": [{"fault": "corrupt_batch"}, {"fault": "stale_batch"}],
}
"""By the layer that they arm."""
LIMIT = 1800
"""Seconds for one run of a suite."""
FAULTS_VARIABLE = "ARMED_QUIET"
OUTCOMES_VARIABLE = "ARMED_QUIET_OUTCOMES"


# -- the plugin ------------------------------------------------------------------------------------


def _armed() -> list[dict[str, object]]:
    """The faults that this run arms: keywords of the mark."""
    found: list[dict[str, object]] = json.loads(os.environ.get(FAULTS_VARIABLE) or "[]")
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Declare the faults on each test."""
    for item in items:
        for fault in _armed():
            if not hasattr(item, "addFailure"):
                item.add_marker(pytest.mark.mlchaos(at=LATE, **fault))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Arm the faults around a method of ``unittest.TestCase``, which takes no marks of the
    plugin's.
    """
    if not hasattr(item, "addFailure") or not _armed():
        return (yield)
    from pytest_mlchaos import faults, sites
    from pytest_mlchaos.core.faults import create
    from pytest_mlchaos.core.schedule import Schedule
    from pytest_mlchaos.engine.patching import Patches
    from pytest_mlchaos.engine.trial import trial
    from pytest_mlchaos.plugin.pytest_internals import own_directories

    faults.load()
    sites.load()
    schedule = Schedule(tuple(create(fault.pop("fault"), at=LATE, **fault) for fault in _armed()))
    with trial(schedule, Patches(), clock="virtual", own=own_directories(item.config)):
        return (yield)


def pytest_runtest_logreport(report):
    """Write down how each part of a test ended."""
    if path := os.environ.get(OUTCOMES_VARIABLE):
        with Path(path).open("a") as file:
            crash = getattr(report.longrepr, "reprcrash", None)
            file.write(
                json.dumps(
                    [report.nodeid, report.when, report.outcome, crash.message if crash else ""]
                )
                + "\n"
            )


# -- the comparison --------------------------------------------------------------------------------


class End(NamedTuple):
    """The end of a test: the parts of it that did not pass, and the first lines of their errors."""

    parts: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in a line."""
        return "; ".join([", ".join(self.parts) or "passed", *filter(None, self.messages)])


NOT_RUN = End(("did not run",))


def run(folder: Path, arguments: list[str], faults: list[dict[str, object]]) -> dict[str, End]:
    """Run the tests below a folder, with these faults armed; how each one ended."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "outcomes"
        path.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            FAULTS_VARIABLE: json.dumps(faults),
            OUTCOMES_VARIABLE: str(path),
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "armed_quiet",
            "-p",
            "no:cacheprovider",
            "--mlchaos-allow-quiet=true",
            *arguments,
        ]
        try:
            ran = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT,
            )
            output, code = ran.stdout + ran.stderr, ran.returncode
        except subprocess.TimeoutExpired as error:
            output, code = str(error), -1
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            sys.stdout.write(output[-4000:])
        return _read(path)


def _read(path: Path) -> dict[str, End]:
    found: dict[str, End] = {}
    for line in path.read_text().splitlines():
        nodeid, when, outcome, message = json.loads(line)
        end = found.setdefault(nodeid, End())
        if outcome != "passed":
            found[nodeid] = End(
                (*end.parts, f"{when} {outcome}"), (*end.messages, message.partition("\n")[0])
            )
    return found


def differences(plain: dict[str, End], armed: dict[str, End]) -> dict[str, str]:
    """The tests that ended differently, and how: the messages alone may differ, for they hold paths
    and addresses.
    """
    ends = {
        name: (plain.get(name, NOT_RUN), armed.get(name, NOT_RUN)) for name in {**plain, **armed}
    }
    return {
        name: f"plain: {one}\n  armed: {other}"
        for name, (one, other) in ends.items()
        if one.parts != other.parts
    }


def compare(folder: Path, arguments: list[str], faults: list[dict[str, object]]) -> int:
    """Print the figures, and each test that armed faults change; how many they are."""
    plain = run(folder, arguments, [])
    if not plain:
        print(f"{folder}: no test ran")
        return 1
    found = differences(plain, run(folder, arguments, faults))
    flaky = differences(plain, run(folder, arguments, [])) if found else {}
    found = {name: how for name, how in found.items() if name not in flaky}
    failing = sum(any("failed" in part for part in end.parts) for end in plain.values())
    print(
        f"{folder}: {len(plain)} tests ({failing} fail anyway, {len(flaky)} flaky), {len(found)} "
        f"differ with armed faults"
    )
    for name, how in found.items():
        print(f"{name}\n  {how}")
    return len(found)


def main() -> int:
    """Exit with 1 if armed faults change the end of any test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--faults",
        default="storage",
        help=f"which to arm, with commas between: {', '.join(FAULTS)}",
    )
    parser.add_argument(
        "--package",
        action="store_true",
        help="the first argument is an installed package with tests, for example pandas.tests.io",
    )
    parser.add_argument("folder", type=Path, nargs="?", default=".")
    options, arguments = parser.parse_known_args()
    if options.package:
        found = importlib.util.find_spec(str(options.folder))
        if found is None or found.origin is None:
            parser.error(f"{options.folder} is not installed, or has no tests")
        options.folder = Path(found.origin).parent
        # A folder of tests may be named like a module of the standard library (xml).
        os.environ["PYTHONSAFEPATH"] = "1"
    faults = [fault for layer in options.faults.split(",") for fault in FAULTS[layer]]
    return bool(compare(options.folder, arguments, faults))


if __name__ == "__main__":
    sys.exit(main())
