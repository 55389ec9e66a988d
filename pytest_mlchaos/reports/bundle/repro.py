"""Write a script that repeats one failure, with all of the project's code that it needs."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

from ...core.project_imports import project_files
from ..journal_reader import TestLog

__all__ = ["repro_text"]

MAX_FILE_BYTES = 200_000
"""A longer module is left out."""
CONFIGURATION = ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
SCRIPT = string.Template('''\
# /// script
# requires-python = ">=$python"
# dependencies = [$dependencies]
# ///
"""Repeat one failure of a chaos test: python repro.py

$what
The script writes the files below into a temporary directory, and runs the test there.
It exits as pytest does: with 1 if the test fails, and with 0 if it passes.
"""

import pathlib
import sys
import tempfile

import pytest

TEST = $test
REPLAY = $replay
ERROR = $error
FILES = {$files}


class Seen:
    """The type of the error that failed the test."""

    error = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        if call.excinfo is not None:
            self.error = call.excinfo.type.__qualname__
        return (yield)


def main():
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            path = pathlib.Path(folder, "project", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        root = f"{folder}/project"
        seen = Seen()
        options = [f"{root}/{TEST}", f"--rootdir={root}", "-o", "addopts=", "-p", "no:cacheprovider"]
        options += ["-o", $pythonpath, f"--basetemp={folder}/tmp", *sys.argv[1:]]
        if REPLAY:
            options += ["--mlchaos-replay", REPLAY]
        code = pytest.main(options, plugins=[seen])
    repeated = seen.error == ERROR
    found = seen.error or "no error"
    print("repeated:" if repeated else f"not repeated, expected {ERROR} but found", found)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
''')


def repro_text(test: TestLog, root: Path) -> tuple[str, list[str]]:
    """Return the script, and sentences on what it does not have.

    Args:
        test: The failing test.
        root: The root directory of pytest.
    """
    end = test.end
    assert end is not None
    left_out: list[str] = []
    files = dict(_files(root, end.file, left_out))
    schedule = f" under {end.replay}" if end.replay else ""
    libraries = {
        name: version
        for name, version in end.environment.items()
        if name not in ("python", "system")
    }
    folders = {str(Path(name).parent) for name in files if name.endswith(".py")}
    sources = sorted({"."} | ({"src"} if any(one.startswith("src") for one in folders) else set()))
    script = SCRIPT.substitute(
        python=".".join(end.environment.get("python", "3.11").split(".")[:2]),
        # A package index has no local versions, such as 2.13.0+cpu.
        dependencies=", ".join(
            f'"{name}=={version.partition("+")[0]}"' for name, version in libraries.items()
        ),
        what=f"{test.nodeid} fails with {end.error}{schedule}.".replace('"""', "'''"),
        test=repr(test.nodeid),
        replay=repr(end.replay),
        error=repr(end.error),
        files="".join(f"\n    {name!r}: {_literal(text)}," for name, text in files.items()) + "\n",
        pythonpath=repr("pythonpath=" + " ".join(sources)),
    )
    return script, left_out


def _literal(text: str) -> str:
    """Return source code for a text, as readable as possible."""
    if "'''" not in text and "\\" not in text and not text.endswith("'"):
        return f"'''\\\n{text}'''" if not text.startswith("\n") else f"'''{text}'''"
    if "'''" not in text and not text.endswith(("\\", "'")) and text.startswith("\n"):
        return f"r'''{text}'''"
    lines = text.splitlines(keepends=True)
    return "(\n" + "".join(f"        {line!r}\n" for line in lines) + "    )" if lines else "''"


def _files(root: Path, test_file: str, left_out: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the test's file, the modules of the project that it imports, and pytest's options."""
    found: dict[Path, str] = {}
    for path, text in project_files(root / test_file, root, _read).items():
        if text is None:
            left_out.append(
                f"`{path.relative_to(root).as_posix()}` is not in it, because the file is missing, "
                f"too long or not text."
            )
        else:
            found[path] = text
    for path in sorted(found):
        yield path.relative_to(root).as_posix(), found[path]
    for name in CONFIGURATION:
        text = _read(root / name)
        if text is not None:
            yield name, text
            break
    left_out.append("Data files that the test reads are not in it.")


def _read(path: Path) -> str | None:
    try:
        content = path.read_bytes()
        return content.decode() if len(content) <= MAX_FILE_BYTES else None
    except (OSError, UnicodeDecodeError):
        return None
