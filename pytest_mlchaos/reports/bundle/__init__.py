"""Write ``--mlchaos-bundle=DIR``: a folder for each failing test, to hand to a colleague.

It has ``ISSUE.md`` (ready to paste into a tracker), ``repro.py`` (needs no other file), the
journal of the test, the versions, and the crash state that the report names.
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.slugs import slug_of
from ..collector import write_journal
from ..incidents.text import incident_text
from ..journal_reader import SessionLog, TestLog, session_of
from .repro import repro_text

__all__ = ["write"]

STATE = "state"


def write(session: SessionLog, target: str) -> None:
    """Write a folder for each failing test, and remove the folders of tests that pass now."""
    for test in session.tests.values():
        folder = Path(target) / slug_of(test.nodeid)
        if test.outcome == "failed":
            _write_test(test, folder)
        elif folder.is_dir():
            shutil.rmtree(folder)


def _write_test(test: TestLog, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / STATE
    if state.is_dir():
        # One file can be attached to an issue, and its times and modes stay as they are.
        with tarfile.open(folder / f"{STATE}.tar.gz", "w:gz") as archive:
            archive.add(state, STATE)
        shutil.rmtree(state)
    has_state = (folder / f"{STATE}.tar.gz").exists()
    script, left_out = repro_text(test, _root_of(test))
    files = {
        "ISSUE.md": incident_text(test, list(_how_to_repeat(left_out, has_state=has_state))),
        "repro.py": script,
        "versions.txt": "".join(f"{name} {version}\n" for name, version in _versions(test).items()),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_journal(session_of(test.lines), folder / "journal.jsonl")
    with contextlib.suppress(OSError):
        (folder / "repro.py").chmod(0o755)


def _how_to_repeat(left_out: Sequence[str], *, has_state: bool) -> Iterator[str]:
    """Yield paragraphs about the other files of the bundle."""
    script = (
        "`python repro.py` does it without a checkout. "
        "The script has the test and the modules that it imports."
    )
    yield "\n".join([script, *left_out])
    if has_state:
        yield (
            "`state.tar.gz` is the work directory as the crash left it. "
            "It holds files of the job, so look at it before you publish it."
        )


def _root_of(test: TestLog) -> Path:
    """Return the root directory of the project, to which the paths of the journal are relative."""
    here = Path.cwd()
    file = test.end.file if test.end is not None else ""
    above = [folder for folder in (here, *here.parents) if (folder / file).is_file()]
    below = [Path(*path.parts[: -len(Path(file).parts)]) for path in here.glob(f"*/{file}")]
    return next(iter([*above, *below]), here)


def _versions(test: TestLog) -> dict[str, str]:
    return dict(test.end.environment) if test.end is not None else {}
