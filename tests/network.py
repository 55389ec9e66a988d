"""Provide helpers for the tests of the network: servers on loopback, and a trial with faults."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading

from pytest_mlchaos import faults, sites
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.sites.network.proxy import open_proxy

faults.load()
sites.load()

BODY = bytes(range(256)) * 1024
"""The answer of the servers: 256 KiB."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET with the body, in chunks below /chunked, and PUT with its length."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        """Send the body of the server."""
        self.server.seen.append(self.path)
        body = self.server.body
        self.send_response(200)
        if self.path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 10_000):
                part = body[start : start + 10_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path.startswith("/close"):
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_HEAD = do_GET  # the library's name

    def do_PUT(self):
        """Answer with the number of bytes."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append(len(body))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Print nothing: connections are cut on purpose."""


@contextlib.contextmanager
def http_server(body=BODY):
    """A real HTTP server; ``server.url``, and ``server.seen`` for the paths that were asked for."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.body, server.seen = body, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def echo_server():
    """A TCP server that sends back what it gets; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client):
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                client.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def armed(*declared, seed=0, clock="real"):
    """A trial with these faults."""
    return trial(Schedule(declared, seed), Patches(), clock=clock)


def proxied(controller, url, *, zone="", port=0, protocol=None):
    """The URL of a proxy of this trial."""
    return open_proxy(controller, url, port=port, zone=zone, protocol=protocol)
