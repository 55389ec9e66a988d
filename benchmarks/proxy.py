"""Measure a transfer of 64 MiB through a proxy in which nothing is due, against a direct one."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection

from timing import Figure, Samples, compare, interleaved, percent, real_seconds

from pytest_mlchaos import Schedule
from pytest_mlchaos.core.faults import create
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.faults import load as load_faults
from pytest_mlchaos.sites import load as load_sites
from pytest_mlchaos.sites.network.proxy import open_proxy

NEEDS = "requests"
BUDGET = 15.0
SIZE = 64 << 20
BLOCK = 1 << 20
FAR = 10**9


def _serve(ready: Connection) -> None:
    """Answer each connection with 64 MiB over HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    ready.send(listener.getsockname()[1])
    block = bytes(BLOCK)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n".encode()
    while True:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            if not client.recv(65536):
                continue  # the proxy looks whether the server is running
            client.sendall(head)
            for _ in range(SIZE // BLOCK):
                client.sendall(block)


@contextlib.contextmanager
def _server() -> Iterator[str]:
    """Run the server in a process of its own, and give its address."""
    mine, its = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(its,), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{mine.recv()}"
    finally:
        process.terminate()
        process.join()


def _socket(address: str) -> float:
    """Read the answer into a buffer, with nothing else to do."""
    host, _, port = address.partition(":")
    buffer = bytearray(BLOCK)
    start = real_seconds()
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while client.recv_into(buffer):
            pass
    return real_seconds() - start


def _download(address: str) -> float:
    """Download the answer with a client library."""
    import requests

    start = real_seconds()
    if len(requests.get(f"http://{address}", timeout=60).content) != SIZE:
        raise AssertionError("the answer is not complete")
    return real_seconds() - start


def measure(quick: bool) -> list[Figure]:
    """Measure a transfer as plain bytes and as HTTP, in turns with a direct one.

    A bare socket only moves bytes inside the kernel. It shows the proxy's own time.
    """
    load_faults()
    load_sites()
    schedule = Schedule((create("refused", at=FAR),), 0)
    figures = []
    with _server() as address, trial(schedule, Patches()) as controller:
        plain = open_proxy(controller, address, port=0, zone="", protocol="tcp")
        http = open_proxy(controller, f"http://{address}", port=0, zone="", protocol="http")
        sides = {"direct": address, "tcp": plain, "http": http.partition("://")[2]}
        for what, seconds, budget in (
            ("requests", _download, BUDGET),
            ("a bare socket", _socket, None),
        ):
            samples: Samples = interleaved(
                5 if quick else 30,
                {name: lambda to=to, get=seconds: get(to) for name, to in sides.items()},
            )
            figures += [
                compare(
                    f"64 MiB by {what} through a proxy ({name})",
                    samples,
                    name,
                    "direct",
                    percent,
                    "%",
                    budget=budget,
                )
                for name in ("tcp", "http")
            ]
    return figures
