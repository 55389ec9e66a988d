"""Define the entries of the journal from which the fault coverage is computed."""

from __future__ import annotations

import dataclasses

from .entries import Entry, entry_kind

__all__ = ["Guard", "Recovery", "Scope", "Touch"]


@entry_kind("touch")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Touch(Entry):
    """A function of the user visited a fault point. Recorded with ``--mlchaos-cov``.

    Attributes:
        point: The fault point: a call that left the project, as ``call client:Client.get``, or a
            file, as ``storage ckpt-*.pt``.
        function: The function, as ``features.py:load``.
    """

    point: str
    function: str


@entry_kind("guard")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guard(Entry):
    """An exception came up after a strike, or a handler ran. Recorded with ``--mlchaos-cov``.

    Attributes:
        error: The type of the exception, or the handler, as ``except ValueError``.
        place: The user's line that raised it, as ``features.py:12 in load``, or the handler's.
        injected: True if the fault itself raised it.
    """

    error: str
    place: str = ""
    injected: bool = False


@entry_kind("recovery")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovery(Entry):
    """A block of recovery code is in a file that a trial ran. Recorded with ``--mlchaos-cov``.

    Attributes:
        file: The file, relative to the root directory of pytest.
        line: The line of its keyword.
        what: The kind, as ``except ValueError``.
        function: The function around it.
        reached: True if a fault has reached it in this test.
    """

    file: str
    line: int
    what: str
    function: str = ""
    reached: bool = False


@entry_kind("scope")
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope(Entry):
    """Hold what the fault coverage of a test depends on. Recorded with ``--mlchaos-cov``.

    Attributes:
        declared: The declared faults, each with its name and its fault point.
        last_check: The last line of the test function after which no check follows.
        no_lines: The reason why recovery code was not followed. Empty if it was.
        cut: True if the calls of the first trial were too many, so that the rest is missing.
    """

    declared: tuple[tuple[str, str], ...] = ()
    last_check: int = 0
    no_lines: str = ""
    cut: bool = False
