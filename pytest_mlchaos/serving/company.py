"""Send further requests beside one request: copies of it, or attempts that its client gives up."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
from typing import TYPE_CHECKING, Any

from ..core.clients import Company
from ..engine.attribution import scope_beside
from .task_set import TaskSet

if TYPE_CHECKING:
    from .load_generators import AsyncTarget, Call
    from .requests import PreparedRequest

__all__ = ["Beside"]


class Beside:
    """The requests beside those of one load.

    Args:
        target: The app.
        tasks: The tasks of the load.
    """

    def __init__(self, target: AsyncTarget, tasks: TaskSet) -> None:
        self._target = target
        self._tasks = tasks
        self._context = contextvars.copy_context()  # outside of each request

    async def send(
        self, company: Company, request: PreparedRequest, payload: Any, number: int
    ) -> None:
        """Send the copies of a request, and the attempts that its client gives up.

        Args:
            company: Their numbers.
            request: The request.
            payload: What a fault made of it, or None for the request itself.
            number: The number of the request.
        """
        for _ in range(company.copies):
            self._start(request, payload, number)
        if company.copies and number % (company.copies + 1):
            await asyncio.sleep(0)  # the copies come first, so the app may refuse the original
        for _ in range(company.retries):
            call = self._start(request, payload, number)
            await asyncio.sleep(company.after)
            call.leave()

    def _start(self, request: PreparedRequest, payload: Any, number: int) -> Call:
        call = self._target.begin(request, _fresh(request, payload), None, _nothing)
        self._tasks.start_beside(_run(call, number), self._context)
        return call


def _nothing() -> None:
    """Do nothing when the client leaves: it has no place in the load."""


def _fresh(request: PreparedRequest, payload: Any) -> Any:
    """Return a copy of a callable's argument, because the app may change it."""
    if payload is None and hasattr(request, "parts"):
        return None  # the parts of a request over HTTP are never changed
    value = request.payload if payload is None else payload
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # it cannot be copied
        return value


async def _run(call: Call, number: int) -> None:
    # No client gets this answer, nor its error.
    with scope_beside(beside_request=number), contextlib.suppress(Exception):
        await call.run()
