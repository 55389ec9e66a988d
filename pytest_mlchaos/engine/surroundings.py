"""What a process starts with besides memory and disk: its working directory and its environment."""

from __future__ import annotations

import contextlib
import os

__all__ = ["Surroundings"]


class Surroundings:
    """The working directory and the environment as they are now; as a context, they come back at its end."""

    def __init__(self) -> None:
        self._here = os.getcwd()
        self._environment = dict(os.environ)

    def restore(self) -> None:
        """Make both as they were."""
        with contextlib.suppress(FileNotFoundError):
            os.chdir(self._here)  # by its name: another directory may have it now
        if dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)

    def __enter__(self) -> Surroundings:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
