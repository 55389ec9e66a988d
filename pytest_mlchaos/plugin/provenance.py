"""Find out what a session runs: the commit, the configuration, and the limits of its faults.

The commit is read before the first test, because tests may change files and the environment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ..core.entries import BreakingPointEntry, Entry, State, StrikeEntry
from ..core.faults import FAULTS
from ..core.privacy import shows_values
from ..core.provenance import REPLAY, Provenance
from ..errors import MlchaosError
from ..reports.catalogue import sections

__all__ = ["note_source", "provenance_of"]

SOURCE: pytest.StashKey[Provenance] = pytest.StashKey()
LOCKS = (
    *("uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "Pipfile.lock", "conda-lock.yml"),
    *("pylock*.toml", "requirements*.txt"),
)
CONFIGURATION = ("pyproject.toml",)
CODE = ("*.py", "*.pyi", "*.toml", "*.ini", "*.cfg")
"""Files that can change what a test does, although Git does not track them."""
GIT_SECONDS = 30
"""The time limit for one call of Git. A large working tree takes seconds."""
BUILT_IN = ("mlchaos", "mlchaos_settings", "mlchaos_steady_state", "parametrize", "usefixtures")
"""Marks that say nothing about the purpose of a test."""


def note_source(config: pytest.Config) -> None:
    """Keep the commit and the digests of files for the tests of this session. Read them once."""
    if SOURCE in config.stash:
        return
    root = config.rootpath
    commit, tree, changed = _commit_of(root)
    config.stash[SOURCE] = Provenance(
        commit=commit, tree=tree, changed=changed, files=dict(_digests(root, config.inipath))
    )


def provenance_of(item: pytest.Item, entries: Iterable[Entry]) -> Provenance | None:
    """Return the entry of a test that has ended, or None if no output needs it.

    Args:
        item: The test.
        entries: Its other entries.
    """
    source = item.config.stash.get(SOURCE, None)
    if source is None:
        return None
    marks = {mark.name for mark in item.iter_markers()} - set(BUILT_IN)
    return dataclasses.replace(
        source,
        settings=_settings_of(item),
        marks=tuple(sorted(marks)),
        fidelity=_fidelity(set(_used(item, entries))),
    )


def _settings_of(item: pytest.Item) -> str:
    from .marks import settings_of

    if item.config.getoption("mlchaos_off"):
        return "off"
    try:
        found = settings_of(item.config, item).changed()
    except MlchaosError:
        return "not valid"  # the error failed the test
    replay = item.config.getoption("mlchaos_replay")
    replayed = f"{REPLAY}{replay}" if replay is not None else ""
    shown = "values are shown" if shows_values() else ""
    return ", ".join(filter(None, [found, shown, replayed]))


def _used(item: pytest.Item, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the names of the faults that a test declares, and of those that struck."""
    for mark in item.iter_markers("mlchaos"):
        name = mark.kwargs.get("fault")
        if isinstance(name, str) and not item.config.getoption("mlchaos_off"):
            yield name
    for entry in entries:
        if isinstance(entry, StrikeEntry | BreakingPointEntry):
            yield entry.fault.partition("(")[0]
        elif isinstance(entry, State):
            yield "crash"


def _fidelity(names: set[str]) -> dict[str, str]:
    return {
        name: sections(FAULTS[name]).get("Fidelity", "")
        for name in sorted(names)
        if name in FAULTS  # an unknown one failed the test
    }


# -- files -----------------------------------------------------------------------------------------


def _digests(root: Path, ini: Path | None) -> Iterator[tuple[str, str]]:
    """Yield the digests of the configuration, and of lock files in the root or the repository."""
    found = {} if ini is None else {_shown(ini, root): ini}
    for folder in dict.fromkeys((root, _repository(root))):
        patterns = (*CONFIGURATION, *LOCKS)
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
            found.setdefault(_shown(path, root), path)
    for name, path in sorted(found.items()):
        try:
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            continue


def _shown(path: Path, root: Path) -> str:
    """Return a path relative to the root directory. One that is elsewhere is its name alone."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _repository(root: Path) -> Path:
    return next((one for one in (root, *root.parents) if (one / ".git").exists()), root)


# -- Git -------------------------------------------------------------------------------------------


def _commit_of(root: Path) -> tuple[str, str, int]:
    """Return the commit, its tree, and the number of files that differ. Without Git, nothing."""
    repository = _repository(root)
    if not (repository / ".git").exists():
        return "", "", 0
    try:
        if root != repository and _is_ignored(root):
            return "", "", 0  # the commit of a repository around the project says nothing about it
        commit, tree = _git(root, "rev-parse", "HEAD", "HEAD^{tree}").split()
        tracked = _git(root, "status", "--porcelain", "-z", "--no-renames", "-uno").split("\0")
        others = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE)
    except (OSError, subprocess.SubprocessError, ValueError):
        return "", "", 0
    return commit, tree, sum(map(bool, [*tracked, *others.split("\0")]))


def _is_ignored(folder: Path) -> bool:
    try:
        _git(folder.parent, "check-ignore", "--quiet", folder.name)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1:  # 1 says that it is not ignored
            raise
        return False
    return True


def _git(root: Path, *arguments: str) -> str:
    # Without optional locks, Git writes nothing, so a Git command of the user's is not disturbed.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        timeout=GIT_SECONDS,
        check=True,
    )
    return done.stdout.decode("utf-8", "replace")
