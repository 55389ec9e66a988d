"""Answers over HTTP with a different body: what each client library reads."""

from __future__ import annotations

import gzip
import json

import pytest

from pytest_mlchaos.core.faults import create
from tests.network import armed, http_server, proxied
from tests.test_network_clients import CLIENTS

ROWS = json.dumps({"rows": [{"a": number} for number in range(4)]}).encode()
EVENTS = b"".join(b'data: {"a": %d}\n\n' % number for number in range(4)) + b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def server():
    """A real HTTP server with rows."""
    with http_server(ROWS) as running:
        yield running


@pytest.fixture(scope="module")
def streaming():
    """A real HTTP server with events."""
    with http_server(EVENTS) as running:
        yield running


@pytest.mark.parametrize("get", CLIENTS)
@pytest.mark.parametrize("path", ["/length", "/chunked", "/close"])
def test_half_of_the_rows_is_a_whole_answer(server, get, path):
    """The library reads valid JSON, and the next answer is complete."""
    with armed(create("dependency_partial", at=0)) as controller:
        status, body = get(server.url + path)
        assert (status, json.loads(body)) == (200, {"rows": [{"a": 0}, {"a": 1}]})
        assert get(server.url + path) == (200, ROWS)
        assert len(controller.journal) == 1


@pytest.mark.parametrize("get", CLIENTS)
@pytest.mark.parametrize("kind", ["cut", "repeated", "empty"])
def test_one_event_of_a_stream_is_struck(streaming, get, kind):
    """All others are the same."""
    with armed(create("provider_stream", kind=kind, chunk=1, at=0)) as controller:
        _, body = get(f"{streaming.url}/chunked")
        assert len(controller.journal) == 1
    events = EVENTS.split(b"\n\n")
    wanted = {
        "cut": [*events[:1], b""],
        "repeated": events[:2] + events[1:],
        "empty": [events[0], b"data: ", *events[2:]],
    }
    assert body.split(b"\n\n") == wanted[kind]


def test_answer_without_a_part_that_fits_is_not_struck(server):
    """It arrives as it is."""
    with armed(create("provider_stream", at=0)) as controller:
        assert CLIENTS[0](server.url) == (200, ROWS)
        assert not controller.journal


@pytest.mark.parametrize("path", ["/length", "/chunked", "/close"])
def test_answer_behind_a_proxy_is_rewritten(server, path):
    """In threads of the proxy."""
    fault = create("response_corruption", kind="truncated", at=0)
    with armed(fault) as controller:
        url = proxied(controller, server.url)
        assert CLIENTS[1](url + path) == (200, ROWS[: len(ROWS) // 2])
        assert CLIENTS[1](url + path) == (200, ROWS)


@pytest.mark.parametrize("get", CLIENTS)
def test_compressed_answer_is_rewritten(get, monkeypatch):
    """The client reads it without a compression."""
    packed = gzip.compress(ROWS)
    with http_server(packed) as server:
        handler = server.RequestHandlerClass
        original = handler.end_headers

        def end_headers(self):
            self.send_header("Content-Encoding", "gzip")
            original(self)

        monkeypatch.setattr(handler, "end_headers", end_headers)
        with armed(create("dependency_partial", at=0)):
            assert json.loads(get(server.url)[1]) == {"rows": [{"a": 0}, {"a": 1}]}
