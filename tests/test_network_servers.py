"""Real servers behind proxies: S3, Redis and PostgreSQL, with the clients that people use."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import time
from urllib.parse import urlsplit

import pytest

from pytest_mlchaos.core.faults import create
from tests.network import armed, proxied

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 4096
"""1 MiB."""
UNPRIVILEGED = 65534
"""The number of the user without rights, on Debian and others."""


def s3(url, **config):
    """A client of an S3 server on this machine."""
    boto3 = pytest.importorskip("boto3")
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(
            retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5, **config
        ),
    )


@pytest.fixture(scope="module")
def endpoint():
    """The address of moto's S3 server."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def fill(client, bucket="region-eu"):
    """Put the object into its bucket."""
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="weights", Body=DATA)


def get(client, bucket="region-eu"):
    """The object."""
    return client.get_object(Bucket=bucket, Key="weights")["Body"].read()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (create("cut_connection", at=0), "ResponseStreamingError|IncompleteReadError"),
        (create("reset", at=0), "ConnectionClosedError"),
        (create("refused", at=0), "EndpointConnectionError"),
        (create("http_error", at=0), "SlowDown"),
        (create("corrupt_bytes", at=0), "different|FlexibleChecksumError"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("way", ["proxy", "client", "mock"])
def test_s3_client_gets_its_own_error(endpoint, fault, error, way):
    """The same fault at a proxy, at the client's transport, and at a mock."""
    moto = pytest.importorskip("moto")
    mocked = moto.mock_aws() if way == "mock" else contextlib.nullcontext()
    with mocked:
        client = s3(None if way == "mock" else endpoint)
        fill(client)
        with armed(fault) as controller:
            if way == "proxy":
                client = s3(proxied(controller, endpoint))
            with pytest.raises(Exception) as caught:
                assert get(client) == DATA, "different"
            text = f"{type(caught.value).__name__} {caught.value}"
            assert any(name in text for name in error.split("|")), text
            assert get(client) == DATA
            assert len(controller.journal) == 1


def test_s3fs_reads_the_right_bytes_through_its_retries(endpoint):
    """Aiobotocore tries again after a 503, and s3fs after a cut."""
    s3fs = pytest.importorskip("s3fs")
    fill(s3(endpoint))
    faults = create("http_error", at=0), create("reset", at=1)
    for through in (False, True):
        with armed(*faults) as controller:
            url = proxied(controller, endpoint) if through else endpoint
            fs = s3fs.S3FileSystem(
                key="test", secret="test", endpoint_url=url, skip_instance_cache=True
            )
            assert fs.cat_file("region-eu/weights") == DATA
            assert len(controller.journal) == 2


@contextlib.contextmanager
def started(command, port, **keywords):
    """A server on this machine; gives its port when it answers."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **keywords
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if process.poll() is not None:
                pytest.skip(f"{command[0]} does not start here")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def free_port():
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory):
    """The port of a Redis server."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with started(list(map(str, command)), port):
        yield port


@pytest.fixture(scope="module")
def postgres_port():
    """The port of a PostgreSQL server, in a folder that its user can reach."""
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    # Not below tmp_path: each session of pytest closes its parent to other users.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        how = {"cwd": folder}
        if os.getuid() == 0:  # the server refuses to run as root
            os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
            how |= {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        data, port = f"{folder}/data", free_port()
        made = subprocess.run(
            [initdb, "-D", data, "-U", "test", "--auth=trust", "-N"],
            capture_output=True,
            text=True,
            **how,
        )
        if made.returncode:
            pytest.skip(f"initdb does not work here: {made.stderr.strip()}")
        command = [postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
        with started(command, port, **how):
            yield port


def test_redis_client_gets_its_own_errors(redis_port):
    """A refused, a reset and a cut connection."""
    redis = pytest.importorskip("redis")
    faults = (
        create("refused", at=0),
        create("reset", at=1),
        create("cut_connection", after=3, at=2),
    )
    with armed(*faults) as controller:
        url = proxied(controller, f"redis://127.0.0.1:{redis_port}/0")
        for _ in range(3):
            client = redis.Redis.from_url(url, retry=None, socket_timeout=5)
            with pytest.raises(redis.ConnectionError):
                client.set("key", "value")
        client = redis.Redis.from_url(url, socket_timeout=5)
        assert client.set("key", "value")
        assert client.get("key") == b"value"
        assert len(controller.journal) == 3


def test_postgres_client_gets_its_own_errors(postgres_port):
    """Libpq is written in C: it is reset instead of refused."""
    psycopg2 = pytest.importorskip("psycopg2")
    faults = (
        create("refused", at=1),
        create("reset", at=2),
        create("cut_connection", after=20_000, at=3),
    )
    with armed(*faults) as controller:
        server = f"postgresql://test@127.0.0.1:{postgres_port}/postgres?sslmode=disable"
        url = proxied(controller, server)

        def count(rows):
            with contextlib.closing(psycopg2.connect(url)) as connection:
                cursor = connection.cursor()
                cursor.execute(f"select generate_series(1, {rows})")
                return len(cursor.fetchall())

        assert count(10_000) == 10_000
        for _ in range(3):
            with pytest.raises(psycopg2.OperationalError):
                count(10_000)
        assert count(10_000) == 10_000
        assert len(controller.journal) == 3
        assert urlsplit(url).query == "sslmode=disable"
