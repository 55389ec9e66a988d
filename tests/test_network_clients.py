"""Requests of client libraries, without a proxy: what each of them makes of a fault."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest

from pytest_mlchaos.core.faults import create
from pytest_mlchaos.core.schedule import Schedule
from pytest_mlchaos.engine.patching import Patches
from pytest_mlchaos.engine.trial import trial
from pytest_mlchaos.errors import TargetNotFound, TrialTimeout
from tests.network import BODY, armed, http_server

requests = pytest.importorskip("requests")
httpx = pytest.importorskip("httpx")
aiohttp = pytest.importorskip("aiohttp")

DOWN = "http://127.0.0.1:9/data"
"""An address at which nothing listens."""


@pytest.fixture(scope="module")
def server():
    """A real HTTP server."""
    with http_server() as running:
        yield running


def by_requests(url):
    """The status and body, with requests."""
    response = requests.get(url, timeout=30)
    return response.status_code, response.content


def by_httpx(url):
    """The status and body, with httpx."""
    response = httpx.get(url, timeout=30)
    return response.status_code, response.content


def by_httpx_async(url):
    """The status and body, with httpx in a coroutine."""

    async def get():
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.get(url)
            return response.status_code, response.content

    return asyncio.run(get())


def by_aiohttp(url):
    """The status and body, with aiohttp."""

    async def get():
        limit = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as response:
            return response.status, await response.read()

    return asyncio.run(get())


def by_urllib(url):
    """The status and body, with the standard library."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


CLIENTS = [by_requests, by_httpx, by_httpx_async, by_aiohttp, by_urllib]
ERRORS = {
    "refused": [
        "ConnectionError",
        "ConnectError",
        "ConnectError",
        "ClientConnectorError",
        "URLError",
    ],
    "reset": ["ConnectionError", "ReadError", "ReadError", "ClientOSError", "ConnectionResetError"],
    "blackhole": ["ReadTimeout", "ReadTimeout", "ReadTimeout", "TimeoutError", "TimeoutError"],
    "cut_connection": [
        "ChunkedEncodingError",
        "RemoteProtocolError",
        "RemoteProtocolError",
        "ClientPayloadError",
        "IncompleteRead",
    ],
}


@pytest.mark.parametrize("get", CLIENTS)
def test_request_without_a_due_fault_is_counted_and_unchanged(server, get):
    """One visit each, and the server's answer."""
    with armed(create("refused", at=9)) as controller:
        assert get(server.url) == (200, BODY)
        assert get(f"{server.url}/chunked") == (200, BODY)
        assert controller.passed() == {"network": 2}


@pytest.mark.parametrize(
    ("fault", "get", "error", "path"),
    [
        pytest.param(fault, get, error, path, id=f"{fault}-{get.__name__}{path}")
        for fault, errors in ERRORS.items()
        for get, error in zip(CLIENTS, errors, strict=True)
        for path in (["/length", "/chunked", "/close"] if "cut" in fault else ["/length"])
    ],
)
def test_failure_is_the_librarys_own_error(server, fault, get, error, path):
    """At the request that is due, and the next one works. Time limits pass on the virtual clock."""
    # aiohttp sends a GET again after a reset, once.
    at = [0, 1] if (fault, get) == ("reset", by_aiohttp) else [0]
    with armed(create(fault, at=at), clock="virtual") as controller:
        start = controller.clock.now()
        if fault == "cut_connection" and path == "/close":
            assert get(server.url + path) == (200, BODY[: len(BODY) // 2])
        else:
            with pytest.raises(Exception) as caught:
                get(server.url + path)
            assert error in {cls.__name__ for cls in type(caught.value).__mro__}
            assert controller.is_injected(caught.value)
        if fault == "blackhole":
            assert 30 <= controller.clock.now() - start < 31
            assert not controller.clock.reason
        assert len(controller.journal) == len(at)
        assert get(server.url) == (200, BODY)


@pytest.mark.parametrize("get", CLIENTS)
def test_http_error_needs_no_server(get):
    """The library sees an answer with this status."""
    with armed(create("http_error", status=503, at=0)):
        status, body = get(DOWN)
    assert status == 503
    assert b"SlowDown" in body


@pytest.mark.parametrize("get", CLIENTS)
@pytest.mark.parametrize("path", ["/length", "/chunked"])
def test_corrupt_bytes_keeps_the_length(server, get, path):
    """One byte differs, at its place."""
    with armed(create("corrupt_bytes", after=0.5, at=0)) as controller:
        status, body = get(server.url + path)
        assert len(controller.journal) == 1
    assert (status, len(body)) == (200, len(BODY))
    differing = [at for at, (one, two) in enumerate(zip(body, BODY, strict=True)) if one != two]
    assert differing == [len(BODY) // 2]


@pytest.mark.parametrize("get", [by_requests, by_httpx, by_httpx_async, by_urllib])
def test_slow_network_passes_on_the_virtual_clock(server, get):
    """The delay and the bandwidth, in no real time.

    A busy machine may show the server's thread at work, so one of three requests has to do.
    """
    fault = create("slow_network", delay="20s", bandwidth=len(BODY) / 5, at=0)
    for _ in range(3):
        with armed(fault, clock="virtual") as controller:
            start = controller.clock.now()
            assert get(server.url) == (200, BODY)
            assert 25 <= controller.clock.now() - start < 26
            reason = controller.clock.reason
        if not reason:
            break
    assert not reason


def test_retries_of_urllib3_run_unmodified(server):
    """Each attempt is a visit, and the waits between them are virtual."""
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    retry = Retry(total=5, backoff_factor=60, status_forcelist=[503])
    session.mount("http://", HTTPAdapter(max_retries=retry))
    faults = create("refused", at=0), create("http_error", at=[1, 2])
    with armed(*faults, clock="virtual") as controller:
        start = controller.clock.now()
        assert session.get(server.url, timeout=5).content == BODY
        assert controller.passed() == {"network": 4}
        assert controller.clock.now() - start > 200


@pytest.mark.parametrize("retries", [0, 2])
def test_retries_of_an_httpx_transport_connect_again(server, retries):
    """Each attempt is a visit, as httpcore makes it for a refused connection."""
    transport = httpx.HTTPTransport(retries=retries)
    with armed(create("refused", at=[0, 1])), httpx.Client(transport=transport) as client:
        if retries:
            assert client.get(server.url).content == BODY
        else:
            with pytest.raises(httpx.ConnectError):
                client.get(server.url)


def test_url_pattern_and_target_choose_requests(server):
    """Others are neither counted nor struck."""
    by_url = create("http_error", url="http://127.0.0.1:9/*", at=0)
    by_client = create("http_error", target=f"{__name__}:by_httpx", at=0)
    with armed(by_url, by_client) as controller:
        assert by_requests(server.url)[0] == 200
        assert by_requests(DOWN)[0] == 503
        assert by_httpx(server.url)[0] == 503
        assert by_requests(server.url)[0] == 200
        assert sorted(controller.passed().values()) == [1, 1]
    with pytest.raises(TargetNotFound), armed(create("reset", target="httpx:Klient", at=0)):
        pass


def test_mock_transport_of_httpx_is_struck():
    """A test without a server has its faults, too."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=BODY))
    with armed(create("cut_connection", at=1)), httpx.Client(transport=transport) as client:
        assert client.get("http://api/").content == BODY
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("http://api/")


@pytest.mark.parametrize(("clock", "limit"), [("real", 0.3), ("virtual", 1000)])
def test_blackhole_of_a_client_without_a_time_limit_hangs_until_the_trials(clock, limit):
    """On a virtual clock, the limit of the trial passes at once."""
    schedule = Schedule((create("blackhole", at=0),), 0)
    with (
        pytest.raises(TrialTimeout, match="called by test_blackhole"),
        trial(schedule, Patches(), clock=clock, timeout=limit),
    ):
        requests.get(DOWN)


@pytest.mark.parametrize("client", [httpx.Client, requests.Session])
def test_client_with_an_open_connection_is_struck_and_works_again(server, client):
    """Clients of a module outlive trials."""
    with client() as kept:
        assert kept.get(server.url).content == BODY
        for _ in range(2):
            with armed(create("cut_connection", at=0)) as controller:
                with pytest.raises((httpx.RemoteProtocolError, requests.RequestException)):
                    assert kept.get(server.url).content
                assert len(controller.journal) == 1
        assert kept.get(server.url).content == BODY


def test_cut_ends_the_answer_for_a_reader_of_pieces(server):
    """The server keeps the connection open, and the client does not wait for more of it."""
    with armed(create("cut_connection", at=0)):
        with urllib.request.urlopen(server.url, timeout=2) as response:
            pieces = list(iter(lambda: response.read(10_000), b""))
            assert response.read(1) == b""
        assert b"".join(pieces) == BODY[: len(BODY) // 2]
