"""Implement ``mlchaos.serve``: run an app under load.

1. ``app_runner.py`` starts the app (``asgi.py`` implements the protocol), saves the state at its
   start, and shuts it down.
   ``kinds.py`` decides what it is: ASGI, WSGI (``wsgi.py``), a callable or a model
   (``callables.py``).
2. ``drive`` passes the requests (``requests.py``) to ``load_generators.py``, which sends them in
   the app's event loop, or to ``thread_driver.py``.
3. ``traffic.py`` decides beforehand which requests arrive when (``arrivals.py``, ``sources.py``),
   and ``users.py`` what their clients do: they think, lose patience, and try again.
4. ``patience.py`` ends a load that can never be answered.
5. ``runs/user_state.py`` restores memory, so that the golden load (``golden_load.py``) is that of a
   fresh app without faults.
6. ``verdicts.py`` holds the replies. ``judgements/`` judges them, with ``slo.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..core.replies import Reply
from ..core.validation import (
    CALLABLE,
    COUNT,
    ITERABLE,
    WHOLE,
    Rule,
    check_arguments,
    is_real,
    optional,
    parse_duration,
    parse_positive_duration,
)
from .app_runner import AppRunner
from .distributions import parse_distribution
from .requests import counts_as_error
from .retries import parse_retries
from .traffic import make_traffic
from .verdicts import Load

__all__ = ["Service"]


RATE = Rule("requests a second, above 0", lambda value: is_real(value) and value > 0)
REQUESTS_AT_A_TIME = Rule("a number of requests, 1 or more", COUNT.holds)
SHARE = Rule("a share from 0 to 1", lambda value: is_real(value) and 0 <= value <= 1)
PREDICATE = Rule("a predicate on the reply", CALLABLE.holds)


def _positive(value: float | str | None, name: str) -> float | None:
    return None if value is None else parse_positive_duration(value, f"drive: {name}")


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
        rate=optional(RATE),
        concurrency=optional(REQUESTS_AT_A_TIME),
        number=optional(REQUESTS_AT_A_TIME),
        peak=optional(RATE),
        returning=SHARE,
        seed=WHOLE,
        is_error=PREDICATE,
        companions=ITERABLE,
    )
    def drive(
        self,
        requests: Any = None,
        *,
        rate: float | None = None,
        concurrency: int | None = None,
        number: int | None = None,
        duration: float | str | None = None,
        pattern: str | None = None,
        peak: float | None = None,
        period: float | str | None = None,
        classes: Mapping[str, Any] | None = None,
        returning: float = 0.0,
        patience: float | str | None = None,
        retries: Any = None,
        think_time: Any = None,
        seed: int = 0,
        is_error: Callable[[Reply], object] = counts_as_error,
        linger: float | str | None = None,
        companions: Iterable[Any] = (),
    ) -> Load:
        """Send the requests, and return a ``Load`` of their replies.

        An error that a request raises in the app is its reply's error, and the load goes on. A
        plain function or a WSGI app is called in the test's own thread, one request after another.
        With ``concurrency`` above 1 it is called in this many threads. On the virtual clock one of
        them runs at a time.

        Args:
            requests: A list of requests, a strategy of Hypothesis (``mlchaos.openapi(app)`` is
                one), or recorded traffic (``mlchaos.replay(path)``). A request to an ASGI or
                WSGI app is ``"/path"``, ``(method, path)``, ``(method, path, json)``, a dict of
                httpx's request keywords or an ``httpx.Request``. A WebSocket is
                ``("WEBSOCKET", path, messages)`` or ``{"websocket": path, "send": messages}``, with
                ``receive`` (close after this number of messages), ``pause``, ``close`` (the code),
                ``subprotocols``, ``headers``, ``params``. For a callable: its one argument.
            rate: Requests a second, on the trial's clock: an open loop. They arrive by the
                ``pattern``, even if earlier ones are not done. Without it, the next request is sent
                when one is done: a closed loop.
            concurrency: The number of requests in flight, or of users in a closed loop: 1 without
                ``rate``, unlimited with it. With ``rate``, the wait for a free place counts as
                latency.
            number: The number of requests. A shorter list comes again from its start.
            duration: The time in which requests arrive: seconds or ``"1h"``. A list comes again.
            pattern: With ``rate``, the mean rate: ``"constant"`` (evenly spaced), ``"poisson"`` (at
                random), or at random with a rate that changes: ``"burst"``, ``"ramp"`` (it rises),
                ``"diurnal"`` (it is highest in the middle of the ``period``). ``"replay"``: the
                times of recorded traffic, which need no ``rate``.
            peak: The highest rate of the last three: 10 times the mean for bursts, else twice.
            period: The time of a burst and its pause (10 s), of the ramp (the duration), or of a
                day (the duration, at most 24 h).
            classes: Classes of traffic by name: ``{"small": (0.9, requests), "large": (0.1,
                requests)}``, each with its share and a request or a list of them. ``requests`` is
                left out, or is their number. Or each class has a function, which makes its request
                of a given one. ``reply.group`` is the class.
            returning: The share of requests that are earlier ones again, so that caches are hit.
            patience: The time after which a client leaves: seconds or ``"2s"``. It is an error of
                the app. An ASGI app is told so, and a coroutine function is cancelled.
            retries: The number of times that a client tries again after an error, a status of 429
                or lost patience. Or a dict: ``{"number": 2, "backoff": "100ms", "factor": 2, "max":
                "10s", "jitter": 0.5, "retry_after": True, "when": predicate}``, of which these are
                the defaults but for ``number``. Or a function of the reply and the number of
                attempts so far, which returns the time to wait or None. The latency counts from the
                first arrival, ``reply.attempts`` has the number, and the patience counts anew.
            think_time: In a closed loop, the time that a user waits after a reply: a duration or a
                distribution such as ``"exponential(2s)"``.
            seed: A number that changes all that is random here.
            is_error: A predicate on a reply that counts it as an error. Without it, statuses of 500
                or more are errors (a status of 4xx is an answer).
            linger: The time for which the load waits for calls whose clients have left: seconds or
                ``"30s"``. Without it, 5 seconds of virtual time, or 1 second of real time.
            companions: Clean requests, for example ``["/health", "/metrics"]``. Each is sent before
                the load, in turn beside its requests, and after it. No fault strikes them as such.
                They count neither in latencies nor as errors, and have no place in ``concurrency``.
                ``assert_isolated`` and ``assert_companions`` judge them.

        Fidelity: requests enter the app in process, without sockets. Background tasks run before
        the next request of the same slot, though latency does not count them.
        """
        traffic = make_traffic(
            requests,
            rate=rate,
            number=number,
            duration=_positive(duration, "duration"),
            pattern=pattern,
            peak=peak,
            period=_positive(period, "period"),
            classes=classes,
            returning=returning,
            think_time=None
            if think_time is None
            else parse_distribution(think_time, "drive: think_time"),
            seed=seed,
        )
        slots = 1 if concurrency is None and traffic.arrivals is None else concurrency
        played, place = self._app_runner.drive(
            traffic.requests,
            arrivals=traffic.arrivals,
            concurrency=slots,
            is_error=is_error,
            linger=None if linger is None else parse_duration(linger, "linger"),
            group=None if classes is None else traffic.requests.group,
            until=traffic.until,
            thinks=traffic.thinks,
            patience=_positive(patience, "patience"),
            retries=parse_retries(retries),
            seed=seed,
            companions=tuple(companions),
        )
        golden = functools.partial(self._app_runner.golden, place)
        return self._hand_over(
            Load(
                played.replies,
                golden,
                played.between,
                strict=self._strict,
                judged=self._judged,
                evidence=played,
            )
        )

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
