"""Define a file that appears later."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core.faults import Fault, is_drawn, register
from ...core.sites import Key, Visit
from ...core.storage import StoredFile
from ...core.validation import parse_positive_duration
from .damaged_file import SITE, check_pattern, file_key, struck_later

__all__ = ["LateFile"]
LAYER = "Storage"


@register
class LateFile(Fault):
    """A file of the input appears later.

    It is ``damaged_file(kind="late")``. ``at`` counts files as there.

    Args:
        path: A pattern of files, as for ``damaged_file``. Without it, any file.
        delay: Seconds, or ``"30s"``, ``"2h"``, on the trial's clock.

    Imitates: a delivery that is late, a consumer that is earlier than its producer, an upload that
    is not finished.

    Fidelity: the file is complete as soon as it is there. A pinned fault counts as a strike
    although no reader may look for the file.

    Example: ``@chaos.late_file(path="*.csv", delay="2h", at=0)``
    """

    site = SITE
    random = False
    path: str | None = None
    delay: Any = "30s"

    def check(self) -> None:
        """Convert ``delay`` to seconds."""
        check_pattern(self.name, "path", self.path)
        if not is_drawn(self.delay):
            seconds = parse_positive_duration(self.delay, f"{self.name}: delay")
            object.__setattr__(self, "delay", seconds)

    @property
    def key(self) -> Key:
        """Count the visits of each pattern separately."""
        return file_key(self.path)

    def apply(self, visit: Visit) -> StoredFile | None:
        """Return the file as one that appears later."""
        file: StoredFile = visit.payload
        visit.note(path=file.path, delay=self.delay)
        return struck_later(visit, dataclasses.replace(file, absent=True, delay=self.delay))
