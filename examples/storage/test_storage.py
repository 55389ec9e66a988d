"""Does a job whose object store throttles, or loses a reply, reach the same end?"""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from examples.storage import sound, unsound
from pytest_mlchaos import assert_same_state, chaos

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
FOLDER = "checkpoints/run"
throttled = chaos.flaky_storage(
    op="write", error="throttled", when=chaos.one_of("before", "after"), path="s3://checkpoints/*"
)


@pytest.fixture(scope="session")
def store() -> Iterator[Any]:
    """Run an S3 server on this machine, and return a client."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield s3fs.S3FileSystem(
        key="test", secret="test", endpoint_url=f"http://{host}:{port}", use_listings_cache=False
    )
    server.stop()


@pytest.fixture(scope="session")
def undisturbed(store: Any) -> Any:
    """Return the result of the job if nothing goes wrong."""
    store.mkdir("undisturbed")
    return sound.train(store, "undisturbed/run")


@pytest.fixture
def fs(store: Any) -> Any:
    """Return the client, with an empty bucket."""
    if store.exists("checkpoints"):
        store.rm("checkpoints", recursive=True)
    store.mkdir("checkpoints")
    return store


@throttled
@chaos.settings(max_trials=16)
def test_unsound_checkpoint(mlchaos: Any, fs: Any, undisturbed: Any) -> None:
    """The upload of the optimizer fails, so the model is from a different step."""
    run = mlchaos.run(unsound.train, fs, FOLDER)
    assert_same_state(run.value, undisturbed)


@throttled
@chaos.settings(max_trials=16)
def test_sound_checkpoint(mlchaos: Any, fs: Any, undisturbed: Any) -> None:
    """Uploads are retried, and a restart finds one complete checkpoint."""
    run = mlchaos.run(sound.train, fs, FOLDER)
    assert_same_state(run.value, undisturbed)
    assert run.restarts == 0
