"""Define what the groups of methods of the fixture ``mlchaos`` share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..breaking.baselines import Baselines
from ..core.settings import Settings
from ..crashes.tested import TestInfo
from ..engine.user_code import take_subject
from .part import Part
from .tools import Tools

__all__ = ["BASELINES", "FixtureBase"]

BASELINES = ".mlchaos/baselines.json"
"""The file of the baselines, relative to the root directory of pytest."""


class FixtureBase(Tools):
    """Hold the surroundings of the test: its folders, its settings and what it has explored."""

    def __init__(
        self,
        scratch: Path,
        workdirs: Callable[[], Iterable[Path]] = tuple,
        settings: Callable[[], Settings] = Settings,
        test_info: TestInfo | None = None,
        may_crash: Callable[[], bool] = lambda: True,
        baselines: Callable[[], Baselines] = lambda: Baselines(Path(BASELINES), "test"),
    ) -> None:
        self._scratch = scratch
        self._test_info = test_info or TestInfo()
        self._folder = self._test_info.folder
        self._workdirs = workdirs
        self._settings = settings
        self._may_crash = may_crash
        self._baselines = baselines

    @contextlib.contextmanager
    def _running(self, what: str, subject: Callable[..., Any], **how: Any) -> Iterator[Part]:
        """Run a subject inside. Refuse a call from inside a different subject of this test."""
        take_subject(subject)
        with self._controller.subject_of(what):
            yield Part(self._controller, what, **how)
