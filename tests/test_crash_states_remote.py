"""Crash states of work directories that are URLs: memory, and a real S3 client against a real
server on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import uuid

import pytest

fsspec = pytest.importorskip("fsspec")

from pytest_mlchaos.crashes.model import File  # noqa: E402
from pytest_mlchaos.errors import BadArgument, GoldenRunFailed  # noqa: E402

STEPS = 3


@pytest.fixture(scope="module")
def server():
    """The address of an S3; a port that is free, on loopback."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def options(server):
    """Return the options for a client of that server."""
    return {"key": "test", "secret": "test", "endpoint_url": server}


@pytest.fixture
def bucket(options):
    """The URL of a bucket of the test's own."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3", **options).mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def url():
    """A prefix in memory."""
    return f"memory://bucket/{uuid.uuid4().hex}"


def sound(url, options=None):
    """Trains a number; one object holds all that a checkpoint is."""
    fs, path = fsspec.core.url_to_fs(url, **(options or {}))
    state = {"step": 0, "weight": 1.0}
    if fs.exists(f"{path}/state.pkl"):
        with fs.open(f"{path}/state.pkl", "rb") as file:
            state = pickle.load(file)
    while state["step"] < STEPS:
        state = {"step": state["step"] + 1, "weight": state["weight"] * 0.5 + state["step"]}
        with fs.open(f"{path}/state.pkl", "wb") as file:
            pickle.dump(state, file)
    return state


def unsound(url, options=None):
    """The same in two objects, one after the other: between them they do not fit together."""
    fs, path = fsspec.core.url_to_fs(url, **(options or {}))
    step, weight = 0, 1.0
    if fs.exists(f"{path}/step"):
        step = int(fs.cat_file(f"{path}/step"))
        weight = float(fs.cat_file(f"{path}/weight"))
    while step < STEPS:
        step, weight = step + 1, weight * 0.5 + step
        fs.pipe_file(f"{path}/weight", repr(weight).encode())
        fs.pipe_file(f"{path}/step", str(step).encode())
    return step, weight


def names(state):
    """The objects of a state."""
    return sorted(path for path, node in state.tree.items() if isinstance(node, File))


def test_a_sound_program_recovers_in_memory(mlchaos, url):
    """From each object that it put, and nothing is torn."""
    report = mlchaos.explore_crashes(sound, url)
    report.assert_recovers()
    assert len(report.states) == STEPS + 1
    assert not any(state.torn for state in report.states)
    assert {path for state in report.states for path in names(state)} == {"state.pkl"}


def test_the_state_between_two_objects_is_found(mlchaos, url):
    """And told in the report as one of a directory is."""
    report = mlchaos.explore_crashes(unsound, url)
    assert {outcome.verdict for outcome in report.failures} == {"diverged"}
    assert len(report.failures) == STEPS - 1
    assert len(report.states) == 2 * STEPS + 1
    with pytest.raises(AssertionError) as failure:
        report.assert_recovers()
    assert "weight just put in place" in str(failure.value)
    assert f"{2 * STEPS + 1} crash states" in str(failure.value)


@pytest.mark.slow
def test_a_sound_program_recovers_on_s3(mlchaos, bucket, options):
    """With clients that the subject has made itself."""
    report = mlchaos.explore_crashes(sound, f"{bucket}/run", options, storage_options=options)
    report.assert_recovers()
    assert len(report.states) == STEPS + 1


@pytest.mark.slow
def test_an_unsound_program_is_found_on_s3_from_fresh_processes(mlchaos, bucket, options):
    """A server is reached from them, too."""
    report = mlchaos.explore_crashes(
        unsound, f"{bucket}/run", options, storage_options=options, isolation="process"
    )
    assert len(report.failures) == STEPS - 1
    assert len(report.states) == 2 * STEPS + 1


@pytest.mark.slow
def test_a_multipart_upload_is_not_there_until_it_is_complete(mlchaos, bucket, options):
    """Large files are sent in parts, and none of them is an object."""

    def train(url):
        fs, path = fsspec.core.url_to_fs(url, **options)
        with fs.open(f"{path}/big", "wb", block_size=5 * 2**20) as file:
            for _ in range(3):
                file.write(b"x" * (5 * 2**20))
                fs.pipe_file(f"{path}/beside", b"1")
        return fs.du(path)

    report = mlchaos.explore_crashes(train, f"{bucket}/run", storage_options=options)
    assert [names(state) for state in report.states] == [[], ["beside"], ["beside", "big"]]
    assert report.states[-1].tree["big"].content.size == 15 * 2**20


def test_an_object_in_memory_appears_when_its_file_is_closed(mlchaos, url):
    """A PUT works like this, whatever the filesystem shows of an open file."""

    def train(url):
        fs, path = fsspec.core.url_to_fs(url)
        with fs.open(f"{path}/a", "wb") as file:
            file.write(b"1")
            fs.pipe_file(f"{path}/b", b"2")
            file.write(b"3")
        return 1

    report = mlchaos.explore_crashes(train, url)
    assert [names(state) for state in report.states] == [[], ["b"], ["a", "b"]]
    assert report.states[-1].tree["a"].content.size == 2


def test_a_change_that_no_listing_shows_is_seen(mlchaos, url):
    """The change keeps the length, in a file that has no tag and keeps its time."""

    def train(url):
        fs, path = fsspec.core.url_to_fs(url)
        fs.pipe_file(f"{path}/a", b"1")
        for value in (b"2", b"3"):
            with fs.open(f"{path}/a", "r+b") as file:
                file.write(value)
        return 1

    assert len(mlchaos.explore_crashes(train, url).states) == 4


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_directory_is_uploaded_object_by_object(mlchaos, url, request, tmp_path, where):
    """Also where the client uploads them at once; what is below the local directory is none of it."""
    options = request.getfixturevalue("options") if where == "s3" else {}
    url = f"{request.getfixturevalue('bucket')}/run" if where == "s3" else url

    def train(url):
        local = tmp_path / "local"
        local.mkdir(exist_ok=True)
        for name in "abc":
            (local / name).write_text(name)
        fs, path = fsspec.core.url_to_fs(url, **options)
        fs.put(f"{local}/", f"{path}/ckpt/", recursive=True)
        return 1

    report = mlchaos.explore_crashes(train, url, storage_options=options or None)
    assert list(dict.fromkeys(len(names(state)) for state in report.states)) == [0, 1, 2, 3]
    assert names(report.states[-1]) == ["ckpt/a", "ckpt/b", "ckpt/c"]


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_move_is_a_copy_and_a_deletion(mlchaos, url, request, where):
    """Between them both names are there; and a deletion is a state of its own."""
    options = request.getfixturevalue("options") if where == "s3" else {}
    url = f"{request.getfixturevalue('bucket')}/run" if where == "s3" else url

    def train(url):
        fs, path = fsspec.core.url_to_fs(url, **options)
        fs.pipe_file(f"{path}/a", b"1")
        fs.mv(f"{path}/a", f"{path}/b")
        fs.rm(f"{path}/b")
        fs.pipe_file(f"{path}/c", b"2")
        return 1

    report = mlchaos.explore_crashes(train, url, storage_options=options or None)
    assert [names(state) for state in report.states] == [[], ["a"], ["a", "b"], ["b"], ["c"]]


@pytest.mark.slow
def test_coroutines_that_write_at_once_write_one_after_the_other(mlchaos, bucket, options):
    """In the subject's own event loop, which is not blocked meanwhile."""

    async def train(path):
        fs = fsspec.filesystem("s3", **options, asynchronous=True, skip_instance_cache=True)
        session = await fs.set_session()
        await asyncio.gather(*(fs._pipe_file(f"{path}/{name}", name.encode()) for name in "abcd"))
        found = sorted(await fs._find(path))
        await session.close()
        return len(found)

    report = mlchaos.explore_crashes(
        lambda url: asyncio.run(train(f"{url}/run")), bucket, storage_options=options
    )
    report.assert_recovers()
    assert [len(names(state)) for state in report.states] == [0, 1, 2, 3, 4]


def test_a_transaction_puts_its_files_when_it_ends(mlchaos, url):
    """One after the other, and none before."""

    def train(url):
        fs, path = fsspec.core.url_to_fs(url)
        with fs.transaction:
            for name in "ab":
                with fs.open(f"{path}/{name}", "wb") as file:
                    file.write(b"1")
        return sorted(fs.find(path))

    report = mlchaos.explore_crashes(train, url)
    assert [names(state) for state in report.states] == [[], ["a"], ["a", "b"]]


def test_another_client_is_seen_at_each_step(mlchaos, bucket, options, server):
    """Whatever it is: what lies there is listed."""
    torch = pytest.importorskip("torch")
    botocore = pytest.importorskip("botocore.session")
    name = bucket.removeprefix("s3://")

    def train(url):
        client = botocore.get_session().create_client(
            "s3",
            endpoint_url=server,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        found = [item["Key"] for item in client.list_objects_v2(Bucket=name).get("Contents", [])]
        start = max((int(key) for key in found), default=0)
        weight = torch.nn.Parameter(torch.ones(()))
        with torch.no_grad():
            weight += start
        optimizer = torch.optim.SGD([weight], lr=1.0)
        for step in range(start + 1, 4):
            weight.grad = -torch.ones(())
            optimizer.step()
            client.put_object(Bucket=name, Key=str(step), Body=b"x")
        return weight.item()

    report = mlchaos.explore_crashes(train, bucket, storage_options=options, isolation="in-process")
    report.assert_recovers()
    assert [len(names(state)) for state in report.states] == [0, 1, 2, 3]


def test_a_client_that_goes_on_living_lists_what_is_there(mlchaos, bucket, options):
    """Its listings of an earlier run are forgotten, as in a new process."""

    def train(url):
        fs, path = fsspec.core.url_to_fs(url, **options)  # the same client each time
        for step in range(3):
            if not any(name.endswith(f"/{step}") for name in fs.ls(path) if path):
                fs.pipe_file(f"{path}/{step}", b"x")
        return [fs.cat_file(name) for name in fs.ls(path)]

    report = mlchaos.explore_crashes(train, bucket, storage_options=options, isolation="in-process")
    report.assert_recovers()
    assert [len(names(state)) for state in report.states] == [0, 1, 2, 3]


def test_objects_come_back_in_the_order_in_which_they_were_made(mlchaos, url):
    """A subject may go on from the newest."""

    def train(url):
        fs, path = fsspec.core.url_to_fs(url)
        found = fs.find(path)
        step = int(fs.cat_file(max(found, key=fs.modified))) if found else 0
        while step < 4:
            step += 1
            fs.pipe_file(f"{path}/{'dacb'[step - 1]}", str(step).encode())
        return step

    report = mlchaos.explore_crashes(train, url)
    assert [4 - len(outcome.completed) for outcome in report.outcomes] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_the_prefix_is_left_as_it_was_found(mlchaos, bucket, options, url):
    """Empty, and the bucket is still there; also when the golden run fails."""
    mlchaos.explore_crashes(sound, bucket, options, storage_options=options).assert_recovers()
    fs = fsspec.filesystem("s3", **options)
    assert fs.exists(bucket)
    assert fs.find(bucket) == []

    def fails(url):
        sound(url)
        raise ValueError("no")

    with pytest.raises(GoldenRunFailed):
        mlchaos.explore_crashes(fails, url)
    assert not fsspec.filesystem("memory").exists(url)


def test_a_prefix_that_is_not_empty_is_refused(mlchaos, url):
    """With what would be deleted, and nothing is."""
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{url}/mine", b"1")
    with pytest.raises(
        BadArgument,
        match=r"is not empty, and everything below it would be deleted \(1 objects: mine\)",
    ):
        mlchaos.explore_crashes(sound, url)
    assert fs.cat_file(f"{url}/mine") == b"1"


def test_memory_is_refused_in_fresh_processes(mlchaos, url):
    """Its content is this process' own; no probe is left there."""
    with pytest.raises(BadArgument, match="needs isolation='in-process'"):
        mlchaos.explore_crashes(sound, url, isolation="process")
    assert not fsspec.filesystem("memory").exists(url)


class _Elsewhere(fsspec.AbstractFileSystem):
    """Asks another machine, in a network for documentation."""

    protocol = "elsewhere"

    def ls(self, path, detail=True, **kwargs):
        """By a plain connection."""
        socket.create_connection(("192.0.2.7", 80), timeout=1).close()
        return []


def test_another_machine_is_reached_only_if_that_is_allowed(mlchaos, monkeypatch):
    """It is refused before anything is sent there."""
    reached = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: reached.append(address))
    fsspec.register_implementation("elsewhere", _Elsewhere, clobber=True)
    with pytest.raises(
        BadArgument,
        match=r"reached at 192\.0\.2\.7:80, which may be a different machine.*allow_remote=True",
    ):
        mlchaos.explore_crashes(sound, "elsewhere://bucket/run")
    assert reached == []
    with pytest.raises(BadArgument, match="wrote nothing below its work directory"):
        mlchaos.explore_crashes(lambda url: 1, "elsewhere://bucket/run", allow_remote=True)
    assert set(reached) == {("192.0.2.7", 80)}


@pytest.mark.parametrize(
    ("given", "keywords", "words"),
    [
        ("nowhere://bucket/run", {}, "no filesystem for nowhere://"),
        ("memory://", {}, "give a prefix of its own"),
        ("simplecache::memory://bucket/run", {}, "a chain of filesystems"),
        (
            "memory://bucket/run",
            {"cross_device": True},
            "cross_device=True has no meaning at memory://bucket/run",
        ),
        ("memory://bucket/run", {"durability": "power"}, "durability='power' has no meaning"),
        ("memory://bucket/run", {"jobs": 2}, "jobs=2 has no meaning"),
        ("here", {"storage_options": {}}, "storage_options is for a URL, but workdir is 'here'"),
    ],
)
def test_what_makes_no_sense_is_said(mlchaos, given, keywords, words):
    """In a line, with the cure."""
    with pytest.raises(BadArgument, match=words):
        mlchaos.explore_crashes(sound, given, **keywords)


def test_a_subject_that_writes_elsewhere_is_told_so(mlchaos, url, tmp_path):
    """To a local directory, say."""

    def train(url):
        (tmp_path / "a").write_text("1")
        return 1

    with pytest.raises(BadArgument, match="wrote nothing below its work directory"):
        mlchaos.explore_crashes(train, url)


def test_a_url_of_local_files_is_a_directory(mlchaos, tmp_path):
    """With all that is done to directories: files are torn there."""

    def train(url):
        with fsspec.open(f"{url}/a", "w") as file:
            file.write("1" * 5000)
        return 1

    report = mlchaos.explore_crashes(train, f"file://{tmp_path}/run")
    assert any(state.torn for state in report.states)
