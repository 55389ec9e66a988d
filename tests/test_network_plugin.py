"""Proxies and faults of the network in whole tests, as users write them."""

from __future__ import annotations

import pytest

SUBJECT = """
import socket
import urllib.request

def silent(url):
    size = 0
    with urllib.request.urlopen(url, timeout=5) as response:
        while piece := response.read(10_000):
            size += len(piece)
    return size

def rows(address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 5) as client:
        client.sendall(b"select")
        got = b""
        while part := client.recv(1000):
            got += part
    return got.count(b"\\n")

def checked_rows(address):
    number = rows(address)
    if number != 1000:
        raise EOFError("the last row is missing")
    return number

def checked(url):
    with urllib.request.urlopen(url, timeout=5) as response:
        return len(response.read())
"""
TESTS = """
import contextlib, http.server, socket, threading
import pytest
from subject import checked, checked_rows, rows, silent

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(bytes(100_000))

@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()

@chaos.cut_connection
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_silent(mlchaos, server, isolation):
    assert mlchaos.run(silent, mlchaos.proxy(server), isolation=isolation).value == 100_000

@chaos.cut_connection
@pytest.mark.parametrize("isolation", ["in-process", "process"])
def test_checked(mlchaos, server, isolation):
    run = mlchaos.run(checked, mlchaos.proxy(server), isolation=isolation)
    assert (run.value, len(run.attempts)) in ((100_000, 1), (100_000, 2))

@chaos.cut_connection(after="1MiB", at=0)
def test_beyond(mlchaos, server):
    assert checked(mlchaos.proxy(server)) == 100_000

@chaos.refused(zone="us", at=0)
def test_other_zone(mlchaos, server):
    assert checked(mlchaos.proxy(server, zone="eu")) == 100_000

@pytest.fixture
def database():
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    if client.recv(10):
                        client.sendall(b"row\\n" * 1000)

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()

@chaos.bad_storage
def test_rows(mlchaos, database):
    mlchaos.pipeline(rows, mlchaos.proxy(database)).assert_same_output()

@chaos.bad_storage
def test_checked_rows(mlchaos, database):
    mlchaos.pipeline(checked_rows, mlchaos.proxy(database)).assert_same_output()
"""


@pytest.mark.slow
def test_whole_tests_are_judged_rightly_and_say_why(example):
    """In this process and in fresh ones: silence is found, a check passes, no strike is named."""
    outcome = example.with_file("subject.py", SUBJECT).with_tests(TESTS).run(passed=3, failed=5)
    outcome.has("smallest: cut_connection(at=0)")
    outcome.has("smallest: cut_connection(at=0, after=16)")
    outcome.has("cut_connection(at=0, after=1048576) never struck")
    outcome.has("refused(at=0, zone='us') never struck: network zone=us was never passed")


@pytest.mark.slow
def test_bad_storage_loses_an_acknowledgement_of_plain_bytes(example):
    """The server has counted, and a client that sends again counts twice."""
    example.with_tests(
        """
import socket, socketserver, threading
import pytest

class Counter(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            key = line.decode().strip()
            if key == "start":
                self.server.seen.clear()
            else:
                self.server.seen.append(key)
            self.wfile.write(f"{len(set(self.server.seen) if key[0] == 'k' else self.server.seen)}\\n".encode())

@pytest.fixture
def address():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Counter) as server:
        server.seen, server.daemon_threads = [], True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()

def count(url, key):
    host, port = url.removeprefix("tcp://").split(":")
    answer, commands = "", ["start", *(key.format(number) for number in range(12))]
    connection = None
    for command in commands:
        for attempt in range(3):
            try:
                if connection is None:
                    connection = socket.create_connection((host, int(port)), timeout=5)
                    file = connection.makefile()
                connection.sendall(f"{command}\\n".encode())
                answer = file.readline()
                if answer.endswith("\\n"):
                    break
            except OSError:
                pass
            connection = None
        else:
            raise OSError("no answer")
    return int(answer)

@pytest.mark.parametrize("key", ["k{}", pytest.param("n", marks=pytest.mark.xfail(strict=True))])
@chaos.bad_storage(exclude="slow_network")  # which waits in real time
def test_it(mlchaos, address, key):
    mlchaos.pipeline(count, mlchaos.proxy(address), key).assert_same_output()
"""
    ).run(passed=1, xfailed=1)
