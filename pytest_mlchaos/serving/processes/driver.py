"""Drive a server process: the same loads, over real connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.controller import Controller
from ..load_generators import AsyncDriver
from .command import REAL_TIME, ServerCommand
from .target import ServerTarget

__all__ = ["ServerDriver"]


class ServerDriver(AsyncDriver):
    """Drive a server. Time is real, also for the test."""

    def __init__(
        self, controller: Controller, command: ServerCommand, *, timeout: float, scratch: Path
    ) -> None:
        controller.clock.become_real(REAL_TIME)
        self.server = ServerTarget(controller, command, timeout=timeout, scratch=scratch)
        super().__init__(controller, self.server)

    def close(self) -> None:
        """End the server, and close the loop."""
        try:
            super().close()
        finally:
            self.server.end()

    def kill(self) -> None:
        """Kill the server, as a machine that fails does."""
        self.server.kill()

    def restart(self) -> None:
        """End the server, and start it again."""
        self.stop()
        self.start()

    def _run(self, coroutine: Any, doing: str) -> Any:
        try:
            return super()._run(coroutine, doing)
        except BaseException as error:
            if doing == "between two requests":
                error.add_note(self.server.describe_output())
            raise
