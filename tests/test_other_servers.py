"""Servers in threads beside the subject, whose files faults strike only if they name them."""

from __future__ import annotations

import functools
import http.server
import threading
import urllib.request

import pytest

from pytest_mlchaos.core.faults import create
from tests.network import armed


@pytest.fixture
def address(tmp_path):
    """A file server in a thread."""
    (tmp_path / "a.txt").write_text("content")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.txt"
        server.shutdown()


@pytest.mark.parametrize(("path", "strikes"), [(None, 0), ("*.txt", 1)])
def test_storage_fault_spares_a_server_beside_the_subject(tmp_path, address, path, strikes):
    """Unless the fault names its files: a client cannot notice what its server reads."""
    fault = create("slow_storage", at=0, path=path, delay=0.001)
    with armed(fault) as controller, controller.subject_of("mlchaos.pipeline"):
        with urllib.request.urlopen(address, timeout=5) as response:
            assert response.read() == b"content"
        assert len(controller.journal) == strikes
