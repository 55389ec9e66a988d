"""Measure simulated traffic: an hour with an outage, and requests a second beside other tools.

``python benchmarks/traffic.py [--quick]`` also compares with locust, if it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timing import Figure, Samples, Spread, compare, interleaved, times

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import Fault, create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.plugin.fixture import Mlchaos
from pytest_mlchaos.serving.verdicts import Load
from pytest_mlchaos.sites import load as load_sites

NEEDS = "httpx"
REQUESTS = 3000
"""Seconds here are those of the processor. Virtual time does not replace ``time.process_time``."""
FAR = 10**9
LOCUST_SECONDS = 3.0
HOUR_SECONDS = 20.0
"""The budget for an hour of traffic: 90,000 requests, on one core."""


async def trivial(scope: Any, receive: Any, send: Any) -> None:
    """Reply with three bytes."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok!"})


class Replica:
    """A model that answers after 20 ms."""

    async def predict(self, user: int) -> float:
        """Return a score."""
        await asyncio.sleep(0.02)
        return user / 100


class Balancer:
    """Ask the first replica that is up. One that failed is tried again after 5 s."""

    RETRY_SECONDS = 5.0

    def __init__(self, *replicas: Replica) -> None:
        self._down_until = dict.fromkeys(replicas, 0.0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the first replica's score, or with 503."""
        status, body = 503, b""
        for replica, until in self._down_until.items():
            if until > time.monotonic():
                continue
            try:
                score = await replica.predict(int(scope["path"].rpartition("/")[2]))
            except ConnectionError:
                self._down_until[replica] = time.monotonic() + self.RETRY_SECONDS
            else:
                status, body = 200, json.dumps({"score": score}).encode()
                break
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})


def _in_trial(act: Callable[[Mlchaos], Any], *schedule: Fault) -> Any:
    with (
        tempfile.TemporaryDirectory() as scratch,
        trial(Schedule(schedule), Patches(), clock="virtual"),
    ):
        return act(Mlchaos(Path(scratch)))


def simulated(duration: str) -> tuple[float, Load]:
    """Return the processor time of diurnal traffic with an outage, and its load."""
    outage = create("zone_outage", zone="eu", heal_after="60s", at=2000)

    def act(mlchaos: Mlchaos) -> tuple[float, Load]:
        eu, us = Replica(), Replica()
        mlchaos.zones({"eu": [eu], "us": [us]})
        start = time.process_time()
        load = mlchaos.serve(Balancer(eu, us), lifespan=False).drive(
            [f"/score/{user}" for user in range(1000)],
            rate=25,
            peak=50,
            pattern="diurnal",
            duration=duration,
        )
        seconds = time.process_time() - start
        load.assert_slo(p99="100ms", availability=0.999)
        return seconds, load

    return _in_trial(act, outage)  # type: ignore[no-any-return]


def _journal(load: Load) -> list[tuple[Any, ...]]:
    """Return what the journal has about each request."""
    return [
        (round(reply.start, 4), round(reply.latency, 4), reply.ok, len(reply.faults))
        for reply in load.replies
    ]


# -- requests a second -----------------------------------------------------------------------------


def _driven(**how: Any) -> float:
    def act(mlchaos: Mlchaos) -> float:
        service = mlchaos.serve(trivial, lifespan=False)
        start = time.process_time()
        service.drive(["/"], number=REQUESTS, **how)
        return time.process_time() - start

    return _in_trial(act, create("latency_spike", at=FAR))  # type: ignore[no-any-return]


async def _clients(transport_only: bool) -> None:
    import httpx

    transport = httpx.ASGITransport(app=trivial)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        for _ in range(REQUESTS):
            if transport_only:
                request = client.build_request("GET", "/")
                await (await transport.handle_async_request(request)).aread()
            else:
                await client.get("/")


async def _loop() -> None:
    """Call the app in a task for each request, and do nothing else."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def one() -> None:
        async def send(message: Any) -> None:
            messages.append(message)

        messages: list[Any] = []
        await trivial({"type": "http", "path": "/", "method": "GET"}, receive, send)

    for _ in range(REQUESTS):
        await asyncio.create_task(one())


def _timed(coroutine: Callable[[], Any]) -> float:
    start = time.process_time()
    asyncio.run(coroutine())
    return time.process_time() - start


_LOCUST = """
import sys, time
import gevent
from locust import FastHttpUser, task
from locust.env import Environment

class Caller(FastHttpUser):
    host = sys.argv[1]

    @task
    def call(self):
        self.client.get("/")

environment = Environment(user_classes=[Caller])
environment.create_local_runner()
start = time.process_time()
environment.runner.start(8, spawn_rate=1000)
gevent.sleep(float(sys.argv[2]))
total = environment.stats.total
assert total.num_requests and not total.num_failures
print((time.process_time() - start) / total.num_requests, flush=True)
environment.runner.quit()
"""
"""Eight users of locust, without time to think. The server's time does not count."""


def _by_locust(url: str) -> float:
    """Return the seconds in which locust makes as many requests to a server."""
    out = subprocess.run(
        [sys.executable, "-c", _LOCUST, url, str(LOCUST_SECONDS)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return REQUESTS * float(out.stdout.split()[-1])


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """Serve the trivial app by uvicorn, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "traffic:trivial", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--log-level", "critical", "--lifespan", "off"], cwd=Path(__file__).parent
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def rates(rounds: int, locust: str = "") -> Samples:
    """Return the seconds for the same number of requests of each side.

    With the URL of a server, locust is one of them.
    """
    sides: dict[str, Callable[[], float]] = {
        "asyncio loop": functools.partial(_timed, _loop),
        "httpx client": functools.partial(_timed, functools.partial(_clients, False)),
        "httpx transport": functools.partial(_timed, functools.partial(_clients, True)),
        "drive": _driven,
        "drive, open loop": functools.partial(_driven, rate=1000, pattern="poisson"),
        **({"locust": functools.partial(_by_locust, locust)} if locust else {}),
    }
    return interleaved(rounds, sides)


def _ratios(samples: Samples) -> list[Figure]:
    rate = {side: f"{REQUESTS / min(seconds):.0f}/s" for side, seconds in samples.items()}
    pairs = [
        ("drive", "httpx client", 1.0),
        ("drive", "httpx transport", 1.2),
        ("drive, open loop", "httpx client", 1.0),
        ("drive", "asyncio loop", None),
        *([("drive", "locust", None)] if "locust" in samples else []),
    ]
    return [
        compare(
            f"traffic: {side} against {base}",
            samples,
            side,
            base,
            times,
            "times",
            budget=budget,
            note=f"at best {rate[side]} and {rate[base]}",
        )
        for side, base, budget in pairs
    ]


def _hour(quick: bool) -> Figure:
    """Simulate an hour twice."""
    duration = "6m" if quick else "1h"
    (first, one), (second, other) = simulated(duration), simulated(duration)
    assert _journal(one) == _journal(other), "the same seed must give the same journal"
    return Figure(
        what=f"traffic: {duration} of diurnal requests, an outage, and back",
        unit="s of one core",
        measured=Spread.of([first, second]),
        quiet=min(first, second),
        budget=HOUR_SECONDS / (10 if quick else 1),
        note=f"{len(one.replies)} requests, the same journal twice",
    )


def measure(quick: bool) -> list[Figure]:
    """Simulate an hour twice, and compare rates."""
    load_faults()
    load_sites()
    return [_hour(quick), *_ratios(rates(5 if quick else 30))]


def main() -> None:
    """Print the figures, with locust."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take a tenth of the time")
    quick = parser.parse_args().quick
    load_faults()
    load_sites()
    with _server() if importlib.util.find_spec("locust") else contextlib.nullcontext("") as url:
        samples = rates(3 if quick else 10, url)
    for figure in [_hour(quick), *_ratios(samples)]:
        print(f"{figure.what}: {figure.measured.median:.3g} {figure.unit} {figure.verdict}")
        print(f"    quiet: {figure.quiet:.3g}  {figure.note}")


if __name__ == "__main__":
    main()
