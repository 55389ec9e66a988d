"""Define the fault of background work that serves several requests: its task dies."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import Any, Literal

from ...core.faults import register
from ...core.sites import CALL, Key, Visit
from ...engine.background_tasks import background_tasks, throw
from ...errors import BadArgument, PayloadMismatch
from ..calls import CallFailure, make_error

__all__ = ["BatcherFailure"]
LAYER = "Calls and services"
IDLE_SECONDS = 1e-3
"""The time for which a request waits, so that the task fails before it arrives."""


@register
class BatcherFailure(CallFailure):
    """A background task of the app gets an exception: a batching worker, a queue's consumer.

    Background tasks are those of the event loop that run code of yours, and that no request in
    flight has started. All of them get the exception, at the place where they wait.

    Args:
        moment: ``"idle"``: when a request arrives, before it reaches the app. ``"busy"``: when the
            task has continued after that, and waits again, usually with the request in its hands. A
            search tries both.
        target: A function that the background work calls, ``"app:Batcher.step"``. It then raises
            instead, and ``at`` counts its calls. Use it for work in threads.
        error: The exception, as for ``call_failure``.

    Imitates: an error that nothing catches in the loop of a batcher, a refresher or a consumer.

    Fidelity: the exception appears at an ``await`` of the task, also at one that could not fail by
    itself. A task that other code restarts is sound. Tasks that a request started count once that
    request is over. With ``"idle"``, the request reaches the app 1 ms later.

    Source: the documentation of asyncio, about tasks whose exceptions are never retrieved,
    https://docs.python.org/3/library/asyncio-dev.html#detect-never-retrieved-exceptions

    Example: @chaos.batcher_failure(target="json:loads", at=0)
    """

    site = "serve.request"
    target: str | None = None  # type: ignore[assignment]  # this fault may omit the target
    moment: Literal["idle", "busy"] = "idle"

    @property
    def positions(self) -> Mapping[str, tuple[str, ...]]:  # type: ignore[override]  # depends on target
        """Return the moments that a search tries."""
        return {"moment": ("idle", "busy")} if self.target is None else {}

    def check(self) -> None:
        """Check the parameters."""
        super().check()
        if self.when != "before":
            raise BadArgument(f"{self.name}: when must not be given, got {self.when!r}")

    @property
    def key(self) -> Key:
        """Count the requests, or the calls of the target."""
        return self.site if self.target is None else (CALL, self.target)

    @property
    def called(self) -> str:
        """Return the place of the error."""
        return self.target or "a background task"

    def possible(self, visit: Visit) -> bool:
        """Return True if the app has background tasks now."""
        return self.target is not None or bool(background_tasks())

    def apply(self, visit: Visit) -> None:
        """Throw the exception into the background tasks, or raise it in the target."""
        if self.target is not None:
            super().apply(visit)
            return
        tasks = background_tasks()
        if not tasks:
            raise PayloadMismatch(
                f"{self.name}: the app must have a background task in its event loop, got none at "
                f"request {visit.index}. For work in threads, give target="
            )
        visit.skip()
        if self.moment == "idle":
            visit.sleep(IDLE_SECONDS)
        for task in tasks:
            error = make_error(self.error, self.called, self.name)
            throw(task, error, _recorded(visit, error), busy=self.moment == "busy")


def _recorded(visit: Visit, error: BaseException) -> Any:
    def thrown() -> None:
        visit.record_injection(error)
        visit.error = None  # the request itself does not fail

    # In no request's context, because the task works for all of them.
    return lambda: contextvars.Context().run(thrown)
