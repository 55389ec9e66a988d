"""Define the methods of the fixture ``mlchaos`` that serve and deploy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.policy import check_host, check_process
from ..core.validation import FLAG, check_arguments, format_value, parse_duration
from ..engine.user_code import take_subject
from ..errors import BadArgument
from ..serving.api import Service
from ..serving.app_runner import AppRunner
from ..serving.processes.command import served_subject
from ..serving.rollouts.api import roll_out
from ..serving.rollouts.verdicts import Rollout
from .fixture_base import FixtureBase
from .part import Part

__all__ = ["ServiceMethods"]


class ServiceMethods(FixtureBase):
    """Serve an app, or roll a new version out."""

    @check_arguments("mlchaos.serve", lifespan=FLAG)
    def serve(
        self,
        app: Callable[..., Any] | None = None,
        *,
        command: Sequence[Any] | None = None,
        url: str | None = None,
        ready: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        lifespan: bool = True,
        timeout: float | str = 10.0,
    ) -> Service:
        """Start ``app`` and serve it in process: ``service.drive(requests)`` sends it requests.

        One event loop serves the app from start to end. It is shut down when the test's body ends,
        at ``service.close()``, or at the end of ``with mlchaos.serve(app) as service``. Faults
        strike in start-up and shut-down, too. A crash inside ends the process, and the test with
        ``CrashNotRestarted``. To restart it, put ``serve`` and ``drive`` into a function and call
        that by ``run``.

        With ``command``, the server is a real process on this machine, and ``drive`` sends it the
        same requests over sockets. All its processes are ended with the test's body.

        Args:
            app: An ASGI app, called with ``(scope, receive, send)``, or a WSGI app, called with
                ``(environ, start_response)`` (both need httpx). Or a callable of one request: a
                function, a coroutine function or a generator, plain or async. Or an object with
                ``predict(request)`` or ``handle(data, context)``.
            command: Instead of ``app``, the command that starts a server (needs httpx), for example
                ``["uvicorn", "app:app", "--port", "{port}"]``. A free port replaces ``{port}``.
            url: The URL of that server, ``"http://127.0.0.1:{port}"``.
            ready: A path of it that answers below 400 when it is ready. Without it, the open port
                shows that.
            env: Variables for its environment, beside those of the test.
            cwd: Its working directory. Without it, that of the test.
            lifespan: If true, the app starts up and shuts down by the lifespan protocol, if it
                speaks it.
            timeout: The time limit for start-up and for shut-down: seconds or ``"30s"``, on the
                trial's clock.

        Raises:
            ServiceFailed: The app does not start, or the server does not end.

        Fidelity: faults strike inside a server process if it is Python and runs ``sitecustomize``.
        Its workers are part of the trial, too. A target is reached in modules that are imported, not
        in the script that runs as ``__main__``. A strike there may have hit any request in flight.
        Time is real.
        """
        seconds = parse_duration(timeout, "timeout")
        if not seconds:
            raise BadArgument(
                f"mlchaos.serve: timeout must be positive, got {format_value(timeout)}"
            )
        controller = self._controller
        if command is not None:
            check_process("mlchaos.serve(command=…)")
        if url is not None:
            check_host("mlchaos.serve", url)
        subject = served_subject(app, command, url=url, ready=ready, env=env, cwd=cwd)
        take_subject(subject)
        controller.serves = True
        controller.starts_servers |= command is not None
        workdirs = self._workdirs()
        part = Part(controller, "service.drive")
        served = AppRunner(
            controller,
            subject,
            lifespan=lifespan,
            timeout=seconds,
            scratch=self._scratch,
            workdirs=workdirs,
        )
        # If no fault struck at all, NeverStruck explains more.
        strict = lambda: not controller.drawn and bool(controller.journal)  # noqa: E731
        return Service(served, strict, controller.judged, part.hand_over)

    def rollout(
        self,
        controller: Any,
        traffic: Any,
        *,
        versions: Any = None,
        strategy: str = "canary",
        steps: Any = None,
        labels: Any = None,
        metrics: Any = None,
        latency: float | str | None = None,
        analyse: Callable[..., Any] | None = None,
        worse: bool | None = None,
        **more: Any,
    ) -> Rollout:
        """Roll a new version out under traffic and the faults of the test.

        The plugin plays the deployment system: it calls ``deploy(version)``, and for each step
        ``split(weights)``, sends requests, and hands the metrics to the analysis. After a pass it
        goes on, and at the end calls ``promote()``. After a fail it calls ``rollback()``, and after
        too many inconclusive ones it stops there. Methods may be plain or async.

        Args:
            controller: An object with ``deploy(version)``, ``split(weights)``, ``promote()`` and
                ``rollback()``. If it has ``handle(request)``, ``predict(request)`` or the like, it
                answers by that. If it has ``analyse(metrics)``, this decides: by the verdict that
                it returns, or by its own calls of the four methods. Also: a dict of models by
                version, a function of ``(version, request)``, a function of ``version`` that loads
                a model, the dotted name of such a function, or a function of a platform with these
                methods and ``metrics()``.
            traffic: A list of requests, which is sent again and again, or a function of the
                request's number.
            versions: The models by version, the old one first, or the names of both.
            strategy: ``"canary"``, ``"blue_green"``, ``"rolling"``, ``"ab"`` or ``"shadow"``.
            steps: The shares of the new version, for example ``[0.1, 0.5]``, or their number. While
                a share is 0, requests are mirrored.
            labels: The right answers: a list, a dict or a function of the request. ``"golden"``:
                those of the old version. Then answers are compared, too.
            metrics: What decides if a version is worse: ``"errors"``, ``"quality"`` (with labels)
                and ``"latency"``. Without it, all that can be measured.
            latency: The limit above which an answer is slow: seconds, or ``"200ms"``.
            analyse: A function of the metrics that decides, instead of the controller.
            worse: True or False if you know that the new version is worse, or is not.
            **more: ``features`` (functions of the request, by version), ``config`` (a dict that a
                rollback must restore), ``user`` (a function of the request, or a field), ``score``
                (a function of answer and label, from 0 to 1), ``is_error``, ``requests`` (at most,
                20,000), ``rate`` (requests a second, 10), ``per_check`` (requests for an analysis,
                100), ``checks`` (analyses in a step of the controller's own, 10), ``patience``
                (further ones while they are inconclusive, 20), ``seed``, ``margin`` (the difference
                that makes a version worse, 0.05), ``false_rollbacks`` and ``false_promotions`` (the
                error rates of the default test, 0.05).

        Returns:
            A ``Rollout``.

        Fidelity: one request at a time. A user keeps the version while its share does not change.
        """
        with self._running("mlchaos.rollout", controller) as part:
            trace = roll_out(
                self._controller,
                controller,
                traffic,
                versions=versions,
                labels=labels,
                analyse=analyse,
                worse=worse,
                options={
                    "strategy": strategy,
                    "steps": steps,
                    "metrics": metrics,
                    "latency": latency,
                },
                more=more,
            )
            trial = self._controller
            strict = lambda: not trial.drawn and bool(trial.journal)  # noqa: E731
            return part.hand_over(Rollout(trace, strict=strict, judged=trial.judged))
