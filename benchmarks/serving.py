"""Measure a trivial ASGI request in an armed trial in which nothing is due."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timing import Figure, compare, interleaved, percent, real_seconds

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.controller import Controller
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.serving.app_runner import AppRunner
from pytest_mlchaos.serving.requests import counts_as_error
from pytest_mlchaos.sites import load as load_sites

NEEDS = "httpx"
REQUESTS = 200
FAR = 10**9


class Store:
    """A dependency that answers at once."""

    async def get(self, key: str) -> bytes:
        """Return a constant."""
        return b"ok"


store = Store()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Ask the store, and reply with three bytes."""
    body = await store.get(scope["path"])
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain")],
        }
    )
    await send({"type": "http.response.body", "body": body})


def _armed() -> Any:
    target = f"{__name__}:Store.get"
    return trial(
        Schedule(
            (create("latency_spike", at=FAR), create("dependency_failure", target=target, at=FAR))
        ),
        Patches(),
        clock="virtual",
    )


def _by_client() -> float:
    import httpx

    async def requests() -> float:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://testserver"
        ) as client:
            start = real_seconds()
            for _ in range(REQUESTS):
                await client.get("/")
            return real_seconds() - start

    return asyncio.run(requests())


def _by_transport() -> float:
    """Call the app as cheaply as httpx allows: no client, no redirects, no cookies."""
    import httpx

    async def requests() -> float:
        start = real_seconds()
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://testserver"
        )
        for _ in range(REQUESTS):
            response = await httpx.ASGITransport(app=app).handle_async_request(
                client.build_request("GET", "/")
            )
            await response.aread()
        return real_seconds() - start

    return asyncio.run(requests())


def _driven(scratch: Path, controller: Controller) -> float:
    served = AppRunner(controller, app, lifespan=False, timeout=10.0, scratch=scratch, workdirs=())
    start = real_seconds()
    served.drive(["/"] * REQUESTS, rate=None, concurrency=1, is_error=counts_as_error)
    return real_seconds() - start


def _under(context: Callable[[], Any], run: Callable[..., float], *args: Any) -> float:
    with context() as controller:
        return run(*args, *([controller] if run is _driven else []))


def measure(quick: bool) -> list[Figure]:
    """Measure a bare app with one call: by httpx alone, and by the plugin with faults far away."""
    load_faults()
    load_sites()
    with TemporaryDirectory() as scratch:
        return _measured(Path(scratch), 20 if quick else 100)


def _measured(scratch: Path, rounds: int) -> list[Figure]:
    sides = {
        "httpx client": functools.partial(_under, contextlib.nullcontext, _by_client),
        "httpx client again": functools.partial(_under, contextlib.nullcontext, _by_client),
        "httpx client, armed": functools.partial(_under, _armed, _by_client),
        "httpx transport": functools.partial(_under, contextlib.nullcontext, _by_transport),
        "drive, armed": functools.partial(_under, _armed, _driven, scratch),
    }
    samples = interleaved(rounds, sides)
    each = f"{sorted(samples['httpx client'])[len(samples['httpx client']) // 2] / REQUESTS * 1e6:.0f} µs a request"
    return [
        compare(
            "serving: httpx client again (the noise)",
            samples,
            "httpx client again",
            "httpx client",
            percent,
            "%",
            note=each,
        ),
        compare(
            "serving: httpx client, armed",
            samples,
            "httpx client, armed",
            "httpx client",
            percent,
            "%",
            budget=20,
        ),
        compare(
            "serving: drive, armed, against the client",
            samples,
            "drive, armed",
            "httpx client",
            percent,
            "%",
            budget=20,
        ),
        compare(
            "serving: drive, armed, against the transport",
            samples,
            "drive, armed",
            "httpx transport",
            percent,
            "%",
        ),
    ]
