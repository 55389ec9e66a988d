"""Define the methods of the fixture ``mlchaos`` that run nothing: they help code under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..core.clock import Clock
from ..core.journal import Journal
from ..core.points import reachable, sometimes
from ..core.policy import check_host
from ..core.schedule import Schedule
from ..core.validation import CALLABLE, ITERABLE, NAME, PATH, TEXT, WHOLE, check_arguments, optional
from ..engine.controller import Controller, current
from ..errors import MlchaosError
from ..runs.scripts import script
from ..serving.capacity import capacity
from ..serving.sources import openapi, replay
from ..sites import calls, dataloader, visits
from ..sites.network.proxy import open_proxy
from ..sites.network.zones import zones
from ..sites.storage import clients

__all__ = ["Tools"]

T = TypeVar("T")


class Tools:
    """Let faults reach code that no hook reaches by itself, and show the state of the trial."""

    _folder: Path | None = None  # the folder of the test

    @property
    def _controller(self) -> Controller:
        controller = current()
        if controller is None:
            raise MlchaosError(
                "the fixture mlchaos works only while the body of a test runs. A fixture, or code "
                "after the test, does not have a trial"
            )
        return controller

    @check_arguments("mlchaos.script", path=PATH)
    def script(self, path: str | os.PathLike[str], *args: Any) -> Callable[..., None]:
        """Return a script as a subject: ``mlchaos.run(mlchaos.script("train.py", "--out",
        tmp_path))``.

        It runs as the main module, as ``python train.py --out ...`` would run it: ``sys.argv`` is
        ``args`` as text, its folder is first on ``sys.path``, and an exit code other than 0 is a
        ``SystemExit``. Arguments of the call are added after ``args``, unless one of them names the
        same: you need not pass a work directory twice. The script returns nothing, so what it has
        trained and written is judged.

        Args:
            path: The script. A relative path is looked up in the current directory, then in that of
                the test.
            *args: Its arguments.

        Raises:
            BadArgument: The file does not exist.

        Fidelity: a function call in a live process, unless ``isolation="process"``. Modules that it
        imports are imported once.
        """
        return script(path, args, self._folder)

    @check_arguments("mlchaos.visit", site=NAME)
    # None is a payload too
    def visit(self, site: str, payload: T = None, **attributes: object) -> T:  # type: ignore[assignment]
        """Visit a site of your own. Return the payload: the same object unless a fault strikes
        there."""
        return visits.visit(site, payload, **attributes)

    @check_arguments("mlchaos.batches", iterable=ITERABLE)
    def batches(self, iterable: Iterable[T]) -> dataloader.Batches[T]:
        """Wrap an iterable so that each item is a ``data.batch`` visit.

        Use it for loaders that are not a ``torch.utils.data.DataLoader``.
        """
        return dataloader.Batches(iterable)

    @check_arguments("mlchaos.call", function=CALLABLE, name=optional(NAME))
    def call(self, function: Callable[..., T], name: str | None = None) -> Callable[..., T]:
        """Return ``function`` as a target of call faults, under ``name`` or its own
        ``"module:qualname"``.

        Use it for functions that no import reaches.
        """
        wrapped: Callable[..., T] = calls.wrap_function(function, name)
        return wrapped

    def filesystem(self, fs: T) -> T:
        """Return ``fs`` with ``open``, ``cat``, ``put`` and the like as visits of the ``storage``
        sites.

        Use it for clients that no hook reaches. Filesystems of fsspec are reached anyway, and
        returned unchanged. The first argument of a method is the path (of ``put``, the second).
        """
        return clients.watch_filesystem(fs)

    @check_arguments("mlchaos.proxy", url=TEXT, port=WHOLE, zone=TEXT, protocol=optional(TEXT))
    def proxy(
        self,
        url: str,
        *,
        zone: str = "",
        port: int = 0,
        protocol: str | None = None,
        http: bool = False,
    ) -> str:
        """Return the URL of a proxy on loopback: give it to the code under test instead of ``url``.

        The faults of the network strike at its connections: ``cut_connection``, ``reset``,
        ``refused``, ``blackhole``, ``slow_network``, ``http_error``, ``corrupt_bytes`` and
        ``zone_outage``. Everything else of the URL stays as it is. The proxy is closed when the
        test's body ends.

        Args:
            url: The address of a running server: ``"http://127.0.0.1:9000"``,
                ``"redis://localhost:6379/0"``, ``"localhost:9092"``.
            zone: The zone of the server, for ``zone_outage``.
            port: The port to listen on. 0 for a free one.
            protocol: ``"http"``: each request counts, and faults know its answer's length.
                ``"tcp"``: each connection counts. Without it, ``"http"`` for an ``http://`` URL.
            http: True for ``protocol="http"``.

        Raises:
            BadArgument: The server is down, or the port is in use.

        Fidelity: it waits in real time. An ``https://`` server's certificate does not name the
        proxy. Some clients (Kafka, Redis clusters) get further addresses from the server, which
        must be those of proxies, too.
        """
        check_host("mlchaos.proxy", url)
        chosen = "http" if http and protocol is None else protocol
        return open_proxy(self._controller, url, port=port, zone=zone, protocol=chosen)

    capacity = staticmethod(capacity)
    zones = staticmethod(zones)
    openapi = staticmethod(openapi)
    replay = staticmethod(replay)
    reachable = staticmethod(reachable)
    sometimes = staticmethod(sometimes)

    @property
    def journal(self) -> Journal:
        """Return the faults that struck so far in this trial."""
        return self._controller.journal

    @property
    def schedule(self) -> Schedule:
        """Return the schedule of this trial."""
        return self._controller.schedule

    @property
    def clock(self) -> Clock:
        """Return the clock that injected delays run on."""
        return self._controller.clock
