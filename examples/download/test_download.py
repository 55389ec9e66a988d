"""Does a download notice that its connection was cut?"""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.download import sound, unsound
from pytest_mlchaos import chaos


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files without a log."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[str]:
    """Serve a file of weights on this machine, and return its URL."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 400)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=folder)
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/weights.bin"
    server.shutdown()
    server.server_close()
    thread.join()


@chaos.cut_connection(after=0.5)
def test_unsound_download(mlchaos, weights, tmp_path):
    """Half the weights are there, under the final name, and nothing is raised."""
    run = mlchaos.pipeline(unsound.download, mlchaos.proxy(weights), tmp_path / "weights.bin")
    run.assert_same_output()


@chaos.cut_connection(after=0.5)
def test_sound_download(mlchaos, weights, tmp_path):
    """It raises, and the next download is complete."""
    run = mlchaos.pipeline(sound.download, mlchaos.proxy(weights), tmp_path / "weights.bin")
    run.assert_same_output()
    run.again().assert_same_output()
