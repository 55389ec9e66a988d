"""Define the entry of the journal that says what a test ran with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .entries import Entry, entry_kind

__all__ = ["REPLAY", "Provenance"]

REPLAY = "replay="
"""The beginning of the setting that holds the schedule of ``--mlchaos-replay``."""


@entry_kind("provenance")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provenance(Entry):
    """A test ran with this code and these settings. A journal has one such entry for each test.

    Attributes:
        commit: The Git commit of the code. Empty if it is not known.
        tree: The Git tree of that commit.
        changed: The number of files that differ from the commit: tracked files, and Python and
            configuration files that Git neither tracks nor ignores.
        files: The SHA-256 digests of the configuration and lock files, by their paths relative to
            the root directory of pytest.
        settings: The settings that differ from their defaults, ``off`` with ``--mlchaos-off``, and
            the schedule of ``--mlchaos-replay``.
        marks: The names of the test's marks.
        fidelity: What each fault of the test does not simulate. The text is empty if the fault's
            docstring does not say it.
    """

    commit: str = ""
    tree: str = ""
    changed: int = 0
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: str = ""
    marks: tuple[str, ...] = ()
    fidelity: Mapping[str, str] = dataclasses.field(default_factory=dict)
