"""Proxies: real clients and real servers on loopback, with faults in between."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.errors import BadArgument, PayloadMismatch
from tests.network import BODY, armed, echo_server, http_server, proxied


@pytest.fixture(scope="module")
def server():
    """A real HTTP server."""
    with http_server() as running:
        yield running


@pytest.fixture(scope="module")
def echo():
    """The address of a TCP server that sends back what it gets."""
    with echo_server() as address:
        yield address


def get(url, path="/", client=None):
    """Return the status and the body, read with the standard library alone."""
    where = urlsplit(url)
    client = client or http.client.HTTPConnection(where.hostname, where.port, timeout=5)
    client.request("GET", path)
    response = client.getresponse()
    return response.status, response.read()


def threads():
    """Return the names of the threads of proxies."""
    return [one.name for one in threading.enumerate() if one.name.startswith("mlchaos-proxy")]


@pytest.mark.parametrize("path", ["/length", "/chunked", "/close"])
@pytest.mark.parametrize("protocol", ["tcp", "http"])
def test_proxy_without_a_due_fault_passes_everything(server, protocol, path):
    """The same status and body as without it, and nothing is left of it."""
    with armed(create("refused", at=9)) as controller:
        url = proxied(controller, server.url, protocol=protocol)
        assert get(url, path) == (200, BODY)
        assert controller.passed() == {"network": 1}
    assert not threads()
    with pytest.raises(ConnectionRefusedError):
        get(url, path)


def test_proxy_url_keeps_scheme_path_and_credentials(echo):
    """The host and the port alone differ."""
    with armed() as controller:
        url = proxied(controller, f"postgresql+psycopg://me:secret@{echo}/db?sslmode=disable")
        port = urlsplit(url).port
        assert url == f"postgresql+psycopg://me:secret@127.0.0.1:{port}/db?sslmode=disable"
        assert proxied(controller, echo).startswith("127.0.0.1:")


@pytest.mark.parametrize("path", ["/length", "/chunked", "/close"])
def test_cut_connection_at_a_share_ends_the_body_there(server, path):
    """A client can notice it where the length is known, and not elsewhere."""
    with armed(create("cut_connection", after=0.5, at=0)) as controller:
        url = proxied(controller, server.url)
        where = urlsplit(url)
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
        client.request("GET", path)
        response = client.getresponse()
        if path == "/close":
            assert response.read() == BODY[: len(BODY) // 2]
        else:
            with pytest.raises(http.client.IncompleteRead) as caught:
                response.read()
            if path == "/length":
                assert caught.value.partial == BODY[: len(BODY) // 2]
        assert len(controller.journal) == 1
        assert get(url, path) == (200, BODY)


def test_cut_connection_counts_requests_on_one_connection(server):
    """Each further request on an open connection is a visit."""
    with armed(create("cut_connection", after="64KiB", at=1)) as controller:
        where = urlsplit(proxied(controller, server.url))
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
        assert get("", client=client) == (200, BODY)
        with pytest.raises(http.client.IncompleteRead) as caught:
            get("", client=client)
        assert caught.value.partial == BODY[: 64 * 1024]
        assert [strike.visit for strike in controller.journal] == [1]


def test_cut_connection_beyond_the_body_does_not_strike(server):
    """A body that is shorter is not cut, and the journal says so."""
    with armed(create("cut_connection", after="1MiB", at=0)) as controller:
        assert get(proxied(controller, server.url)) == (200, BODY)
        assert not controller.journal


def test_upload_is_cut_before_the_server_has_all_of_it(server):
    """The server gets the beginning."""
    with armed(create("cut_connection", after=1000, direction="upload", at=0)) as controller:
        where = urlsplit(proxied(controller, server.url))
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            client.request("PUT", "/", BODY)
            client.getresponse()
        assert len(controller.journal) == 1
    assert len(BODY) not in server.seen


def test_plain_bytes_are_cut_at_their_number(echo):
    """The connection ends in an orderly way."""
    with armed(create("cut_connection", after=10, at=0)) as controller:
        host, port = proxied(controller, echo).split(":")
        with socket.create_connection((host, int(port)), 5) as client:
            client.sendall(b"0123456789abcdef")
            got = b""
            while part := client.recv(100):
                got += part
    assert got == b"0123456789"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("refused", ConnectionRefusedError),
        ("reset", ConnectionResetError),
        ("blackhole", TimeoutError),
    ],
)
def test_failure_strikes_the_connection_that_is_due(server, fault, error):
    """The one before and the one after it work."""
    with armed(create(fault, at=1)) as controller:
        url = proxied(controller, server.url)
        where = urlsplit(url)
        assert get(url)[0] == 200
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=0.2)
        with pytest.raises(error):
            get(url, client=client)
        assert get(url) == (200, BODY)


def test_reset_after_a_share_loses_the_rest(server):
    """The beginning may arrive, and then the connection is reset."""
    with armed(create("reset", after=0.5, at=0)) as controller:
        with pytest.raises(ConnectionResetError):
            get(proxied(controller, server.url))
        assert len(controller.journal) == 1


def test_http_error_answers_instead_of_the_server(server):
    """With the status and the header, and the next request is answered by the server."""
    with armed(create("http_error", status=429, retry_after="30s", at=0)) as controller:
        url = proxied(controller, server.url)
        server.seen.clear()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=5)
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "30")
        assert not server.seen
        assert get(url) == (200, BODY)


def test_corrupt_bytes_flips_one_bit_the_same_each_time(server):
    """The length stays, and the seed decides the bit."""

    def corrupted(seed):
        with armed(create("corrupt_bytes", after=0.25, at=0), seed=seed) as controller:
            return get(proxied(controller, server.url))[1]

    first = corrupted(0)
    assert len(first) == len(BODY)
    assert [at for at, (one, two) in enumerate(zip(first, BODY, strict=True)) if one != two] == [
        len(BODY) // 4
    ]
    assert first == corrupted(0)


def test_slow_network_delays_the_answer_in_real_time(server):
    """A client's time limit notices it, also with a virtual clock."""
    fault = create("slow_network", delay="300ms", at=0)
    with armed(fault, clock="virtual") as controller:
        url = proxied(controller, server.url)
        where = urlsplit(url)
        client = http.client.HTTPConnection(where.hostname, where.port, timeout=0.1)
        with pytest.raises(TimeoutError):
            get(url, client=client)
        assert get(url) == (200, BODY)
        assert not controller.clock.reason


def test_zone_outage_ends_and_the_zone_comes_back(server):
    """The other zone works all the time, and open connections are reset."""
    fault = create("zone_outage", zone="eu", at=1, duration="1h")
    with armed(fault, clock="virtual") as controller:
        eu = proxied(controller, server.url, zone="eu")
        us = proxied(controller, server.url, zone="us")
        where = urlsplit(eu)
        kept = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
        assert get(eu, client=kept)[0] == 200
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                get(eu)
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            get(eu, client=kept)
        assert get(us)[0] == 200
        controller.clock.sleep(3600)
        assert get(eu)[0] == 200
        assert len(controller.journal) == 1


@pytest.mark.parametrize("how", [{"connections": 2}, {"times": 2}])
def test_zone_outage_of_some_connections_ends_after_them(server, how):
    """The first two fail, and the third works."""
    with armed(create("zone_outage", zone="eu", at=0, **how)) as controller:
        url = proxied(controller, server.url, zone="eu")
        statuses = []
        for _ in range(3):
            with contextlib.suppress(ConnectionError):
                statuses.append(get(url)[0])
    assert statuses == [200]


def test_fault_of_http_at_plain_bytes_says_so(echo):
    """A wrong protocol is a mistake of the test, and not a verdict."""
    says = r'http_error: a status needs HTTP.*protocol="http"'
    with (
        pytest.raises(PayloadMismatch, match=says),
        armed(create("http_error", at=0)) as controller,
    ):
        host, port = proxied(controller, echo).split(":")
        socket.create_connection((host, int(port)), 5).close()


@pytest.mark.parametrize(
    ("url", "keywords", "says"),
    [
        ("http://127.0.0.1:9", {}, r"must be the address of a running server.*Start the server"),
        ("localhost", {}, "without a port"),
        ("http://", {}, "without a host"),
        ("a:1,b:2", {}, "got several"),
        ("http://127.0.0.1:99999", {}, "url must be an address"),
        ("http://127.0.0.1:9", {"protocol": "htp"}, "did you mean 'http'"),
        ("https://127.0.0.1:9", {"protocol": "http"}, "encrypted"),
    ],
)
def test_proxy_with_a_wrong_address_says_why(url, keywords, says):
    """At the call, not at the first connection."""
    with armed() as controller, pytest.raises(BadArgument, match=says):
        proxied(controller, url, **keywords)


def test_proxy_at_a_port_in_use_says_so(server):
    """The message shows the port."""
    port = urlsplit(server.url).port
    with armed() as controller, pytest.raises(BadArgument, match=f"{port} is in use"):
        proxied(controller, server.url, port=port)


def test_proxy_of_http_passes_what_is_not_http(echo):
    """A changed protocol, and bytes that were never HTTP, arrive as they are."""
    with armed(create("refused", at=9)) as controller:
        host, port = proxied(controller, echo, protocol="http").split(":")
        upgraded = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        for first in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", upgraded, b"\x00\x01\r\n\r\n"):
            with socket.create_connection((host, int(port)), 5) as client:
                for part in (first, b"\x81\x05hello"):
                    client.sendall(part)
                    got = b""
                    while len(got) < len(part):
                        got += client.recv(100)
                    assert got == part
