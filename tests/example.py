"""Example projects: files in, outcome out."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import re
import textwrap

import pytest

from examples.warm_pytest import WarmPytest

TRIED = re.compile(r"mlchaos: (\d+) schedules? tried")
FLOAT = re.compile(r"(?<![\w.])-?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)(?!\w|\.\w)")
ANY_NUMBER = r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?!\w|\.\w)"
CLOSE = 1e-2
"""Relative tolerance for floats in shown output: kernels differ between processors, and reports
have three digits.
"""
QUIET = ("-p", "no:cacheprovider", "-p", "no:randomly")
ASYNC_INI = (
    "asyncio_default_fixture_loop_scope = function\n"
    if importlib.util.find_spec("pytest_asyncio")
    else ""
)


def entries_in(path, kind=None):
    """The entries of a journal, of one kind or of all."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry for entry in entries if kind in (None, entry["kind"])]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a run of pytest."""

    outcomes: dict[str, int]
    text: str
    exit_code: int

    @property
    def reproduce(self) -> list[str]:
        """The decorators that the report asks to paste."""
        lines = re.findall(r"(?:reproduce: |             )(@chaos\.[^\n]*)", self.text)
        return [line.strip() for line in lines]

    @property
    def replay(self) -> str:
        """The schedule that the report asks to replay."""
        return re.search(r'--mlchaos-replay "([^"]*)"', self.text)[1]

    @property
    def tried(self) -> int:
        """Return the number of schedules that the report says were tried."""
        return int(TRIED.search(self.text)[1])

    def has(self, *texts: str) -> bool:
        """Check that the output contains all of these texts. A failure shows the output."""
        for text in texts:
            assert text in self.text, f"{text!r} is not in:\n{self.text}"
        return True

    def shows(self, text: str) -> bool:
        """Check a text like ``has``, but a floating-point number may differ by ``CLOSE``. Integers
        are exact.
        """
        pattern = ANY_NUMBER.join(re.escape(part) for part in FLOAT.split(text))
        wanted = [float(number) for number in FLOAT.findall(text)]
        for match in re.finditer(pattern, self.text):
            if all(
                math.isclose(float(found), number, rel_tol=CLOSE)
                for found, number in zip(match.groups(), wanted, strict=True)
            ):
                return True
        raise AssertionError(f"{text!r} is not in, within {CLOSE:g}:\n{self.text}")


@dataclasses.dataclass(frozen=True)
class Example:
    """A project in a folder of its own; each ``with_…`` gives a new one."""

    pytester: pytest.Pytester
    warm: WarmPytest
    files: tuple[tuple[str, str], ...] = ()

    def with_file(self, name: str, source: str) -> Example:
        """The project with one more file."""
        return dataclasses.replace(self, files=(*self.files, (name, textwrap.dedent(source))))

    def with_tests(self, source: str) -> Example:
        """The project with a test file, chaos imported."""
        return self.with_file(
            "test_it.py",
            "from pytest_mlchaos import Fault, chaos, visit\n" + textwrap.dedent(source),
        )

    def with_ini(self, text: str) -> Example:
        """The project with these ini options."""
        return self.with_file("pytest.ini", f"[pytest]\n{ASYNC_INI}{textwrap.dedent(text)}")

    def run(
        self, *args: str, fresh: bool = False, interpreter: bool = False, **expected: int
    ) -> Outcome:
        """Run pytest on it and check the outcomes that are given.

        With ``fresh``, run it in a process forked from one that has imported torch. With
        ``interpreter``, start Python anew: slow, and
        needed if it matters which modules are loaded or how strings are hashed.
        """
        for name, text in self.files:
            path = self.pytester.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if not any(name == "pytest.ini" for name, _ in self.files):
            (self.pytester.path / "pytest.ini").write_text(f"[pytest]\n{ASYNC_INI}")
        if fresh:
            exit_code, out, err = self._forked(*QUIET, *args)
            text = f"{out}\n{err}"
        else:
            result = (
                self.pytester.runpytest_subprocess
                if interpreter
                else self.pytester.runpytest_inprocess
            )(*QUIET, *args)
            exit_code, text = int(result.ret), f"{result.stdout.str()}\n{result.stderr.str()}"
        last = [line for line in text.splitlines() if line.startswith("=") and " in " in line][-1:]
        outcome = Outcome(
            pytest.RunResult.parse_summary_nouns(last) if last else {}, text, exit_code
        )
        for name, count in expected.items():
            assert outcome.outcomes.get(name, 0) == count, outcome.text
        return outcome

    def _forked(self, *args: str) -> tuple[int, str, str]:
        folder = self.pytester.path
        count = len(list(folder.glob("runpytest-*")))
        variables = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(folder), os.environ.get("PYTHONPATH", "")])
            ),
        )
        return self.warm.run(
            [f"--basetemp={folder / f'runpytest-{count}'}", *args], folder, variables
        )
