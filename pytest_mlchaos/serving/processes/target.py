"""Start a server's processes, wait until it answers, send it requests, and end it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...core.clients import Client
from ...engine.attribution import Scope, current_scope
from ...engine.controller import Controller
from ...engine.scopes import INTERNAL_OPERATION, within
from ...engine.start_hook import armed_processes, without_hook, write_hook
from ...errors import BadArgument, ServiceFailed
from ...sites.serving import SITE
from ..http_requests import load_httpx
from ..requests import Answer, PreparedRequest
from .call import ServerCall
from .command import OWNER, ServerCommand, accepts_connections
from .connections import holder_of, listens, processes_below
from .server import ServerProcess

__all__ = ["ServerTarget"]

POLL_SECONDS = 0.01
FOREIGN_SECONDS = 2.0
"""Real seconds to wait for the server, if a process that it has not started opens its port first.

That is a server that took the free port. Or it is one that a daemon runs, for example a container.
"""
ASK_SECONDS = 0.1
"""Real seconds between two requests to a server that is not ready."""


class ServerTarget:
    """A server in processes of its own, as a target of ``AsyncDriver``."""

    def __init__(
        self, controller: Controller, command: ServerCommand, *, timeout: float, scratch: Path
    ) -> None:
        load_httpx("a command")
        self._controller = controller
        self._command = command
        self._timeout = timeout
        self._scratch = scratch
        self._folder: Path | None = None
        self._last = ""
        self._in_flight: dict[ServerCall, Scope | None] = {}
        self.process: ServerProcess | None = None

    # -- from start to end -------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the server, and wait until it answers. Raise ``ServiceFailed`` if it does not."""
        command = self._command
        if accepts_connections(command.host, command.port):
            raise ServiceFailed(
                f"the server was not started: the port {command.port} is in use by another "
                f"process. End that process, or write {{port}} for a free one"
            )
        with within(INTERNAL_OPERATION):
            self._folder = Path(tempfile.mkdtemp(prefix="mlchaos-server-", dir=self._scratch))
            armed = write_hook(self._folder, self._controller, "server", (SITE,))
        try:
            self.process = ServerProcess(command, self._environment(armed=armed))
            await self._ready(self.process)
            self._check_armed(armed=armed)
        except BaseException as error:
            self._end_with(error)
            raise
        self.hear()

    def _environment(self, *, armed: bool) -> dict[str, str]:
        """Return the environment of the server.

        It finds the programs beside this interpreter, and the modules that the test finds.
        """
        env = {**without_hook(os.environ), "PYTHONUNBUFFERED": "1", **self._command.env}
        env["PATH"] = os.pathsep.join(
            [os.path.dirname(sys.executable), env.get("PATH", os.defpath)]
        )
        paths = [str(self._folder)] if armed else []
        paths += filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
        paths += [path for path in map(os.path.abspath, sys.path) if _is_project(path)]
        env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        return env

    async def _ready(self, process: ServerProcess) -> None:
        loop = asyncio.get_running_loop()
        until, heard = loop.time() + self._timeout, ""
        opened: float | None = None
        while process.is_running:
            if accepts_connections(self._command.host, self._command.port):
                opened = opened or loop.time()
                if not self._is_own(process) and loop.time() - opened < FOREIGN_SECONDS:
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                heard = await self._refusal()
                if not heard:
                    return
            if loop.time() > until:
                raise ServiceFailed(
                    f"the server did not answer within {self._timeout:g} s (timeout= of "
                    f"{OWNER}): {heard or f'its port {self._command.port} is not open'}"
                )
            await asyncio.sleep(ASK_SECONDS if heard else POLL_SECONDS)
        raise ServiceFailed(f"the server failed at start-up: {process.ending()}")

    def _is_own(self, process: ServerProcess) -> bool:
        """Return False if the port belongs to a process that this server has not started."""
        return not sys.platform.startswith("linux") or listens(
            self._command.port, processes_below(process.keeper_pid)
        )

    async def _refusal(self) -> str:
        """Return why the server is not ready, or an empty text."""
        path = self._command.ready
        if path is None:
            return ""
        import httpx

        request = httpx.Request("GET", self._command.url + path)
        call = ServerCall(request, self._command.host, self._command.port, lambda: 0.0)
        try:
            async with asyncio.timeout(self._timeout):
                await call.run()
        except TimeoutError:
            return f"GET {path} is not answered"
        fields = call.answer().fields
        status = fields.get("status")
        if status is None:
            return f"GET {path} failed: {fields['error']}"
        return f"GET {path} was answered with {status}" if status >= 400 else ""

    def _check_armed(self, *, armed: bool) -> None:
        """Refuse a server in which the faults that the test declares cannot strike."""
        assert self._folder is not None
        scheduled = [one.fault for one in self._controller.scheduled]
        if (
            armed
            and not self._controller.drawn
            and all(fault.key != SITE for fault in scheduled)
            and not armed_processes(self._folder)
        ):
            raise BadArgument(
                f"{OWNER}: no fault can strike inside the server, because none of its processes "
                f"runs sitecustomize as Python does at its start (python -I, -E or -S, or a "
                f"program that is not Python). Start it by this interpreter, "
                f"{os.path.basename(sys.executable)}"
            )

    async def stop(self) -> None:
        """Ask the server to end, and end what is left of it."""
        process = self.process
        if process is None:
            return
        try:
            if process.is_running and not process.terminate(self._timeout):
                process.kill()
                raise ServiceFailed(
                    f"the server did not end within {self._timeout:g} s of SIGTERM (timeout= of "
                    f"{OWNER}), and was killed"
                )
        except ServiceFailed as error:
            self._end_with(error)
            raise
        finally:
            self.end()

    def end(self) -> None:
        """End all processes of the server."""
        process, self.process = self.process, None
        if process is not None:
            process.end()
            self._last = process.last_lines()
        self.hear()
        folder, self._folder = self._folder, None
        if folder is not None:
            with within(INTERNAL_OPERATION):
                shutil.rmtree(folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the server and all processes below it."""
        if self.process is not None:
            self.process.kill()

    def describe_output(self) -> str:
        """Return the last lines of the server, as a note of an error."""
        last = self._last if self.process is None else self.process.last_lines()
        lines = "\n  ".join(last.splitlines())
        return f"the server's last lines:\n  {lines}" if lines else "the server has written nothing"

    def _end_with(self, error: BaseException) -> None:
        self.end()
        error.add_note(self.describe_output())

    # -- requests ----------------------------------------------------------------------------------

    def begin(
        self,
        request: PreparedRequest,
        payload: Any,
        client: Client | None,
        on_left: Callable[[], None],
    ) -> _Heard:
        """Return the call for one request, over a connection of its own."""
        call = ServerCall(
            request.payload if payload is None else payload,
            self._command.host,
            self._command.port,
            self._controller.clock.now,
            client,
            on_left,
            self._process_of,
            self._ends_with,
        )
        return _Heard(self, call)

    @contextlib.contextmanager
    def in_flight(self, call: ServerCall) -> Iterator[None]:
        """Note that a request is in flight inside."""
        self._in_flight[call] = current_scope()
        try:
            yield
        finally:
            del self._in_flight[call]

    def _process_of(self, call: ServerCall) -> int | None:
        """Return the process of the server that has the connection of this call."""
        process, port = self.process, call.port
        if process is None or port is None:
            return None
        return holder_of(port, self._command.port, processes_below(process.keeper_pid))

    def _ends_with(self, call: ServerCall, pid: int) -> Callable[[], None]:
        """Return a function that attributes the death of a process to all requests that it has."""
        own = self._in_flight.get(call)
        hit = [
            scope
            for other, scope in self._in_flight.items()
            if scope is not None and scope is not own and self._process_of(other) == pid
        ]

        def also_hit() -> None:
            for scope in hit:
                scope.strikes += [] if own is None else own.strikes[-1:]
                scope.ended = self._controller.clock.now()

        return also_hit

    def explain(self, error: BaseException) -> None:
        """Say with an error if the server does not run."""
        process = self.process
        if process is not None and not process.is_running:
            error.add_note(f"the server does not run: {process.ending()}")

    def hear(self) -> None:
        """Read what the server's processes report.

        A strike inside the server may have hit any request in flight, so this runs outside of the
        scope of the current one.
        """
        contextvars.Context().run(self._controller.hear)


class _Heard:
    """A call, after which the target reads what its server reports."""

    def __init__(self, target: ServerTarget, call: ServerCall) -> None:
        self._target = target
        self._call = call
        self.begun = call.begun
        self.leave = call.leave

    @property
    def has_left(self) -> bool:
        return self._call.has_left

    async def run(self) -> None:
        with self._target.in_flight(self._call):
            await self._call.run()
        self._target.hear()

    def answer(self) -> Answer:
        answer = self._call.answer()
        if "error" in answer.fields:
            self._target.explain(answer.fields["error"])
        return answer


def _is_project(path: str) -> bool:
    """Return True for a folder that does not belong to the interpreter or its packages."""
    places = sysconfig.get_paths()
    own = [places[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return os.path.isdir(path) and not any(
        path == one or path.startswith(one + os.sep) for one in own
    )
