"""Storage: a real S3 client against a real server on this machine."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

from pytest_mlchaos.core.faults import EVERY, create  # noqa: E402
from tests.storage import armed, counts, made, watching  # noqa: E402


@pytest.fixture(scope="module")
def endpoint():
    """The server's address; a port that is free, on loopback."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(endpoint, **keywords):
    """A filesystem of this server; nothing is read from the surroundings."""
    return s3fs.S3FileSystem(
        key="test",
        secret="test",
        endpoint_url=endpoint,
        skip_instance_cache=True,
        use_listings_cache=False,
        **keywords,
    )


@pytest.fixture
def fs(endpoint, request):
    """A filesystem that was made before the trial, with a bucket of the test's own."""
    made_fs = client(endpoint)
    bucket = f"bucket-{abs(hash(request.node.name))}"
    made_fs.mkdir(bucket)
    made_fs.bucket = bucket
    yield made_fs
    made_fs.rm(bucket, recursive=True)


def test_each_operation_is_counted_once(fs, tmp_path):
    """Whatever requests s3fs makes of it."""
    path, local = f"{fs.bucket}/a", tmp_path / "local"

    def write():
        with fs.open(path, "wb") as file:
            file.write(b"x" * 1000)

    def read():
        with fs.open(path) as file:
            assert file.read() == b"x" * 1000

    assert made(tmp_path, write) == {"open": 1, "write": 1}
    assert made(tmp_path, read) == {"open": 1, "read": 1}
    assert made(tmp_path, lambda: fs.pipe(path, b"1")) == {"write": 1}
    assert made(tmp_path, lambda: fs.cat(path)) == {"read": 1}
    assert made(tmp_path, lambda: fs.get(path, str(local))) == {"read": 1}
    assert made(tmp_path, lambda: fs.put(str(local), path)) == {"write": 1}
    assert made(tmp_path, lambda: fs.cp(path, path + "2")) == {"write": 1}
    assert made(tmp_path, lambda: fs.mv(path, path + "3")) == {"rename": 1}
    assert made(tmp_path, lambda: fs.rm([path + "2", path + "3"])) == {"remove": 1}
    assert fs.find(fs.bucket) == []


def test_a_failure_after_the_upload_leaves_the_object(fs, tmp_path):
    """And one before it does not."""
    for when, there in (("before", False), ("after", True)):
        fault = create(
            "flaky_storage", error="throttled", when=when, path=f"s3://{fs.bucket}/{when}", at=0
        )
        with armed(tmp_path, fault), pytest.raises(OSError, match="SlowDown"):
            fs.pipe(f"{fs.bucket}/{when}", b"1")
        assert fs.exists(f"{fs.bucket}/{when}") == there


def test_a_download_that_stops_early(fs, tmp_path):
    """It is read as a whole, streamed, and to a local file."""
    path = f"{fs.bucket}/a"
    fs.pipe(path, json.dumps(list(range(100))))
    for read in (
        lambda: fs.cat(path),
        lambda: fs.open(path).read(),
        lambda: (fs.get(path, f"{tmp_path}/a"), (tmp_path / "a").read_text())[1],
    ):
        with (
            armed(tmp_path, create("truncated_read", path="s3://*/a", at=0)),
            pytest.raises(json.JSONDecodeError),
        ):
            json.loads(read())
        assert json.loads(read()) == list(range(100))


def test_a_multipart_upload_fails_at_any_part(fs, tmp_path):
    """The object appears only when the last part is there."""
    path = f"{fs.bucket}/a"

    def write():
        with fs.open(path, "wb", block_size=5 * 2**20) as file:
            for _ in range(3):
                file.write(b"x" * (5 * 2**20))

    with (
        armed(tmp_path, create("flaky_storage", op="write", at=range(1, 99))) as controller,
        pytest.raises(OSError),
    ):
        write()
    assert controller.count("storage.write") == 3
    assert not fs.exists(path)


def test_coroutines_of_an_asynchronous_client(endpoint, fs, tmp_path):
    """Direct requests, and a file that is opened in a coroutine."""
    path = f"{fs.bucket}/a"

    async def use():
        remote = client(endpoint, asynchronous=True)
        session = await remote.set_session()
        await remote._pipe_file(path, b"0123456789")
        content = await remote._cat_file(path)
        file = await remote.open_async(path, "rb")
        streamed = await file.read()
        await session.close()
        return content, streamed

    with watching(tmp_path) as controller:
        assert asyncio.run(use()) == (b"0123456789", b"0123456789")
    assert counts(controller) == {"write": 1, "read": 2, "open": 1}
    with armed(tmp_path, create("truncated_read", keep=3, at=EVERY)):
        assert asyncio.run(use()) == (b"012", b"012")


def test_the_same_schedule_gives_the_same_journal(fs, tmp_path):
    """Byte for byte."""

    def journal():
        with armed(tmp_path, create("flaky_storage", p=0.5, error="ESTALE"), seed=3) as controller:
            for number in range(10):
                try:
                    fs.pipe({f"{fs.bucket}/{number}": b"1", f"{fs.bucket}/{number}b": b"2"})
                except OSError:
                    continue
        return controller.journal.lines()

    first = journal()
    assert first == journal()
    assert 0 < len(first) < 20


def test_a_transfer_breaks_half_way(fs, tmp_path):
    """A stream and a download get the beginning. An upload leaves the old object."""
    path = f"{fs.bucket}/a"
    fs.pipe(path, bytes(100))
    with armed(tmp_path, create("flaky_storage", op="read", after=0.4, at=[0, 1])):
        with fs.open(path) as file:
            assert len(file.read(64)) == 40
            with pytest.raises(OSError):
                file.read(64)
        with pytest.raises(OSError):
            fs.get(path, f"{tmp_path}/a")
        assert (tmp_path / "a").stat().st_size == 40
    with armed(tmp_path, create("flaky_storage", op="write", after=0.4, at=0)):
        with pytest.raises(OSError), fs.open(path, "wb") as file:
            file.write(b"new")
        assert fs.cat(path) == bytes(100)


def test_an_error_of_s3_is_raised_as_s3fs_translates_it(fs, tmp_path):
    """The client's error is its cause."""
    fault = create("flaky_storage", error="SlowDown", op="read", at=0)
    with armed(tmp_path, fault), pytest.raises(OSError, match="reduce your request") as caught:
        fs.cat(f"{fs.bucket}/a")
    assert type(caught.value.__cause__).__name__ == "ClientError"


def test_faults_that_last_strike_objects(fs, tmp_path):
    """An outage, a lost permission, a full store, and what is lost or out of date."""
    path = f"{fs.bucket}/a"
    fs.pipe(path, b"old")
    for name, error in (
        ("storage_outage", TimeoutError),
        ("permission_lost", PermissionError),
    ):
        with armed(tmp_path, create(name, path="s3://*", at=0)):
            for _ in range(2):
                with pytest.raises(error):
                    fs.cat(path)
    with armed(tmp_path, create("disk_full", after=2, at=0)), pytest.raises(OSError, match="space"):
        fs.pipe(path, b"new")
    with armed(tmp_path, create("lost_write", at=0)):
        fs.pipe(path, b"new")
        assert fs.cat(path) == b"old"
    with armed(tmp_path, create("stale_listing", at=0), create("stale_read", at=0)):
        fs.pipe(f"{fs.bucket}/b", b"1")
        assert fs.ls(fs.bucket, detail=False) == [path]
        fs.pipe(f"{fs.bucket}/b", b"2")
        assert fs.cat(f"{fs.bucket}/b") == b"1"
