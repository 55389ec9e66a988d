"""Implement ``mlchaos.serve``: run an app under load.

1. ``app_runner.py`` starts the app (``asgi.py`` implements the protocol), saves the state at its
   start, and shuts it down.
2. ``drive`` passes the requests (``requests.py``) to ``load_generators.py``, which sends them in
   the app's event loop or in plain threads.
3. ``patience.py`` ends a load that can never be answered.
4. ``runs/user_state.py`` restores memory, so that the golden load (``golden_load.py``) is that of a
   fresh app without faults.
5. ``verdicts.py`` holds the replies. ``judgements/`` judges them, with ``slo.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..core.replies import Reply
from ..core.validation import (
    CALLABLE,
    COUNT,
    ITERABLE,
    Rule,
    check_arguments,
    is_real,
    optional,
    parse_duration,
)
from ..errors import BadArgument
from .app_runner import AppRunner
from .golden_load import GoldenLoad
from .requests import counts_as_error
from .verdicts import Load

__all__ = ["Service"]


REQUESTS = Rule("a list of requests", ITERABLE.holds)
RATE = Rule("requests a second, above 0", lambda value: is_real(value) and value > 0)
REQUESTS_AT_A_TIME = Rule("a number of requests, 1 or more", COUNT.holds)
PREDICATE = Rule("a predicate on the reply", CALLABLE.holds)


class Service:
    """An app that is running: ``drive`` sends it requests.

    It is shut down when the test's body ends, or at the end of ``with``.
    """

    def __init__(
        self,
        served: AppRunner,
        strict: Callable[[], bool],
        judged: Callable[[str, bool], None],
        hand_over: Callable[[Load], Load],
    ) -> None:
        self._app_runner = served
        self._strict = strict
        self._judged = judged
        self._hand_over = hand_over

    @check_arguments(
        "drive",
        requests=REQUESTS,
        rate=optional(RATE),
        concurrency=optional(REQUESTS_AT_A_TIME),
        is_error=PREDICATE,
    )
    def drive(
        self,
        requests: Iterable[Any],
        *,
        rate: float | None = None,
        concurrency: int | None = None,
        is_error: Callable[[Reply], object] = counts_as_error,
        linger: float | str | None = None,
    ) -> Load:
        """Send the requests, and return a ``Load`` of their replies.

        An error that a request raises in the app is its reply's error, and the load goes on. A
        plain function is called in the test's own thread, one request after another. With
        ``concurrency`` above 1 it is called in this many threads, whose order differs from run to
        run.

        Args:
            requests: For an ASGI app: ``"/path"``, ``(method, path)``, ``(method, path, json)``, a
                dict of httpx's request keywords or an ``httpx.Request``. For a callable: its one
                argument.
            rate: Requests a second, on the trial's clock. They arrive evenly spaced, even if
                earlier ones are not done. Without it, the next request is sent when one is done: a
                closed loop.
            concurrency: The number of requests in flight: 1 without ``rate``, unlimited with it.
                With ``rate``, the wait for a free place counts as latency.
            is_error: A predicate on a reply that counts it as an error. Without it, statuses of 500
                or more are errors (a status of 4xx is an answer).
            linger: The time for which the load waits for calls whose clients have left: seconds or
                ``"30s"``. Without it, 5 seconds of virtual time, or 1 second of real time.

        Fidelity: requests enter the app in process, without sockets. Background tasks run before
        the next request of the same slot, though latency does not count them.
        """
        listed = list(requests)
        if not listed:
            raise BadArgument("drive: requests must not be empty. Give one or more")
        slots = 1 if concurrency is None and rate is None else concurrency
        waits = None if linger is None else parse_duration(linger, "linger")
        replies, place = self._app_runner.drive(
            listed, rate=rate, concurrency=slots, is_error=is_error, linger=waits
        )
        golden = lambda time: GoldenLoad(*self._app_runner.golden(place, time))  # noqa: E731
        return self._hand_over(Load(replies, golden, strict=self._strict, judged=self._judged))

    def kill(self) -> None:
        """Kill the server and all its processes by SIGKILL, as a machine that fails does.

        Requests find no server until ``restart``. It needs ``serve(command=...)``.
        """
        self._app_runner.server("kill").kill()

    def restart(self) -> None:
        """End the server, start it again at the same port, and wait until it answers.

        After ``kill()``, it only starts it. It needs ``serve(command=...)``.
        """
        self._app_runner.server("restart").restart()

    def close(self) -> None:
        """Shut the app down now. Raise ``ServiceFailed`` if that fails."""
        self._app_runner.stop()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: Any) -> None:
        self._app_runner.leave(error[1])
